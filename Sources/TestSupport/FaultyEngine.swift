public import StorageEngine
internal import Synchronization

/// The in-memory engine, with commits that fail on demand: before they happen, or after (outcome unknown), as a crash
/// or a lost disk would; and with things that happen between a call and its answer, as another request would.
public final class FaultyEngine: MetadataStore {
    public enum Fault: Sendable { case before, after }
    /// The keys, as text, that a call of the engine reads or writes; of a scan the first it may find.
    public struct Call: Sendable {
        public var reads: [String] = []
        public var writes: [String] = []
    }
    /// Between a call and its answer; what it throws is the call's answer.
    public typealias Interruption = @Sendable (Call) async throws(StorageEngineError) -> Void

    private let engine: InMemoryEngine
    private let state = Mutex<(commits: Int, fail: (at: Int, fault: Fault)?)>((0, nil))
    private let interruption = Mutex<(isDue: @Sendable (Call) -> Bool, happens: Interruption)?>(nil)
    public init(_ engine: InMemoryEngine) { self.engine = engine }

    public var properties: MetadataStoreProperties { engine.properties }
    /// The commit number `number` from now (0 is the next) and all after it fail; the first one as `fault` says.
    public func fail(at number: Int, _ fault: Fault) { state.withLock { $0 = (0, (number, fault)) } }
    /// Commits since the last `fail` or `heal`.
    public var commits: Int { state.withLock { $0.commits } }
    public func heal() { state.withLock { $0 = (0, nil) } }

    /// Lets `happens` happen once, after the next `get` or `scan` or before the next `commit` that `isDue` says.
    public func interrupt(
        where isDue: @escaping @Sendable (Call) -> Bool, happens: @escaping Interruption
    ) { interruption.withLock { $0 = (isDue, happens) } }

    private func interruptIfDue(_ call: Call) async throws(StorageEngineError) {
        let happens = interruption.withLock { due -> Interruption? in
            guard let found = due, found.isDue(call) else { return nil }
            due = nil
            return found.happens
        }
        try await happens?(call)
    }

    public func get(_ partition: Partition, _ keys: [RowKey]) async throws(StorageEngineError) -> [Row?] {
        let rows = try await engine.get(partition, keys)
        try await interruptIfDue(Call(reads: keys.map(\.text)))
        return rows
    }
    public func remembered(_ partition: Partition, _ keys: [RowKey]) -> [Row?]? { engine.remembered(partition, keys) }
    public func scan(
        _ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int
    ) async throws(StorageEngineError) -> [Row] {
        let rows = try await engine.scan(partition, from: from, upTo: upTo, limit: limit)
        try await interruptIfDue(Call(reads: [from.text]))
        return rows
    }
    public func partitions(after: Partition?, limit: Int) async throws(StorageEngineError) -> [Partition] {
        try await engine.partitions(after: after, limit: limit)
    }
    public func commit(
        _ partition: Partition, checks: [RowCheck], writes: [RowWrite]
    ) async throws(StorageEngineError) -> CommitResult {
        try await interruptIfDue(Call(writes: writes.map(\.text)))
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

extension RowKey {
    fileprivate var text: String { String(decoding: bytes, as: UTF8.self) }
}
extension RowWrite {
    fileprivate var text: String {
        switch self {
        case .put(let key, _), .delete(let key): key.text
        }
    }
}
