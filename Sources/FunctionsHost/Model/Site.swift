public import CofferCore
public import ResourceProviders

/// A function app (`Microsoft.Web/sites`): what Resource Manager configures and what the gate and the workers obey.
///
/// A value: changes go through `SiteStore`. Its name is also its host label, so it is unique over the whole
/// installation.
public struct Site: Sendable, Equatable {
    public enum State: String, Sendable, Codable { case running = "Running", stopped = "Stopped" }
    public enum PublicNetworkAccess: String, Sendable, Codable { case enabled = "Enabled", disabled = "Disabled" }
    public enum ClientCertMode: String, Sendable, Codable {
        case required = "Required", optional = "Optional", optionalInteractiveUser = "OptionalInteractiveUser"
    }

    /// `/subscriptions/…/providers/Microsoft.Web/sites/NAME`, in the spelling of its creator.
    public let id: ResourceID
    public var name: String { id.name }
    /// `functionapp`, `functionapp,linux`, …
    public var kind: String
    public var location: String
    public var tags: [String: String]
    /// The plan the site runs in.
    public var serverFarmID: ResourceID?
    public var state: State
    public var httpsOnly: Bool
    public var clientAffinityEnabled: Bool
    public var clientCertEnabled: Bool
    public var clientCertMode: ClientCertMode
    /// Path prefixes that need no client certificate, separated by `,` or `;`.
    public var clientCertExclusionPaths: String?
    public var publicNetworkAccess: PublicNetworkAccess
    /// GB-seconds a UTC day; 0 means no quota.
    public var dailyMemoryTimeQuota: Int64
    /// The system-assigned identity, when the site has one. User-assigned identities are not supported.
    public var identity: ManagedIdentity?
    /// `SystemAssigned`, or nil for the same.
    public var keyVaultReferenceIdentity: String?
    public var config: SiteConfig
    /// Names of settings that stay with the slot (`config/slotConfigNames`).
    public var slotConfigNames: SlotConfigNames
    public var publishingPolicies: PublishingPolicies
    /// Members of `properties` without a meaning here, kept as the client wrote them.
    public var otherProperties: [String: JSONValue]
    public var created: Timestamp
    public var lastModified: Timestamp
    public var secrets: SiteSecrets

    public init(id: ResourceID, kind: String, location: String, created: Timestamp, secrets: SiteSecrets) {
        self.id = id
        self.kind = kind
        self.location = location
        self.tags = [:]
        self.serverFarmID = nil
        self.state = .running
        self.httpsOnly = false
        self.clientAffinityEnabled = false
        self.clientCertEnabled = false
        self.clientCertMode = .required
        self.clientCertExclusionPaths = nil
        self.publicNetworkAccess = .enabled
        self.dailyMemoryTimeQuota = 0
        self.identity = nil
        self.keyVaultReferenceIdentity = nil
        self.config = SiteConfig()
        self.slotConfigNames = SlotConfigNames()
        self.publishingPolicies = PublishingPolicies()
        self.otherProperties = [:]
        self.created = created
        self.lastModified = created
        self.secrets = secrets
    }

    /// `Linux` sites carry `linux` in their kind.
    public var isLinux: Bool { kind.lowercased().split(separator: ",").contains("linux") }
}

/// What of a site must never be printed. Kept sealed; leaves only through the list operations that need
/// `…/list/action`.
public struct SiteSecrets: Sendable, Equatable {
    public var appSettings: [String: RedactedString]
    public var connectionStrings: [String: ConnectionString]
    public var publishingCredentials: PublishingCredentials

    public init(
        appSettings: [String: RedactedString] = [:], connectionStrings: [String: ConnectionString] = [:],
        publishingCredentials: PublishingCredentials
    ) {
        self.appSettings = appSettings
        self.connectionStrings = connectionStrings
        self.publishingCredentials = publishingCredentials
    }
}

public struct ConnectionString: Sendable, Equatable {
    /// `SQLAzure`, `Custom`, …: decides the environment variable's prefix.
    public enum Kind: String, Sendable, Codable, CaseIterable {
        case mySql = "MySql", sqlServer = "SQLServer", sqlAzure = "SQLAzure", custom = "Custom", notificationHub =
            "NotificationHub"
        case serviceBus = "ServiceBus", eventHub = "EventHub", apiHub = "ApiHub", docDb = "DocDb", redisCache =
            "RedisCache"
        case postgreSQL = "PostgreSQL"

        /// The prefix of the environment variable (Azure App Service, "Configure connection strings").
        public var environmentPrefix: String {
            switch self {
            case .mySql: "MYSQLCONNSTR_"
            case .sqlServer: "SQLCONNSTR_"
            case .sqlAzure: "SQLAZURECONNSTR_"
            case .notificationHub: "NOTIFICATIONHUBCONNSTR_"
            case .serviceBus: "SERVICEBUSCONNSTR_"
            case .eventHub: "EVENTHUBCONNSTR_"
            case .docDb: "DOCDBCONNSTR_"
            case .redisCache: "REDISCACHECONNSTR_"
            case .postgreSQL: "POSTGRESQLCONNSTR_"
            case .custom, .apiHub: "CUSTOMCONNSTR_"
            }
        }
    }
    public var value: RedactedString
    public var kind: Kind
    public init(value: RedactedString, kind: Kind) {
        self.value = value
        self.kind = kind
    }
}

/// The app-scope deployment credentials (`$NAME`).
public struct PublishingCredentials: Sendable, Equatable {
    public var userName: String
    public var password: RedactedString

    public init(userName: String, password: RedactedString) {
        self.userName = userName
        self.password = password
    }

    /// New credentials for a site: a 60-character password of letters and digits, as the original makes.
    public static func generate(siteName: String, randomness: some Randomness) -> PublishingCredentials {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)
        var password: [UInt8] = []
        while password.count < 60 {
            // Bytes from 248 on would favour the first letters.
            password += randomness.bytes(80).filter { $0 < 248 }.map { alphabet[Int($0) % alphabet.count] }
        }
        return PublishingCredentials(
            userName: "$" + siteName, password: RedactedString(String(decoding: password.prefix(60), as: UTF8.self)))
    }
}

/// `basicPublishingCredentialsPolicies/{ftp|scm}`: whether Basic authentication is allowed there.
public struct PublishingPolicies: Sendable, Codable, Equatable {
    public var ftpAllowed: Bool
    public var scmAllowed: Bool
    public init(ftpAllowed: Bool = true, scmAllowed: Bool = true) {
        self.ftpAllowed = ftpAllowed
        self.scmAllowed = scmAllowed
    }
}

public struct SlotConfigNames: Sendable, Codable, Equatable {
    public var appSettingNames: [String]
    public var connectionStringNames: [String]
    public init(appSettingNames: [String] = [], connectionStringNames: [String] = []) {
        self.appSettingNames = appSettingNames
        self.connectionStringNames = connectionStringNames
    }
}
