import CofferCore
import NIOCore
import StorageEngine
import Synchronization

@testable import EncryptionAtRest

/// A clock that stands until it is moved.
final class FixedClock: WallClock {
    private let time: Atomic<Int64>
    init(unixSeconds: Int64 = 1_700_000_000) { time = Atomic(unixSeconds * 1_000_000) }
    func now() -> Timestamp { Timestamp(microseconds: time.load(ordering: .acquiring)) }
    func advance(seconds: Int64) { time.add(seconds * 1_000_000, ordering: .acquiringAndReleasing) }
}

/// SplitMix64: repeatable, and good enough to make every draw differ.
final class SeededRandomness: Randomness {
    private let state: Mutex<UInt64>
    init(_ seed: UInt64) { state = Mutex(seed) }
    func next() -> UInt64 {
        state.withLock { state in
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }
    func number(_ range: Range<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }
    func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        for i in buffer.indices { buffer[i] = UInt8(truncatingIfNeeded: next()) }
    }
}

func rootKey(_ byte: UInt8 = 7, version: UInt32 = 1) -> RootKey {
    RootKey(version: version, key: SecretBytes(copying: [UInt8](repeating: byte, count: 32)))
}

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
