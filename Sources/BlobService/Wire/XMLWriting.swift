internal import CofferCore
internal import NIOCore

/// Writes an XML 1.0 document into memory; text is escaped, names are constants of ours.
struct XMLDocumentWriter {
    private var bytes: [UInt8]
    init() {
        bytes = Array("<?xml version=\"1.0\" encoding=\"utf-8\"?>".utf8)
    }

    mutating func open(_ name: StaticString, _ attributes: [(String, String)] = []) {
        bytes.append(0x3c)
        append(name)
        for (attribute, value) in attributes {
            bytes.append(0x20)
            bytes.append(contentsOf: attribute.utf8)
            bytes.append(contentsOf: [0x3d, 0x22])
            escape(value)
            bytes.append(0x22)
        }
        bytes.append(0x3e)
    }
    mutating func close(_ name: StaticString) {
        bytes.append(contentsOf: [0x3c, 0x2f])
        append(name)
        bytes.append(0x3e)
    }
    mutating func empty(_ name: StaticString, _ attributes: [(String, String)] = []) {
        open(name, attributes)
        bytes[bytes.count - 1] = 0x20
        bytes.append(contentsOf: [0x2f, 0x3e])
    }
    mutating func element(_ name: StaticString, _ text: String) {
        guard !text.isEmpty else { return empty(name) }
        open(name)
        escape(text)
        close(name)
    }
    mutating func element(_ name: StaticString, ifPresent text: String?) {
        if let text { element(name, text) }
    }
    /// An element whose name is data: a metadata name, checked to be an identifier when it was stored.
    mutating func element(named name: String, _ text: String) {
        bytes.append(0x3c)
        bytes.append(contentsOf: name.utf8)
        bytes.append(0x3e)
        escape(text)
        bytes.append(contentsOf: [0x3c, 0x2f])
        bytes.append(contentsOf: name.utf8)
        bytes.append(0x3e)
    }
    /// A blob's name: percent-encoded and marked `Encoded="true"` when it holds characters that XML 1.0 §2.2 does not
    /// allow ("List Blobs").
    mutating func name(_ element: StaticString, _ name: String) {
        guard name.unicodeScalars.contains(where: { !isXMLCharacter($0) }) else { return self.element(element, name) }
        open(element, [("Encoded", "true")])
        escape(percentEncoded(name, keeping: "-_.~/"))
        close(element)
    }

    func finish() -> ByteBuffer { ByteBuffer(bytes: bytes) }

    private mutating func append(_ name: StaticString) {
        name.withUTF8Buffer { bytes.append(contentsOf: $0) }
    }
    /// A list writes thousands of texts, of which next to none needs escaping: what needs none is copied in runs.
    private mutating func escape(_ text: String) {
        var text = text
        text.withUTF8 { utf8 in
            var written = 0
            for (index, byte) in utf8.enumerated() {
                guard let replacement = Self.replacement(of: byte) else { continue }
                bytes.append(contentsOf: utf8[written..<index])
                replacement.withUTF8Buffer { bytes.append(contentsOf: $0) }
                written = index + 1
            }
            bytes.append(contentsOf: utf8[written...])
        }
    }
    /// nil for a byte that stands for itself.
    private static func replacement(of byte: UInt8) -> StaticString? {
        guard byte < 0x40 else { return nil }
        return switch byte {
        case 0x26: "&amp;"
        case 0x3c: "&lt;"
        case 0x3e: "&gt;"
        case 0x22: "&quot;"
        // A parser turns a bare carriage return into a line feed (XML 1.0 §2.11).
        case 0x0d: "&#xD;"
        // Not allowed in XML at all; only text of our own making or of headers could hold one.
        case 0x00...0x08, 0x0b, 0x0c, 0x0e...0x1f: "?"
        default: nil
        }
    }
}

/// XML 1.0 §2.2, Char; a carriage return counts as not allowed in names because parsers rewrite it.
private func isXMLCharacter(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x9, 0xa, 0x20...0xd7ff, 0xe000...0xfffd, 0x10000...0x10ffff: true
    default: false
    }
}
