internal import CofferCore

/// The variables a worker starts with: the site's settings, and what App Service and the Functions host add to them.
enum WorkerEnvironment {
    /// Settings of the host alone: whoever has these can read the key store, or sign a token that opens the host.
    private static let withheld = [
        "azurewebencryptionkey", "azurewebprimaryencryptionkey", "machinekey_decryptionkey",
        "website_auth_encryption_key", "container_encryption_key",
    ]

    static func variables(
        of site: Site, settings: ResolvedSettings, hostName: String, instanceID: String, added: [String: String]
    ) -> [String: RedactedString] {
        var variables = added.mapValues { RedactedString($0) }
        for (name, value) in settings.values where !withheld.contains(where: { name.lowercased().hasPrefix($0) }) {
            variables[name] = value
        }
        for (name, string) in settings.connectionStrings {
            variables[string.kind.environmentPrefix + name] = string.value
        }
        let fixed = [
            "HOME": "/home", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PATH": Sandbox.path,
            "WEBSITE_SITE_NAME": site.name, "WEBSITE_HOSTNAME": hostName, "WEBSITE_INSTANCE_ID": instanceID,
            "WEBSITE_RESOURCE_GROUP": site.id.resourceGroup ?? "",
            "WEBSITE_OWNER_NAME": "\(site.id.subscription ?? "")+\(site.id.resourceGroup ?? "")",
            "WEBSITE_SKU": "Dynamic", "REGION_NAME": site.location,
            "FUNCTIONS_APP_ROOT_PATH": Sandbox.root, "AzureWebJobsScriptRoot": Sandbox.root,
        ]
        for (name, value) in fixed where name != "PATH" || variables["PATH"] == nil {
            variables[name] = RedactedString(value)
        }
        return variables
    }

    /// What changes with every start.
    static func perStart(port: Int, workerID: String, identityEndpoint: String?, identityHeader: RedactedString?)
        -> [String: RedactedString]
    {
        var variables: [String: RedactedString] = [
            "FUNCTIONS_CUSTOMHANDLER_PORT": RedactedString(String(port)),
            "FUNCTIONS_HTTPWORKER_PORT": RedactedString(String(port)),
            "FUNCTIONS_CUSTOMHANDLER_WORKER_ID": RedactedString(workerID),
            "FUNCTIONS_HTTPWORKER_ID": RedactedString(workerID),
        ]
        if let identityEndpoint, let identityHeader {
            variables["IDENTITY_ENDPOINT"] = RedactedString(identityEndpoint)
            variables["IDENTITY_HEADER"] = identityHeader
            variables["MSI_ENDPOINT"] = RedactedString(identityEndpoint)
            variables["MSI_SECRET"] = identityHeader
        }
        return variables
    }
}
