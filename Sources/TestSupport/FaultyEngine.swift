public import StorageEngine
internal import Synchronization

/// The in-memory engine, with commits that fail on demand: before they happen, or after (outcome unknown), as a crash
/// or a lost disk would.
public final class FaultyEngine: MetadataStore {
    public enum Fault: Sendable { case before, after }
    private let engine: InMemoryEngine
    private let state = Mutex<(commits: Int, fail: (at: Int, fault: Fault)?)>((0, nil))
    public init(_ engine: InMemoryEngine) { self.engine = engine }

    public var properties: MetadataStoreProperties { engine.properties }
    /// The commit number `number` from now (0 is the next) and all after it fail; the first one as `fault` says.
    public func fail(at number: Int, _ fault: Fault) { state.withLock { $0 = (0, (number, fault)) } }
    /// Commits since the last `fail` or `heal`.
    public var commits: Int { state.withLock { $0.commits } }
    public func heal() { state.withLock { $0 = (0, nil) } }

    public func get(_ partition: Partition, _ keys: [RowKey]) async throws(StorageEngineError) -> [Row?] {
        try await engine.get(partition, keys)
    }
    public func scan(
        _ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int
    ) async throws(StorageEngineError) -> [Row] {
        try await engine.scan(partition, from: from, upTo: upTo, limit: limit)
    }
    public func partitions(after: Partition?, limit: Int) async throws(StorageEngineError) -> [Partition] {
        try await engine.partitions(after: after, limit: limit)
    }
    public func commit(
        _ partition: Partition, checks: [RowCheck], writes: [RowWrite]
    ) async throws(StorageEngineError) -> CommitResult {
        let fault = state.withLock { state -> Fault? in
            defer { state.commits += 1 }
            guard let fail = state.fail, state.commits >= fail.at else { return nil }
            return state.commits == fail.at ? fail.fault : .before
        }
        if case .before = fault { throw StorageEngineError(.unavailable, "the disk is gone") }
        let result = try await engine.commit(partition, checks: checks, writes: writes)
        if case .after = fault { throw StorageEngineError(.outcomeUnknown, "the disk went") }
        return result
    }
}
