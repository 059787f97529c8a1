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
        let start = buffer.writerIndex
        let code = status.code
        guard (200...999).contains(code) else { return false }
        buffer.writeStaticString("HTTP/1.1 ")
        buffer.writeBytes([UInt8(0x30 + code / 100), UInt8(0x30 + code / 10 % 10), UInt8(0x30 + code % 10), 0x20])
        var isSound = buffer.writeFieldText(status.reasonPhrase)
        buffer.writeStaticString("\r\n")
        var hasDate = false
        for (name, value) in headers {
            switch Self.kind(of: name) {
            case .edge: continue
            case .date: hasDate = true
            case .other: break
            }
            isSound = isSound && buffer.writeFieldName(name)
            buffer.writeStaticString(": ")
            isSound = isSound && buffer.writeFieldText(value)
            buffer.writeStaticString("\r\n")
        }
        guard isSound else {
            buffer.moveWriterIndex(to: start)
            return false
        }
        if !hasDate {
            buffer.writeStaticString("Date: ")
            buffer.writeString(date)
            buffer.writeStaticString("\r\n")
        }
        switch framing {
        case .none, .untilClose: break
        case .length(let length):
            buffer.writeStaticString("Content-Length: ")
            buffer.writeDecimal(length)
            buffer.writeStaticString("\r\n")
        case .chunked: buffer.writeStaticString("Transfer-Encoding: chunked\r\n")
        }
        switch connection {
        case .unsaid: buffer.writeStaticString("\r\n")
        case .close: buffer.writeStaticString("Connection: close\r\n\r\n")
        case .keepAlive: buffer.writeStaticString("Connection: keep-alive\r\n\r\n")
        }
        return true
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

extension ByteBuffer {
    /// Appends a field value or reason phrase; false when it has a control character other than a tab.
    fileprivate mutating func writeFieldText(_ text: String) -> Bool {
        let start = writerIndex
        let count = writeString(text)
        return withUnsafeReadableBytes { bytes in
            let offset = start - readerIndex
            return bytes[offset..<offset + count].allSatisfy { $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }
        }
    }

    /// Appends a field name; false when it is no token (RFC 9110 §5.6.2).
    fileprivate mutating func writeFieldName(_ name: String) -> Bool {
        let start = writerIndex
        let count = writeString(name)
        guard count > 0 else { return false }
        return withUnsafeReadableBytes { bytes in
            let offset = start - readerIndex
            return bytes[offset..<offset + count].allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x5f, 0x21, 0x23...0x27, 0x2a, 0x2b, 0x2e, 0x5e, 0x60,
                    0x7c, 0x7e:
                    true
                default: false
                }
            }
        }
    }

    mutating func writeDecimal(_ value: Int) {
        if value < 10 { writeInteger(UInt8(0x30 + value)) } else { writeString(String(value)) }
    }

    /// A chunk's size line (RFC 9112 §7.1).
    mutating func writeChunkSize(_ count: Int) {
        writeString(String(count, radix: 16))
        writeStaticString("\r\n")
    }
}
