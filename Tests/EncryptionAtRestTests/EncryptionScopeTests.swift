import CofferCore
import StorageEngine
import TestSupport
import Testing

@testable import EncryptionAtRest

/// The keys of encryption scopes: one for each, apart from the account's and from each other's.
@Suite struct EncryptionScopeTests {
    private let partition = VolumePartition.container("c")

    private func withScopes() async throws -> Store {
        let store = try await Store.withAccount()
        for scope in ["one", "two"] { try await store.sealed.accountKeys.create(store.account, scope: scope) }
        return store
    }

    @Test func whatOneScopeSealedNoOtherKeyOpens() async throws {
        let store = try await withScopes()
        let one = try await store.volume.scopeKey("one")
        let sealed = try await store.volume.seal([7], of: [], at: [1], in: partition, under: one)
        let extent = try await store.write(store.randomness.bytes(40_000), under: one)
        let others = [try await store.volume.accountKey(), try await store.volume.scopeKey("two")]
        for other in others {
            #expect(
                await code { try await store.volume.open(sealed, at: [1], in: partition, under: other) }
                    == .keyMismatch)
            #expect(await code { try await store.read(extent, under: other) } == .keyMismatch)
        }
        let restarted = try Store(engine: store.engine, seed: 2)
        let again = try await restarted.volume.scopeKey("one")
        #expect(try await restarted.volume.open(sealed, at: [1], in: partition, under: again) == [7])
        #expect(one.scope == "one" && others[0].scope == nil)
    }

    /// The same secret under another scope's name, or as the account's, is another key.
    @Test func aDomainIsPartOfItsKey() async throws {
        let store = try await Store.withAccount()
        let secret = store.randomness.secret(32)
        let keys = [KeyDomain(store.account), .init(store.account, scope: "one"), .init(store.account, scope: "two")]
            .map { DataKey(secret, of: $0, lease: nil) }
        #expect(Set(keys.map(\.domainID)).count == 3 && Set(keys.map(\.commitment)).count == 3)
    }

    @Test func aScopeKeepsItsFirstKey() async throws {
        let store = try await withScopes()
        let first = try await store.volume.scopeKey("one").commitment
        try await store.sealed.accountKeys.create(store.account, scope: "one")
        let restarted = try Store(engine: store.engine, seed: 2)
        #expect(try await restarted.volume.scopeKey("one").commitment == first)
        #expect(await code { try await restarted.volume.scopeKey("three") } == .corrupt)
    }

    /// A record moved to another scope's slot does not open there.
    @Test func recordsAreBoundToTheirScope() async throws {
        let store = try await withScopes()
        func slot(_ scope: String) -> RowKey { AccountKeySlots.key(KeyDomain(store.account, scope: scope), .a) }
        let row = try #require(try await store.engine.get(EnginePartition.accountKeys, [slot("one")])[0])
        _ = try await store.engine.commit(
            EnginePartition.accountKeys, checks: [], writes: [.put(slot("two"), row.value)])
        let restarted = try Store(engine: store.engine, seed: 2)
        #expect(await code { try await restarted.volume.scopeKey("two") } == .corrupt)
        #expect(try await restarted.volume.scopeKey("one").scope == "one")
    }

    @Test func aWithdrawnKeyIsDeadAndItsSuccessorIsNot() async throws {
        let store = try await withScopes()
        let held = try await store.volume.scopeKey("one")
        let other = try await store.volume.scopeKey("two")
        store.sealed.accountKeys.withdraw(store.account, scope: "one")
        #expect(throws: KeyUnavailable.self) { try held.checkLease() }
        try other.checkLease()
        try await store.volume.accountKey().checkLease()
        let next = try await store.volume.scopeKey("one")
        try next.checkLease()
        #expect(next.commitment == held.commitment)
        #expect(throws: KeyUnavailable.self) { try held.checkLease() }
    }

    @Test func wrappingsAreApart() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let keys = store.sealed.accountKeys
        try await keys.create(store.account, scope: "one")
        try await keys.create(store.account, scope: "two")
        vault.addVersion("other")
        _ = try await keys.useCustomerKey(store.account, scope: "one", vault.reference("other"), as: identity)
        #expect(try await keys.status(store.account, scope: "two").source == .platform)
        #expect(try await keys.underCustomerKeys(store.account) == [nil, "one"])
        // Each goes dark with its own key.
        vault.disable("cmk", "1")
        await #expect(throws: KeyUnavailable.self) { _ = try await store.volume.accountKey() }
        _ = try await store.volume.scopeKey("one")
        vault.disable("other", "1")
        await #expect(throws: KeyUnavailable.self) { _ = try await store.volume.scopeKey("one") }
        _ = try await store.volume.scopeKey("two")
        let report = try await store.sealed.verify()
        #expect(report.isSound && report.encryptionScopesOpened == 1)
        #expect(report.unavailableAccounts.map(\.scope) == [nil, "one"])
        vault.enable("other", "1")
        vault.addVersion("other")
        await keys.settle()
        let followed = try await keys.status(store.account, scope: "one")
        guard case .customer(_, let current, _) = followed.source else {
            Issue.record("the scope left the vault")
            return
        }
        #expect(current == vault.identifier("other", "2"))
        _ = try await keys.usePlatformKey(store.account, scope: "one")
        #expect(try await keys.status(store.account, scope: "one").source == .platform)
    }

    @Test func verificationOpensWhatScopesSealed() async throws {
        let store = try await withScopes()
        let key = try await store.volume.scopeKey("one")
        let extent = try await store.write(store.randomness.bytes(40_000), under: key)
        let sealed = try await store.volume.seal([7], of: [], at: [1], in: partition, under: key)
        _ = try await store.volume.commit(
            partition, checks: [], writes: [.put([1], visible: [], sealed: sealed)], linking: [extent])
        let report = try await store.sealed.verify()
        #expect(report.isSound && report.encryptionScopesOpened == 2 && report.accountsOpened == 1)
        #expect(report.sealedPartsOpened == 1 && report.extentsOpened == 1)
        // A scope's key record that is gone is damage: its data can never be opened again.
        let slot = AccountKeySlots.key(KeyDomain(store.account, scope: "one"), .a)
        _ = try await store.engine.commit(EnginePartition.accountKeys, checks: [], writes: [.delete(slot)])
        let lost = try await store.sealed.verify()
        #expect(!lost.isSound && Set(lost.problems.map(\.kind)) == [.missingAccountKey])
    }

    @Test func scopesGoWithTheAccount() async throws {
        let store = try await withScopes()
        let key = try await store.volume.scopeKey("one")
        try await store.sealed.accountKeys.destroy(store.account)
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        #expect(await code { try await store.volume.scopeKey("one") } == .corrupt)
        let rows = try await store.engine.scan(
            EnginePartition.accountKeys, from: RowKey([]), upTo: nil, limit: .max)
        #expect(rows.isEmpty)
    }
}
