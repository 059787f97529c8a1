import CofferCore
import ResourceProviders

/// `config/…` of a site: the web configuration, settings and strings, references, and the publishing credentials.
extension WebOperation {
    private func envelope(_ site: Site, _ name: String, _ type: String, _ properties: JSONValue) -> ControlResponse {
        .json(
            200,
            [
                "id": .string("\(site.id)/\(type)/\(name)"), "name": .string(name),
                "type": .string("Microsoft.Web/sites/\(type)"),
                "location": .string(Self.displayName(ofRegion: site.location)), "properties": properties,
            ])
    }

    // MARK: web

    func getWebConfig() async throws(ControlError) -> ControlResponse { webConfig(try site(for: "sites/config/read")) }

    func setWebConfig() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/config/write")
        let members = properties.objectValue ?? [:]
        return webConfig(try await update { try $0.config.apply(members) })
    }

    private func webConfig(_ site: Site) -> ControlResponse {
        var members = site.config.json
        members["publishingUsername"] = .string(site.secrets.publishingCredentials.userName)
        return envelope(site, "web", "config", .object(members))
    }

    // MARK: App settings and connection strings

    /// The one place that shows settings in clear; Reader does not hold this action.
    func listAppSettings() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/config/list/action")
        return appSettings(site)
    }

    /// Replaces all settings.
    func setAppSettings() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/config/write")
        guard let members = properties.objectValue else {
            throw .badRequest("properties must be an object of names and texts.")
        }
        var settings: [String: RedactedString] = [:]
        for (name, value) in members where !value.isNull {
            do { try Self.checkSettingName(name) } catch { throw Self.control(error, siteID) }
            guard let text = Self.text(value) else {
                throw .badRequest("The value of the app setting '\(name)' must be a string.")
            }
            settings[name] = RedactedString(text)
        }
        let new = settings
        return appSettings(try await update { $0.secrets.appSettings = new })
    }

    private func appSettings(_ site: Site) -> ControlResponse {
        envelope(site, "appsettings", "config", .object(site.secrets.appSettings.mapValues { .string($0.reveal()) }))
    }

    /// Numbers and booleans count as their text, as in the original.
    private static func text(_ value: JSONValue) -> String? {
        switch value {
        case .string(let text): text
        case .bool(let flag): flag ? "true" : "false"
        case .integer(let number): String(number)
        case .number(let number): String(number)
        case .null, .array, .object: nil
        }
    }

    func listConnectionStrings() async throws(ControlError) -> ControlResponse {
        connectionStrings(try site(for: "sites/config/list/action"))
    }

    func setConnectionStrings() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/config/write")
        var strings: [String: ConnectionString] = [:]
        for (name, entry) in properties.objectValue ?? [:] where !entry.isNull {
            do { try Self.checkSettingName(name) } catch { throw Self.control(error, siteID) }
            guard let value = entry.member("value")?.stringValue, let type = entry.member("type")?.stringValue,
                let kind = ConnectionString.Kind.allCases.first(where: { $0.rawValue.lowercased() == type.lowercased() }
                )
            else {
                let kinds = ConnectionString.Kind.allCases.map(\.rawValue).joined(separator: ", ")
                throw .badRequest("The connection string '\(name)' needs a value and a type of: \(kinds).")
            }
            strings[name] = ConnectionString(value: RedactedString(value), kind: kind)
        }
        let new = strings
        return connectionStrings(try await update { $0.secrets.connectionStrings = new })
    }

    private func connectionStrings(_ site: Site) -> ControlResponse {
        let strings = site.secrets.connectionStrings.mapValues { string -> JSONValue in
            ["value": .string(string.value.reveal()), "type": .string(string.kind.rawValue)]
        }
        return envelope(site, "connectionstrings", "config", .object(strings))
    }

    // MARK: Slot names

    func getSlotConfigNames() async throws(ControlError) -> ControlResponse {
        slotConfigNames(try site(for: "sites/config/read"))
    }
    func setSlotConfigNames() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/config/write")
        func names(_ member: String) -> [String] {
            (properties.member(member)?.arrayValue ?? []).compactMap(\.stringValue)
        }
        let new = SlotConfigNames(
            appSettingNames: names("appSettingNames"), connectionStringNames: names("connectionStringNames"))
        return slotConfigNames(try await update { $0.slotConfigNames = new })
    }
    private func slotConfigNames(_ site: Site) -> ControlResponse {
        envelope(
            site, "slotConfigNames", "config",
            [
                "appSettingNames": .array(site.slotConfigNames.appSettingNames.map { .string($0) }),
                "connectionStringNames": .array(site.slotConfigNames.connectionStringNames.map { .string($0) }),
                "azureStorageConfigNames": .null,
            ])
    }

    // MARK: Key Vault references

    func listSettingReferences() async throws(ControlError) -> ControlResponse {
        try await listReferences("appsettings", \.appSettings)
    }
    func getSettingReference() async throws(ControlError) -> ControlResponse {
        try await getReference("appsettings", \.appSettings)
    }
    func listConnectionStringReferences() async throws(ControlError) -> ControlResponse {
        try await listReferences("connectionstrings", \.connectionStrings)
    }
    func getConnectionStringReference() async throws(ControlError) -> ControlResponse {
        try await getReference("connectionstrings", \.connectionStrings)
    }
    /// Reads the references of both lists again.
    func refreshReferences() async throws(ControlError) -> ControlResponse {
        // Both first: who may not see the outcome changes nothing.
        _ = try site(for: "sites/config/write")
        _ = try site(for: "sites/config/read")
        try await running { () async throws(FunctionsError) in try await runtime.refreshKeyVaultReferences(of: siteID) }
        return try await listSettingReferences()
    }

    private typealias References = KeyPath<KeyVaultReferences, [String: KeyVaultReferenceStatus]>

    private func listReferences(_ type: String, _ list: References) async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/config/read")
        let value = try await references(list).sorted { $0.key < $1.key }.map {
            reference($0.key, $0.value, type, site)
        }
        return .json(200, ["value": .array(value), "nextLink": .null])
    }
    private func getReference(_ type: String, _ list: References) async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/config/read")
        let asked = parameters["setting"] ?? ""
        let found = try await references(list).first { $0.key.lowercased() == asked.lowercased() }
        guard let (name, status) = found else {
            throw ControlError(status: 404, code: "NotFound", message: "'\(asked)' is not a Key Vault reference.")
        }
        return .json(200, reference(name, status, type, site))
    }
    private func references(_ list: References) async throws(ControlError) -> [String: KeyVaultReferenceStatus] {
        try await running { () async throws(FunctionsError) in
            try await runtime.keyVaultReferences(of: siteID)
        }[keyPath: list]
    }
    private func reference(
        _ name: String, _ status: KeyVaultReferenceStatus, _ type: String, _ site: Site
    ) -> JSONValue {
        func text(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
        return [
            "id": .string("\(site.id)/config/configreferences/\(type)/\(name)"), "name": .string(name),
            "type": .string("Microsoft.Web/sites/config/configreferences/\(type)"),
            "properties": [
                "reference": .string(status.reference), "status": .string(status.status.rawValue),
                "vaultName": text(status.vaultName), "secretName": text(status.secretName),
                "secretVersion": text(status.secretVersion), "activeVersion": text(status.activeVersion),
                "identityType": ["type": "SystemAssigned"], "details": .string(status.details), "source": "KeyVault",
            ],
        ]
    }

    // MARK: Publishing

    func listPublishingCredentials() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/config/list/action")
        let credentials = site.secrets.publishingCredentials
        let scm = request.names.authority(of: .scm(site.name))
        return envelope(
            site, site.name, "publishingcredentials",
            [
                "name": .null, "publishingUserName": .string(credentials.userName),
                "publishingPassword": .string(credentials.password.reveal()),
                "scmUri": .string("https://\(credentials.userName):\(credentials.password.reveal())@\(scm)"),
            ])
    }

    func newPublishingPassword() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/newpassword/action")
        let new = PublishingCredentials.generate(siteName: siteID.name, randomness: provider.randomness)
        _ = try await update { $0.secrets.publishingCredentials = new }
        return .empty(204)
    }

    /// The publish profile. The scm and FTP doors it names are closed (they refuse); az reads it all the same.
    func listPublishingProfile() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/publishxml/action")
        let credentials = site.secrets.publishingCredentials
        let scm = request.names.authority(of: .scm(site.name))
        let host = request.names.authority(of: .site(site.name))
        func profile(_ method: String, _ url: String, _ more: String) -> String {
            "<publishProfile profileName=\"\(site.name) - \(method)\" publishMethod=\"\(method)\" publishUrl=\"\(url)\" \(more)"
                + "userName=\"\(credentials.userName)\" userPWD=\"\(credentials.password.reveal())\" "
                + "destinationAppUrl=\"https://\(host)\" SQLServerDBConnectionString=\"\" mySQLDBConnectionString=\"\" "
                + "hostingProviderForumLink=\"\" controlPanelLink=\"\" webSystem=\"WebSites\"><databases /></publishProfile>"
        }
        let xml =
            "<publishData>" + profile("ZipDeploy", "\(scm):443", "")
            + profile("FTP", "ftps://\(scm)/site/wwwroot", "ftpPassiveMode=\"True\" ")
            + "</publishData>"
        return ControlResponse(status: 200, body: .xml(xml))
    }

    func listPublishingPolicies() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/basicPublishingCredentialsPolicies/read")
        return .json(200, ["value": .array([policy("ftp", of: site), policy("scm", of: site)])])
    }
    func getPublishingPolicy() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/basicPublishingCredentialsPolicies/read")
        return .json(200, policy(try door(), of: site))
    }
    func setPublishingPolicy() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/basicPublishingCredentialsPolicies/write")
        let door = try door()
        guard let isAllowed = properties.member("allow")?.boolValue else {
            throw .badRequest("properties.allow must be true or false.")
        }
        let changed = try await update { site in
            if door == "ftp" {
                site.publishingPolicies.ftpAllowed = isAllowed
            } else {
                site.publishingPolicies.scmAllowed = isAllowed
            }
        }
        return .json(200, policy(door, of: changed))
    }
    private func door() throws(ControlError) -> String {
        let door = parameters["door"]?.lowercased() ?? ""
        guard door == "ftp" || door == "scm" else { throw .badRequest("The policy is named ftp or scm.") }
        return door
    }
    private func policy(_ door: String, of site: Site) -> JSONValue {
        [
            "id": .string("\(site.id)/basicPublishingCredentialsPolicies/\(door)"), "name": .string(door),
            "type": "Microsoft.Web/sites/basicPublishingCredentialsPolicies",
            "location": .string(Self.displayName(ofRegion: site.location)),
            "properties": [
                "allow": .bool(door == "ftp" ? site.publishingPolicies.ftpAllowed : site.publishingPolicies.scmAllowed)
            ],
        ]
    }
}
