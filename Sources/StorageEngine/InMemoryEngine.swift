internal import CofferCore
public import NIOCore
internal import Synchronization

/// Both promises kept in memory: for tests of the rooms above, and the first to pass the conformance suite. Nothing
/// survives the process.
public final class InMemoryEngine: MetadataStore, ExtentStore {
    private struct State {
        var partitions: [Partition: [RowKey: Row]] = [:]
        var lastVersion: UInt64 = 0
        var extents: [UInt64: ByteBuffer] = [:]
        var lastExtent: UInt64 = 0
    }
    private let state = Mutex(State())

    public init() {}

    public let properties = MetadataStoreProperties(
        valueBytesLimit: 16 << 20, writesPerCommitLimit: 500_000, isDurable: false)

    public func get(_ partition: Partition, _ keys: [RowKey]) async throws(StorageEngineError) -> [Row?] {
        state.withLock { state in keys.map { state.partitions[partition]?[$0] } }
    }

    /// Always nil, so that the rooms above are tested as on a medium.
    public func remembered(_ partition: Partition, _ keys: [RowKey]) -> [Row?]? { nil }

    public func scan(_ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int) async throws(StorageEngineError)
        -> [Row]
    {
        state.withLock { state in
            let rows = (state.partitions[partition] ?? [:]).values.filter { row in
                row.key >= from && upTo.map { row.key < $0 } ?? true
            }
            return Array(rows.sorted { $0.key < $1.key }.prefix(limit))
        }
    }

    public func commit(
        _ partition: Partition, checks: [RowCheck], writes: [RowWrite]
    ) async throws(StorageEngineError) -> CommitResult {
        try properties.check(partition, writes)
        return state.withLock { state in
            var rows = state.partitions[partition] ?? [:]
            let holds = checks.allSatisfy { check in
                switch check {
                case .absent(let key): rows[key] == nil
                case .present(let key): rows[key] != nil
                case .unchanged(let key, let version): rows[key]?.version == version
                }
            }
            guard holds else { return .conflict }
            state.lastVersion += 1
            let version = RowVersion(state.lastVersion)
            for write in writes {
                switch write {
                case .put(let key, let value): rows[key] = Row(key: key, value: value, version: version)
                case .delete(let key): rows[key] = nil
                }
            }
            state.partitions[partition] = rows.isEmpty ? nil : rows
            return .committed(version)
        }
    }

    public func partitions(after: Partition?, limit: Int) async throws(StorageEngineError) -> [Partition] {
        state.withLock { state in
            let all = state.partitions.keys.sorted { $0.bytes.lexicographicallyPrecedes($1.bytes) }
            return Array(
                all.filter { partition in after.map { $0.bytes.lexicographicallyPrecedes(partition.bytes) } ?? true }
                    .prefix(limit))
        }
    }

    // MARK: Extents

    private final class Writer: ExtentWriter {
        private let engine: InMemoryEngine
        // nil once the writer has ended.
        private let buffer = Mutex<ByteBuffer?>(ByteBuffer())
        init(engine: InMemoryEngine) { self.engine = engine }

        func append(_ bytes: ByteBuffer) async throws(StorageEngineError) {
            let isOpen = buffer.withLock { $0?.writeImmutableBuffer(bytes) != nil }
            if !isOpen { throw Self.ended }
        }
        func finish() async throws(StorageEngineError) -> ExtentLocation {
            guard let bytes = take() else { throw Self.ended }
            return engine.state.withLock { state in
                state.lastExtent += 1
                state.extents[state.lastExtent] = bytes
                return InMemoryEngine.location(state.lastExtent)
            }
        }
        func abort() async { _ = take() }

        private func take() -> ByteBuffer? {
            buffer.withLock { buffer in
                defer { buffer = nil }
                return buffer
            }
        }
        private static let ended = StorageEngineError(
            .unavailable, "The extent's writer has ended: it finished or was aborted.")
    }

    private static func location(_ number: UInt64) -> ExtentLocation {
        ExtentLocation(withUnsafeBytes(of: number.bigEndian) { Array($0) })
    }
    private static func number(_ location: ExtentLocation) -> UInt64 {
        location.bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }

    public func create(expectedBytes: Int?) async throws(StorageEngineError) -> any ExtentWriter {
        Writer(engine: self)
    }

    public func read(_ location: ExtentLocation, range: Range<Int>) async throws(StorageEngineError) -> ByteBuffer {
        guard let extent = state.withLock({ $0.extents[Self.number(location)] }) else {
            throw StorageEngineError(.notFound, "The extent was deleted.")
        }
        guard let slice = extent.getSlice(at: extent.readerIndex + range.lowerBound, length: range.count) else {
            throw StorageEngineError(.corrupt, "The extent ends before the range that was asked for.")
        }
        return slice
    }

    public func delete(_ location: ExtentLocation) async throws(StorageEngineError) {
        state.withLock { $0.extents[Self.number(location)] = nil }
    }

    public func list(after: ExtentLocation?, limit: Int) async throws(StorageEngineError) -> [ExtentListing] {
        state.withLock { state in
            let first = after.map(Self.number) ?? 0
            return state.extents.keys.filter { $0 > first }.sorted().prefix(limit).map {
                ExtentListing(location: Self.location($0), byteCount: state.extents[$0]!.readableBytes, isRecent: true)
            }
        }
    }

    public func freeBytes() async throws(StorageEngineError) -> Int { 1 << 40 }
}
