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

    /// Each is put together when it is asked for: an answer needs one of them.
    private struct Suffixes {
        /// nil in Azure's own family.
        let domain: String?
        var management: String { domain.map { "management." + $0 } ?? "management.azure.com" }
        var login: String { domain.map { "login." + $0 } ?? "login.microsoftonline.com" }
        var graph: String { domain.map { "graph." + $0 } ?? "graph.microsoft.com" }
        var vault: String { domain.map { "vault." + $0 } ?? "vault.azure.net" }
        var hsm: String { domain.map { "managedhsm." + $0 } ?? "managedhsm.azure.net" }
        var storage: String { domain.map { "core." + $0 } ?? "core.windows.net" }
        var sites: String { domain.map { "azurewebsites." + $0 } ?? "azurewebsites.net" }
    }
    private var suffixes: Suffixes {
        switch self {
        case .coffer(let domain, _): Suffixes(domain: domain)
        case .azurePublic: Suffixes(domain: nil)
        }
    }
    private var portSuffix: String {
        if case .coffer(_, let port?) = self, port != 443 { ":\(port)" } else { "" }
    }

    /// The endpoint a host name (without port, any case) names in this family, or nil. `HostNames.match` keeps its
    /// table; this makes one for each call.
    public func endpoint(forHost host: String) -> Endpoint? {
        var host = host
        let table = EndpointTable(self)
        return host.withUTF8 { table.endpoint(of: $0) }
    }

    /// What the names of a family end with, in the order they are tried.
    fileprivate var labelled: [(suffix: String, endpoint: @Sendable (String) -> Endpoint)] {
        let s = suffixes
        var found: [(String, @Sendable (String) -> Endpoint)] = []
        found.append((s.vault, { .vault($0) }))
        found.append((s.hsm, { .managedHSM($0) }))
        for service in StorageService.allCases {
            found.append(("\(service.rawValue).\(s.storage)", { .storage(account: $0, service: service) }))
        }
        found.append(("scm.\(s.sites)", { .scm($0) }))
        found.append((s.sites, { .site($0) }))
        return found
    }
    fileprivate var unlabelled: [(host: String, endpoint: Endpoint)] {
        let s = suffixes
        return [(s.management, .management), (s.login, .login), (s.graph, .graph)]
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
    public let families: [NameFamily]
    // One for each family. Every request asks, so the names are put together once.
    private let tables: [EndpointTable]

    public init(domain: String, port: Int?) {
        own = .coffer(domain: domain, port: port)
        families = [own, .azurePublic]
        tables = families.map { EndpointTable($0) }
    }

    public static func == (left: HostNames, right: HostNames) -> Bool { left.own == right.own }

    /// Reads `host` or `host:port`. nil when no family knows the host: then Coffer does not answer for it.
    public func match(_ authority: String) -> (endpoint: Endpoint, family: NameFamily)? {
        var authority = authority
        return authority.withUTF8 { bytes in
            let host = UnsafeBufferPointer(rebasing: bytes.prefix { $0 != 0x3a })
            for (table, family) in zip(tables, families) {
                if let endpoint = table.endpoint(of: host) { return (endpoint, family) }
            }
            return nil
        }
    }
}

/// The host names of one family as lower-case bytes, ready to compare with.
private struct EndpointTable: Sendable {
    private let hosts: [(name: [UInt8], endpoint: Endpoint)]
    /// Each suffix begins with its dot.
    private let labels: [(suffix: [UInt8], endpoint: @Sendable (String) -> Endpoint)]

    init(_ family: NameFamily) {
        hosts = family.unlabelled.map { (Array($0.host.lowercased().utf8), $0.endpoint) }
        labels = family.labelled.map { (Array(".\($0.suffix.lowercased())".utf8), $0.endpoint) }
    }

    func endpoint(of host: UnsafeBufferPointer<UInt8>) -> Endpoint? {
        for (name, endpoint) in hosts where Self.isSame(host[...], name) { return endpoint }
        for (suffix, endpoint) in labels where host.count > suffix.count {
            let label = host.dropLast(suffix.count)
            guard Self.isSame(host.suffix(suffix.count), suffix), !label.contains(0x2e) else { continue }
            return endpoint(String(decoding: label, as: UTF8.self).lowercased())
        }
        return nil
    }

    /// Host names compare without regard to the case of ASCII letters (RFC 4343).
    private static func isSame(_ bytes: Slice<UnsafeBufferPointer<UInt8>>, _ lowercase: [UInt8]) -> Bool {
        guard bytes.count == lowercase.count else { return false }
        return zip(bytes, lowercase).allSatisfy { byte, expected in
            byte == expected || (0x41...0x5a).contains(byte) && byte | 0x20 == expected
        }
    }
}
