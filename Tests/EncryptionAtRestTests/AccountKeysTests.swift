import CofferCore
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct AccountKeysTests {
    let partition = VolumePartition.container("c")

    @Test func theKeyStaysTheSameWhateverWrapsIt() async throws {
        let store = try await Store.withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        let keys = store.sealed.accountKeys
        vault.addVersion("cmk")
        vault.allow(identity)
        let sealed = try await store.volume.seal(
            [1, 2, 3], of: [], at: [9], in: partition, under: await store.volume.accountKey())
        #expect(try await keys.status(store.account).source == .platform)

        let status = try await keys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        #expect(
            status.source
                == .customer(
                    vault.reference("cmk"), currentVersionedKeyIdentifier: vault.identifier("cmk", "1"),
                    lastRotation: store.clock.now()))
        for _ in 0..<2 {
            // A second store over the same engine has nothing in memory.
            let fresh = try Store(engine: store.engine, seed: 5)
            fresh.sealed.accountKeys.attach(vault)
            let key = try await fresh.volume.accountKey()
            #expect(try await fresh.volume.open(sealed, at: [9], in: partition, under: key) == [1, 2, 3])
            _ = try await keys.usePlatformKey(store.account)
        }
        #expect(try await keys.status(store.account).source == .platform)
        vault.refuse(identity)
        let alone = try Store(engine: store.engine, seed: 6)
        #expect(
            try await alone.volume.open(sealed, at: [9], in: partition, under: await alone.volume.accountKey()) == [
                1, 2, 3,
            ])
    }

    @Test func aChangeOfWrappingWritesTwoRowsWhateverTheData() async throws {
        let store = try await Store.withAccount()
        let faulty = FaultyEngine(store.engine)
        let counting = try Store(engine: store.engine, metadata: faulty, seed: 3)
        let vault = FakeVault()
        counting.sealed.accountKeys.attach(vault)
        vault.addVersion("cmk")
        vault.allow(identity)
        _ = try await counting.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        #expect(faulty.commits == 2)
        // Asked again for what already holds, it writes nothing.
        _ = try await counting.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        #expect(faulty.commits == 2)
    }

    @Test func aRefusedWrappingChangesNothing() async throws {
        let store = try await Store.withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        vault.addVersion("cmk")
        let before = try await store.engine.scan(EnginePartition.accountKeys, from: RowKey([]), upTo: nil, limit: 10)
        await #expect(throws: KeyUnavailable.self) {
            try await store.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        }
        vault.allow(identity)
        let error = await #expect(throws: KeyUnavailable.self) {
            try await store.sealed.accountKeys.useCustomerKey(store.account, vault.reference("other"), as: identity)
        }
        #expect(error?.code == .keyNotFound)
        let after = try await store.engine.scan(EnginePartition.accountKeys, from: RowKey([]), upTo: nil, limit: 10)
        #expect(after == before)
    }

    /// Each commit of a change fails once before and once after it took effect: the account opens afterwards, under the
    /// old or the new wrapping, and the change can be made again.
    @Test(arguments: [0, 1], [FaultyEngine.Fault.before, .after])
    func aCrashAtAnyStepLeavesTheAccountOpen(commit: Int, fault: FaultyEngine.Fault) async throws {
        for toCustomer in [true, false] {
            let (store, vault) = try await Store.withCustomerKey()
            if toCustomer { _ = try await store.sealed.accountKeys.usePlatformKey(store.account) }
            let sealed = try await store.volume.seal(
                [7], of: [], at: [1], in: partition, under: await store.volume.accountKey())

            let faulty = FaultyEngine(store.engine)
            let crashing = try Store(engine: store.engine, metadata: faulty, clock: store.clock, seed: 4)
            crashing.sealed.accountKeys.attach(vault)
            faulty.fail(at: commit, fault)
            let change = { (keys: AccountKeys) async throws -> AccountKeyStatus in
                toCustomer
                    ? try await keys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
                    : try await keys.usePlatformKey(store.account)
            }
            await #expect(throws: SealedStoreError.self) { try await change(crashing.sealed.accountKeys) }

            let restarted = try Store(engine: store.engine, clock: store.clock, seed: 5)
            restarted.sealed.accountKeys.attach(vault)
            let key = try await restarted.volume.accountKey()
            #expect(try await restarted.volume.open(sealed, at: [1], in: partition, under: key) == [7])
            let happened = commit == 1 && fault == .after
            let isPlatform = try await restarted.sealed.accountKeys.status(store.account).source == .platform
            #expect(isPlatform == (happened != toCustomer))
            let status = try await change(restarted.sealed.accountKeys)
            #expect((status.source == .platform) != toCustomer)
            let report = try await restarted.sealed.verify()
            #expect(report.isSound && report.accountsOpened == 1)
        }
    }

    @Test func anUnversionedReferenceFollowsRotation() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        store.clock.advance(seconds: 10)
        vault.addVersion("cmk")
        await store.sealed.accountKeys.background.settle()
        let expected = AccountKeyStatus(
            source: .customer(
                vault.reference("cmk"), currentVersionedKeyIdentifier: vault.identifier("cmk", "2"),
                lastRotation: store.clock.now()))
        #expect(try await store.sealed.accountKeys.status(store.account) == expected)
        // The old version may go now.
        vault.disable("cmk", "1")
        _ = try await store.volume.accountKey()
        #expect(try await store.sealed.accountKeys.followRotation(store.account) == expected)
    }

    /// Wherever between the look for a rotation and its commit the owner chooses anew, that is what stands.
    @Test(arguments: 0..<3) func followingARotationLeavesTheOwnersChoice(choice: Int) async throws {
        for step in 0..<20 {
            let (store, vault) = try await Store.withCustomerKey()
            let faulty = FaultyEngine(store.engine)
            let interrupted = try Store(engine: store.engine, metadata: faulty, clock: store.clock, seed: 5)
            let keys = interrupted.sealed.accountKeys
            keys.attach(vault)
            vault.addVersion("other", announcing: false)
            vault.addVersion("cmk", announcing: false)
            let calls = Counter()
            faulty.interrupt(where: { _ in calls.next() == step }) { _ in
                do {
                    switch choice {
                    case 0: _ = try await keys.useCustomerKey(store.account, vault.reference("other"), as: identity)
                    case 1:
                        _ = try await keys.useCustomerKey(
                            store.account, vault.reference("cmk", version: "1"), as: identity)
                    default: _ = try await keys.usePlatformKey(store.account)
                    }
                } catch { Issue.record(error) }
            }
            _ = try await keys.followRotation(store.account)
            await keys.background.settle()
            guard calls.count > step else {
                #expect(step >= 3)
                return
            }
            let source = try await keys.status(store.account, looksForRotation: false).source
            guard case .customer(let reference, let version, _) = source else {
                #expect(choice == 2, "\(step)")
                continue
            }
            #expect(choice == (reference.keyName == "other" ? 0 : 1), "\(step)")
            #expect(version == (choice == 0 ? vault.identifier("other", "1") : vault.identifier("cmk", "1")), "\(step)")
        }
        Issue.record("It does not end.")
    }

    @Test func statusLooksForARotationNobodyAnnounced() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        vault.addVersion("cmk", announcing: false)
        store.clock.advance(seconds: 60)
        _ = try await store.sealed.accountKeys.status(store.account)
        await store.sealed.accountKeys.background.settle()
        guard case .customer(_, let version, _) = try await store.sealed.accountKeys.status(store.account).source else {
            throw Failure.unexpected
        }
        #expect(version == vault.identifier("cmk", "2"))
    }

    @Test func aTimerFindsARotationNobodyAnnounced() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        vault.addVersion("cmk", announcing: false)
        await store.sealed.accountKeys.followRotations()
        guard case .customer(_, let version, _) = try await store.sealed.accountKeys.status(store.account).source else {
            throw Failure.unexpected
        }
        #expect(version == vault.identifier("cmk", "2"))
    }

    @Test func aVersionedReferenceStays() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let keys = store.sealed.accountKeys
        _ = try await keys.useCustomerKey(store.account, vault.reference("cmk", version: "1"), as: identity)
        vault.addVersion("cmk")
        await keys.background.settle()
        guard case .customer(_, let version, _) = try await keys.followRotation(store.account).source else {
            throw Failure.unexpected
        }
        #expect(version == vault.identifier("cmk", "1"))
    }

    @Test func destroyedMeansGone() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        try await store.sealed.accountKeys.destroy(store.account)
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        #expect(await code { try await store.volume.accountKey() } == .corrupt)
        #expect(try await store.engine.partitions(after: nil, limit: 10).isEmpty)
    }

    @Test func aSecondCreationKeepsTheFirstKey() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let sealed = try await store.volume.seal([7], of: [], at: [1], in: partition, under: key)
        try await store.sealed.accountKeys.create(store.account)
        let fresh = try Store(engine: store.engine, seed: 2)
        #expect(
            try await fresh.volume.open(sealed, at: [1], in: partition, under: await fresh.volume.accountKey()) == [7])
    }

    @Test func aRecordUnderAnotherAccountOrRootDoesNotOpen() async throws {
        let store = try await Store.withAccount()
        let other = AccountID(bytes: Array(16..<32))
        let row = try await store.engine.get(
            EnginePartition.accountKeys, [AccountKeySlots.key(KeyDomain(store.account), .a)])[0]!
        _ = try await store.engine.commit(
            EnginePartition.accountKeys, checks: [],
            writes: [.put(AccountKeySlots.key(KeyDomain(other), .a), row.value)])
        #expect(await code { try await store.sealed.volume(account: other).accountKey() } == .corrupt)
        let foreign = try Store(engine: store.engine, root: rootKey(9))
        #expect(await code { try await foreign.volume.accountKey() } == .corrupt)
    }

    @Test func recordsAreDecodedStrictly() throws {
        let randomness = SeededRandomness(11)
        let wrappings: [AccountKeyRecord.Wrapping] = [
            .platform(randomness.bytes(72)),
            .customer(
                CustomerKeyReference(vaultURI: "https://v.x/", keyName: "k", keyVersion: nil), identity: identity,
                wrapped: CustomerWrappedKey(keyIdentifier: "https://v.x/keys/k/1", ciphertext: randomness.bytes(256))),
            .customer(
                CustomerKeyReference(vaultURI: "", keyName: "ü", keyVersion: "1"),
                identity: Caller(kind: .user, objectID: "o", tenantID: "t", applicationID: "a"),
                wrapped: CustomerWrappedKey(keyIdentifier: "", ciphertext: [])),
        ]
        for wrapping in wrappings {
            let record = AccountKeyRecord(
                state: .prepared, generation: 7, commitment: randomness.bytes(32),
                wrappedAt: Timestamp(microseconds: -3),
                wrapping: wrapping)
            #expect(AccountKeyRecord(record.encoded) == record)
            #expect(AccountKeyRecord(record.encoded + [0]) == nil)
            for count in 0..<record.encoded.count {
                #expect(AccountKeyRecord(Array(record.encoded.prefix(count))) == nil)
            }
            for _ in 0..<2_000 {
                var bytes = record.encoded
                for _ in 0..<randomness.number(1..<4) {
                    bytes[randomness.number(0..<bytes.count)] = UInt8(randomness.number(0..<256))
                }
                if let decoded = AccountKeyRecord(bytes) { #expect(decoded.encoded == bytes) }
            }
        }
    }
}

private final class Counter: Sendable {
    private let value = Mutex(0)
    var count: Int { value.withLock { $0 } }
    /// The number of calls before this one.
    func next() -> Int {
        value.withLock { value in
            value += 1
            return value - 1
        }
    }
}
