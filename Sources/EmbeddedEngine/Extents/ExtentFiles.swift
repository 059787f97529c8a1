internal import CPlatform
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import StorageEngine
internal import Synchronization

/// Large extents, each in a file of its own that has no name until it is finished.
final class ExtentFiles: Sendable {
    /// Pieces below this are read and written on the calling thread: a hop to another costs more.
    static let hopBytes = 256 << 10
    /// Files in one directory, as a power of two.
    private static let directoryBits: UInt64 = 12

    private let directory: String
    private let disk: Disk
    private let descriptors: Descriptors
    private let openCount: UInt32
    private let nextNumber = Atomic<UInt64>(1)
    // Set once it turns out that the file system has no files without a name.
    private let namesUnfinished = Atomic<Bool>(false)
    private static let unfinishedPrefix = "unfinished-"

    init(directory: String, disk: Disk, descriptors: Descriptors, openCount: UInt32) {
        self.directory = directory
        self.disk = disk
        self.descriptors = descriptors
        self.openCount = openCount
    }

    /// Removes what writers left that had no chance to finish, and numbers new extents past the existing ones: metadata
    /// restored from an older copy counts its starts from an older number, and this one's may be taken.
    func open() throws(StorageEngineError) {
        try skipTakenNumbers()
        for name in try directoryEntries(directory) where name.hasPrefix(Self.unfinishedPrefix) {
            try StorageEngineError.check(disk.unlink(directory + "/" + name), "remove an unfinished extent")
        }
    }

    private func skipTakenNumbers() throws(StorageEngineError) {
        var taken: UInt64 = 0
        for name in try directoryEntries(directory) where name.count == 13 {
            guard let folder = UInt64(name, radix: 16), folder >> (32 - Self.directoryBits) == UInt64(openCount) else {
                continue
            }
            for number in try directoryEntries(directory + "/" + name).compactMap({ UInt64($0, radix: 16) }) {
                taken = max(taken, number & UInt64(UInt32.max))
            }
        }
        nextNumber.store(taken + 1, ordering: .relaxed)
    }

    private func folder(_ number: UInt64) -> String {
        directory + "/" + hexadecimal(number >> Self.directoryBits, digits: 13)
    }
    private func path(_ number: UInt64) -> String { folder(number) + "/" + hexadecimal(number) }

    // MARK: Writing

    /// A file without a name, or where the file system has none of those, one named so that the next start removes it.
    final class Unfinished: Sendable {
        fileprivate let file: OpenFile
        fileprivate let path: String?
        private let disk: Disk
        fileprivate let isNamed = Atomic<Bool>(false)
        let size = Atomic<Int>(0)
        fileprivate let flushed = Atomic<Int>(0)

        fileprivate init(file: OpenFile, path: String?, disk: Disk) {
            self.file = file
            self.path = path
            self.disk = disk
        }
        deinit {
            if let path, !isNamed.load(ordering: .relaxed) { _ = disk.unlink(path) }
        }
    }

    func create(expectedBytes: Int?) throws(StorageEngineError) -> Unfinished {
        let unfinished = try createEmpty()
        // Asks for the room early and in one piece; a file system that cannot reserve is no obstacle.
        if let expectedBytes, expectedBytes > 0, expectedBytes < 1 << 40,
            coffer_reserve(unfinished.file.descriptor, 0, Int64(expectedBytes)) == ENOSPC
        {
            throw StorageEngineError(errno: ENOSPC, "reserve \(expectedBytes) bytes for an extent")
        }
        return unfinished
    }

    private func createEmpty() throws(StorageEngineError) -> Unfinished {
        if !namesUnfinished.load(ordering: .relaxed) {
            let descriptor = coffer_open_unnamed(directory)
            if descriptor >= 0 { return Unfinished(file: OpenFile(descriptor: descriptor), path: nil, disk: disk) }
            guard errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL else {
                throw StorageEngineError(errno: errno, "create an extent")
            }
            namesUnfinished.store(true, ordering: .relaxed)
        }
        let serial = nextNumber.add(1, ordering: .relaxed).oldValue
        let path = "\(directory)/\(Self.unfinishedPrefix)\(openCount)-\(serial)"
        let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw StorageEngineError(errno: errno, "create an extent") }
        return Unfinished(file: OpenFile(descriptor: descriptor), path: path, disk: disk)
    }

    func append(_ bytes: ByteBuffer, to unfinished: Unfinished) async throws(StorageEngineError) {
        let offset = unfinished.size.load(ordering: .relaxed)
        let disk = disk
        let code: Int32
        if bytes.readableBytes < Self.hopBytes {
            code = bytes.withUnsafeReadableBytes { disk.write(unfinished.file.descriptor, $0, at: offset) }
        } else {
            code = try await onThreadPool {
                bytes.withUnsafeReadableBytes { disk.write(unfinished.file.descriptor, $0, at: offset) }
            }
        }
        try StorageEngineError.check(code, "write an extent")
        let size = offset + bytes.readableBytes
        unfinished.size.store(size, ordering: .relaxed)
        // Starts the writing of what has gathered, so that the fsync at the end finds little left to do.
        let flushed = unfinished.flushed.load(ordering: .relaxed)
        if size - flushed >= 8 << 20 {
            _ = coffer_start_writing(unfinished.file.descriptor, Int64(flushed), Int64(size - flushed))
            unfinished.flushed.store(size, ordering: .relaxed)
        }
    }

    /// Durable under its name when it returns.
    func finish(_ unfinished: Unfinished) async throws(StorageEngineError) -> ExtentPlace {
        let number = UInt64(openCount) << 32 | nextNumber.add(1, ordering: .relaxed).oldValue
        let (disk, path, folder) = (disk, path(number), folder(number))
        let code = try await onThreadPool { () -> Int32 in
            var code = disk.sync(unfinished.file.descriptor)
            if code == 0 { code = disk.makeDirectory(folder) }
            guard code == 0 else { return code }
            if let temporary = unfinished.path {
                code = disk.rename(temporary, to: path)
            } else {
                code = disk.link(unfinished.file.descriptor, to: path)
            }
            guard code == 0 else { return code }
            unfinished.isNamed.store(true, ordering: .relaxed)
            code = disk.syncDirectory(folder)
            if code != 0 { _ = disk.unlink(path) }
            return code
        }
        try StorageEngineError.check(code, "make an extent durable")
        return .file(number)
    }

    // MARK: Reading and deleting

    func read(_ number: UInt64, range: Range<Int>) async throws(StorageEngineError) -> ByteBuffer {
        guard range.lowerBound >= 0 else { throw Self.tooShort }
        let file = try descriptors.file(path(number))
        let result: Result<ByteBuffer?, StorageEngineError>
        if range.count < Self.hopBytes {
            return try checked(try readExactly(file, range: range.lowerBound, count: range.count))
        }
        // The buffer is made after the size is known, so that a wild range cannot ask for all memory.
        guard range.upperBound <= Disk.size(file.descriptor) ?? 0 else { throw Self.tooShort }
        result = try await onThreadPool {
            Result { () throws(StorageEngineError) in try readExactly(file, range: range.lowerBound, count: range.count)
            }
        }
        return try checked(try result.get())
    }

    private static let tooShort = StorageEngineError(.corrupt, "The extent ends before the range that was asked for.")
    private func checked(_ buffer: ByteBuffer?) throws(StorageEngineError) -> ByteBuffer {
        guard let buffer else { throw Self.tooShort }
        return buffer
    }

    func delete(_ number: UInt64) throws(StorageEngineError) {
        try StorageEngineError.check(disk.unlink(path(number)), "delete an extent")
        descriptors.forget(path(number))
        // Succeeds when it was the last; a later start has other numbers, so only this run may still need the folder.
        if number >> 32 != UInt64(openCount) { rmdir(folder(number)) }
    }

    func list(after: UInt64?, limit: Int) throws(StorageEngineError) -> [ExtentListing] {
        var found: [ExtentListing] = []
        let firstFolder = (after ?? 0) >> Self.directoryBits
        for name in try directoryEntries(directory).sorted() {
            guard found.count < limit else { break }
            guard name.count == 13, let folderNumber = UInt64(name, radix: 16), folderNumber >= firstFolder else {
                continue
            }
            let numbers = try directoryEntries(directory + "/" + name).compactMap { UInt64($0, radix: 16) }.sorted()
            for number in numbers where after.map({ number > $0 }) ?? true {
                var status = stat()
                guard stat(path(number), &status) == 0 else { continue }
                found.append(
                    ExtentListing(
                        location: ExtentPlace.file(number).location, byteCount: Int(status.st_size),
                        isRecent: number >> 32 == UInt64(openCount)))
                if found.count == limit { break }
            }
        }
        return found
    }

    /// Runs blocking calls where they stall nobody.
    private func onThreadPool<T: Sendable>(_ body: @escaping @Sendable () -> T) async throws(StorageEngineError) -> T {
        do {
            return try await NIOThreadPool.singleton.runIfActive(body)
        } catch {
            throw StorageEngineError(.unavailable, "The operation was cancelled.")
        }
    }
}
