public import CofferCore
internal import Glibc
public import Logging
public import NIOCore
public import StorageEngine
internal import Synchronization

/// Both promises of StorageEngine on one machine's disk: metadata in SQLite behind sealed pages, extents in segments
/// and files.
///
/// Reads run on the calling thread and do not suspend. Commits and finishing extents gather: one fsync serves all that
/// wait.
public final class EmbeddedEngine: MetadataStore, ExtentStore {
    public let properties = MetadataStoreProperties(
        valueBytesLimit: 16 << 20, writesPerCommitLimit: 500_000, isDurable: true)

    private let directory: DataDirectory
    private let readers: RowReaderPool
    private let cache: RowCache
    private let writer: RowWriter
    private let segments: SegmentStore
    private let files: ExtentFiles
    private let isClosed = Mutex(false)

    private init(
        directory: DataDirectory, readers: RowReaderPool, cache: RowCache, writer: RowWriter, segments: SegmentStore,
        files: ExtentFiles
    ) {
        self.directory = directory
        self.readers = readers
        self.cache = cache
        self.writer = writer
        self.segments = segments
        self.files = files
    }

    /// Opens the data directory, or makes it (mode 0700). `pageKey` is 32 bytes that never encrypt anything else (HKDF
    /// of the root key, docs/format.md).
    ///
    /// Throws `.unavailable` when another server uses the directory or it is of a newer format, `.corrupt` when the key
    /// is not the directory's or a file is damaged, and `.full`.
    public static func open(
        at path: String, pageKey: SecretBytes, clock: any WallClock, randomness: any Randomness, logger: Logger
    ) throws(StorageEngineError) -> EmbeddedEngine {
        try open(at: path, pageKey: pageKey, clock: clock, randomness: randomness, logger: logger, options: Options())
    }

    /// What tests vary.
    struct Options: Sendable {
        var gate: (@Sendable (DiskOperation) -> Int32)?
        var pieceBytes = Int.max
        var segmentBytes = 64 << 20
        var openFilesLimit = 256
        /// Of a new data directory.
        var format = EngineFormat.current
        /// Of the log, after which it is copied into the database.
        var logBytes = MetadataDatabase.logBytes
        /// Of rows kept in memory.
        var cachedBytes = 32 << 20
    }

    static func open(
        at path: String, pageKey: SecretBytes, clock: any WallClock, randomness: any Randomness, logger: Logger,
        options: Options
    ) throws(StorageEngineError) -> EmbeddedEngine {
        precondition(pageKey.count == 32, "a page key has 32 bytes")
        let disk = Disk(gate: options.gate, pieceBytes: options.pieceBytes)
        let directory = try DataDirectory(path, disk: disk)
        let identity = try directory.identity(
            format: options.format, pageKey: pageKey, randomness: randomness, disk: disk)
        let sealer = PageSealer(
            pageKey: pageKey, databaseID: identity.databaseID, pageBytes: identity.format.pageBytes,
            randomness: randomness)
        let vfs = SealedVFS(sealer: sealer, disk: disk, clock: clock, randomness: randomness)
        var database = try openDatabase(directory, vfs: vfs, disk: disk)
        database.logBytes = options.logBytes
        let cache = RowCache(bytesLimit: options.cachedBytes)
        let writer: RowWriter
        do throws(SQLiteFailure) { writer = try RowWriter(database, cache: cache, logger: logger) } catch {
            throw error.engineError
        }

        let descriptors = Descriptors(limit: options.openFilesLimit)
        let segments = SegmentStore(
            directory: directory.segments, disk: disk, descriptors: descriptors, openCount: writer.openCount,
            segmentBytes: options.segmentBytes, logger: logger)
        let files = ExtentFiles(
            directory: directory.files, disk: disk, descriptors: descriptors, openCount: writer.openCount)
        try files.open()
        try segments.open()
        writer.start()
        return EmbeddedEngine(
            directory: directory, readers: RowReaderPool(database), cache: cache, writer: writer, segments: segments,
            files: files)
    }

    /// The database is made beside its place and moved there whole, so a crash leaves it complete or absent. Extents
    /// come after it: where there are some and no database, it was lost, and an empty one in its place would make them
    /// all orphans for the sweeper. Throws `.corrupt` then.
    private static func openDatabase(
        _ directory: DataDirectory, vfs: SealedVFS, disk: Disk
    ) throws(StorageEngineError) -> MetadataDatabase {
        let database = MetadataDatabase(path: directory.metadata + "/rows.db", vfs: vfs)
        if access(database.path, F_OK) == 0 { return database }
        let code = errno
        guard code == ENOENT else { throw StorageEngineError(errno: code, "open \(database.path)") }
        guard try directoryEntries(directory.segments).isEmpty, try directoryEntries(directory.files).isEmpty else {
            throw StorageEngineError(
                .corrupt,
                "The data directory \(directory.path) has extents but no metadata database; restore it from a backup.")
        }
        let beside = directory.metadata + ".new"
        for name in try directoryEntries(beside) {
            try StorageEngineError.check(disk.unlink(beside + "/" + name), "remove an unfinished database")
        }
        try StorageEngineError.check(disk.makeDirectory(beside), "create \(beside)")
        do throws(SQLiteFailure) {
            try MetadataDatabase(path: beside + "/rows.db", vfs: vfs).create()
        } catch {
            throw error.engineError
        }
        try StorageEngineError.check(disk.syncDirectory(beside), "create the metadata database")
        try StorageEngineError.check(disk.rename(beside, to: directory.metadata), "create the metadata database")
        try StorageEngineError.check(disk.syncDirectory(directory.path), "create the metadata database")
        return database
    }

    /// Finishes what was asked for, copies the log into the database, and gives the directory free. Everything asked
    /// for later throws `.unavailable`. Whoever calls it while another does returns with it.
    public func close() {
        isClosed.withLock { isClosed in
            guard !isClosed else { return }
            isClosed = true
            segments.close()
            cache.end()
            readers.close()
            writer.close()
            // Last: from here on another process may open the directory.
            directory.release()
        }
    }

    deinit { close() }

    /// Reads, and so authenticates, every page of the metadata, and checks that they fit together. Takes time in
    /// proportion to the metadata. Throws `.corrupt` when something is wrong. Extents are verified by the layer that
    /// sealed them.
    public func verifyMetadata() async throws(StorageEngineError) {
        let problems = try readers.read { reader throws(SQLiteFailure) in try reader.verify() }
        guard problems.isEmpty else {
            throw StorageEngineError(
                .corrupt, "The metadata database is damaged: \(problems.joined(separator: "; ")). Restore a backup.")
        }
    }

    // MARK: MetadataStore

    public func get(_ partition: Partition, _ keys: [RowKey]) async throws(StorageEngineError) -> [Row?] {
        if keys.isEmpty { return [] }
        switch cache.find(partition, keys) {
        case .rows(let rows): return rows
        case .unknown(let losses):
            let rows = try readers.read { reader throws(SQLiteFailure) in try reader.get(partition, keys) }
            cache.remember(partition, keys, rows, losses: losses)
            return rows
        }
    }

    public func remembered(_ partition: Partition, _ keys: [RowKey]) -> [Row?]? {
        guard case .rows(let rows) = cache.find(partition, keys) else { return nil }
        return rows
    }

    public func scan(
        _ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int
    ) async throws(StorageEngineError) -> [Row] {
        if limit <= 0 { return [] }
        return try readers.read { reader throws(SQLiteFailure) in
            try reader.scan(partition, from: from, upTo: upTo, limit: limit)
        }
    }

    public func partitions(after: Partition?, limit: Int) async throws(StorageEngineError) -> [Partition] {
        if limit <= 0 { return [] }
        return try readers.read { reader throws(SQLiteFailure) in try reader.partitions(after: after, limit: limit) }
    }

    public func commit(
        _ partition: Partition, checks: [RowCheck], writes: [RowWrite]
    ) async throws(StorageEngineError) -> CommitResult {
        try properties.check(partition, writes)
        let result = await withCheckedContinuation { continuation in
            writer.submit(
                RowWriter.Job(partition: partition, checks: checks, writes: writes) {
                    continuation.resume(returning: $0)
                })
        }
        return try result.get()
    }

    // MARK: ExtentStore

    public func create(expectedBytes: Int?) async throws(StorageEngineError) -> any ExtentWriter {
        try EmbeddedExtentWriter(segments: segments, files: files, expectedBytes: expectedBytes)
    }

    public func read(_ location: ExtentLocation, range: Range<Int>) async throws(StorageEngineError) -> ByteBuffer {
        switch try ExtentPlace(location) {
        case .record(let segment, let offset, let byteCount):
            try segments.read(segment: segment, offset: offset, byteCount: byteCount, range: range)
        case .file(let number):
            try await files.read(number, range: range)
        }
    }

    public func delete(_ location: ExtentLocation) async throws(StorageEngineError) {
        switch try ExtentPlace(location) {
        case .record(let segment, let offset, let byteCount):
            try segments.delete(segment: segment, offset: offset, byteCount: byteCount)
        case .file(let number):
            try files.delete(number)
        }
    }

    /// Records of segments first, then files; each in the order of their numbers.
    public func list(after: ExtentLocation?, limit: Int) async throws(StorageEngineError) -> [ExtentListing] {
        var found: [ExtentListing] = []
        guard limit > 0 else { return found }
        switch try after.map({ location throws(StorageEngineError) in try ExtentPlace(location) }) {
        case .file(let number):
            return try files.list(after: number, limit: limit)
        case .record(let segment, let offset, _):
            found = try segments.list(after: (segment, offset), limit: limit)
        case nil:
            found = try segments.list(after: nil, limit: limit)
        }
        if found.count < limit { found += try files.list(after: nil, limit: limit - found.count) }
        return found
    }

    public func freeBytes() async throws(StorageEngineError) -> Int {
        var status = statvfs()
        guard statvfs(directory.path, &status) == 0 else {
            throw StorageEngineError(errno: errno, "ask for free space")
        }
        return Int(status.f_bavail) * Int(status.f_frsize)
    }
}
