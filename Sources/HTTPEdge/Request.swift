public import CofferCore
public import NIOCore
public import NIOHTTP1

/// One request for a named service, as the edge hands it over: host resolved, limits checked, body still on the wire.
public struct Request: Sendable {
    /// A GUID made for this request; services answer it as `x-ms-request-id`.
    public let id: String
    public let method: HTTPMethod
    /// The request target's path exactly as sent (percent-encoded, always beginning with `/`). Signatures cover this
    /// spelling.
    public let rawPath: String
    /// The query exactly as sent, without `?`; empty when there is none.
    public let rawQuery: String
    public let headers: HTTPHeaders
    /// Which service the host name asked for, and by which family of names.
    public let endpoint: Endpoint
    public let names: NameFamily
    public let transport: Transport
    public let body: RequestBody

    public init(
        id: String, method: HTTPMethod, rawPath: String, rawQuery: String, headers: HTTPHeaders, endpoint: Endpoint,
        names: NameFamily,
        transport: Transport, body: RequestBody
    ) {
        self.id = id
        self.method = method
        self.rawPath = rawPath
        self.rawQuery = rawQuery
        self.headers = headers
        self.endpoint = endpoint
        self.names = names
        self.transport = transport
        self.body = body
    }

    /// The path's segments, percent-decoded one by one (so `%2F` does not split); nil when an escape is malformed or
    /// not UTF-8.
    public var pathSegments: [String]? {
        var segments: [String] = []
        for raw in rawPath.utf8.split(separator: 0x2f, omittingEmptySubsequences: true) {
            guard let segment = percentDecoded(Substring(raw)) else { return nil }
            segments.append(segment)
        }
        return segments
    }

    /// The query's parameters in the order sent, percent-decoded (`+` stays `+`); a parameter without `=` has an
    /// empty value. Malformed escapes stay as sent.
    public var query: [(name: String, value: String)] {
        func decoded(_ part: Substring.UTF8View) -> String {
            percentDecoded(Substring(part)) ?? String(Substring(part))
        }
        return rawQuery.utf8.split(separator: 0x26).map { pair in
            guard let equals = pair.firstIndex(of: 0x3d) else { return (decoded(pair), "") }
            return (decoded(pair[..<equals]), decoded(pair[pair.index(after: equals)...]))
        }
    }

    public func header(_ name: String) -> String? { headers.first(name: name) }
}

/// How the request came in.
public struct Transport: Sendable, Hashable {
    public enum Scheme: String, Sendable { case http, https }
    public enum TLSVersion: Int, Sendable, Comparable {
        case v1_2 = 12, v1_3 = 13
        public static func < (left: TLSVersion, right: TLSVersion) -> Bool { left.rawValue < right.rawValue }
    }
    public let scheme: Scheme
    /// nil on http.
    public let tlsVersion: TLSVersion?
    /// The peer's IP address as text, without port; a request through the gateway has the address of the gateway's
    /// client.
    public let peerAddress: String
    public init(scheme: Scheme, tlsVersion: TLSVersion?, peerAddress: String) {
        self.scheme = scheme
        self.tlsVersion = tlsVersion
        self.peerAddress = peerAddress
    }
}

/// The body as it arrives. Reading is what lets more of it in: a slow service slows the client, not the memory.
public struct RequestBody: AsyncSequence, Sendable {
    public typealias Element = ByteBuffer
    public typealias Failure = any Error

    /// Content-Length, or nil for a chunked body.
    public let declaredLength: Int?
    private let makeNext: @Sendable () -> (@Sendable () async throws -> ByteBuffer?)

    /// `next` is called again only after it returned; nil ends the body. It throws `EdgeError` when the client went
    /// away or sent too much.
    public init(declaredLength: Int?, next: @escaping @Sendable () async throws -> ByteBuffer?) {
        self.declaredLength = declaredLength
        self.makeNext = { next }
    }
    public static let empty = RequestBody(declaredLength: 0) { nil }
    /// A body from memory, for calls inside the process and for tests.
    public static func bytes(_ buffer: ByteBuffer) -> RequestBody {
        let source = OneBuffer(buffer)
        return RequestBody(declaredLength: buffer.readableBytes) { await source.take() }
    }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let pull: @Sendable () async throws -> ByteBuffer?
        public mutating func next() async throws -> ByteBuffer? { try await pull() }
    }
    /// Only one iteration is meaningful.
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(pull: makeNext()) }

    /// The whole body in one buffer. Throws `EdgeError.bodyTooLarge` above `limit` bytes.
    public func collect(upTo limit: Int) async throws -> ByteBuffer {
        if let declaredLength, declaredLength > limit { throw EdgeError.bodyTooLarge(limitBytes: limit) }
        var whole: ByteBuffer?
        for try await var part in self {
            guard (whole?.readableBytes ?? 0) + part.readableBytes <= limit else {
                throw EdgeError.bodyTooLarge(limitBytes: limit)
            }
            if whole == nil { whole = part } else { whole!.writeBuffer(&part) }
        }
        return whole ?? ByteBuffer()
    }

    private actor OneBuffer {
        private var buffer: ByteBuffer?
        init(_ buffer: ByteBuffer) { self.buffer = buffer.readableBytes > 0 ? buffer : nil }
        func take() -> ByteBuffer? {
            defer { buffer = nil }
            return buffer
        }
    }
}

public enum EdgeError: Error, Sendable, Equatable {
    case bodyTooLarge(limitBytes: Int)
    case clientWentAway
    case timedOut
    /// The body's chunks are not well-formed.
    case malformedBody
}

/// Decodes `%xx` (RFC 3986 §2.1); nil when an escape is malformed or the result is not UTF-8.
public func percentDecoded(_ text: String) -> String? { percentDecoded(text[...]) }

/// Decodes `%xx` (RFC 3986 §2.1); nil when an escape is malformed or the result is not UTF-8.
public func percentDecoded(_ text: Substring) -> String? {
    var text = text
    return text.withUTF8 { encoded in
        guard encoded.contains(0x25) else { return String(decoding: encoded, as: UTF8.self) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(encoded.count)
        var position = 0
        while position < encoded.count {
            if encoded[position] != 0x25 {
                bytes.append(encoded[position])
                position += 1
                continue
            }
            guard position + 2 < encoded.count, let high = hexDigit(encoded[position + 1]),
                let low = hexDigit(encoded[position + 2])
            else { return nil }
            bytes.append(high << 4 | low)
            position += 3
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

private func hexDigit(_ character: UInt8) -> UInt8? {
    switch character {
    case 0x30...0x39: character - 0x30
    case 0x41...0x46: character - 0x37
    case 0x61...0x66: character - 0x57
    default: nil
    }
}
