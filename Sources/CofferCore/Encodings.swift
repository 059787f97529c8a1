internal import Foundation

extension Collection<UInt8> {
    /// Lower-case hexadecimal.
    @inlinable
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
    /// RFC 4648 §4, with padding.
    public var base64: String { Data(self).base64EncodedString() }
    /// RFC 4648 §5, without padding.
    public var base64URL: String {
        String(
            decoding: base64.utf8.compactMap { $0 == 0x2b ? 0x2d : $0 == 0x2f ? 0x5f : $0 == 0x3d ? nil : $0 },
            as: UTF8.self)
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

    /// RFC 4648 §5, padding optional; nil for any other character.
    public init?(base64URL text: some StringProtocol) {
        guard !text.utf8.contains(where: { $0 == 0x2b || $0 == 0x2f }) else { return nil }
        var plain = String(decoding: text.utf8.map { $0 == 0x2d ? 0x2b : $0 == 0x5f ? 0x2f : $0 }, as: UTF8.self)
        if !plain.hasSuffix("=") { plain += String(repeating: "=", count: (4 - plain.utf8.count % 4) % 4) }
        self.init(base64: plain)
    }
}
