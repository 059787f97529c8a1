public import CofferCore

/// `config/web` of a site: the members the gate and the workers obey, typed; the rest as the client wrote it.
public struct SiteConfig: Sendable, Codable, Equatable {
    public enum FTPSState: String, Sendable, Codable {
        case allAllowed = "AllAllowed", ftpsOnly = "FtpsOnly", disabled = "Disabled"
    }
    public enum TLSVersion: String, Sendable, Codable { case v1_0 = "1.0", v1_1 = "1.1", v1_2 = "1.2", v1_3 = "1.3" }

    public var minTLSVersion: TLSVersion = .v1_2
    public var scmMinTLSVersion: TLSVersion = .v1_2
    public var ftpsState: FTPSState = .ftpsOnly
    public var http20Enabled = false
    public var remoteDebuggingEnabled = false
    public var alwaysOn = false
    /// `Custom`, `Python|3.12`, …; empty on Windows.
    public var linuxFxVersion = ""
    public var cors = CORSSettings()
    public var accessRestrictions = AccessRestrictions()
    public var scmAccessRestrictions = AccessRestrictions()
    public var scmUsesMainAccessRestrictions = false
    /// Other members, under the names they were written with.
    public var rest: [String: JSONValue] = [:]

    public init() {}

    /// The members as `config/web` shows them. Secrets (`appSettings`, `connectionStrings`) are not among them.
    public var json: [String: JSONValue] {
        var members = rest
        members["minTlsVersion"] = .string(minTLSVersion.rawValue)
        members["scmMinTlsVersion"] = .string(scmMinTLSVersion.rawValue)
        members["ftpsState"] = .string(ftpsState.rawValue)
        members["http20Enabled"] = .bool(http20Enabled)
        members["remoteDebuggingEnabled"] = .bool(remoteDebuggingEnabled)
        members["alwaysOn"] = .bool(alwaysOn)
        members["linuxFxVersion"] = .string(linuxFxVersion)
        members["cors"] = cors.isEmpty ? .null : cors.json
        members["ipSecurityRestrictions"] = accessRestrictions.rulesJSON
        members["ipSecurityRestrictionsDefaultAction"] =
            accessRestrictions.defaultAction.map { .string($0.rawValue) } ?? .null
        members["scmIpSecurityRestrictions"] = scmAccessRestrictions.rulesJSON
        members["scmIpSecurityRestrictionsDefaultAction"] =
            scmAccessRestrictions.defaultAction.map { .string($0.rawValue) } ?? .null
        members["scmIpSecurityRestrictionsUseMain"] = .bool(scmUsesMainAccessRestrictions)
        return members
    }

    /// Applies the members of a PUT or PATCH body: a member that is absent or null keeps its value (az sends null for
    /// "unchanged").
    ///
    /// `appSettings` and `connectionStrings` are ignored here. Throws `SiteConfigError` that names the member, and
    /// changes nothing then.
    public mutating func apply(_ changes: [String: JSONValue]) throws(SiteConfigError) {
        var new = self
        for (name, value) in changes where !value.isNull { try new.set(name, value) }
        self = new
    }

    private mutating func set(_ name: String, _ value: JSONValue) throws(SiteConfigError) {
        switch name.lowercased() {
        case "mintlsversion": minTLSVersion = try choice(name, value)
        case "scmmintlsversion": scmMinTLSVersion = try choice(name, value)
        case "ftpsstate": ftpsState = try choice(name, value)
        case "http20enabled": http20Enabled = try flag(name, value)
        case "remotedebuggingenabled":
            guard try !flag(name, value) else {
                throw SiteConfigError(name, "remote debugging is not supported; set it to false")
            }
            remoteDebuggingEnabled = false
        case "alwayson": alwaysOn = try flag(name, value)
        case "linuxfxversion": linuxFxVersion = try text(name, value)
        case "cors": cors = try CORSSettings(json: value)
        case "ipsecurityrestrictions": accessRestrictions.rules = try AccessRestrictions.rules(name, value)
        case "ipsecurityrestrictionsdefaultaction": accessRestrictions.defaultAction = try choice(name, value)
        case "scmipsecurityrestrictions": scmAccessRestrictions.rules = try AccessRestrictions.rules(name, value)
        case "scmipsecurityrestrictionsdefaultaction": scmAccessRestrictions.defaultAction = try choice(name, value)
        case "scmipsecurityrestrictionsusemain": scmUsesMainAccessRestrictions = try flag(name, value)
        case "appsettings", "connectionstrings": break
        default:
            // One spelling per member, the one last written.
            if let old = rest.keys.first(where: { $0.lowercased() == name.lowercased() }) { rest[old] = nil }
            rest[name] = value
        }
    }

    private func choice<Choice: RawRepresentable<String>>(_ name: String, _ value: JSONValue) throws(SiteConfigError)
        -> Choice
    {
        let text = try text(name, value)
        let canonical = [text, text.prefix(1).uppercased() + text.dropFirst()].lazy.compactMap { Choice(rawValue: $0) }
            .first
        guard let canonical else {
            throw SiteConfigError(name, "the value '\(text.prefix(64))' is not one of the documented ones")
        }
        return canonical
    }
    private func flag(_ name: String, _ value: JSONValue) throws(SiteConfigError) -> Bool {
        guard let flag = value.boolValue else { throw SiteConfigError(name, "a boolean is required") }
        return flag
    }
    private func text(_ name: String, _ value: JSONValue) throws(SiteConfigError) -> String {
        guard let text = value.stringValue else { throw SiteConfigError(name, "a string is required") }
        return text
    }
}

/// A member of a site's configuration that cannot be taken. The control plane answers it as 400.
public struct SiteConfigError: Error, Sendable, CustomStringConvertible {
    public let member: String
    public let reason: String
    public init(_ member: String, _ reason: String) {
        self.member = member
        self.reason = reason
    }
    public var description: String { "The value of '\(member)' is invalid: \(reason)." }
}

/// `siteConfig.cors`. With no allowed origin the platform leaves CORS to the app.
public struct CORSSettings: Sendable, Codable, Equatable {
    public static let originsLimit = 512

    /// Compared exactly; `*` alone allows any.
    public var allowedOrigins: [String]
    public var supportCredentials: Bool
    public init(allowedOrigins: [String] = [], supportCredentials: Bool = false) {
        self.allowedOrigins = allowedOrigins
        self.supportCredentials = supportCredentials
    }
    public var isEmpty: Bool { allowedOrigins.isEmpty && !supportCredentials }

    public var json: JSONValue {
        ["allowedOrigins": .array(allowedOrigins.map { .string($0) }), "supportCredentials": .bool(supportCredentials)]
    }

    /// Throws when `*` meets credentials: any page could then act with the visitor's cookies.
    public init(json: JSONValue) throws(SiteConfigError) {
        let origins = json.member("allowedOrigins")?.arrayValue ?? []
        guard origins.count <= Self.originsLimit else {
            throw SiteConfigError("cors.allowedOrigins", "at most \(Self.originsLimit) origins are allowed")
        }
        allowedOrigins = []
        for origin in origins {
            guard let text = origin.stringValue, !text.isEmpty,
                !text.contains(where: { $0.isWhitespace || $0.isNewline })
            else {
                throw SiteConfigError("cors.allowedOrigins", "every origin must be a string without spaces")
            }
            allowedOrigins.append(text)
        }
        supportCredentials = json.member("supportCredentials")?.boolValue ?? false
        guard !(supportCredentials && allowedOrigins.contains("*")) else {
            throw SiteConfigError("cors", "'*' is not allowed together with supportCredentials")
        }
    }
}
