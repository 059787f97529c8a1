extension Collection<UInt8> {
    /// Lower-case hexadecimal.
    @inlinable
    public var hex: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
    /// RFC 4648 §4, with padding.
    public var base64: String { Base64(plus: 0x2b, slash: 0x2f, isPadded: true).encode(self) }
    /// RFC 4648 §5, without padding.
    public var base64URL: String { Base64(plus: 0x2d, slash: 0x5f, isPadded: false).encode(self) }
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

    /// Strict RFC 4648 §4 (padding required, no other characters); nil otherwise.
    public init?(base64 text: some StringProtocol) {
        guard let bytes = Base64(plus: 0x2b, slash: 0x2f, isPadded: true).decode(text) else { return nil }
        self = bytes
    }

    /// RFC 4648 §5, padding optional; nil for any other character.
    public init?(base64URL text: some StringProtocol) {
        guard let bytes = Base64(plus: 0x2d, slash: 0x5f, isPadded: false).decode(text) else { return nil }
        self = bytes
    }
}

/// One of the two alphabets of RFC 4648, which differ in their last two characters.
private struct Base64 {
    let plus: UInt8
    let slash: UInt8
    /// Whether padding is written and required.
    let isPadded: Bool

    func encode(_ bytes: some Collection<UInt8>) -> String {
        bytes.withContiguousStorageIfAvailable(encode) ?? Array(bytes).withUnsafeBufferPointer(encode)
    }

    private func encode(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
        let rest = bytes.count % 3
        let count = bytes.count / 3 * 4 + (rest == 0 ? 0 : isPadded ? 4 : rest + 1)
        return String(unsafeUninitializedCapacity: count) { text in
            var written = 0
            func write(_ value: UInt32, _ characters: Int) {
                for index in 0..<characters {
                    text.initializeElement(at: written, to: character(UInt8(value >> UInt32(18 - 6 * index) & 63)))
                    written += 1
                }
            }
            for start in stride(from: 0, to: bytes.count - rest, by: 3) {
                write(
                    UInt32(bytes[start]) << 16 | UInt32(bytes[start + 1]) << 8 | UInt32(bytes[start + 2]), 4)
            }
            if rest > 0 {
                let start = bytes.count - rest
                write(UInt32(bytes[start]) << 16 | (rest == 2 ? UInt32(bytes[start + 1]) << 8 : 0), rest + 1)
            }
            while written < count {
                text.initializeElement(at: written, to: 0x3d)
                written += 1
            }
            return count
        }
    }

    private func character(_ value: UInt8) -> UInt8 {
        switch value {
        case 0..<26: value + 0x41
        case 26..<52: value - 26 + 0x61
        case 52..<62: value - 52 + 0x30
        case 62: plus
        default: slash
        }
    }

    func decode(_ text: some StringProtocol) -> [UInt8]? {
        var text = String(text)
        return text.withUTF8(decode)
    }

    private func decode(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
        var count = text.count
        while count > 0, text.count - count < 2, text[count - 1] == 0x3d { count -= 1 }
        let rest = count % 4
        let isWhole = text.count % 4 == 0
        guard rest != 1, isPadded || count < text.count ? isWhole : true else { return nil }
        var isValid = true
        let bytes = [UInt8](unsafeUninitializedCapacity: count / 4 * 3 + max(0, rest - 1)) { bytes, filled in
            var bits: UInt32 = 0
            for index in 0..<count {
                guard let value = value(of: text[index]) else {
                    isValid = false
                    return
                }
                bits = bits << 6 | UInt32(value)
                // Every character but the first of four completes a byte.
                if index & 3 > 0 {
                    bytes.initializeElement(
                        at: filled, to: UInt8(truncatingIfNeeded: bits >> UInt32(6 - 2 * (index & 3))))
                    filled += 1
                }
            }
        }
        return isValid ? bytes : nil
    }

    private func value(of character: UInt8) -> UInt8? {
        switch character {
        case 0x41...0x5a: character - 0x41
        case 0x61...0x7a: character - 0x61 + 26
        case 0x30...0x39: character - 0x30 + 52
        case plus: 62
        case slash: 63
        default: nil
        }
    }
}
