internal import CofferCore
internal import Crypto

/// HMAC-SHA256 over a string-to-sign, as every storage credential uses it (RFC 2104, FIPS 180-4).
enum Signatures {
    /// Whether `signature` (base64 of 32 bytes) is the code of `text` under one of `keys`. Compares in constant time; a
    /// wrong spelling is just wrong.
    static func verify(_ signature: some StringProtocol, of text: [UInt8], under keys: some Sequence<SymmetricKey>)
        -> Bool
    {
        guard let code = decoded(signature) else { return false }
        var found = false
        for key in keys {
            let expected = HMAC<SHA256>.authenticationCode(for: text, using: key)
            found = expected.withUnsafeBytes { constantTimeEquals($0, code) } || found
        }
        return found
    }

    /// base64 of the code.
    static func sign(_ text: String, with key: SymmetricKey) -> String {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key)).base64
    }

    /// Strict base64 (RFC 4648 §4) of exactly 32 bytes; nil otherwise. Written out: it runs for every request.
    static func decoded(_ text: some StringProtocol) -> [UInt8]? {
        var code: [UInt8] = []
        code.reserveCapacity(33)
        var word: UInt32 = 0
        var count = 0
        for character in text.utf8 {
            let digit: UInt32
            switch character {
            case 0x41...0x5a: digit = UInt32(character) - 0x41
            case 0x61...0x7a: digit = UInt32(character) - 0x61 + 26
            case 0x30...0x39: digit = UInt32(character) - 0x30 + 52
            case 0x2b: digit = 62
            case 0x2f: digit = 63
            case 0x3d where count == 43: digit = 0
            default: return nil
            }
            count += 1
            guard count <= 44, count < 44 || character == 0x3d else { return nil }
            word = word << 6 | digit
            if count.isMultiple(of: 4) {
                code.append(UInt8(truncatingIfNeeded: word >> 16))
                code.append(UInt8(truncatingIfNeeded: word >> 8))
                code.append(UInt8(truncatingIfNeeded: word))
                word = 0
            }
        }
        // 43 digits carry 258 bits: the last two must be zero, or two spellings would mean one signature.
        guard count == 44, code.popLast() == 0 else { return nil }
        return code
    }
}
