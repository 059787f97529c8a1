import CofferCore
import NIOCore
import NIOHTTP1

/// A request the edge itself answers, before any service sees it: a neutral JSON error that says what to do.
struct Refusal: Error, Equatable {
    let status: HTTPResponseStatus
    let code: String
    let message: String
    var retryAfterSeconds: Int?
    /// What a client of the gateway asked for, when it is not this server's.
    var foreignAuthority: String?

    init(_ status: HTTPResponseStatus, _ code: String, _ message: String, retryAfterSeconds: Int? = nil) {
        self.status = status
        self.code = code
        self.message = message
        self.retryAfterSeconds = retryAfterSeconds
    }

    func response(requestID: String) -> Response {
        let body = #"{"error":{"code":""# + code + #"","message":""# + Self.escaped(message) + #""}}"#
        var headers: HTTPHeaders = ["x-ms-request-id": requestID, "x-ms-error-code": code]
        if let retryAfterSeconds { headers.add(name: "Retry-After", value: String(retryAfterSeconds)) }
        return .json(status, Array(body.utf8), headers: headers)
    }

    /// JSON string contents (RFC 8259 §7). By hand: whoever floods the edge with nonsense should not get an encoder's
    /// work for each.
    static func escaped(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x22: escaped += #"\""#
            case 0x5c: escaped += #"\\"#
            case 0..<0x20: escaped += "\\u00" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16)
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    /// Answers on a channel that has no HTTP pipeline, and closes it.
    func writeAndClose(_ channel: any Channel, _ loopState: LoopState) {
        let response = response(requestID: loopState.nextRequestID())
        guard case .bytes(let body) = response.body else { return channel.close(promise: nil) }
        var buffer = channel.allocator.buffer(capacity: 1_024)
        let head = ResponseHead(
            status: response.status, headers: response.headers, framing: .length(body.readableBytes),
            connection: .close,
            date: loopState.dateHeader())
        guard head.write(into: &buffer) else { return channel.close(promise: nil) }
        buffer.writeImmutableBuffer(body)
        channel.writeAndFlush(buffer).whenComplete { _ in channel.close(promise: nil) }
    }

    static let missingHost = Refusal(
        .badRequest, "MissingHostHeader", "The request has no Host header, or more than one. Send exactly one.")
    static let malformed = Refusal(.badRequest, "MalformedRequest", "The request is not well-formed HTTP/1.1.")
    static let malformedTarget = Refusal(
        .badRequest, "MalformedRequestTarget",
        "The request target must be a path that begins with '/', or an absolute http URL.")
    static let headersTooLarge = Refusal(
        .requestHeaderFieldsTooLarge, "RequestHeadersTooLarge",
        "The request line or the header fields are larger than this server takes.")
    static let headersTooSlow = Refusal(
        .requestTimeout, "RequestTimeout", "The request's header fields did not arrive in time.")
    static let tooManyConnections = Refusal(
        .serviceUnavailable, "TooManyConnections", "The server has as many connections as it takes. Try again later.",
        retryAfterSeconds: 5)
    static let unsupportedExpectation = Refusal(
        .expectationFailed, "ExpectationFailed", "The only expectation this server knows is 100-continue.")
    static let unsupportedCoding = Refusal(
        .notImplemented, "UnsupportedTransferEncoding", "The only transfer coding this server knows is chunked.")
    static let connectElsewhere = Refusal(
        .methodNotAllowed, "ConnectNotAllowed",
        "CONNECT is served on the gateway port only, as the first request of a connection.")
    static let plainOnTLSPort = Refusal(.badRequest, "HttpsRequired", "This port speaks https only.")
    static let invalidResponse = Refusal(
        .internalServerError, "InternalError", "The service's answer could not be sent.")

    static func bodyTooLarge(limitBytes: Int) -> Refusal {
        Refusal(
            .payloadTooLarge, "RequestBodyTooLarge",
            "The request body is larger than the \(limitBytes) bytes this endpoint takes.")
    }
    static func unknownHost(_ host: String, own: NameFamily) -> Refusal {
        Refusal(
            .misdirectedRequest, "UnknownHost",
            "This server does not answer for the host '\(host)'. "
                + "Its names look like \(own.authority(of: .management)), "
                + "<vault>.\(own.vaultSuffix), <account>.blob.\(own.storageSuffix) and <app>.\(own.sitesSuffix).")
    }
    static func otherServerName(host: String) -> Refusal {
        Refusal(
            .misdirectedRequest, "HostDoesNotMatchServerName",
            "The Host header names '\(host)', but the TLS connection was opened for another endpoint. "
                + "Open a connection of its own for each host."
        )
    }
    static func httpsRequired(_ authority: String) -> Refusal {
        Refusal(.forbidden, "HttpsRequired", "This endpoint is served over https only. Use https://\(authority).")
    }
    /// `host` holds only what a host name and a port may. The reason stands in the status line as well, because that is
    /// what most clients print of a refused CONNECT.
    static func gatewayHost(_ host: String) -> Refusal {
        var refusal = Refusal(
            .custom(code: 403, reasonPhrase: "\(host) Is Not Served By This Gateway"), "GatewayHostNotAllowed",
            "This gateway leads to this server's own endpoints only; '\(host)' is none of them. "
                + "Use it with https on port 443, or with http on port 80. For anything else, unset HTTPS_PROXY."
        )
        refusal.foreignAuthority = host
        return refusal
    }
    static let notAProxyRequest = Refusal(
        .badRequest, "GatewayExpectsProxyRequest",
        "This port is a gateway: set HTTPS_PROXY to it and ask for https URLs. "
            + "It understands CONNECT and absolute http URLs."
    )
    static let localFromElsewhere = Refusal(
        .forbidden, "LoopbackOnly", "This endpoint is served to processes on the same machine only.")
    static func noService(_ endpoint: Endpoint) -> Refusal {
        Refusal(
            .notImplemented, "EndpointNotImplemented",
            "This server has no service for the endpoint \(endpoint.kind). "
                + "docs/compatibility.md lists what it has.")
    }
}

extension Endpoint {
    /// The endpoint's kind in words, without its name.
    var kind: String {
        switch self {
        case .management: "management"
        case .login: "login"
        case .graph: "graph"
        case .vault: "vault"
        case .managedHSM: "managed HSM"
        case .storage(_, let service): "storage (\(service.rawValue))"
        case .site: "site"
        case .scm: "scm"
        case .local: "local"
        }
    }
}
