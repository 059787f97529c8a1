import CofferCore
import NIOCore

/// What the connections of one event loop share. Everything in it is used on that loop only.
final class LoopState: @unchecked Sendable {
    // @unchecked: all members but the constants are read and written on `executor.loop`'s thread only.
    let executor: EventLoopTaskExecutor
    private let clock: any WallClock
    private var identifiers: RequestIdentifiers
    private var dateSecond = Int64.min
    private var date = ""
    private(set) var connections: [ObjectIdentifier: any Channel] = [:]
    /// Set by the handler of requests once a channel has one; until then a channel is closed at once on shutdown.
    private var requestHandlers: [ObjectIdentifier: Connection] = [:]
    private(set) var isDraining = false

    init(loop: any EventLoop, clock: any WallClock, randomness: any Randomness) {
        executor = EventLoopTaskExecutor(loop: loop)
        self.clock = clock
        identifiers = RequestIdentifiers(randomness: randomness)
    }

    func nextRequestID() -> String { identifiers.next() }

    /// The `Date` header's value, made once a second.
    func dateHeader() -> String {
        let now = clock.now()
        let second = now.unixSeconds
        if second != dateSecond {
            dateSecond = second
            date = now.rfc1123
        }
        return date
    }

    func add(_ channel: any Channel) { connections[ObjectIdentifier(channel)] = channel }
    func add(_ handler: Connection, of channel: any Channel) { requestHandlers[ObjectIdentifier(channel)] = handler }
    func remove(_ channel: any Channel) {
        connections[ObjectIdentifier(channel)] = nil
        requestHandlers[ObjectIdentifier(channel)] = nil
    }

    /// Closes what is idle and lets every running request finish.
    func drain() {
        isDraining = true
        for (id, channel) in connections {
            if let handler = requestHandlers[id] { handler.drain() } else { channel.close(promise: nil) }
        }
    }

    func closeAll() {
        for (id, channel) in connections {
            if let handler = requestHandlers[id] { handler.closeBelowTLS() } else { channel.close(promise: nil) }
        }
    }
}

/// Version 4 UUIDs (RFC 9562 §5.4) that name requests. They are unlikely to meet, not unguessable: xoshiro256**
/// (Blackman, Vigna) over a random seed, because a system call for each would cost more than the rest of a small
/// request's bookkeeping.
struct RequestIdentifiers {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    init(randomness: any Randomness) {
        let seed = randomness.bytes(32)
        func word(_ index: Int) -> UInt64 { seed[index * 8..<index * 8 + 8].reduce(0) { $0 << 8 | UInt64($1) } }
        // The generator's one bad state is all zero.
        state = (word(0), word(1), word(2), word(3) | 1)
    }

    private mutating func word() -> UInt64 {
        func rotated(_ value: UInt64, _ bits: UInt64) -> UInt64 { value << bits | value >> (64 - bits) }
        let result = rotated(state.1 &* 5, 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotated(state.3, 45)
        return result
    }

    mutating func next() -> String {
        let high = word() & 0xffff_ffff_ffff_0fff | 0x4000
        let low = word() & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000
        return String(unsafeUninitializedCapacity: 36) { buffer in
            var position = 0
            for index in 0..<32 {
                if index == 8 || index == 12 || index == 16 || index == 20 {
                    buffer[position] = 0x2d
                    position += 1
                }
                let source = index < 16 ? high : low
                let nibble = UInt8(truncatingIfNeeded: source >> UInt64(60 - 4 * (index & 15))) & 15
                buffer[position] = nibble < 10 ? 0x30 + nibble : 0x57 + nibble
                position += 1
            }
            return 36
        }
    }
}
