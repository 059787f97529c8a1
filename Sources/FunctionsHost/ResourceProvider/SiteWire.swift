import CofferCore
import ResourceProviders

/// A site as Resource Manager shows it. Nothing secret is in it: `siteConfig.appSettings` is always null.
extension WebOperation {
    func wire(_ site: Site) -> JSONValue {
        let host = request.names.authority(of: .site(site.name))
        let scm = request.names.authority(of: .scm(site.name))
        let plan = site.serverFarmID.flatMap { sites.plan($0) }
        var properties = site.otherProperties
        let computed: [String: JSONValue] = [
            "name": .string(site.name), "state": .string(site.state.rawValue), "enabled": .bool(site.state == .running),
            "hostNames": [.string(host)], "enabledHostNames": [.string(host), .string(scm)],
            "defaultHostName": .string(host),
            "repositorySiteName": .string(site.name), "usageState": "Normal", "availabilityState": "Normal",
            "hostNameSslStates": [Self.hostName(host, "Standard"), Self.hostName(scm, "Repository")],
            "serverFarmId": site.serverFarmID.map { .string($0.description) } ?? .null, "reserved": .bool(site.isLinux),
            "isXenon": false, "hyperV": false, "lastModifiedTimeUtc": .string(site.lastModified.iso8601WithTicks),
            "siteConfig": Self.summary(of: site.config), "scmSiteAlsoStopped": false,
            "clientAffinityEnabled": .bool(site.clientAffinityEnabled),
            "clientCertEnabled": .bool(site.clientCertEnabled),
            "clientCertMode": .string(site.clientCertMode.rawValue),
            "clientCertExclusionPaths": site.clientCertExclusionPaths.map { .string($0) } ?? .null,
            "dailyMemoryTimeQuota": .integer(site.dailyMemoryTimeQuota),
            "resourceGroup": .string(site.id.resourceGroup ?? ""),
            "httpsOnly": .bool(site.httpsOnly), "publicNetworkAccess": .string(site.publicNetworkAccess.rawValue),
            "keyVaultReferenceIdentity": .string(site.keyVaultReferenceIdentity ?? "SystemAssigned"),
            "sku": .string(plan?.tier ?? "Dynamic"), "containerSize": 1536, "redundancyMode": "None",
        ]
        properties.merge(computed) { _, computed in computed }
        var body: JSONValue = [
            "id": .string(site.id.description), "name": .string(site.name), "type": "Microsoft.Web/sites",
            "kind": .string(site.kind), "location": .string(Self.displayName(ofRegion: site.location)),
            "tags": .object(site.tags.mapValues { .string($0) }), "properties": .object(properties),
        ]
        if let identity = site.identity {
            body["identity"] = [
                "type": "SystemAssigned", "tenantId": .string(identity.tenantID),
                "principalId": .string(identity.principalID),
            ]
        }
        return body
    }

    /// What a site shows of its configuration; the whole stands in `config/web`.
    private static func summary(of config: SiteConfig) -> JSONValue {
        var summary: JSONValue = ["appSettings": .null, "connectionStrings": .null, "numberOfWorkers": 1]
        for name in ["linuxFxVersion", "minTlsVersion", "http20Enabled", "alwaysOn", "ftpsState"] {
            summary[name] = config.json[name] ?? .null
        }
        return summary
    }

    private static func hostName(_ name: String, _ type: String) -> JSONValue {
        [
            "name": .string(name), "sslState": "Disabled", "ipBasedSslState": "NotConfigured",
            "hostType": .string(type),
            "thumbprint": .null, "virtualIP": .null,
        ]
    }
}
