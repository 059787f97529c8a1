internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders
internal import Synchronization

/// Every account in memory. This process is the only writer of their records: a change is durable first, then seen
/// here, then acknowledged.
final class AccountDirectory: Sendable {
    private struct State {
        var accounts: [String: LoadedAccount]?
        /// Accounts whose last change ended without a known outcome: read again before they are used.
        var uncertain: Set<String> = []
    }
    private let state = Mutex(State())
    private let records: AccountRecords
    private let store: SealedStore
    private let logger: Logger
    private let gates = ChangeGates()

    init(store: SealedStore, logger: Logger) {
        self.store = store
        self.logger = logger
        records = AccountRecords(records: store.records(.storage, "accounts"))
    }

    /// One lookup in memory; the first call reads every record.
    func account(named name: String) async throws(SealedStoreError) -> LoadedAccount? {
        let known: LoadedAccount?? = state.withLock { state in
            guard let accounts = state.accounts, !state.uncertain.contains(name) else { return nil }
            return .some(accounts[name])
        }
        if let known { return known }
        try await load()
        if state.withLock({ $0.uncertain.contains(name) }) {
            await gates.enter(name)
            defer { gates.leave(name) }
            try await refresh(name)
        }
        return state.withLock { $0.accounts?[name] }
    }

    /// In the order of their names.
    func all() async throws(SealedStoreError) -> [LoadedAccount] {
        try await load()
        return state.withLock { Array(($0.accounts ?? [:]).values) }.sorted { $0.record.name < $1.record.name }
    }

    /// Runs `change` with no other change of the same account under way; it gets the records and the account as it lies
    /// there. Whatever it wrote is visible to every request before this returns, also when it throws.
    func change<Result: Sendable>(
        _ name: String, _ change: (AccountRecords, AccountRecords.Stored?) async throws -> Result
    ) async throws -> Result {
        try await load()
        await gates.enter(name)
        defer { gates.leave(name) }
        _ = state.withLock { $0.uncertain.insert(name) }
        do {
            let result = try await change(records, try await records.read(name))
            try await refresh(name)
            return result
        } catch {
            // Still uncertain if this fails too: then the next request reads again.
            try? await refresh(name)
            throw error
        }
    }

    /// Destroys the key first: from then on the bytes mean nothing, whatever happens to the rest.
    func finishDeletion(_ id: AccountID) async throws(SealedStoreError) {
        try await store.accountKeys.destroy(id)
        try await store.volume(account: id).destroy()
        _ = try await records.records.commit([.delete(AccountRecords.deletingKey(id))])
    }

    private func refresh(_ name: String) async throws(SealedStoreError) {
        let account = try await records.read(name).map(loaded)
        state.withLock { state in
            state.accounts?[name] = account
            state.uncertain.remove(name)
        }
    }

    private func loaded(_ stored: AccountRecords.Stored) -> LoadedAccount {
        LoadedAccount(stored, volume: store.volume(account: stored.account.id))
    }

    private func load() async throws(SealedStoreError) {
        guard state.withLock({ $0.accounts == nil }) else { return }
        var all: [String: LoadedAccount] = [:]
        for stored in try await records.readAll() { all[stored.account.name] = loaded(stored) }
        for id in try await records.deletions() {
            do {
                try await finishDeletion(id)
            } catch {
                logger.error(
                    "A deleted storage account is not destroyed yet; the next start tries again.",
                    metadata: ["reason": "\(error)"])
            }
        }
        // A change needs a loaded directory, so whoever comes first here has seen them all.
        state.withLock { $0.accounts = $0.accounts ?? all }
    }
}

/// One change at a time for each name; those who wait go in order.
final class ChangeGates: Sendable {
    private let waiting = Mutex<[String: [CheckedContinuation<Void, Never>]]>([:])

    func enter(_ name: String) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let free = waiting.withLock { waiting in
                guard waiting[name] != nil else {
                    waiting[name] = []
                    return true
                }
                waiting[name]!.append(continuation)
                return false
            }
            if free { continuation.resume() }
        }
    }

    func leave(_ name: String) {
        let next: CheckedContinuation<Void, Never>? = waiting.withLock { waiting in
            guard var queue = waiting[name], !queue.isEmpty else {
                waiting[name] = nil
                return nil
            }
            let next = queue.removeFirst()
            waiting[name] = queue
            return next
        }
        next?.resume()
    }
}
