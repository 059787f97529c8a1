internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

/// A storage account as it lies in its record. Its keys lie in a record of their own, so that no answer made from this
/// one can show them.
struct AccountRecord: Codable, Sendable {
    static let currentFormat = 1
    var format = Self.currentFormat
    let name: String
    let id: AccountID
    let resourceID: ResourceID
    let location: String
    var kind: String
    var skuName: String
    let created: Timestamp
    var tags: [String: String]
    var identity: ManagedIdentity?
    var settings: AccountSettings
    /// When blobs and files began to be encrypted: at creation.
    var encryptionEnabled: Timestamp
    /// `Account` or `Service`, chosen at creation: whether queues and tables answer to the account's key.
    var queueKeyType: String?
    var tableKeyType: String?

    var allowsSecondaryReads: Bool { skuName == "Standard_RAGRS" || skuName == "Standard_RAGZRS" }
    var hasSecondary: Bool { skuName.hasSuffix("GRS") || skuName.hasSuffix("GZRS") }
    var tier: String { skuName.hasPrefix("Premium") ? "Premium" : "Standard" }
}

/// The properties a caller may change. An absent value was never set, and answers as absent.
struct AccountSettings: Codable, Sendable, Equatable {
    var accessTier: String?
    var requiresHTTPS = true
    var minimumTLSVersion = "TLS1_2"
    var allowsSharedKeyAccess: Bool?
    var allowsBlobPublicAccess = false
    var publicNetworkAccess: String?
    var networkACLs = NetworkACLs()
    var keyExpirationPeriodInDays: Int64?
    var sasPolicy: SASPolicy?
    var defaultToOAuthAuthentication: Bool?
    var allowsCrossTenantReplication = false

    struct SASPolicy: Codable, Sendable, Equatable {
        /// `d.hh:mm:ss`.
        var expirationPeriod: String
        /// `Log` or `Block`.
        var expirationAction: String
    }

    /// The longest life of a signature, where the policy blocks longer ones.
    var blockingSASLifetimeSeconds: Int64? {
        guard let sasPolicy, sasPolicy.expirationAction == "Block" else { return nil }
        return seconds(ofPeriod: sasPolicy.expirationPeriod)
    }
}

/// `networkAcls`: who may connect at all.
struct NetworkACLs: Codable, Sendable, Equatable {
    var bypass = "AzureServices"
    var defaultAction = "Allow"
    /// IPv4 addresses, ranges or blocks, as given.
    var ipRules: [String] = []
}

/// `d.hh:mm:ss` or `hh:mm:ss` in seconds; nil for anything else.
func seconds(ofPeriod text: String) -> Int64? {
    var rest = text[...]
    var days: Int64 = 0
    if let dot = rest.firstIndex(of: ".") {
        guard let value = Int64(rest[..<dot]), (0...36_500).contains(value) else { return nil }
        days = value
        rest = rest[rest.index(after: dot)...]
    }
    let parts = rest.split(separator: ":", omittingEmptySubsequences: false).map { Int64($0) ?? -1 }
    guard parts.count == 3, (0...23).contains(parts[0]), (0...59).contains(parts[1]), (0...59).contains(parts[2]) else {
        return nil
    }
    return days * 86_400 + parts[0] * 3_600 + parts[1] * 60 + parts[2]
}
