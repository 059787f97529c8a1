/// Writes a `JSONValue`: members in the order of their names, no white space, slashes as they are.
struct JSONWriter {
    private(set) var bytes: [UInt8] = []

    /// nil when a number is not finite, which JSON cannot say (RFC 8259 §6).
    static func write(_ value: JSONValue) -> [UInt8]? {
        var writer = JSONWriter()
        writer.bytes.reserveCapacity(256)
        return writer.append(value) ? writer.bytes : nil
    }

    private mutating func append(_ value: JSONValue) -> Bool {
        switch value {
        case .null: bytes.append(contentsOf: "null".utf8)
        case .bool(let value): bytes.append(contentsOf: (value ? "true" : "false").utf8)
        case .integer(let value): bytes.append(contentsOf: String(value).utf8)
        case .number(let value):
            guard value.isFinite else { return false }
            let text = value.description
            bytes.append(contentsOf: (text.hasSuffix(".0") ? text.dropLast(2) : text[...]).utf8)
        case .string(let text): append(text)
        case .array(let elements):
            bytes.append(0x5b)
            for (index, element) in elements.enumerated() {
                if index > 0 { bytes.append(0x2c) }
                guard append(element) else { return false }
            }
            bytes.append(0x5d)
        case .object(let members):
            bytes.append(0x7b)
            for (index, member) in members.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { bytes.append(0x2c) }
                append(member.key)
                bytes.append(0x3a)
                guard append(member.value) else { return false }
            }
            bytes.append(0x7d)
        }
        return true
    }

    private mutating func append(_ text: String) {
        bytes.append(0x22)
        var text = text
        text.withUTF8 { utf8 in
            var start = 0
            for index in 0..<utf8.count where utf8[index] < 0x20 || utf8[index] == 0x22 || utf8[index] == 0x5c {
                bytes.append(contentsOf: utf8[start..<index])
                appendEscape(utf8[index])
                start = index + 1
            }
            bytes.append(contentsOf: utf8[start...])
        }
        bytes.append(0x22)
    }

    private mutating func appendEscape(_ byte: UInt8) {
        bytes.append(0x5c)
        switch byte {
        case 0x22, 0x5c: bytes.append(byte)
        case 0x08: bytes.append(0x62)
        case 0x0c: bytes.append(0x66)
        case 0x0a: bytes.append(0x6e)
        case 0x0d: bytes.append(0x72)
        case 0x09: bytes.append(0x74)
        default:
            let digits = Array("0123456789abcdef".utf8)
            bytes.append(contentsOf: [0x75, 0x30, 0x30, digits[Int(byte >> 4)], digits[Int(byte & 15)]])
        }
    }
}
