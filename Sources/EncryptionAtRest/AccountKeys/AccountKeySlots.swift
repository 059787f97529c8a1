internal import CofferCore
internal import StorageEngine

/// The two slots of the key record of an account or an encryption scope, A and B, and how one takes over from the other
/// without a moment in which neither opens.
///
/// A change writes the free slot as *prepared*, reads it back and unwraps it, and only then makes it *active* and
/// deletes the other, both in one commit. A crash before that commit leaves the old slot in force and a prepared one
/// that the next change overwrites.
struct AccountKeySlots: Sendable {
    enum Name: UInt8, CaseIterable {
        case a = 0x41, b = 0x42
        var other: Name { self == .a ? .b : .a }
    }
    struct Slot: Sendable {
        let name: Name
        let record: AccountKeyRecord
        let version: RowVersion
    }
    struct Contents: Sendable {
        /// In force; nil when the domain has no key.
        var active: Slot?
        /// What lies in the slot that is not in force: its version, for the check of the commit that overwrites it.
        var spareVersion: RowVersion?
        /// A slot that does not open, beside one that does.
        var damaged: SealedStoreError?
    }

    private let core: StoreCore
    private let seal: RootSeal

    init(_ core: StoreCore) {
        self.core = core
        seal = core.rootSeal(.accountKeyRecords)
    }

    /// account | name of the scope, empty for the account's own | slot
    static func key(_ domain: KeyDomain, _ name: Name) -> RowKey {
        RowKey(domain.account.bytes + Array((domain.scope ?? "").utf8) + [name.rawValue])
    }

    private func bound(_ key: RowKey) -> FieldList { FieldList(.accountKeyRecord, key.bytes) }

    private func open(_ row: Row) throws(SealedStoreError) -> AccountKeyRecord {
        let plaintext = try seal.open(row.value, bound: bound(row.key), what: "An account's key record")
        guard let record = AccountKeyRecord(plaintext) else {
            throw SealedStoreError(.corrupt, "An account's key record is not in a format this version of Coffer reads.")
        }
        return record
    }

    /// Throws `.corrupt` when no slot is in force but a damaged one lies there.
    func load(_ domain: KeyDomain) async throws(SealedStoreError) -> Contents {
        let rows = try await core.get(EnginePartition.accountKeys, Name.allCases.map { Self.key(domain, $0) })
        var contents = Contents()
        var slots: [Slot] = []
        for (name, row) in zip(Name.allCases, rows) {
            guard let row else { continue }
            do { slots.append(Slot(name: name, record: try open(row), version: row.version)) } catch {
                contents.damaged = error
            }
        }
        contents.active = slots.filter { $0.record.state == .active }.max {
            $0.record.generation < $1.record.generation
        }
        if let active = contents.active {
            contents.spareVersion = rows[active.name == .a ? 1 : 0]?.version
        } else if let damaged = contents.damaged {
            throw damaged
        }
        return contents
    }

    /// Writes the first slot of a new domain. Returns false when it has one.
    func create(_ domain: KeyDomain, _ record: AccountKeyRecord) async throws(SealedStoreError) -> Bool {
        let key = Self.key(domain, .a)
        let result = try await core.commit(
            EnginePartition.accountKeys, checks: Name.allCases.map { .absent(Self.key(domain, $0)) },
            writes: [.put(key, seal.seal(record.encoded, bound: bound(key)))])
        return result != .conflict
    }

    /// Puts `wrapping` into the free slot, not yet in force. nil when somebody else changed the slots meanwhile.
    func prepare(
        _ domain: KeyDomain, after contents: Contents, wrapping: AccountKeyRecord.Wrapping
    ) async throws(SealedStoreError) -> Slot? {
        guard let active = contents.active else { return nil }
        let name = active.name.other
        let key = Self.key(domain, name)
        let record = AccountKeyRecord(
            state: .prepared, generation: active.record.generation + 1, commitment: active.record.commitment,
            wrappedAt: core.clock.now(), wrapping: wrapping)
        let result = try await core.commit(
            EnginePartition.accountKeys,
            checks: [
                .unchanged(Self.key(domain, active.name), active.version),
                contents.spareVersion.map { .unchanged(key, $0) } ?? .absent(key),
            ],
            writes: [.put(key, seal.seal(record.encoded, bound: bound(key)))])
        guard case .committed(let version) = result else { return nil }
        // What counts is what the engine gives back, not what it was given.
        guard let row = try await core.get(EnginePartition.accountKeys, [key])[0], row.version == version else {
            return nil
        }
        return Slot(name: name, record: try open(row), version: version)
    }

    /// Puts the prepared slot in force and retires the other. Returns false when somebody else changed the slots
    /// meanwhile.
    func activate(_ domain: KeyDomain, _ prepared: Slot, retiring active: Slot) async throws(SealedStoreError) -> Bool {
        var record = prepared.record
        record.state = .active
        let key = Self.key(domain, prepared.name)
        let old = Self.key(domain, active.name)
        let result = try await core.commit(
            EnginePartition.accountKeys, checks: [.unchanged(key, prepared.version), .unchanged(old, active.version)],
            writes: [.put(key, seal.seal(record.encoded, bound: bound(key))), .delete(old)])
        return result != .conflict
    }

    /// Deletes every slot of the account and of its encryption scopes. May be called again after a failure.
    func destroy(_ account: AccountID) async throws(SealedStoreError) {
        while true {
            let rows = try await scan(account, limit: Self.pageRows)
            guard !rows.isEmpty else { return }
            _ = try await core.commit(EnginePartition.accountKeys, checks: [], writes: rows.map { .delete($0.key) })
        }
    }
    /// Slots deleted in one commit.
    private static let pageRows = 500

    private func scan(_ account: AccountID, limit: Int) async throws(SealedStoreError) -> [Row] {
        let prefix = RowKey(account.bytes)
        return try await core.scan(EnginePartition.accountKeys, from: prefix, upTo: prefix.prefixEnd, limit: limit)
    }

    /// Every account or scope that has a slot.
    func domains() async throws(SealedStoreError) -> [KeyDomain] {
        Self.domains(
            try await core.scan(EnginePartition.accountKeys, from: RowKey([]), upTo: nil, limit: .max))
    }

    /// The account's domain and those of its scopes.
    func domains(of account: AccountID) async throws(SealedStoreError) -> [KeyDomain] {
        Self.domains(try await scan(account, limit: .max))
    }

    private static func domains(_ rows: [Row]) -> [KeyDomain] {
        var domains: [KeyDomain] = []
        for row in rows {
            guard let domain = domain(of: row.key), domains.last != domain else { continue }
            domains.append(domain)
        }
        return domains
    }

    private static func domain(of key: RowKey) -> KeyDomain? {
        guard key.bytes.count > 16, let scope = String(validating: key.bytes.dropFirst(16).dropLast(), as: UTF8.self)
        else { return nil }
        return KeyDomain(AccountID(bytes: Array(key.bytes.prefix(16))), scope: scope.isEmpty ? nil : scope)
    }
}
