import CofferCore
import NIOHTTP1

/// By which door a connection came in.
enum Entrance: Sendable {
    /// TLS, with the endpoint its server name asked for.
    case tls(Endpoint, NameFamily, Transport.TLSVersion)
    case plain
    /// An http request to the gateway port: absolute URLs only.
    case gateway
}

/// Decides for which service a request head is, or why it is refused. No I/O. One per connection: it remembers the
/// last host name it looked up.
struct Admission {
    struct Accepted {
        let endpoint: Endpoint
        let names: NameFamily
        let rawPath: String
        let rawQuery: String
    }

    let entrance: Entrance
    let names: HostNames
    let peerIsLoopback: Bool
    private var lastAuthority: String?
    private var lastResult: Result<(endpoint: Endpoint, names: NameFamily), Refusal> = .failure(.missingHost)

    init(entrance: Entrance, names: HostNames, peerIsLoopback: Bool) {
        self.entrance = entrance
        self.names = names
        self.peerIsLoopback = peerIsLoopback
    }

    mutating func admit(_ head: HTTPRequestHead) -> Result<Accepted, Refusal> {
        guard head.method != .CONNECT else { return .failure(.connectElsewhere) }
        guard let target = RequestTarget(head.uri) else { return .failure(.malformedTarget) }
        if case .gateway = entrance, target.authority == nil { return .failure(.notAProxyRequest) }
        let authority: String
        switch target.authority ?? Self.host(of: head.headers) {
        case let host?: authority = host
        case nil:
            // HTTP/1.0 knows no Host header; over TLS the server name says the same.
            guard case .tls(let endpoint, let family, _) = entrance, head.version.minor == 0,
                !head.headers.contains(name: "Host")
            else {
                return .failure(.missingHost)
            }
            return .success(Accepted(endpoint: endpoint, names: family, rawPath: target.path, rawQuery: target.query))
        }
        return endpoint(for: authority).map {
            Accepted(endpoint: $0.endpoint, names: $0.names, rawPath: target.path, rawQuery: target.query)
        }
    }

    /// The one Host header; nil when there is none, or more than one (RFC 9112 §3.2).
    private static func host(of headers: HTTPHeaders) -> String? {
        var found: String?
        for (name, value) in headers where name.utf8.count == 4 && name.lowercased() == "host" {
            guard found == nil else { return nil }
            found = value
        }
        return found.flatMap { $0.isEmpty ? nil : $0 }
    }

    private mutating func endpoint(for authority: String) -> Result<(endpoint: Endpoint, names: NameFamily), Refusal> {
        if authority != lastAuthority {
            lastResult = lookUp(authority)
            lastAuthority = authority
        }
        return lastResult
    }

    private func lookUp(_ authority: String) -> Result<(endpoint: Endpoint, names: NameFamily), Refusal> {
        guard let host = Authority(authority)?.host else { return .failure(.malformed) }
        let match: (endpoint: Endpoint, names: NameFamily)
        if let known = names.match(host) {
            match = (known.endpoint, known.family)
        } else if case .plain = entrance, Authority.loopbackHosts.contains(host) {
            // Without this check, a listener on an outside address would serve the workers' identity endpoint to
            // anybody who sends this Host.
            guard peerIsLoopback else { return .failure(.localFromElsewhere) }
            match = (.local, names.own)
        } else {
            if case .gateway = entrance { return .failure(.gatewayHost(host)) }
            return .failure(.unknownHost(host, own: names.own))
        }
        switch entrance {
        case .tls(let served, _, _):
            guard match.endpoint == served else { return .failure(.otherServerName(host: host)) }
        case .plain, .gateway:
            guard match.endpoint.isServedOverHTTP else {
                return .failure(.httpsRequired(match.names.authority(of: match.endpoint)))
            }
        }
        return .success(match)
    }
}

extension Endpoint {
    /// Tokens, secrets and commands never travel in clear. Storage and sites decide for themselves ("secure transfer
    /// required", "HTTPS only").
    var isServedOverHTTP: Bool {
        switch self {
        case .storage, .site, .local: true
        case .management, .login, .graph, .vault, .managedHSM, .scm: false
        }
    }
}

/// A request target in origin form (`/path?query`) or absolute form (`http://host/path?query`), RFC 9112 §3.2.
struct RequestTarget: Equatable {
    /// From an absolute target; it wins over the Host header (RFC 9112 §3.2.2).
    let authority: String?
    let path: String
    let query: String

    init?(_ uri: String) {
        let bytes = uri.utf8
        var origin = uri[...]
        if bytes.first == 0x2f {
            authority = nil
        } else {
            guard let scheme = ["http://", "https://"].first(where: { uri.prefix($0.count).lowercased() == $0 }) else {
                return nil
            }
            let rest = uri.dropFirst(scheme.count)
            let end = rest.utf8.firstIndex { $0 == 0x2f || $0 == 0x3f } ?? rest.endIndex
            guard end > rest.startIndex else { return nil }
            authority = String(rest[..<end])
            origin = rest[end...]
        }
        if let mark = origin.utf8.firstIndex(of: 0x3f) {
            path = mark == origin.startIndex ? "/" : String(origin[..<mark])
            query = String(origin[origin.utf8.index(after: mark)...])
        } else {
            path = origin.isEmpty ? "/" : String(origin)
            query = ""
        }
    }
}

/// `host`, `host:port` or `[v6]:port` (RFC 3986 §3.2), without user information.
struct Authority: Equatable {
    /// Lower case, without port; an IPv6 literal keeps its brackets. A trailing dot is dropped.
    let host: String
    let port: Int?

    static let loopbackHosts: Set<String> = ["127.0.0.1", "localhost", "[::1]"]

    init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        // 253 is the longest host name (RFC 1035 §2.3.4); brackets, dot and port come on top.
        guard (1...262).contains(bytes.count) else { return nil }
        let hostEnd: Int
        if bytes[0] == 0x5b {
            guard let bracket = bytes.firstIndex(of: 0x5d) else { return nil }
            guard bytes[1..<bracket].allSatisfy({ $0 == 0x3a || $0 == 0x2e || Self.isHexDigit($0) }) else { return nil }
            hostEnd = bracket + 1
        } else {
            hostEnd = bytes.firstIndex(of: 0x3a) ?? bytes.count
            guard hostEnd > 0, bytes[..<hostEnd].allSatisfy(Self.isNameByte) else { return nil }
        }
        if hostEnd < bytes.count {
            let digits = bytes[(hostEnd + 1)...]
            guard bytes[hostEnd] == 0x3a, digits.count <= 5, digits.allSatisfy({ (0x30...0x39).contains($0) }) else {
                return nil
            }
            // `host:` with an empty port is the scheme's own port.
            let number = digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
            guard number <= 65_535 else { return nil }
            port = digits.isEmpty ? nil : number
        } else {
            port = nil
        }
        var name = bytes[..<hostEnd]
        if name.last == 0x2e { name = name.dropLast() }
        guard !name.isEmpty else { return nil }
        host = String(decoding: name, as: UTF8.self).lowercased()
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
    }
    private static func isNameByte(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) || byte == 0x2d
            || byte == 0x2e
            || byte == 0x5f
    }
}
