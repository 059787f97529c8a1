internal import CPlatform
public import struct Foundation.UUID
internal import Glibc

/// The wall clock, as a parameter: nothing below the composition root reads the time by itself.
public protocol WallClock: Sendable {
    func now() -> Timestamp
}

/// The machine's clock (clock_gettime(2), CLOCK_REALTIME).
public struct SystemClock: WallClock {
    public init() {}
    public func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1_000)
    }
}

/// The source of keys, nonces and identifiers, as a parameter.
public protocol Randomness: Sendable {
    /// Fills the whole buffer with bytes no observer can predict.
    func fill(_ buffer: UnsafeMutableRawBufferPointer)
}

/// The kernel's generator (getrandom(2)).
public struct SystemRandomness: Randomness {
    public init() {}
    public func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        guard let memory = buffer.baseAddress else { return }
        let code = coffer_random(memory, buffer.count)
        // Keys made of anything else would be no keys.
        precondition(code == 0, "the kernel gives no random bytes: errno \(code)")
    }
}

extension Randomness {
    public func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            fill(UnsafeMutableRawBufferPointer(buffer))
            filled = count
        }
    }

    public func secret(_ count: Int) -> SecretBytes {
        SecretBytes(count: count) { fill($0) }
    }

    /// A version 4 UUID (RFC 9562 §5.4).
    public func uuid() -> UUID {
        var b = bytes(16)
        b[6] = b[6] & 0x0f | 0x40
        b[8] = b[8] & 0x3f | 0x80
        return UUID(
            uuid: (b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15])
        )
    }

    /// A version 4 UUID in lower case with hyphens, as Azure writes object and request identifiers.
    public func uuidString() -> String { uuid().uuidString.lowercased() }
}
