public import NIOCore

/// Immutable runs of bytes: what Coffer asks of an extent engine. The engine is not trusted: extents arrive sealed.
public protocol ExtentStore: Sendable {
    /// Starts an extent. `expectedBytes` (header and tags included) helps the engine choose a place; nil when unknown.
    func create(expectedBytes: Int?) async throws(StorageEngineError) -> any ExtentWriter
    /// The bytes of `range`. Throws `.notFound` for a deleted extent and `.corrupt` when it ends before the range does.
    func read(_ location: ExtentLocation, range: Range<Int>) async throws(StorageEngineError) -> ByteBuffer
    /// Idempotent. The space is free again some time later.
    func delete(_ location: ExtentLocation) async throws(StorageEngineError)
    /// Every extent that a writer finished and nobody deleted, in the engine's own order: for the sweeper and for
    /// verification.
    func list(after: ExtentLocation?, limit: Int) async throws(StorageEngineError) -> [ExtentListing]
    /// Bytes free for new extents, as the medium says.
    func freeBytes() async throws(StorageEngineError) -> Int
}

/// One extent while it is written. Unless `finish` returned, nothing of it is ever seen again.
public protocol ExtentWriter: Sendable {
    /// Appends. The next call may come when this one has returned.
    func append(_ bytes: ByteBuffer) async throws(StorageEngineError)
    /// Returns once all bytes are on the medium and the location will outlive a crash.
    func finish() async throws(StorageEngineError) -> ExtentLocation
    /// Gives the space back. Also the end of every writer that is dropped without `finish`.
    func abort() async
}

/// Where an extent lies, opaque to everyone but its engine. Up to 64 bytes.
public struct ExtentLocation: Sendable, Hashable {
    public let bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
}

public struct ExtentListing: Sendable {
    public let location: ExtentLocation
    public let byteCount: Int
    /// Written by a running process since its start: the sweeper must leave it alone until its metadata had time to
    /// arrive.
    public let isRecent: Bool
    public init(location: ExtentLocation, byteCount: Int, isRecent: Bool) {
        self.location = location
        self.byteCount = byteCount
        self.isRecent = isRecent
    }
}
