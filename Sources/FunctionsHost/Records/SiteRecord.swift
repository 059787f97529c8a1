internal import CofferCore
internal import Foundation
internal import ResourceProviders

/// How a site lies in the store: version 1, JSON, sealed by EncryptionAtRest. The only place where a site's secrets are
/// encoded.
struct SiteRecord: Codable {
    struct SealedConnectionString: Codable {
        var value: String
        var kind: ConnectionString.Kind
    }

    var version = 1
    var id: ResourceID
    var kind: String
    var location: String
    var tags: [String: String]
    var serverFarmID: ResourceID?
    var state: Site.State
    var httpsOnly: Bool
    var clientAffinityEnabled: Bool
    var clientCertEnabled: Bool
    var clientCertMode: Site.ClientCertMode
    var clientCertExclusionPaths: String?
    var publicNetworkAccess: Site.PublicNetworkAccess
    var dailyMemoryTimeQuota: Int64
    var identity: ManagedIdentity?
    var keyVaultReferenceIdentity: String?
    var config: SiteConfig
    var slotConfigNames: SlotConfigNames
    var publishingPolicies: PublishingPolicies
    var otherProperties: [String: JSONValue]
    var created: Timestamp
    var lastModified: Timestamp
    var appSettings: [String: String]
    var connectionStrings: [String: SealedConnectionString]
    var publishingUserName: String
    var publishingPassword: String

    init(_ site: Site) {
        id = site.id
        kind = site.kind
        location = site.location
        tags = site.tags
        serverFarmID = site.serverFarmID
        state = site.state
        httpsOnly = site.httpsOnly
        clientAffinityEnabled = site.clientAffinityEnabled
        clientCertEnabled = site.clientCertEnabled
        clientCertMode = site.clientCertMode
        clientCertExclusionPaths = site.clientCertExclusionPaths
        publicNetworkAccess = site.publicNetworkAccess
        dailyMemoryTimeQuota = site.dailyMemoryTimeQuota
        identity = site.identity
        keyVaultReferenceIdentity = site.keyVaultReferenceIdentity
        config = site.config
        slotConfigNames = site.slotConfigNames
        publishingPolicies = site.publishingPolicies
        otherProperties = site.otherProperties
        created = site.created
        lastModified = site.lastModified
        appSettings = site.secrets.appSettings.mapValues { $0.reveal() }
        connectionStrings = site.secrets.connectionStrings.mapValues {
            SealedConnectionString(value: $0.value.reveal(), kind: $0.kind)
        }
        publishingUserName = site.secrets.publishingCredentials.userName
        publishingPassword = site.secrets.publishingCredentials.password.reveal()
    }

    var site: Site {
        let secrets = SiteSecrets(
            appSettings: appSettings.mapValues { RedactedString($0) },
            connectionStrings: connectionStrings.mapValues {
                ConnectionString(value: RedactedString($0.value), kind: $0.kind)
            },
            publishingCredentials: PublishingCredentials(
                userName: publishingUserName, password: RedactedString(publishingPassword)))
        var site = Site(id: id, kind: kind, location: location, created: created, secrets: secrets)
        site.tags = tags
        site.serverFarmID = serverFarmID
        site.state = state
        site.httpsOnly = httpsOnly
        site.clientAffinityEnabled = clientAffinityEnabled
        site.clientCertEnabled = clientCertEnabled
        site.clientCertMode = clientCertMode
        site.clientCertExclusionPaths = clientCertExclusionPaths
        site.publicNetworkAccess = publicNetworkAccess
        site.dailyMemoryTimeQuota = dailyMemoryTimeQuota
        site.identity = identity
        site.keyVaultReferenceIdentity = keyVaultReferenceIdentity
        site.config = config
        site.slotConfigNames = slotConfigNames
        site.publishingPolicies = publishingPolicies
        site.otherProperties = otherProperties
        site.lastModified = lastModified
        return site
    }
}

/// GB-seconds a site has used on one UTC day.
struct UsageRecord: Codable, Equatable {
    var version = 1
    /// Days since 1970-01-01.
    var day: Int64
    var megabyteMilliseconds: Int64
}

extension Encodable {
    /// Canonical JSON: members sorted.
    func recordBytes() throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return [UInt8](try encoder.encode(self))
    }
}
extension Decodable {
    init(recordBytes: [UInt8]) throws { self = try JSONDecoder().decode(Self.self, from: Data(recordBytes)) }
}
