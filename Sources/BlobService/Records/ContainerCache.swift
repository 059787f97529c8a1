internal import CofferCore
internal import EncryptionAtRest
internal import StorageAccount
internal import Synchronization

/// A container as it was found, with the version a change of it must check.
struct ContainerHandle: Sendable {
    let name: String
    let record: ContainerRecord
    let version: RecordVersion
    var partition: VolumePartition { .container(record.id) }
}

/// Containers lately read, so that a blob request reads one row, not two. A commit that changes a container forgets it
/// before it is answered.
final class ContainerCache: Sendable {
    private struct Key: Hashable {
        let account: AccountID
        let name: String
    }
    private struct State {
        var handles: [Key: ContainerHandle] = [:]
        /// Counts forgettings: what was read before one must not be kept after it.
        var generation: UInt64 = 0
    }
    private static let limit = 4_096
    private let state = Mutex(State())

    func find(_ name: String, of account: AccountID) -> (handle: ContainerHandle?, generation: UInt64) {
        state.withLock { ($0.handles[Key(account: account, name: name)], $0.generation) }
    }
    func keep(_ handle: ContainerHandle, of account: AccountID, readAt generation: UInt64) {
        state.withLock { state in
            guard state.generation == generation else { return }
            if state.handles.count >= Self.limit { state.handles.removeAll(keepingCapacity: true) }
            state.handles[Key(account: account, name: handle.name)] = handle
        }
    }
    func forget(_ name: String, of account: AccountID) {
        state.withLock { state in
            state.generation += 1
            state.handles[Key(account: account, name: name)] = nil
        }
    }
}

extension BlobService {
    func container(_ name: String, of account: StorageAccountView) async throws -> ContainerHandle? {
        let (cached, generation) = containers.find(name, of: account.id)
        if let cached { return cached }
        guard let handle = try await readContainer(name, of: account) else { return nil }
        containers.keep(handle, of: account.id, readAt: generation)
        return handle
    }

    /// Past the cache.
    func readContainer(_ name: String, of account: StorageAccountView) async throws -> ContainerHandle? {
        guard let row = try await account.volume.get(.account, [AccountKeySpace.container(name)])[0] else { return nil }
        return ContainerHandle(name: name, record: try ContainerRecord(decoding: row.visible), version: row.version)
    }

    /// Changes a container's row: reads, lets `change` decide, commits, and begins again when another change came
    /// between.
    func updateContainer<Result>(
        _ account: StorageAccountView, _ name: String, _ change: (inout ContainerRecord) throws -> Result
    ) async throws -> (ContainerRecord, Result) {
        try await retrying {
            guard let handle = try await readContainer(name, of: account) else {
                throw StorageError.containerNotFound
            }
            var record = handle.record
            let result = try change(&record)
            let key = AccountKeySpace.container(name)
            // Also when the commit throws: its outcome may be unknown, and a withdrawn access level must not linger.
            defer { containers.forget(name, of: account.id) }
            let outcome = try await account.volume.commit(
                .account, checks: [.unchanged(key, handle.version)],
                writes: [.put(key, visible: try record.encoded(), sealed: .none)])
            return outcome == .conflict ? nil : (record, result)
        }
    }

    static let attemptsOfCommits = 64
    /// The one loop for commits that lost a race: nil from `attempt` means try again. Throws 503 when the row stays
    /// contended.
    func retrying<Result>(
        attempts: Int = BlobService.attemptsOfCommits, _ attempt: () async throws -> Result?
    ) async throws -> Result {
        for _ in 0..<attempts {
            if let result = try await attempt() { return result }
        }
        throw StorageError.serverBusy
    }
}
