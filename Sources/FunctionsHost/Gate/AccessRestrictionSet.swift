internal import HTTPEdge
internal import NIOHTTP1

/// A site's access restrictions, read once and asked at every request.
struct AccessRestrictionSet: Sendable {
    private struct Rule: Sendable {
        let allows: Bool
        /// nil: any address.
        let networks: [IPNetwork]?
        let headers: [String: [String]]
        let forwardedFor: [IPNetwork]
    }
    private let rules: [Rule]
    private let allowsByDefault: Bool

    /// A rule whose address cannot be read never matches an allow and always matches a deny.
    init(_ restrictions: AccessRestrictions) {
        let ordered = restrictions.rules.enumerated().sorted {
            ($0.element.priority, $0.offset) < ($1.element.priority, $1.offset)
        }
        rules = ordered.map { _, rule in
            var networks: [IPNetwork]?
            if case .networks(let texts) = rule.address {
                let readable = texts.compactMap { IPNetwork($0) }
                networks = readable.count == texts.count || rule.action == .allow ? readable : nil
            }
            return Rule(
                allows: rule.action == .allow, networks: networks, headers: rule.headers,
                forwardedFor: (rule.headers["x-forwarded-for"] ?? []).compactMap { IPNetwork($0) })
        }
        allowsByDefault = restrictions.defaultAction.map { $0 == .allow } ?? restrictions.rules.isEmpty
    }

    /// Priority order, first match decides; with rules and no default, the rest is denied.
    func allows(peer: String, headers: HTTPHeaders) -> Bool {
        let address = IPAddress(peer)
        for rule in rules {
            if let networks = rule.networks {
                guard let address, networks.contains(where: { $0.contains(address) }) else { continue }
            }
            guard rule.headers.allSatisfy({ holds($0.key, $0.value, rule, headers) }) else { continue }
            return rule.allows
        }
        return allowsByDefault
    }

    private func holds(_ name: String, _ values: [String], _ rule: Rule, _ headers: HTTPHeaders) -> Bool {
        let sent = headers[canonicalForm: name].map(String.init)
        switch name {
        case "x-forwarded-for":
            return sent.contains { hop in
                IPAddress(Self.withoutPort(hop)).map { address in rule.forwardedFor.contains { $0.contains(address) } }
                    ?? false
            }
        case "x-forwarded-host":
            return sent.contains { host in
                values.contains { Self.matches(host: host.lowercased(), pattern: $0.lowercased()) }
            }
        default: return sent.contains { value in values.contains { $0.lowercased() == value.lowercased() } }
        }
    }

    /// `1.2.3.4:80` and `[::1]:80` without their ports.
    static func withoutPort(_ text: String) -> String {
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            return String(text[text.index(after: text.startIndex)..<end])
        }
        let colons = text.utf8.count { $0 == 0x3a }
        return colons == 1 ? String(text.prefix { $0 != ":" }) : text
    }

    /// `*.x` stands for exactly one label more.
    private static func matches(host: String, pattern: String) -> Bool {
        guard pattern.hasPrefix("*.") else { return host == pattern }
        let suffix = pattern.dropFirst(1)
        guard host.hasSuffix(suffix) else { return false }
        let label = host.dropLast(suffix.count)
        return !label.isEmpty && !label.contains(".")
    }
}
