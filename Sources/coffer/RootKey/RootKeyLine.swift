import CofferCore
import EncryptionAtRest

/// What a root key file holds, one line: docs/format.md §2.1.
enum RootKeyLine {
    /// `coffer-root-key VERSION BASE64`: the key itself.
    case clear(RootKey)
    /// `coffer-root-key-pkcs11 VERSION BASE64`: the key as a token sealed it.
    case wrapped(WrappedRootKey)

    /// Longest file that is read, in bytes.
    static let bytesLimit = 4_096

    private static let clearLabel = Array("coffer-root-key".utf8)
    private static let wrappedLabel = Array("coffer-root-key-pkcs11".utf8)

    /// nil: it is no such line.
    init?(parsing text: SecretBytes) {
        let parsed: RootKeyLine? = text.withUnsafeBytes { text in
            // Whoever puts a copy back may lose the line's end, or gain one.
            let words = text.split { [0x20, 0x09, 0x0a, 0x0d].contains($0) }
            guard words.count == 3, let version = Self.version(words[1]), let bytes = SecretBytes(base64: words[2])
            else { return nil }
            if words[0].elementsEqual(Self.clearLabel) {
                return bytes.count == RootKey.bytes ? .clear(RootKey(version: version, key: bytes)) : nil
            }
            guard words[0].elementsEqual(Self.wrappedLabel) else { return nil }
            return WrappedRootKey(version: version, message: bytes.withUnsafeBytes { Array($0) }).map { .wrapped($0) }
        }
        guard let parsed else { return nil }
        self = parsed
    }

    /// As it is written.
    var text: SecretBytes {
        switch self {
        case .clear(let key): Self.text(Self.clearLabel, key.version, key.key)
        case .wrapped(let key): Self.text(Self.wrappedLabel, key.version, SecretBytes(copying: key.message))
        }
    }

    private static func text(_ label: [UInt8], _ version: UInt32, _ bytes: SecretBytes) -> SecretBytes {
        let head = label + [0x20] + Array(String(version).utf8) + [0x20]
        let digits = bytes.base64
        return digits.withUnsafeBytes { digits in
            SecretBytes(count: head.count + digits.count + 1) { line in
                line.copyBytes(from: head)
                UnsafeMutableRawBufferPointer(rebasing: line[head.count...]).copyBytes(from: digits)
                line[line.count - 1] = 0x0a
            }
        }
    }

    /// Decimal digits from 1 on, without a sign or leading zeros.
    private static func version(_ digits: Slice<UnsafeRawBufferPointer>) -> UInt32? {
        guard digits.first != 0x30, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt32(String(decoding: digits, as: UTF8.self))
    }
}

extension RootKey {
    static let bytes = 32
}

/// A root key sealed by a token: nonce | ciphertext | tag, by AES-256-GCM.
struct WrappedRootKey: Equatable {
    static let nonceBytes = 12
    static let messageBytes = nonceBytes + RootKey.bytes + 16

    let version: UInt32
    let message: [UInt8]

    /// nil when the message has another length.
    init?(version: UInt32, message: [UInt8]) {
        guard message.count == Self.messageBytes else { return nil }
        self.version = version
        self.message = message
    }

    /// `T("coffer/v1/root-key-pkcs11", version)`, written out: the key opens as this version of a root key only.
    static func additional(version: UInt32) -> [UInt8] {
        let label = Array("coffer/v1/root-key-pkcs11".utf8)
        var bytes: [UInt8] = []
        for field in [label, bigEndian(version)] { bytes += bigEndian(UInt32(field.count)) + field }
        return bytes
    }
    private static func bigEndian(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
}

/// RFC 4648 §4 from locked memory to locked memory: Foundation's would leave copies of the key on the heap.
extension SecretBytes {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let padding: UInt8 = 0x3d

    var base64: SecretBytes {
        withUnsafeBytes { bytes in
            SecretBytes(count: (bytes.count + 2) / 3 * 4) { text in
                for group in 0..<text.count / 4 {
                    let left = bytes[(group * 3)..<min(group * 3 + 3, bytes.count)]
                    let value = (0..<3).reduce(UInt32(0)) {
                        $0 << 8 | UInt32($1 < left.count ? left[left.startIndex + $1] : 0)
                    }
                    for place in 0..<4 {
                        text[group * 4 + place] =
                            place > left.count ? Self.padding : Self.digits[Int(value >> (18 - 6 * UInt32(place)) & 63)]
                    }
                }
            }
        }
    }

    /// Strict, and of one spelling; nil otherwise.
    convenience init?(base64 text: Slice<UnsafeRawBufferPointer>) {
        guard text.count.isMultiple(of: 4) else { return nil }
        let padded = text.suffix(2).count { $0 == Self.padding }
        let digits = text.dropLast(padded)
        guard digits.allSatisfy({ Self.value($0) != nil }) else { return nil }
        let count = text.count / 4 * 3 - padded
        // Bits behind the end would be a second spelling.
        let unused = digits.last.flatMap(Self.value).map { $0 & [0, 0b11, 0b1111][padded] } ?? 0
        guard unused == 0 else { return nil }
        self.init(count: count) { bytes in
            var value: UInt32 = 0
            var written = 0
            for (place, digit) in digits.enumerated() {
                value = value << 6 | UInt32(Self.value(digit) ?? 0)
                guard place % 4 > 0, written < count else { continue }
                bytes[written] = UInt8(truncatingIfNeeded: value >> [0, 4, 2, 0][place % 4])
                written += 1
            }
        }
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x41...0x5a: digit - 0x41
        case 0x61...0x7a: digit - 0x61 + 26
        case 0x30...0x39: digit - 0x30 + 52
        case 0x2b: 62
        case 0x2f: 63
        default: nil
        }
    }
}
