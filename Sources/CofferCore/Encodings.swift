internal import Foundation

extension Collection<UInt8> {
    /// Lower-case hexadecimal.
    @inlinable
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
    /// RFC 4648 §4, with padding.
    public var base64: String {
        // The type at hand: through the protocol each byte would cost a call or two.
        (withContiguousStorageIfAvailable { Data($0) } ?? Data(self)).base64EncodedString()
    }
    /// RFC 4648 §5, without padding.
    public var base64URL: String {
        var plain = base64
        return plain.withUTF8 { plain in
            String(unsafeUninitializedCapacity: plain.count) { output in
                let digits = plain.prefix { $0 != 0x3d }
                for (index, digit) in digits.enumerated() {
                    output[index] = digit == 0x2b ? 0x2d : digit == 0x2f ? 0x5f : digit
                }
                return digits.count
            }
        }
    }
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
        // Foundation also reads `AA=A`, `====` and bits behind the end.
        let text = String(text)
        guard let data = Data(base64Encoded: text), data.base64EncodedString() == text else { return nil }
        self.init(data)
    }

    /// RFC 4648 §5, padding optional; nil for any other character and for a second spelling of the same bytes.
    public init?(base64URL text: some StringProtocol) {
        var given = String(text)
        guard let plain = given.withUTF8(Self.plainBase64) else { return nil }
        self.init(base64: plain)
    }

    /// The same text in the alphabet of §4, padded; nil for a digit that is of that alphabet alone, and for what is not
    /// ASCII.
    private static func plainBase64(_ text: UnsafeBufferPointer<UInt8>) -> String? {
        guard !text.contains(where: { $0 == 0x2b || $0 == 0x2f }), text.allSatisfy({ $0 < 0x80 }) else { return nil }
        return String(unsafeUninitializedCapacity: text.count + 3) { output in
            for (index, digit) in text.enumerated() {
                output[index] = digit == 0x2d ? 0x2b : digit == 0x5f ? 0x2f : digit
            }
            guard text.last != 0x3d else { return text.count }
            let padded = (text.count + 3) / 4 * 4
            output[text.count..<padded].update(repeating: 0x3d)
            return padded
        }
    }
}

extension StringProtocol {
    /// The parts between bytes of ASCII, empty ones left out.
    ///
    /// A `Character` is more than that: a slash with a combining accent is another one than a slash, but not to the
    /// kernel, nor to any other program that will read the text.
    public func parts(at separator: UInt8) -> [String] {
        utf8.split(separator: separator).map { String(decoding: $0, as: UTF8.self) }
    }
}
