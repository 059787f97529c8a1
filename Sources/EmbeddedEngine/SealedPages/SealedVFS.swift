internal import CSQLite
internal import CofferCore
internal import Glibc
internal import Synchronization

/// SQLite's view of the disk (sqlite.org/vfs.html): one database whose pages are sealed on their way out. One is
/// registered for each open engine.
///
/// Nothing but the database and its log ever becomes a file: no rollback journal, no temporary file, no shared memory,
/// no mapping.
final class SealedVFS: @unchecked Sendable {
    // @unchecked: the registered struct is written in init only.

    let name: String
    let sealer: PageSealer
    let disk: Disk
    let locks = DatabaseLocks()
    /// The disk did not confirm pages of the database. The kernel may have dropped them and call the next fsync a
    /// success, and SQLite does not copy them again: the log is their only copy, and nothing changes or removes it
    /// until a restart copies it as a whole.
    let isDoubtful = Atomic(false)
    fileprivate let clock: any WallClock
    fileprivate let randomness: any Randomness
    private let registration: UnsafeMutablePointer<sqlite3_vfs>
    private let cName: UnsafeMutablePointer<CChar>

    private static let serial = Atomic<UInt64>(0)

    init(sealer: PageSealer, disk: Disk, clock: any WallClock, randomness: any Randomness) {
        self.sealer = sealer
        self.disk = disk
        self.clock = clock
        self.randomness = randomness
        name = "coffer-\(Self.serial.add(1, ordering: .relaxed).newValue)"
        cName = strdup(name)!
        registration = .allocate(capacity: 1)
        registration.initialize(to: sqlite3_vfs())
        registration.pointee.iVersion = 2
        registration.pointee.szOsFile = Int32(MemoryLayout<FileRecord>.size)
        registration.pointee.mxPathname = 4096
        registration.pointee.zName = UnsafePointer(cName)
        registration.pointee.pAppData = Unmanaged.passUnretained(self).toOpaque()
        setFunctions(of: &registration.pointee)
        sqlite3_vfs_register(registration, 0)
    }

    deinit {
        sqlite3_vfs_unregister(registration)
        registration.deallocate()
        free(cName)
    }

    /// Whether the database has a log with something in it.
    func hasLog(for database: String) -> Bool {
        var status = stat()
        return stat(database + "-wal", &status) == 0 && status.st_size > 0
    }

    fileprivate func open(_ path: String, flags: Int32) -> SealedFile? {
        var mode = O_RDWR | O_CLOEXEC | O_NOFOLLOW
        var status = stat()
        let exists = stat(path, &status) == 0
        if flags & SQLITE_OPEN_CREATE != 0 { mode |= O_CREAT }
        let descriptor = Glibc.open(path, mode, 0o600)
        guard descriptor >= 0 else { return nil }
        return flags & SQLITE_OPEN_WAL != 0
            ? LogFile(descriptor: descriptor, path: path, vfs: self, wasCreated: !exists)
            : DatabaseFile(descriptor: descriptor, path: path, vfs: self, wasCreated: !exists)
    }
}

/// SQLite's `sqlite3_file` with our object behind it.
private struct FileRecord {
    var methods: UnsafePointer<sqlite3_io_methods>?
    var object: UnsafeMutableRawPointer?
}

private func vfs(_ pointer: UnsafeMutablePointer<sqlite3_vfs>?) -> SealedVFS {
    Unmanaged<SealedVFS>.fromOpaque(pointer!.pointee.pAppData).takeUnretainedValue()
}

private func withFile<Result>(_ pointer: UnsafeMutablePointer<sqlite3_file>?, _ body: (SealedFile) -> Result) -> Result
{
    let record = UnsafeMutableRawPointer(pointer!).assumingMemoryBound(to: FileRecord.self)
    return Unmanaged<SealedFile>.fromOpaque(record.pointee.object!)._withUnsafeGuaranteedRef(body)
}

private func setFunctions(of vfsRecord: inout sqlite3_vfs) {
    vfsRecord.xOpen = { pointer, path, file, flags, outFlags in
        let record = UnsafeMutableRawPointer(file!).assumingMemoryBound(to: FileRecord.self)
        record.pointee = FileRecord(methods: nil, object: nil)
        guard let path, flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL) != 0,
            let object = vfs(pointer).open(String(cString: path), flags: flags)
        else { return SQLITE_CANTOPEN }
        record.pointee = FileRecord(methods: fileMethods, object: Unmanaged.passRetained(object).toOpaque())
        outFlags?.pointee = flags
        return SQLITE_OK
    }
    vfsRecord.xDelete = { pointer, path, syncDirectory in
        let path = String(cString: path!)
        guard !vfs(pointer).isDoubtful.load(ordering: .acquiring), vfs(pointer).disk.unlink(path) == 0 else {
            return SQLiteCode.deleteFailed
        }
        if syncDirectory != 0 { _ = vfs(pointer).disk.syncDirectory(parent(of: path)) }
        return SQLITE_OK
    }
    vfsRecord.xAccess = { _, path, _, result in
        var status = stat()
        let path = String(cString: path!)
        // A rollback journal is never written, so one that lies there is not ours.
        result!.pointee = !path.hasSuffix("-journal") && stat(path, &status) == 0 && status.st_size > 0 ? 1 : 0
        return SQLITE_OK
    }
    vfsRecord.xFullPathname = { _, path, capacity, out in
        let count = strlen(path!) + 1
        guard count <= Int(capacity) else { return SQLITE_CANTOPEN }
        memcpy(out!, path!, count)
        return SQLITE_OK
    }
    vfsRecord.xRandomness = { pointer, count, out in
        vfs(pointer).randomness.fill(UnsafeMutableRawBufferPointer(start: out, count: Int(count)))
        return count
    }
    vfsRecord.xSleep = { _, microseconds in
        usleep(UInt32(microseconds))
        return microseconds
    }
    vfsRecord.xCurrentTimeInt64 = { pointer, out in
        // Milliseconds since noon in Greenwich on November 24, 4714 B.C.
        out!.pointee = vfs(pointer).clock.now().microseconds / 1000 + 210_866_760_000_000
        return SQLITE_OK
    }
    vfsRecord.xGetLastError = { _, _, _ in errno }
}

private nonisolated(unsafe) let fileMethods: UnsafePointer<sqlite3_io_methods> = {
    let methods = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)
    methods.initialize(to: sqlite3_io_methods())
    methods.pointee.iVersion = 2
    setFileFunctions(of: &methods.pointee)
    setLockFunctions(of: &methods.pointee)
    return UnsafePointer(methods)
}()

private func setFileFunctions(of methods: inout sqlite3_io_methods) {
    methods.xClose = { file in
        let record = UnsafeMutableRawPointer(file!).assumingMemoryBound(to: FileRecord.self)
        Unmanaged<SealedFile>.fromOpaque(record.pointee.object!).release()
        record.pointee = FileRecord(methods: nil, object: nil)
        return SQLITE_OK
    }
    methods.xRead = { file, out, count, offset in withFile(file) { $0.read(out!, Int(count), at: Int(offset)) } }
    methods.xWrite = { file, bytes, count, offset in withFile(file) { $0.write(bytes!, Int(count), at: Int(offset)) } }
    methods.xTruncate = { file, size in withFile(file) { $0.truncate(Int(size)) } }
    methods.xSync = { file, _ in withFile(file) { $0.sync() } }
    methods.xFileSize = { file, out in
        withFile(file) { file in
            let code = file.flush()
            guard code == SQLITE_OK else { return code }
            guard let size = Disk.size(file.descriptor) else { return SQLiteCode.sizeFailed }
            out!.pointee = Int64(size)
            return SQLITE_OK
        }
    }
    methods.xFileControl = { _, _, _ in SQLITE_NOTFOUND }
    methods.xSectorSize = { _ in 4096 }
    // Bytes beside a write survive a power failure, as Linux file systems have it and SQLite's own VFS assumes.
    methods.xDeviceCharacteristics = { _ in SQLITE_IOCAP_POWERSAFE_OVERWRITE }
}

private func setLockFunctions(of methods: inout sqlite3_io_methods) {
    methods.xLock = { file, wanted in
        withFile(file) { file in
            guard file.lockLevel < wanted else { return SQLITE_OK }
            let code = file.vfs.locks.lock(ObjectIdentifier(file), held: file.lockLevel, wanted: wanted)
            if code == SQLITE_OK { file.lockLevel = wanted }
            return code
        }
    }
    methods.xUnlock = { file, wanted in
        withFile(file) { file in
            guard file.lockLevel > wanted else { return SQLITE_OK }
            file.vfs.locks.unlock(ObjectIdentifier(file), held: file.lockLevel, wanted: wanted)
            file.lockLevel = wanted
            return SQLITE_OK
        }
    }
    methods.xCheckReservedLock = { file, out in
        out!.pointee = withFile(file) { $0.vfs.locks.isReserved } ? 1 : 0
        return SQLITE_OK
    }
    methods.xShmMap = { file, index, byteCount, extend, out in
        withFile(file) { file in
            if !file.usesIndex {
                file.usesIndex = true
                file.vfs.locks.addUser()
            }
            let region = file.vfs.locks.region(Int(index), byteCount: Int(byteCount), extend: extend != 0)
            out!.pointee = region.map { UnsafeMutableRawPointer($0) }
            return SQLITE_OK
        }
    }
    methods.xShmLock = { file, offset, count, flags in
        withFile(file) { $0.vfs.locks.lockSlots(ObjectIdentifier($0), Int(offset)..<Int(offset + count), flags: flags) }
    }
    methods.xShmBarrier = { file in withFile(file) { $0.vfs.locks.barrier() } }
    methods.xShmUnmap = { file, _ in
        withFile(file) { file in
            if file.usesIndex { file.vfs.locks.removeUser() }
            file.usesIndex = false
            return SQLITE_OK
        }
    }
}
