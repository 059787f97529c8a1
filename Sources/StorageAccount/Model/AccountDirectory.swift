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
        /// Accounts whose last change ended without a known outcome, or whose records did not open: read again before
        /// they are used.
        var uncertain: Set<String> = []
        /// Those of them whose records did not open.
        var damaged: Set<String> = []
    }
    private let state = Mutex(State())
    private let records: AccountRecords
    private let store: SealedStore
    private let identities: any ManagedIdentities
    private let logger: Logger
    private let gates = ChangeGates()

    init(store: SealedStore, identities: any ManagedIdentities, logger: Logger) {
        self.store = store
        self.identities = identities
        self.logger = logger
        records = AccountRecords(records: store.records(.storage, "accounts"))
    }

    /// One lookup in memory; the first call reads every record.
    func account(named name: String) async throws(SealedStoreError) -> LoadedAccount? {
        if let known = known(name) { return known }
        try await load()
        if let known = known(name) { return known }
        await gates.enter(name)
        defer { gates.leave(name) }
        // Whoever waited before has read it again already.
        if let known = known(name) { return known }
        try await refresh(name)
        return state.withLock { $0.accounts?[name] }
    }

    /// nil: not known from memory. `.some(nil)`: there is none.
    private func known(_ name: String) -> LoadedAccount?? {
        state.withLock { state in
            guard let accounts = state.accounts, !state.uncertain.contains(name) else { return nil }
            return .some(accounts[name])
        }
    }

    /// Accounts that are there and cannot be read; `all` leaves them out.
    var damagedNames: [String] { state.withLock { $0.damaged.sorted() } }

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

    /// Destroys the key first: from then on the bytes mean nothing, whatever happens to the rest. An identity that
    /// cannot be removed holds up no bytes.
    func finish(_ deletion: AccountRecords.Deletion) async throws {
        try await store.accountKeys.destroy(deletion.id)
        var failure: (any Error)?
        if let resource = deletion.identityOf {
            do { try await identities.removeSystemAssignedIdentity(of: resource) } catch { failure = error }
        }
        try await store.volume(account: deletion.id).destroy()
        if let failure { throw failure }
        try await records.endScopes(of: deletion.id)
        try await records.end(deletion)
    }

    private func refresh(_ name: String) async throws(SealedStoreError) {
        let account = try await records.read(name).map(loaded)
        state.withLock { state in
            state.accounts?[name] = account
            state.uncertain.remove(name)
            state.damaged.remove(name)
        }
    }

    private func loaded(_ stored: AccountRecords.Stored) -> LoadedAccount {
        LoadedAccount(stored, volume: store.volume(account: stored.account.id))
    }

    private var isLoaded: Bool { state.withLock { $0.accounts != nil } }

    private func load() async throws(SealedStoreError) {
        guard !isLoaded else { return }
        // One at a time, or a slow one would finish deletions by what it read before accounts were made anew. No
        // account has this name.
        await gates.enter("")
        defer { gates.leave("") }
        guard !isLoaded else { return }
        var all: [String: LoadedAccount] = [:]
        var damaged: Set<String> = []
        let names = try await records.names()
        for name in names {
            do {
                all[name] = try await records.read(name).map(loaded)
            } catch {
                guard error.code == .corrupt else { throw error }
                damaged.insert(name)
                logger.error(
                    "The records of a storage account do not open; the other accounts do.",
                    metadata: ["account": "\(name)", "reason": "\(error)"])
            }
        }
        try await finishDeletions(all, damaged)
        // A change needs a loaded directory: until here there was none.
        state.withLock { [all, damaged] state in
            state.accounts = all
            state.uncertain = damaged
            state.damaged = damaged
        }
    }

    /// The same resource made anew has an identity of its own under the deleted one's name: by its record, or, where a
    /// crash came before that, by the wrapping of its key.
    private func mayUseIdentity(_ account: AccountRecord, of resource: ResourceID) async throws -> Bool {
        guard account.resourceID == resource else { return false }
        if account.identity != nil { return true }
        return try await !store.accountKeys.underCustomerKeys(account.id).isEmpty
    }

    private func finishDeletions(_ accounts: [String: LoadedAccount], _ damaged: Set<String>)
        async throws(SealedStoreError)
    {
        for id in try await records.deletedIDs() {
            do {
                var deletion = try await records.deletion(of: id)
                if let resource = deletion.identityOf {
                    let name = resource.name.lowercased()
                    if let account = accounts[name]?.record {
                        if try await mayUseIdentity(account, of: resource) { deletion.identityOf = nil }
                    } else if damaged.contains(name) {
                        deletion.identityOf = nil
                    }
                }
                try await finish(deletion)
            } catch {
                logger.error(
                    "A deleted storage account is not destroyed yet; the next start tries again.",
                    metadata: ["reason": "\(error)"])
            }
        }
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
