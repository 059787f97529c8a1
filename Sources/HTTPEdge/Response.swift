public import NIOCore
public import NIOHTTP1

/// What a service answers. The edge adds `Date`, `Content-Length` or chunking, and connection headers; nothing else.
public struct Response: Sendable {
    public enum Body: Sendable {
        case empty
        case bytes(ByteBuffer)
        /// `length` nil means chunked. The closure writes in order; when it throws after the head has left, the edge
        /// breaks the connection, so that a client never takes a part for the whole. Each `write` returns when the
        /// client can take more.
        case stream(length: Int?, @Sendable (any ResponseBodyWriter) async throws -> Void)
        /// The answer to HEAD: `Content-Length` without a body.
        case omitted(length: Int)
    }
    public var status: HTTPResponseStatus
    public var headers: HTTPHeaders
    public var body: Body
    public init(status: HTTPResponseStatus, headers: HTTPHeaders = [:], body: Body = .empty) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    public static func json(_ status: HTTPResponseStatus, _ bytes: [UInt8], headers: HTTPHeaders = [:]) -> Response {
        json(status, ByteBuffer(bytes: bytes), headers: headers)
    }
    public static func json(_ status: HTTPResponseStatus, _ bytes: ByteBuffer, headers: HTTPHeaders = [:]) -> Response {
        var headers = headers
        headers.replaceOrAdd(name: "Content-Type", value: "application/json; charset=utf-8")
        return Response(status: status, headers: headers, body: .bytes(bytes))
    }
}

public protocol ResponseBodyWriter: Sendable {
    func write(_ bytes: ByteBuffer) async throws
}

/// One wire protocol behind the edge. It answers every request, also the ones it refuses; it never throws.
public protocol WireService: Sendable {
    func respond(to request: Request) async -> Response
}
