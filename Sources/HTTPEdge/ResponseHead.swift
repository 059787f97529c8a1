import NIOCore
import NIOHTTP1

/// How a response's end is told (RFC 9112 §6.3).
enum Framing: Equatable {
    /// No body and no length: 204, 304.
    case none
    case length(Int)
    case chunked
    /// An HTTP/1.0 client, and a length nobody knows: the end of the connection is the end of the body.
    case untilClose
}

/// The status line and header fields of one response, as bytes.
struct ResponseHead {
    enum ConnectionOption { case close, keepAlive, unsaid }

    let status: HTTPResponseStatus
    let headers: HTTPHeaders
    let framing: Framing
    let connection: ConnectionOption
    let date: String

    /// Appends the head, empty line included. Returns false, having appended nothing, when it would break the message:
    /// a name that is no token or a value with a control character (RFC 9110 §5.5) could end the head early and forge a
    /// second response, and a client takes a 1xx (§15.2) for no response at all and the next one for this one's.
    func write(into buffer: inout ByteBuffer) -> Bool {
        guard (200...999).contains(status.code) else { return false }
        var isSound = false
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: bytesLimit) { output in
            var text = HeadText(output)
            write(to: &text)
            isSound = text.isSound
            return isSound ? text.count : 0
        }
        return isSound
    }

    private static let fixedBytes = 256

    private var bytesLimit: Int {
        headers.reduce(Self.fixedBytes + status.reasonPhrase.utf8.count + date.utf8.count) {
            $0 + $1.name.utf8.count + $1.value.utf8.count + 4
        }
    }

    private func write(to text: inout HeadText) {
        text.append("HTTP/1.1 ")
        text.append(decimal: Int(status.code))
        text.append(" ")
        text.append(value: status.reasonPhrase)
        text.append("\r\n")
        var hasDate = false
        for (name, value) in headers {
            switch Self.kind(of: name) {
            case .edge: continue
            case .date: hasDate = true
            case .other: break
            }
            text.append(name: name)
            text.append(": ")
            text.append(value: value)
            text.append("\r\n")
        }
        if !hasDate {
            text.append("Date: ")
            text.append(value: date)
            text.append("\r\n")
        }
        switch framing {
        case .none, .untilClose: break
        case .length(let length):
            text.append("Content-Length: ")
            text.append(decimal: length)
            text.append("\r\n")
        case .chunked: text.append("Transfer-Encoding: chunked\r\n")
        }
        switch connection {
        case .unsaid: text.append("\r\n")
        case .close: text.append("Connection: close\r\n\r\n")
        case .keepAlive: text.append("Connection: keep-alive\r\n\r\n")
        }
    }

    private enum Kind { case edge, date, other }
    /// Framing and connection headers are the edge's own: what a service says there is left out.
    private static func kind(of name: String) -> Kind {
        switch name.utf8.count {
        case 4: name.isSameField("date") ? .date : .other
        case 10: name.isSameField("connection") || name.isSameField("keep-alive") ? .edge : .other
        case 14: name.isSameField("content-length") ? .edge : .other
        case 17: name.isSameField("transfer-encoding") ? .edge : .other
        default: .other
        }
    }
}

extension String {
    /// Whether two field names are the same; `lowercase` is in lower case.
    fileprivate func isSameField(_ lowercase: StaticString) -> Bool {
        guard utf8.count == lowercase.utf8CodeUnitCount else { return false }
        return lowercase.withUTF8Buffer { expected in zip(utf8, expected).allSatisfy { $0 | 0x20 == $1 } }
    }
}

/// A head as it is written, in one pass over memory that was set aside for it. Every head is paid for with this: an
/// append of its own to the buffer for each part took four times as long.
private struct HeadText {
    private let output: UnsafeMutableRawBufferPointer
    private(set) var count = 0
    /// False once a name or a value stood there that may not.
    private(set) var isSound = true

    init(_ output: UnsafeMutableRawBufferPointer) { self.output = output }

    mutating func append(_ text: StaticString) { text.withUTF8Buffer { append($0) } }

    mutating func append(decimal value: Int) {
        guard value > 9 else { return append(digit: value) }
        append(decimal: value / 10)
        append(digit: value % 10)
    }
    private mutating func append(digit: Int) {
        withUnsafeBytes(of: UInt8(0x30 + digit)) { append($0.bindMemory(to: UInt8.self)) }
    }

    /// A field name: a token (RFC 9110 §5.6.2).
    mutating func append(name: String) {
        var name = name
        name.withUTF8 { bytes in
            isSound = isSound && !bytes.isEmpty && bytes.allSatisfy(Self.isTokenCharacter)
            append(bytes)
        }
    }

    /// A field value or reason phrase: no control character other than a tab.
    mutating func append(value: String) {
        var value = value
        value.withUTF8 { bytes in
            var isText = true
            for byte in bytes { isText = isText && (byte >= 0x20 && byte != 0x7f || byte == 0x09) }
            isSound = isSound && isText
            append(bytes)
        }
    }

    private mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) {
        // Release builds check no slice of raw memory.
        precondition(bytes.count <= output.count - count, "a head is longer than its parts")
        UnsafeMutableRawBufferPointer(rebasing: output[count..<count + bytes.count])
            .copyMemory(from: UnsafeRawBufferPointer(bytes))
        count += bytes.count
    }

    private static func isTokenCharacter(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x5f, 0x21, 0x23...0x27, 0x2a, 0x2b, 0x2e, 0x5e, 0x60, 0x7c,
            0x7e:
            true
        default: false
        }
    }
}

extension ByteBuffer {
    /// A chunk's size line (RFC 9112 §7.1).
    mutating func writeChunkSize(_ count: Int) {
        writeString(String(count, radix: 16))
        writeStaticString("\r\n")
    }
}
