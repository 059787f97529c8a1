internal import CSQLite
internal import Glibc
internal import Synchronization

/// SQLite's extended result codes, which are sums in its header.
enum SQLiteCode {
    static let shortRead = SQLITE_IOERR | 2 << 8
    static let readFailed = SQLITE_IOERR | 1 << 8
    static let writeFailed = SQLITE_IOERR | 3 << 8
    static let syncFailed = SQLITE_IOERR | 4 << 8
    static let truncateFailed = SQLITE_IOERR | 6 << 8
    static let sizeFailed = SQLITE_IOERR | 7 << 8
    static let deleteFailed = SQLITE_IOERR | 10 << 8
    /// A page that is not authentic.
    static let notAuthentic = SQLITE_IOERR | 32 << 8
}

/// One file as one connection sees it. SQLite calls it from one thread at a time.
class SealedFile {
    let descriptor: Int32
    let path: String
    unowned let vfs: SealedVFS
    let scratch: UnsafeMutableRawPointer
    var lockLevel: Int32 = SQLITE_LOCK_NONE
    var usesIndex = false
    private var isNameDurable: Bool

    init(descriptor: Int32, path: String, vfs: SealedVFS, wasCreated: Bool) {
        self.descriptor = descriptor
        self.path = path
        self.vfs = vfs
        isNameDurable = !wasCreated
        scratch = .allocate(byteCount: LogFile.frameHeaderBytes + vfs.sealer.pageBytes, alignment: 16)
    }

    deinit {
        Glibc.close(descriptor)
        scratch.deallocate()
    }

    func read(_ out: UnsafeMutableRawPointer, _ count: Int, at offset: Int) -> Int32 { SQLiteCode.readFailed }
    func write(_ bytes: UnsafeRawPointer, _ count: Int, at offset: Int) -> Int32 { SQLiteCode.writeFailed }
    /// Writes what was held back.
    func flush() -> Int32 { SQLITE_OK }

    final func sync() -> Int32 {
        let code = flush()
        guard code == SQLITE_OK else { return code }
        guard !vfs.isDoubtful.load(ordering: .acquiring) else { return SQLiteCode.syncFailed }
        guard vfs.disk.sync(descriptor) == 0 else {
            syncFailed()
            return SQLiteCode.syncFailed
        }
        if !isNameDurable {
            guard vfs.disk.syncDirectory(parent(of: path)) == 0 else { return SQLiteCode.syncFailed }
            isNameDurable = true
        }
        return SQLITE_OK
    }

    func syncFailed() {}

    final func truncate(_ size: Int) -> Int32 {
        let code = flush()
        guard code == SQLITE_OK else { return code }
        guard !vfs.isDoubtful.load(ordering: .acquiring) else { return SQLiteCode.truncateFailed }
        return vfs.disk.truncate(descriptor, to: size) == 0 ? SQLITE_OK : SQLiteCode.truncateFailed
    }

    final func put(_ bytes: UnsafeRawPointer, _ count: Int, at offset: Int) -> Int32 {
        guard !vfs.isDoubtful.load(ordering: .acquiring) else { return SQLiteCode.writeFailed }
        return switch vfs.disk.write(descriptor, UnsafeRawBufferPointer(start: bytes, count: count), at: offset) {
        case 0: SQLITE_OK
        case ENOSPC, EDQUOT, EFBIG: SQLITE_FULL
        default: SQLiteCode.writeFailed
        }
    }

    /// Fills `out`; zeros and a short read where the file ends, as SQLite wants it.
    final func get(_ out: UnsafeMutableRawPointer, _ count: Int, at offset: Int) -> Int32 {
        let got = Disk.read(descriptor, into: UnsafeMutableRawBufferPointer(start: out, count: count), at: offset)
        guard got >= 0 else { return SQLiteCode.readFailed }
        if got < count {
            memset(out + got, 0, count - got)
            return SQLiteCode.shortRead
        }
        return SQLITE_OK
    }
}

/// The database: pages sealed at their own offsets.
final class DatabaseFile: SealedFile {
    private static let headerBytes = 100

    override func read(_ out: UnsafeMutableRawPointer, _ count: Int, at offset: Int) -> Int32 {
        let pageBytes = vfs.sealer.pageBytes
        let page = offset / pageBytes
        let inPage = offset % pageBytes
        guard inPage + count <= pageBytes else { return SQLiteCode.readFailed }
        let isWhole = count == pageBytes
        let target = isWhole ? out : scratch
        let code = get(target, pageBytes, at: page * pageBytes)
        guard code == SQLITE_OK else {
            memset(out, 0, count)
            return code
        }
        guard vfs.sealer.open(target, kind: .database, position: UInt64(page)) else {
            if page == 0, offset + count <= Self.headerBytes, vfs.hasLog(for: path) {
                // A crash may tear page 1 while it is copied out of the log. SQLite reads the size of a page from here
                // before it looks into the log, which then supplies the page; when it does not, the whole page is read
                // next, and refused.
                writeHeader(to: scratch)
                memcpy(out, scratch + inPage, count)
                return SQLITE_OK
            }
            memset(out, 0, count)
            return SQLiteCode.notAuthentic
        }
        if !isWhole { memcpy(out, scratch + inPage, count) }
        return SQLITE_OK
    }

    override func write(_ bytes: UnsafeRawPointer, _ count: Int, at offset: Int) -> Int32 {
        guard count == vfs.sealer.pageBytes, offset % count == 0 else { return SQLiteCode.writeFailed }
        let position = UInt64(offset / count)
        guard vfs.sealer.seal(bytes, into: scratch, kind: .database, position: position) else {
            return SQLiteCode.writeFailed
        }
        return put(scratch, count, at: offset)
    }

    override func syncFailed() { vfs.isDoubtful.store(true, ordering: .releasing) }

    /// The fields of the database header (sqlite.org/fileformat2.html §1.3) that SQLite reads before the first page.
    private func writeHeader(to out: UnsafeMutableRawPointer) {
        memset(out, 0, Self.headerBytes)
        "SQLite format 3\0".utf8.enumerated().forEach { out.storeBytes(of: $1, toByteOffset: $0, as: UInt8.self) }
        out.storeBytes(of: UInt16(vfs.sealer.pageBytes).bigEndian, toByteOffset: 16, as: UInt16.self)
        out.storeBytes(of: 2, toByteOffset: 18, as: UInt8.self)
        out.storeBytes(of: 2, toByteOffset: 19, as: UInt8.self)
        out.storeBytes(of: UInt8(PageSealer.reservedBytes), toByteOffset: 20, as: UInt8.self)
        for (index, value) in [64, 32, 32].enumerated() {
            out.storeBytes(of: UInt8(value), toByteOffset: 21 + index, as: UInt8.self)
        }
    }
}

/// The write-ahead log (sqlite.org/fileformat2.html §4): a 32-byte header in clear, then frames of a 24-byte header,
/// its last 16 bytes masked, and a page sealed at its offset.
///
/// SQLite writes header after page after header; they are gathered, and a transaction goes out in one write when SQLite
/// asks for its fsync. Other connections do not look for frames before that.
final class LogFile: SealedFile {
    static let fileHeaderBytes = 32
    static let frameHeaderBytes = 24
    private static let gatherLimit = 512 << 10
    private var pageBytes: Int { vfs.sealer.pageBytes }
    private var frameBytes: Int { Self.frameHeaderBytes + pageBytes }

    // Sealed bytes for `gatheredOffset` and on; allocated by the first write, so that connections that only read have
    // none.
    private var gathered: UnsafeMutableRawPointer?
    private var gatheredOffset = 0
    private var gatheredCount = 0

    deinit { gathered?.deallocate() }

    /// Room for `count` bytes at `offset`, to be filled at once; nil when what was gathered before could not be
    /// written.
    private func gather(_ count: Int, at offset: Int) -> (room: UnsafeMutableRawPointer?, code: Int32) {
        if offset != gatheredOffset + gatheredCount || gatheredCount + count > Self.gatherLimit {
            let code = flush()
            guard code == SQLITE_OK else { return (nil, code) }
            gatheredOffset = offset
        }
        let buffer = gathered ?? .allocate(byteCount: Self.gatherLimit, alignment: 16)
        gathered = buffer
        gatheredCount += count
        return (buffer + gatheredCount - count, SQLITE_OK)
    }

    override func flush() -> Int32 {
        guard gatheredCount > 0, let gathered else { return SQLITE_OK }
        // Given up when it fails: SQLite then undoes the transaction, and writes its frames anew.
        let count = gatheredCount
        gatheredCount = 0
        return put(gathered, count, at: gatheredOffset)
    }

    override func read(_ out: UnsafeMutableRawPointer, _ count: Int, at offset: Int) -> Int32 {
        let flushed = flush()
        guard flushed == SQLITE_OK else { return flushed }
        if offset + count <= Self.fileHeaderBytes { return get(out, count, at: offset) }
        guard offset >= Self.fileHeaderBytes else { return SQLiteCode.readFailed }
        let inFrame = (offset - Self.fileHeaderBytes) % frameBytes
        let frame = offset - inFrame
        guard inFrame + count <= frameBytes else { return SQLiteCode.readFailed }

        if inFrame == Self.frameHeaderBytes, count == pageBytes {
            let code = get(out, count, at: offset)
            guard code == SQLITE_OK else { return code }
            return openPage(out, frame: frame) ? SQLITE_OK : SQLiteCode.notAuthentic
        }
        if inFrame + count <= Self.frameHeaderBytes {
            let code = get(scratch, Self.frameHeaderBytes, at: frame)
            vfs.sealer.unmaskLogHeader(scratch + 8, frameOffset: UInt64(frame))
            memcpy(out, scratch + inFrame, count)
            return code
        }
        guard inFrame == 0, count == frameBytes else { return SQLiteCode.readFailed }
        let code = get(out, count, at: frame)
        guard code == SQLITE_OK else { return code }
        vfs.sealer.unmaskLogHeader(out + 8, frameOffset: UInt64(frame))
        // Recovery reads whole frames, and a torn last one is no error: the log ends before it. The header goes as
        // well: a page of zeros, as SQLite leaves it where it frees one, would match its checksum once it is cleared.
        if !openPage(out + Self.frameHeaderBytes, frame: frame) { memset(out, 0, Self.frameHeaderBytes) }
        return SQLITE_OK
    }

    private func openPage(_ page: UnsafeMutableRawPointer, frame: Int) -> Bool {
        vfs.sealer.open(page, kind: .log, position: UInt64(frame))
    }

    override func write(_ bytes: UnsafeRawPointer, _ count: Int, at offset: Int) -> Int32 {
        let isFileHeader = offset == 0 && count == Self.fileHeaderBytes
        guard isFileHeader || offset >= Self.fileHeaderBytes else { return SQLiteCode.writeFailed }
        let inFrame = isFileHeader ? 0 : (offset - Self.fileHeaderBytes) % frameBytes
        let position = UInt64(offset - inFrame)
        let isFrameHeader = !isFileHeader && inFrame == 0 && count == Self.frameHeaderBytes
        let isPage = !isFileHeader && inFrame == Self.frameHeaderBytes && count == pageBytes
        guard isFileHeader || isFrameHeader || isPage else { return SQLiteCode.writeFailed }

        let (room, code) = gather(count, at: offset)
        guard let room else { return code }
        if isPage {
            guard vfs.sealer.seal(bytes, into: room, kind: .log, position: position) else {
                gatheredCount = 0
                return SQLiteCode.writeFailed
            }
        } else {
            memcpy(room, bytes, count)
            if isFrameHeader { vfs.sealer.maskLogHeader(room + 8, frameOffset: position) }
        }
        return SQLITE_OK
    }
}
