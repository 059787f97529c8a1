internal import CofferCore

/// What `/metadata/endpoints` and `/metadata/clouds` answer: where this cloud's endpoints are, in the family of names
/// the question came by.
enum CloudMetadata {
    /// The shape follows the version: 2015-01-01 knows only sign-in, 2019-05-01 to 2020-06-01 list clouds, the rest
    /// describe one.
    static func endpoints(_ names: NameFamily, apiVersion: String) -> JSONValue {
        if apiVersion < "2018-05-01" { return signIn(names) }
        if apiVersion >= "2019-05-01", apiVersion < "2022-09-01" { return clouds(names) }
        return cloud(names)
    }

    static func clouds(_ names: NameFamily) -> JSONValue { [cloud(names)] }

    private static func signIn(_ names: NameFamily) -> JSONValue {
        [
            "galleryEndpoint": .string(names.url(of: .management) + "/"),
            "graphEndpoint": .string(names.url(of: .graph) + "/"),
            "portalEndpoint": .string(names.url(of: .management) + "/"), "authentication": authentication(names),
        ]
    }

    private static func authentication(_ names: NameFamily) -> JSONValue {
        let management = names.url(of: .management)
        let audiences: [JSONValue] =
            switch names {
            case .azurePublic: ["https://management.core.windows.net/", "https://management.azure.com/"]
            case .coffer: [.string(management + "/"), .string(management)]
            }
        return [
            "loginEndpoint": .string(names.url(of: .login)), "audiences": .array(audiences), "tenant": "common",
            "identityProvider": "AAD",
        ]
    }

    private static func cloud(_ names: NameFamily) -> JSONValue {
        let management = names.url(of: .management)
        let graph = names.url(of: .graph)
        let domain: String
        let name: String
        switch names {
        case .azurePublic:
            name = "AzureCloud"
            domain = "azure.com"
        case .coffer(let own, _):
            name = "Coffer"
            // With the port, when the family has one.
            domain = own + names.authority(of: .management).dropFirst("management.\(own)".count)
        }
        let isPublic = names == .azurePublic
        return [
            "name": .string(name), "portal": .string(management + "/"), "authentication": authentication(names),
            "resourceManager": .string(management + "/"), "graph": .string(graph + "/"),
            "graphAudience": .string(graph + "/"),
            "microsoftGraphResourceId": .string(graph + "/"), "gallery": .string(management + "/"),
            "appServiceResourceId": "https://appservice.\(domain)",
            "logAnalyticsResourceId": .string(
                isPublic ? "https://api.loganalytics.io" : "https://loganalytics.\(domain)"),
            "suffixes": [
                "storage": .string(names.storageSuffix), "keyVaultDns": .string(names.vaultSuffix),
                "mhsmDns": .string(names.managedHSMSuffix),
            ],
        ]
    }
}
