public import CofferCore

/// `siteConfig.ipSecurityRestrictions`: who may reach a site, by address and by proxy headers.
public struct AccessRestrictions: Sendable, Codable, Equatable {
    public static let rulesLimit = 512

    /// In the order written; the gate sorts by priority.
    public var rules: [AccessRestriction]
    /// nil: allow while there is no rule, deny once there is one.
    public var defaultAction: AccessRestriction.Action?
    public init(rules: [AccessRestriction] = [], defaultAction: AccessRestriction.Action? = nil) {
        self.rules = rules
        self.defaultAction = defaultAction
    }

    /// The list as the service shows it: with the rule that stands for what no rule names.
    public var rulesJSON: JSONValue {
        let open = rules.isEmpty
        let action = defaultAction ?? (open ? .allow : .deny)
        let last: JSONValue = [
            "ipAddress": "Any", "action": .string(action.rawValue), "priority": 2_147_483_647,
            "name": .string(action == .allow ? "Allow all" : "Deny all"),
            "description": .string(action == .allow ? "Allow all access" : "Deny all access"),
        ]
        return .array(rules.map(\.json) + [last])
    }

    /// Reads a list. The rule that stands for the rest (`Any`, priority 2147483647) is left out: `rulesJSON` writes it.
    static func rules(_ member: String, _ value: JSONValue) throws(SiteConfigError) -> [AccessRestriction] {
        guard let list = value.arrayValue else { throw SiteConfigError(member, "a list is required") }
        guard list.count <= rulesLimit else { throw SiteConfigError(member, "at most \(rulesLimit) rules are allowed") }
        var rules: [AccessRestriction] = []
        for element in list {
            let rule = try AccessRestriction(member, element)
            if rule.address == .any, rule.priority == AccessRestriction.lowestPriority, rule.headers.isEmpty {
                continue
            }
            rules.append(rule)
        }
        return rules
    }
}

public struct AccessRestriction: Sendable, Codable, Equatable {
    public enum Action: String, Sendable, Codable { case allow = "Allow", deny = "Deny" }
    public enum Address: Sendable, Codable, Equatable {
        case any
        /// CIDR blocks of either family, at most 8.
        case networks([String])
    }
    static let lowestPriority: Int64 = 2_147_483_647
    private static let networksLimit = 8
    private static let headerValuesLimit = 8

    public var name: String?
    public var description: String?
    public var action: Action
    public var priority: Int64
    public var address: Address
    /// Lower-cased names: `x-forwarded-for`, `x-forwarded-host`, `x-azure-fdid`, `x-fd-healthprobe`. Values of one name
    /// are alternatives; all names must hold.
    public var headers: [String: [String]]

    public init(
        name: String? = nil, description: String? = nil, action: Action, priority: Int64, address: Address,
        headers: [String: [String]] = [:]
    ) {
        self.name = name
        self.description = description
        self.action = action
        self.priority = priority
        self.address = address
        self.headers = headers
    }

    init(_ member: String, _ json: JSONValue) throws(SiteConfigError) {
        guard json.objectValue != nil else { throw SiteConfigError(member, "every rule must be an object") }
        if let subnet = json.member("vnetSubnetResourceId"), !subnet.isNull {
            throw SiteConfigError(member, "virtual network rules (vnetSubnetResourceId) are not supported")
        }
        if let tag = json.member("tag")?.stringValue, tag.lowercased() != "default" {
            throw SiteConfigError(member, "rules with tag '\(tag.prefix(32))' are not supported; use addresses")
        }
        action = try Self.action(member, json.member("action"))
        priority = json.member("priority")?.intValue ?? 65_500
        guard (1...Self.lowestPriority).contains(priority) else {
            throw SiteConfigError(member, "a priority must lie between 1 and 2147483647")
        }
        name = json.member("name")?.stringValue
        description = json.member("description")?.stringValue
        guard (name?.count ?? 0) <= 32, (description?.count ?? 0) <= 150 else {
            throw SiteConfigError(member, "a name has at most 32 characters and a description at most 150")
        }
        address = try Self.address(
            member, json.member("ipAddress")?.stringValue, mask: json.member("subnetMask")?.stringValue)
        headers = [:]
        for (key, values) in json.member("headers")?.objectValue ?? [:] where !values.isNull {
            headers[key.lowercased()] = try Self.headerValues(member, key, values)
        }
    }

    private static func action(_ member: String, _ value: JSONValue?) throws(SiteConfigError) -> Action {
        switch value?.stringValue?.lowercased() {
        case "allow", nil: return .allow
        case "deny": return .deny
        default: throw SiteConfigError(member, "an action is Allow or Deny")
        }
    }

    private static func address(_ member: String, _ text: String?, mask: String?) throws(SiteConfigError) -> Address {
        guard let text, !text.isEmpty else { throw SiteConfigError(member, "a rule needs an ipAddress") }
        if text.lowercased() == "any" { return .any }
        var networks: [String] = []
        for part in text.split(separator: ",").map({ $0.trimmed }) {
            var part = part
            if let mask, !part.contains("/") {
                guard let bits = NetworkMask.prefixLength(of: mask) else {
                    throw SiteConfigError(member, "the subnetMask is malformed")
                }
                part += "/\(bits)"
            }
            guard NetworkMask.isNetwork(part) else {
                throw SiteConfigError(
                    member,
                    "'\(part.prefix(64))' is not an IPv4 or IPv6 address or CIDR block (service tags are not supported)"
                )
            }
            networks.append(part)
        }
        guard (1...networksLimit).contains(networks.count) else {
            throw SiteConfigError(member, "a rule names between 1 and \(networksLimit) address ranges")
        }
        return .networks(networks)
    }

    private static func headerValues(_ member: String, _ name: String, _ value: JSONValue) throws(SiteConfigError)
        -> [String]
    {
        guard ["x-forwarded-for", "x-forwarded-host", "x-azure-fdid", "x-fd-healthprobe"].contains(name.lowercased())
        else {
            throw SiteConfigError(member, "a header filter on '\(name.prefix(32))' is not supported")
        }
        let values = (value.arrayValue ?? [value]).compactMap { $0.stringValue }
        guard (1...headerValuesLimit).contains(values.count) else {
            throw SiteConfigError(member, "a header filter has between 1 and \(headerValuesLimit) values")
        }
        if name.lowercased() == "x-forwarded-for" {
            guard values.allSatisfy(NetworkMask.isNetwork) else {
                throw SiteConfigError(member, "a filter on X-Forwarded-For needs addresses or CIDR blocks")
            }
        }
        return values
    }

    public var json: JSONValue {
        var json: [String: JSONValue] = [
            "action": .string(action.rawValue), "tag": "Default", "priority": .integer(priority),
            "ipAddress": .string(
                { if case .networks(let list) = address { list.joined(separator: ",") } else { "Any" } }()),
        ]
        json["name"] = name.map { .string($0) }
        json["description"] = description.map { .string($0) }
        if !headers.isEmpty {
            json["headers"] = .object(headers.mapValues { .array($0.map { .string($0) }) })
        }
        return .object(json)
    }
}
