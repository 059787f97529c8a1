import CofferCore
import NIOCore
import StorageEngine
import Synchronization
import TestSupport

@testable import EncryptionAtRest

/// A store over the in-memory engine, with an account in it.
struct Store {
    let engine: InMemoryEngine
    let clock: FixedClock
    let randomness: SeededRandomness
    let sealed: SealedStore
    let account = AccountID(bytes: Array(0..<16))
    var volume: AccountVolume { sealed.volume(account: account) }

    init(
        engine: InMemoryEngine = InMemoryEngine(), metadata: (any MetadataStore)? = nil,
        extents: (any ExtentStore)? = nil,
        clock: FixedClock = FixedClock(), root: RootKey = rootKey(), seed: UInt64 = 1
    ) throws {
        self.engine = engine
        self.clock = clock
        randomness = SeededRandomness(seed)
        sealed = try SealedStore(
            metadata: metadata ?? engine, extents: extents ?? engine, rootKey: root, clock: clock,
            randomness: randomness)
    }

    static func withAccount() async throws -> Store {
        let store = try Store()
        try await store.sealed.accountKeys.create(store.account)
        return store
    }

    func write(_ plaintext: [UInt8], under key: DataKey, expected: Int?? = nil, piece: Int = 10_000) async throws
        -> ExtentReference
    {
        let sealer = try await volume.createExtent(under: key, expectedBytes: expected ?? plaintext.count)
        for start in stride(from: 0, to: plaintext.count, by: piece) {
            try await sealer.append(ByteBuffer(bytes: plaintext[start..<min(start + piece, plaintext.count)]))
        }
        return try await sealer.finish()
    }

    func read(_ reference: ExtentReference, _ range: Range<Int>? = nil, under key: DataKey) async throws -> [UInt8] {
        let received = Mutex<[UInt8]>([])
        try await volume.readExtent(reference, range: range ?? 0..<reference.plaintextBytes, under: key) { piece in
            received.withLock { $0.append(contentsOf: piece.readableBytesView) }
        }
        return received.withLock { $0 }
    }
}

func code(_ body: () async throws -> some Any) async -> SealedStoreError.Code? {
    do {
        _ = try await body()
        return nil
    } catch { return (error as? SealedStoreError)?.code }
}

let identity = Caller(kind: .managedIdentity, objectID: "11111111-1111-1111-1111-111111111111", tenantID: "t")

extension Store {
    /// An account under the newest version of `cmk` in a vault that lets `identity` in.
    static func withCustomerKey() async throws -> (Store, FakeVault) {
        let store = try await withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        vault.addVersion("cmk")
        vault.allow(identity)
        _ = try await store.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        await store.sealed.accountKeys.background.settle()
        return (store, vault)
    }
}
