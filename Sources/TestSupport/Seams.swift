public import CofferCore
public import EncryptionAtRest
public import Logging
internal import Synchronization

/// A clock that stands until it is moved.
public final class FixedClock: WallClock {
    private let time: Atomic<Int64>
    public init(unixSeconds: Int64 = 1_700_000_000) { time = Atomic(unixSeconds * 1_000_000) }
    public convenience init(_ iso8601: String) { self.init(unixSeconds: Timestamp(iso8601: iso8601)!.unixSeconds) }
    public func now() -> Timestamp { Timestamp(microseconds: time.load(ordering: .acquiring)) }
    public func advance(seconds: Int64) { time.add(seconds * 1_000_000, ordering: .acquiringAndReleasing) }
}

/// SplitMix64: repeatable, and good enough to make every draw differ.
public final class SeededRandomness: Randomness {
    private let state: Mutex<UInt64>
    public init(_ seed: UInt64) { state = Mutex(seed) }

    public func next() -> UInt64 {
        state.withLock { state in
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }
    public func number(_ range: Range<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }
    /// 0 to `count` of the parts, one behind the other.
    public func text(_ parts: [String], upTo count: Int) -> String {
        (0..<number(0..<count + 1)).map { _ in pick(parts) }.joined()
    }
    public func pick<Element>(_ elements: [Element]) -> Element { elements[number(0..<elements.count)] }
    public func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        for i in buffer.indices { buffer[i] = UInt8(truncatingIfNeeded: next()) }
    }
}

/// The root key made of one byte.
public func rootKey(_ byte: UInt8 = 7, version: UInt32 = 1) -> RootKey {
    RootKey(version: version, key: SecretBytes(copying: [UInt8](repeating: byte, count: 32)))
}

public var silentLogger: Logger { Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }) }
