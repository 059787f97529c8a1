/// A set of the letters `a` to `z`, as the SAS parameters `sp`, `ss` and `srt` write them.
public struct LetterSet: Sendable, Hashable, ExpressibleByStringLiteral {
    @usableFromInline let bits: UInt32

    /// nil when `text` holds anything but `known` letters, or one of them twice.
    init?(_ text: String, of known: LetterSet) {
        var bits: UInt32 = 0
        for byte in text.utf8 {
            guard (0x61...0x7a).contains(byte) else { return nil }
            let bit: UInt32 = 1 << UInt32(byte - 0x61)
            guard bits & bit == 0, known.bits & bit != 0 else { return nil }
            bits |= bit
        }
        self.bits = bits
    }

    /// For literals in the program: lower-case letters only.
    public init(stringLiteral text: String) {
        var bits: UInt32 = 0
        for byte in text.utf8 {
            precondition((0x61...0x7a).contains(byte), "a letter set holds lower-case letters")
            bits |= 1 << UInt32(byte - 0x61)
        }
        self.bits = bits
    }

    @inlinable public var isEmpty: Bool { bits == 0 }
    /// Whether all of `other` are among these.
    @inlinable public func contains(_ other: LetterSet) -> Bool { bits & other.bits == other.bits }
    @inlinable public func isDisjoint(with other: LetterSet) -> Bool { bits & other.bits == 0 }
}
