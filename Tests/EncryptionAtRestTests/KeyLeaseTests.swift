import CofferCore
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct KeyLeaseTests {
    @Test func aRefusalEndsTheLeaseBeforeTheAnnouncementReturns() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        try key.checkLease()
        vault.refuse(identity)
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        let error = await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(error?.code == .accessDenied && error?.isDenial == true)
        await #expect(throws: KeyUnavailable.self) {
            try await store.volume.seal([1], of: [], at: [1], in: .account, under: key)
        }
        vault.allow(identity)
        try await store.volume.accountKey().checkLease()
        // The old key stays dead: who held it asks anew.
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
    }

    @Test func disablingAVersionCutsOffAndEnablingItRestores() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        _ = try await store.volume.accountKey()
        vault.disable("cmk", "1")
        let error = await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(error?.code == .keyNotFound)
        vault.enable("cmk", "1")
        _ = try await store.volume.accountKey()
    }

    @Test func anAnnouncementThatChangesNothingOnlySuspends() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        for name in [nil, "VAULT1"] as [String?] {
            vault.announce(.some(name))
            try await key.confirmLease()
            try key.checkLease()
        }
        #expect(try await store.volume.accountKey() === key)
        let unwraps = vault.unwraps
        vault.announce("another")
        try key.checkLease()
        await store.sealed.accountKeys.background.settle()
        #expect(vault.unwraps == unwraps)
    }

    @Test func workUnderWayOutlivesAnnouncementsThatChangeNothing() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        vault.announce()
        let sealed = try await store.volume.seal([1], of: [], at: [1], in: .account, under: key)
        vault.announce()
        #expect(try await store.volume.open(sealed, at: [1], in: .account, under: key) == [1])
        vault.announce()
        let reference = try await store.volume.sealInline(ByteBuffer(bytes: [2]), under: key)
        vault.announce()
        #expect(try await store.volume.openInline(reference, range: 0..<1, under: key) == ByteBuffer(bytes: [2]))
        vault.announce()
        let sealer = try await store.volume.createExtent(under: key, expectedBytes: nil)
        await sealer.abort()
    }

    @Test func anAnnouncementDuringAConfirmationAsksOnceMore() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        vault.holdAnswers()
        vault.announce()
        let confirming = Task { try await key.confirmLease() }
        while vault.heldAnswers == 0 { await Task.yield() }
        let asked = vault.unwraps
        vault.announce()
        vault.letGo()
        try await confirming.value
        #expect(vault.unwraps > asked)
        try await key.confirmLease()
    }

    @Test func anAnswerFromBeforeTheAnnouncementIsNotBelieved() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let fresh = try Store(engine: store.engine, seed: 2)
        fresh.sealed.accountKeys.attach(vault)
        vault.holdAnswers()
        let waiting = Task { try await fresh.volume.accountKey() }
        while vault.heldAnswers == 0 { await Task.yield() }
        vault.refuse(identity)
        vault.letGo()
        await #expect(throws: KeyUnavailable.self) { try await waiting.value }
    }

    @Test func oneUnwrapServesAllWhoWait() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let fresh = try Store(engine: store.engine, seed: 2)
        fresh.sealed.accountKeys.attach(vault)
        let before = vault.unwraps
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<50 { group.addTask { _ = try await fresh.volume.accountKey() } }
            try await group.waitForAll()
        }
        #expect(vault.unwraps == before + 1)
    }

    @Test func aLeaseIsConfirmedWithinAMinute() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        // A change nobody announced, as with a remote vault.
        vault.set(.denied)
        store.clock.advance(seconds: 29)
        _ = try await store.volume.accountKey()
        store.clock.advance(seconds: 31)
        await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
    }

    @Test func aTimeOutIsForgivenForAWhile() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        vault.set(.timeOut)
        for _ in 0..<9 {
            store.clock.advance(seconds: 61)
            #expect(try await store.volume.accountKey() === key)
            try key.checkLease()
        }
        store.clock.advance(seconds: 61)
        let error = await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(error?.isDenial == false)
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        vault.set(.none)
        _ = try await store.volume.accountKey()
        try key.checkLease()
    }

    @Test func aTimeOutAfterAnAnnouncementIsNot() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        vault.set(.timeOut)
        vault.announce()
        await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
    }

    @Test func aDenialIsRepeatedForASecondOnly() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        vault.set(.denied)
        vault.announce()
        await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        await store.sealed.accountKeys.background.settle()
        let asked = vault.unwraps
        await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        #expect(vault.unwraps == asked)
        vault.set(.none)
        store.clock.advance(seconds: 1)
        _ = try await store.volume.accountKey()
    }

    @Test func aPlatformKeyNeverExpires() async throws {
        let store = try await Store.withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        let key = try await store.volume.accountKey()
        vault.announce(.some(nil))
        store.clock.advance(seconds: 1_000_000)
        try key.checkLease()
        #expect(try await store.volume.accountKey() === key)
    }

    @Test func aKeyTakenUnderThePlatformAnswersToTheVaultFromTheSwitchOn() async throws {
        let store = try await Store.withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        vault.addVersion("cmk")
        vault.allow(identity)
        let key = try await store.volume.accountKey()
        _ = try await store.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        try await key.confirmLease()
        vault.refuse(identity)
        await #expect(throws: KeyUnavailable.self) { try await key.confirmLease() }
    }

    @Test func aRunningDownloadAndUploadStopInTheMiddle() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        let reference = try await store.write(store.randomness.bytes(5 << 20), under: key)
        let pieces = Mutex(0)
        let error = await #expect(throws: KeyUnavailable.self) {
            try await store.volume.readExtent(reference, range: 0..<5 << 20, under: key) { _ in
                let count = pieces.withLock { count in
                    count += 1
                    return count
                }
                if count == 2 { vault.refuse(identity) }
            }
        }
        #expect(error?.isDenial == true)
        #expect(pieces.withLock { $0 } == 2)

        vault.allow(identity)
        let again = try await store.volume.accountKey()
        let sealer = try await store.volume.createExtent(under: again, expectedBytes: nil)
        try await sealer.append(ByteBuffer(bytes: store.randomness.bytes(100_000)))
        vault.refuse(identity)
        await #expect(throws: KeyUnavailable.self) {
            try await sealer.append(ByteBuffer(bytes: store.randomness.bytes(100_000)))
        }
        await #expect(throws: KeyUnavailable.self) { _ = try await sealer.finish() }
    }

    @Test func aDownloadOutlivesAnAnnouncementThatDoesNotConcernIt() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        let plaintext = store.randomness.bytes(3 << 20)
        let reference = try await store.write(plaintext, under: key)
        let received = Mutex<[UInt8]>([])
        try await store.volume.readExtent(reference, range: 0..<3 << 20, under: key) { piece in
            received.withLock { $0.append(contentsOf: piece.readableBytesView) }
            vault.announce(.some(nil))
        }
        #expect(received.withLock { $0 } == plaintext)
    }

    /// An account's key in memory that the test does not hold.
    private struct LoadedKey {
        weak var secret: SecretBytes?
        init(of store: Store) async throws { secret = try await store.volume.accountKey().secret }
    }
    private func expectWipedAfterTheGrace(_ key: LoadedKey, in store: Store) async throws {
        _ = try await store.sealed.sweep()
        #expect(key.secret != nil)
        store.clock.advance(seconds: 600)
        _ = try await store.sealed.sweep()
        // Wiped by `deinit`, which has run once nothing refers to it: a task that has ended may for a moment yet.
        for _ in 0..<10_000 where key.secret != nil {
            await Task.yield()
            _ = try await store.sealed.sweep()
        }
        #expect(key.secret == nil)
    }

    @Test func anIdleAccountsKeyIsWiped() async throws {
        let (store, _) = try await Store.withCustomerKey()
        try await expectWipedAfterTheGrace(try await LoadedKey(of: store), in: store)
        _ = try await store.volume.accountKey()
    }

    /// The vault announced a change, and did not answer when it was asked.
    @Test func aSuspendedKeyNobodyAsksForIsWiped() async throws {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await LoadedKey(of: store)
        vault.set(.timeOut)
        vault.announce()
        await #expect(throws: KeyUnavailable.self) { try await store.volume.accountKey() }
        try await expectWipedAfterTheGrace(key, in: store)
    }

    /// A download that stood still for ten minutes asks the vault, and goes on.
    @Test func aKeyInUseOutlivesTheGrace() async throws {
        let (store, _) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        store.clock.advance(seconds: 600)
        _ = try await store.sealed.sweep()
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        try await key.confirmLease()
        try key.checkLease()
        #expect(try await store.volume.accountKey() === key)
    }

    @Test func keysArePrintedAsNothing() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        var dumped = ""
        dump(key, to: &dumped)
        #expect("\(key)" == "<redacted>" && !dumped.contains("secret"))
    }
}
