public import NIOCore
public import NIOHTTP1

/// HTTPS to the outside, as the host itself asks for packages and key documents. A protocol so that tests answer in the
/// process.
public protocol OutboundHTTP: Sendable {
    /// One exchange; redirects are not followed. The whole body is in the answer.
    func send(_ request: OutboundRequest) async throws(OutboundError) -> OutboundResponse
}

public struct OutboundRequest: Sendable {
    public var method: HTTPMethod
    /// Absolute. May hold a SAS: it is never logged and never part of an error.
    public var url: String
    public var headers: HTTPHeaders
    public var body: [UInt8]
    /// The most bytes the answer's body may have.
    public var responseLimitBytes: Int
    public var timeoutSeconds: Int64
    public init(
        method: HTTPMethod = .GET, url: String, headers: HTTPHeaders = [:], body: [UInt8] = [],
        responseLimitBytes: Int = 4 << 20,
        timeoutSeconds: Int64 = 30
    ) {
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.responseLimitBytes = responseLimitBytes
        self.timeoutSeconds = timeoutSeconds
    }
}

public struct OutboundResponse: Sendable {
    public var status: Int
    public var headers: HTTPHeaders
    public var body: ByteBuffer
    public init(status: Int, headers: HTTPHeaders = [:], body: ByteBuffer = ByteBuffer()) {
        self.status = status
        self.headers = headers
        self.body = body
    }
    /// Azure Storage's error code, when the answer carries one.
    var storageErrorCode: String? { headers.first(name: "x-ms-error-code") }
}

/// Why an exchange came to nothing. The message names at most the host.
public struct OutboundError: Error, Sendable, CustomStringConvertible {
    public enum Reason: Sendable {
        case invalidURL, cannotConnect, untrustedCertificate, timedOut, tooLarge
    }
    public let reason: Reason
    public let message: String
    public init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }
    public var description: String { message }
}
