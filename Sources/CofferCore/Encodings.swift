extension Collection<UInt8> {
    /// Lower-case hexadecimal.
    @inlinable
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
    /// RFC 4648 §4, with padding.
    public var base64: String { Base64.standard.encoded(self, isPadded: true) }
    /// RFC 4648 §5, without padding.
    public var base64URL: String { Base64.url.encoded(self, isPadded: false) }
}

extension [UInt8] {
    /// Strict hexadecimal of either case; nil otherwise.
    public init?(hex text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        func value(_ c: UInt8) -> UInt8? {
            switch c {
            case 48...57: c - 48
            case 97...102: c - 87
            case 65...70: c - 55
            default: nil
            }
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 2)
        for i in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[i]), let low = value(digits[i + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        self = bytes
    }

    /// Strict RFC 4648 §4 (padding required, no other characters, no second spelling of the same bytes); nil otherwise.
    public init?(base64 text: some StringProtocol) {
        guard let bytes = Base64.standard.decoded(String(text), isPaddingRequired: true) else { return nil }
        self = bytes
    }

    /// RFC 4648 §5, padding optional; nil for any other character and for a second spelling of the same bytes.
    public init?(base64URL text: some StringProtocol) {
        guard let bytes = Base64.url.decoded(String(text), isPaddingRequired: false) else { return nil }
        self = bytes
    }
}

/// One of the alphabets of RFC 4648. Foundation's reader takes more than the RFC allows, and what it takes to have it
/// refuse that cost more than the rest of a small request.
private struct Base64: Sendable {
    static let standard = Base64("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    static let url = Base64("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    private static let pad: UInt8 = 0x3d

    private let digits: [UInt8]
    /// The value of each byte; 64 for one that is no digit.
    private let values: [UInt8]

    private init(_ alphabet: String) {
        digits = Array(alphabet.utf8)
        var values = [UInt8](repeating: 64, count: 256)
        for (value, digit) in digits.enumerated() { values[Int(digit)] = UInt8(value) }
        self.values = values
    }

    func encoded(_ bytes: some Collection<UInt8>, isPadded: Bool) -> String {
        bytes.withContiguousStorageIfAvailable { encoded($0, isPadded) }
            ?? Array(bytes).withUnsafeBufferPointer { encoded($0, isPadded) }
    }
    private func encoded(_ bytes: UnsafeBufferPointer<UInt8>, _ isPadded: Bool) -> String {
        let full = (bytes.count + 2) / 3 * 4
        return String(unsafeUninitializedCapacity: full) { text in
            var written = 0
            for start in stride(from: 0, to: bytes.count, by: 3) {
                let count = min(3, bytes.count - start)
                var bits = UInt32(bytes[start]) << 16
                if count > 1 { bits |= UInt32(bytes[start + 1]) << 8 }
                if count > 2 { bits |= UInt32(bytes[start + 2]) }
                for place in 0...count {
                    text[written] = digits[Int(bits >> UInt32(18 - 6 * place)) & 63]
                    written += 1
                }
            }
            guard isPadded else { return written }
            text[written..<full].update(repeating: Self.pad)
            return full
        }
    }

    func decoded(_ text: String, isPaddingRequired: Bool) -> [UInt8]? {
        var text = text
        return text.withUTF8 { decoded($0, isPaddingRequired) }
    }
    private func decoded(_ text: UnsafeBufferPointer<UInt8>, _ isPaddingRequired: Bool) -> [UInt8]? {
        var count = text.count
        if isPaddingRequired || text.last == Self.pad {
            guard count.isMultiple(of: 4) else { return nil }
            if text.last == Self.pad { count -= text[count - 2] == Self.pad ? 2 : 1 }
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count * 3 / 4)
        var bits: UInt32 = 0
        var heldBits = 0
        for character in text.prefix(count) {
            let value = values[Int(character)]
            guard value < 64 else { return nil }
            bits = bits << 6 | UInt32(value)
            heldBits += 6
            if heldBits >= 8 {
                heldBits -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(heldBits)))
            }
        }
        // Bits behind the last byte are zero, and fewer than a digit's.
        guard heldBits < 6, bits & (1 << UInt32(heldBits) - 1) == 0 else { return nil }
        return bytes
    }
}
