/// Which service a host name asks for.
public enum Endpoint: Sendable, Hashable {
    case management
    case login
    case graph
    case vault(String)
    case managedHSM(String)
    case storage(account: String, service: StorageService)
    case site(String)
    case scm(String)
    /// A loopback address instead of a name, on the plain port: the identity endpoint that workers call.
    case local
}

public enum StorageService: String, Sendable, Hashable, Codable, CaseIterable {
    case blob, queue, table, file, dfs, web
}

/// One family of host names: Coffer's own under a configured domain, or Azure's public ones.
///
/// Answers carry URLs of the family the question came in by, so that a client that speaks Azure's public names never
/// sees another.
public enum NameFamily: Sendable, Hashable {
    /// `domain` such as `coffer.localhost`; `port` only where clients reach the server directly on a port other than
    /// 443.
    case coffer(domain: String, port: Int?)
    case azurePublic

    private struct Suffixes {
        let management: String, login: String, graph: String, vault: String, hsm: String, storage: String, sites: String
    }
    private var suffixes: Suffixes {
        switch self {
        case .coffer(let domain, _):
            Suffixes(
                management: "management.\(domain)", login: "login.\(domain)", graph: "graph.\(domain)",
                vault: "vault.\(domain)",
                hsm: "managedhsm.\(domain)", storage: "core.\(domain)", sites: "azurewebsites.\(domain)")
        case .azurePublic:
            Suffixes(
                management: "management.azure.com", login: "login.microsoftonline.com", graph: "graph.microsoft.com",
                vault: "vault.azure.net", hsm: "managedhsm.azure.net", storage: "core.windows.net",
                sites: "azurewebsites.net")
        }
    }
    private var portSuffix: String {
        if case .coffer(_, let port?) = self, port != 443 { ":\(port)" } else { "" }
    }

    /// The endpoint a host name (without port, any case) names in this family, or nil.
    public func endpoint(forHost host: String) -> Endpoint? {
        let host = host.lowercased()
        let s = suffixes
        switch host {
        case s.management: return .management
        case s.login: return .login
        case s.graph: return .graph
        default: break
        }
        func label(under suffix: String) -> String? {
            guard host.hasSuffix("." + suffix) else { return nil }
            let head = host.dropLast(suffix.count + 1)
            return head.isEmpty || head.contains(".") ? nil : String(head)
        }
        if let name = label(under: s.vault) { return .vault(name) }
        if let name = label(under: s.hsm) { return .managedHSM(name) }
        for service in StorageService.allCases {
            if let name = label(under: "\(service.rawValue).\(s.storage)") {
                return .storage(account: name, service: service)
            }
        }
        if let name = label(under: "scm.\(s.sites)") { return .scm(name) }
        if let name = label(under: s.sites) { return .site(name) }
        return nil
    }

    /// Host and, where the family has one, port: what URLs and `Host` headers carry.
    public func authority(of endpoint: Endpoint) -> String {
        let s = suffixes
        let host =
            switch endpoint {
            case .management: s.management
            case .login: s.login
            case .graph: s.graph
            case .vault(let name): "\(name).\(s.vault)"
            case .managedHSM(let name): "\(name).\(s.hsm)"
            case .storage(let account, let service): "\(account).\(service.rawValue).\(s.storage)"
            case .site(let name): "\(name).\(s.sites)"
            case .scm(let name): "\(name).scm.\(s.sites)"
            case .local: "127.0.0.1"
            }
        return host + portSuffix
    }
    /// `https://…` without a trailing slash.
    public func url(of endpoint: Endpoint) -> String { "https://" + authority(of: endpoint) }

    /// Suffixes as cloud metadata lists them, ports included: `core.…`, `vault.…` (no leading dot), `azurewebsites.…`.
    public var storageSuffix: String { suffixes.storage + portSuffix }
    public var vaultSuffix: String { suffixes.vault + portSuffix }
    public var managedHSMSuffix: String { suffixes.hsm + portSuffix }
    public var sitesSuffix: String { suffixes.sites + portSuffix }
    /// The resource (audience) in a vault's challenge, without trailing slash.
    public var vaultAudience: String { "https://" + vaultSuffix }
}

/// All families one server answers to; the first is its own.
public struct HostNames: Sendable, Equatable {
    public let own: NameFamily
    public var families: [NameFamily] { [own, .azurePublic] }
    public init(domain: String, port: Int?) { own = .coffer(domain: domain, port: port) }

    /// Reads `host` or `host:port`. nil when no family knows the host: then Coffer does not answer for it.
    public func match(_ authority: String) -> (endpoint: Endpoint, family: NameFamily)? {
        let host =
            authority.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init) ?? ""
        for family in families {
            if let endpoint = family.endpoint(forHost: host) { return (endpoint, family) }
        }
        return nil
    }
}
