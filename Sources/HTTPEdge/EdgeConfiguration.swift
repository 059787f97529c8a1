public import CofferCore
public import Logging
public import NIOCore
public import NIOHTTP1

/// What the edge refuses or gives up on. Times are monotonic.
public struct EdgeLimits: Sendable {
    /// Name and value of one header field, and the request target, each: bytes.
    public var headerFieldBytes = 16 * 1_024
    /// The request target and all header fields of a request together: bytes.
    public var headerBytes = 64 * 1_024
    /// Header fields of one request.
    public var headerFields = 128
    /// From the first byte of a request to the end of its header fields.
    public var headerTimeout: TimeAmount = .seconds(20)
    /// From the TCP connection to the end of the TLS handshake (or of a gateway's CONNECT).
    public var handshakeTimeout: TimeAmount = .seconds(15)
    /// Between two requests on one connection.
    public var idleTimeout: TimeAmount = .seconds(120)
    /// While a service waits for the next bytes of a body.
    public var readTimeout: TimeAmount = .seconds(60)
    /// While a service waits for the client to take the bytes of a response.
    public var writeTimeout: TimeAmount = .seconds(60)
    /// Open connections of all ports together; the next ones are answered 503.
    public var connections = 10_000
    /// A body its service did not read is read and thrown away up to this many bytes, so that the connection can be
    /// used again.
    public var drainedBytes = 256 * 1_024
    /// Beyond that the connection is closed after the response; so that a client still writing sees the response and
    /// not a reset, up to this many bytes more are thrown away first, for at most `lingerTimeout`.
    public var lingerBytes = 64 * 1_024 * 1_024
    public var lingerTimeout: TimeAmount = .seconds(10)
    /// The first line and header fields of a gateway's CONNECT: bytes.
    public var gatewayHeadBytes = 8 * 1_024

    public init() {}

    /// The largest request body an endpoint takes unless the configuration says otherwise: bytes. Storage: the 5,000
    /// MiB of Put Blob (Azure Storage, "Scalability and performance targets for Blob storage"); sites: the 210 MB of
    /// the Functions host; scm: a package of 2 GiB.
    public static func standardBodyBytes(for endpoint: Endpoint) -> Int {
        switch endpoint {
        case .storage: 5_000 * 1_024 * 1_024
        case .site: 210_000_000
        case .scm: 2_048 * 1_024 * 1_024
        case .management, .graph: 16 * 1_024 * 1_024
        case .login, .vault, .managedHSM, .local: 1_024 * 1_024
        }
    }
}

/// What one finished request was, for metrics and logs. It has no query and no header: nothing in it is secret.
public struct FinishedRequest: Sendable {
    public let id: String
    public let method: HTTPMethod
    /// nil when the host named none.
    public let endpoint: Endpoint?
    /// The status sent, or 499 when the client went away before any was.
    public let status: Int
    public let duration: TimeAmount
    /// Body bytes received and sent, without framing.
    public let requestBytes: Int
    public let responseBytes: Int
}

public struct EdgeConfiguration: Sendable {
    /// Where the edge runs a service's code.
    public enum HandlerPlacement: Sendable {
        /// On the event loop of the connection: no thread switch per request. A service must not block for longer
        /// than about a millisecond; work that takes longer goes through `awayFromEventLoop`.
        case eventLoop
        /// On Swift's shared thread pool: two thread switches per request, and a slow service does not hold up other
        /// connections.
        case threadPool
    }

    /// IP addresses to listen on, all with the same ports. An address this machine does not have is left out with a
    /// warning, as long as one is left.
    public var addresses: [String] = ["127.0.0.1", "::1"]
    /// TCP ports; 0 takes any free one, nil leaves that listener out.
    public var tlsPort: Int? = 0
    public var plainPort: Int? = 0
    public var gatewayPort: Int? = 0
    public var names: HostNames
    public var limits = EdgeLimits()
    /// Where each endpoint's service runs. The data planes stay on the event loop; what takes them longer than a
    /// fraction of a millisecond they hand to other threads themselves.
    public var placement: @Sendable (Endpoint) -> HandlerPlacement = { endpoint in
        switch endpoint {
        case .storage, .vault, .site: .eventLoop
        default: .threadPool
        }
    }
    /// The oldest TLS version an endpoint accepts, asked at every handshake.
    public var minimumTLSVersion: @Sendable (Endpoint) -> Transport.TLSVersion = { _ in .v1_2 }
    /// The largest request body an endpoint takes, in bytes: a larger `Content-Length` is answered 413, a larger
    /// chunked body ends in `EdgeError.bodyTooLarge`.
    public var maximumBodyBytes: @Sendable (Endpoint) -> Int = { EdgeLimits.standardBodyBytes(for: $0) }
    /// Called on an event loop after each response; it must be quick. nil costs nothing.
    public var onRequestFinished: (@Sendable (FinishedRequest) -> Void)?
    public var clock: any WallClock = SystemClock()
    public var randomness: any Randomness = SystemRandomness()
    public var logger: Logger

    public init(names: HostNames, logger: Logger) {
        self.names = names
        self.logger = logger
    }
}
