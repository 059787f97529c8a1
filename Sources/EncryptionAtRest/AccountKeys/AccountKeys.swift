public import CofferCore
internal import Synchronization

/// Names a storage account for good: 16 random bytes made at its creation. A later account of the same name has
/// another.
public struct AccountID: Sendable, Hashable, Codable {
    public let bytes: [UInt8]
    public init(bytes: [UInt8]) {
        precondition(bytes.count == 16)
        self.bytes = bytes
    }
}

/// The account encryption keys (AEK), one for each account and each of its encryption scopes: made once, stored once,
/// wrapped by the platform key or by a customer's key. Functions that take a scope mean the account's own key without.
///
/// Every change of wrapping is O(1) whatever the amount of data: unwrap, wrap, write the other slot, verify, retire the
/// old one. This file changes wrappings; `AccountKeys+Leases.swift` keeps keys in memory.
public final class AccountKeys: Sendable {
    let core: StoreCore
    let slots: AccountKeySlots
    let limits: KeyLease.Limits
    let custodian = Mutex<(any CustomerKeyCustodian)?>(nil)
    let entries = Mutex<[KeyDomain: Entry]>([:])
    let background = BackgroundWork()
    /// Vaults that announced a change since rotations were last followed.
    let announced = Mutex<Set<String?>>([])
    /// How often a change of wrapping starts over when another one came between.
    private static let attemptsLimit = 8

    init(_ core: StoreCore, limits: KeyLease.Limits = KeyLease.Limits()) {
        self.core = core
        self.limits = limits
        slots = AccountKeySlots(core)
    }

    /// Joins the vaults. Called once, before the first account is opened.
    public func attach(_ custodian: any CustomerKeyCustodian) {
        self.custodian.withLock { $0 = custodian }
        custodian.onChange { [weak self] vaultName in self?.vaultChanged(vaultName) }
    }

    /// Makes the AEK of a new account or scope, wrapped by the platform key. Durable when it returns. May be called
    /// again: each keeps its first key.
    public func create(_ account: AccountID, scope: String? = nil) async throws(SealedStoreError) {
        let domain = KeyDomain(account, scope: scope)
        let secret = core.randomness.secret(32)
        let commitment = DataKey(secret, of: domain, lease: nil).commitment
        let record = AccountKeyRecord(
            state: .active, generation: 1, commitment: commitment, wrappedAt: core.clock.now(),
            wrapping: platformWrap(secret, domain, commitment: commitment))
        guard try await slots.create(domain, record) else { return }
        guard let active = try await slots.load(domain).active,
            constantTimeEquals(active.record.commitment, commitment)
        else { throw SealedStoreError(.corrupt, "The engine did not give back the key record it acknowledged.") }
    }

    /// Wraps the AEK by the customer's key, as `identity`; from here on the account's data answers to it. A reference
    /// without a version follows rotation. Throws `KeyUnavailable` and changes nothing when the identity may not wrap
    /// and unwrap with it.
    public func useCustomerKey(
        _ account: AccountID, scope: String? = nil, _ reference: CustomerKeyReference, as identity: Caller
    ) async throws -> AccountKeyStatus {
        try await rewrap(KeyDomain(account, scope: scope)) { [self] secret, active in
            if case .customer(reference, identity, let wrapped) = active.record.wrapping,
                try await isCurrent(wrapped, of: reference, as: identity)
            {
                return nil
            }
            return .customer(
                reference, identity: identity,
                wrapped: try await requireCustodian().wrapKey(secret, with: reference, as: identity))
        }
    }

    /// Back to the platform key. Needs the customer's key one last time.
    public func usePlatformKey(_ account: AccountID, scope: String? = nil) async throws -> AccountKeyStatus {
        let domain = KeyDomain(account, scope: scope)
        return try await rewrap(domain) { [self] secret, active in
            if case .platform = active.record.wrapping { return nil }
            return platformWrap(secret, domain, commitment: active.record.commitment)
        }
    }

    /// Re-wraps under the newest version of an unversioned reference, if there is a newer one. Called when a vault
    /// announces a rotation, and from a timer.
    public func followRotation(_ account: AccountID, scope: String? = nil) async throws -> AccountKeyStatus {
        try await followRotation(KeyDomain(account, scope: scope))
    }

    func followRotation(_ domain: KeyDomain) async throws -> AccountKeyStatus {
        guard let active = try await slots.load(domain).active else { throw Self.noKey }
        guard case .customer(let reference, let identity, let wrapped) = active.record.wrapping,
            reference.keyVersion == nil
        else {
            return active.record.status
        }
        let isCurrent = try await isCurrent(wrapped, of: reference, as: identity)
        entries.withLock { $0[domain, default: Entry()].followedAt = core.clock.now() }
        guard !isCurrent else { return active.record.status }
        return try await rewrap(domain) { [self] secret, active in
            // The owner may have chosen another key meanwhile, which stays.
            guard case .customer(let reference, let identity, let wrapped) = active.record.wrapping,
                reference.keyVersion == nil, try await !self.isCurrent(wrapped, of: reference, as: identity)
            else { return nil }
            return .customer(
                reference, identity: identity,
                wrapped: try await requireCustodian().wrapKey(secret, with: reference, as: identity))
        }
    }

    /// Starts following a rotation in the background when it last looked a minute ago; not where many are asked for.
    public func status(
        _ account: AccountID, scope: String? = nil, looksForRotation: Bool = true
    ) async throws(SealedStoreError) -> AccountKeyStatus {
        let domain = KeyDomain(account, scope: scope)
        guard let active = try await slots.load(domain).active else { throw Self.noKey }
        if looksForRotation, case .customer(let reference, _, _) = active.record.wrapping, reference.keyVersion == nil {
            let now = core.clock.now()
            let isStale = entries.withLock { entries in
                let last = entries[domain]?.followedAt
                guard last.map({ now >= $0.adding(seconds: limits.confirmAfterSeconds) || now < $0 }) ?? true else {
                    return false
                }
                entries[domain, default: Entry()].followedAt = now
                return true
            }
            if isStale { background.run { [self] in _ = try? await followRotation(domain) } }
        }
        return active.record.status
    }

    /// What of an account a customer's key wraps: nil for the account's own key, and names of scopes.
    public func underCustomerKeys(_ account: AccountID) async throws(SealedStoreError) -> [String?] {
        var found: [String?] = []
        for domain in try await slots.domains(of: account) {
            if case .customer? = try await slots.load(domain).active?.record.wrapping { found.append(domain.scope) }
        }
        return found
    }

    /// How many scopes of the account have a key.
    public func scopeCount(_ account: AccountID) async throws(SealedStoreError) -> Int {
        try await slots.domains(of: account).count { $0.scope != nil }
    }

    /// Forgets the AEK and those of the account's scopes: every byte of the account is gone with them. Durable when it
    /// returns.
    public func destroy(_ account: AccountID) async throws(SealedStoreError) {
        try await slots.destroy(account)
        let domains = entries.withLock { entries in entries.keys.filter { $0.account == account } }
        // Also where nothing is known yet: a load that is under way must not bring the key back.
        for domain in Set(domains).union([KeyDomain(account)]) {
            forget(domain, KeyUnavailable(.keyNotFound, "The storage account was deleted."))
        }
    }

    /// Ends every use of a scope's key: who holds it is refused from now on, in the middle of a read as well. Whoever
    /// takes the key anew must ask first whether the scope is enabled.
    public func withdraw(_ account: AccountID, scope: String) {
        forget(
            KeyDomain(account, scope: scope),
            KeyUnavailable(.scopeNotAvailable, "The encryption scope '\(scope)' is disabled."))
    }

    private func forget(_ domain: KeyDomain, _ why: KeyUnavailable) {
        let entry = entries.withLock { entries -> Entry? in
            let entry = entries[domain]
            entries[domain] = Entry(epoch: (entry?.epoch ?? 0) + 1)
            return entry
        }
        entry?.key?.lease?.kill(why)
    }

    /// Returns once no rotation is being followed in the background: for a shutdown, after the last request.
    public func settle() async { await background.settle() }

    static let noKey = SealedStoreError(
        .corrupt, "The account has no encryption key: it was deleted, or its key records are lost.")

    // MARK: Wrapping

    private func isCurrent(
        _ wrapped: CustomerWrappedKey, of reference: CustomerKeyReference, as identity: Caller
    ) async throws(KeyUnavailable) -> Bool {
        try await requireCustodian().currentKeyIdentifier(of: reference, as: identity) == wrapped.keyIdentifier
    }

    func requireCustodian() throws(KeyUnavailable) -> any CustomerKeyCustodian {
        guard let custodian = custodian.withLock({ $0 }) else {
            throw KeyUnavailable(.vaultNotFound, "No key vault is attached to this server.", isDenial: false)
        }
        return custodian
    }

    private func platformWrap(_ secret: SecretBytes, _ domain: KeyDomain, commitment: [UInt8])
        -> AccountKeyRecord.Wrapping
    {
        var sealed: [UInt8] = []
        secret.withUnsafeBytes {
            platformCipher(domain).seal(
                $0, additional: platformBound(domain, commitment), randomness: core.randomness, appendTo: &sealed)
        }
        return .platform(sealed)
    }

    private func platformCipher(_ domain: KeyDomain) -> XAES256GCM {
        KeyDerivation.xaes(from: core.rootKey.key, info: FieldList(.platform, domain.fields).bytes)
    }
    private func platformBound(_ domain: KeyDomain, _ commitment: [UInt8]) -> [UInt8] {
        FieldList(.platformWrap, domain.fields + [commitment]).bytes
    }

    /// The AEK a record holds, proven by its commitment.
    func unwrap(_ record: AccountKeyRecord, of domain: KeyDomain) async throws -> SecretBytes {
        let secret: SecretBytes
        switch record.wrapping {
        case .platform(let sealed):
            var isAuthentic = false
            secret = SecretBytes(count: 32) { output in
                isAuthentic = sealed.withUnsafeBytes {
                    platformCipher(domain).open(
                        $0, additional: platformBound(domain, record.commitment), to: output.baseAddress!)
                }
            }
            guard isAuthentic else { throw Self.wrongKey }
        case .customer(_, let identity, let wrapped):
            secret = try await requireCustodian().unwrapKey(wrapped, as: identity)
        }
        guard secret.count == 32,
            constantTimeEquals(
                DataKey(secret, of: domain, lease: nil).commitment, record.commitment)
        else { throw Self.wrongKey }
        return secret
    }

    private static let wrongKey = SealedStoreError(
        .corrupt, "An account's key record unwraps to another key than it was made for.")

    /// Unwrap, wrap, write the other slot, verify by unwrapping, retire the old. `wrap` returns nil to leave things as
    /// they are.
    private func rewrap(
        _ domain: KeyDomain,
        _ wrap: (SecretBytes, AccountKeySlots.Slot) async throws -> AccountKeyRecord.Wrapping?
    ) async throws -> AccountKeyStatus {
        for _ in 0..<Self.attemptsLimit {
            let contents = try await slots.load(domain)
            guard let active = contents.active else { throw Self.noKey }
            let secret = try await unwrap(active.record, of: domain)
            guard let wrapping = try await wrap(secret, active) else { return active.record.status }
            guard let prepared = try await slots.prepare(domain, after: contents, wrapping: wrapping) else { continue }
            _ = try await unwrap(prepared.record, of: domain)
            // Once the commit is done, the key in memory is suspended and asked for again under the new record: an
            // announcement of the new vault that came in between is thereby not missed. Also when its outcome is
            // unknown.
            defer { governorChanged(domain) }
            guard try await slots.activate(domain, prepared, retiring: active) else { continue }
            return prepared.record.status
        }
        throw SealedStoreError(.unavailable, "The account's key is being changed by others; try again.")
    }
}

public struct AccountKeyStatus: Sendable, Equatable {
    public enum Source: Sendable, Equatable {
        case platform
        case customer(CustomerKeyReference, currentVersionedKeyIdentifier: String, lastRotation: Timestamp)
    }
    public let source: Source
    public init(source: Source) { self.source = source }
}

/// Tasks nobody waits for, counted so that a test or a shutdown can.
final class BackgroundWork: Sendable {
    private let tasks = Mutex<(next: UInt64, running: [UInt64: Task<Void, Never>])>((0, [:]))

    func run(_ work: @escaping @Sendable () async -> Void) {
        tasks.withLock { tasks in
            let number = tasks.next
            tasks.next += 1
            tasks.running[number] = Task {
                await work()
                self.tasks.withLock { $0.running[number] = nil }
            }
        }
    }

    /// Returns once nothing runs.
    func settle() async {
        while let task = tasks.withLock({ $0.running.values.first }) { await task.value }
    }
}
