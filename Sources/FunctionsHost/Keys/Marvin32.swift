/// The Marvin32 checksum (microsoft/security-utilities, "Marvin"), which marks identifiable secrets. Not a
/// cryptographic function.
enum Marvin32 {
    /// Both halves of the state: the high one in the upper 32 bits.
    static func hash64(_ data: some Sequence<UInt8>, seed: UInt64) -> UInt64 {
        var p0 = UInt32(truncatingIfNeeded: seed)
        var p1 = UInt32(truncatingIfNeeded: seed >> 32)
        var tail: [UInt8] = []
        tail.reserveCapacity(4)
        for byte in data {
            tail.append(byte)
            guard tail.count == 4 else { continue }
            p0 &+= UInt32(tail[0]) | UInt32(tail[1]) << 8 | UInt32(tail[2]) << 16 | UInt32(tail[3]) << 24
            mix(&p0, &p1)
            tail.removeAll(keepingCapacity: true)
        }
        // The rest is closed by a byte 0x80 after it.
        var last: UInt32 = 0x80
        for byte in tail.reversed() { last = last << 8 | UInt32(byte) }
        p0 &+= last
        mix(&p0, &p1)
        mix(&p0, &p1)
        return UInt64(p1) << 32 | UInt64(p0)
    }

    static func checksum32(_ data: some Sequence<UInt8>, seed: UInt64) -> UInt32 {
        let hash = hash64(data, seed: seed)
        return UInt32(truncatingIfNeeded: hash) ^ UInt32(truncatingIfNeeded: hash >> 32)
    }

    private static func mix(_ p0: inout UInt32, _ p1: inout UInt32) {
        p1 ^= p0
        p0 = rotated(p0, 20)
        p0 &+= p1
        p1 = rotated(p1, 9)
        p1 ^= p0
        p0 = rotated(p0, 27)
        p0 &+= p1
        p1 = rotated(p1, 19)
    }
    private static func rotated(_ value: UInt32, _ bits: UInt32) -> UInt32 { value << bits | value >> (32 - bits) }
}
