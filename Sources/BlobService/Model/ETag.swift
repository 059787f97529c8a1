internal import CofferCore

/// An entity tag as Azure writes it, `"0x8D…"`: ticks of 100 ns since the year 1, and never the same twice for one
/// resource.
struct ETag: Sendable, Hashable, Codable {
    let number: UInt64
    init(number: UInt64) { self.number = number }

    /// The tag of a write at `now` that replaces `previous`: greater than it even when the clock stood still or went
    /// back.
    init(at now: Timestamp, after previous: ETag?) {
        let ticks = UInt64(bitPattern: now.microseconds &* 10 &+ 621_355_968_000_000_000)
        number = max(ticks, (previous?.number ?? 0) &+ 1)
    }
    /// Quoted, for headers.
    var quoted: String { "\"\(text)\"" }
    /// Unquoted, for lists.
    var text: String { "0x" + String(number, radix: 16, uppercase: true) }
}
