import CofferCore
import ResourceProviders

/// Create, read, change and delete a site, and its life: start, stop, restart.
extension WebOperation {
    func listSites() async throws(ControlError) -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw .badRequest("The path names no scope.") }
        let readable = sites.sites().filter { scope.contains($0.id) && isAllowed("sites/read", at: $0.id) }
        return .json(200, ["value": .array(readable.map(wire)), "nextLink": .null])
    }

    func getSite() async throws(ControlError) -> ControlResponse { .json(200, wire(try site(for: "sites/read"))) }

    func putSite() async throws(ControlError) -> ControlResponse {
        try require("sites/write", at: siteID)
        try requireReadable(siteID)
        return try await changingIdentity { () async throws(ControlError) in
            sites.site(siteID) == nil ? try await create() : try await change()
        }
    }

    private func create() async throws(ControlError) -> ControlResponse {
        let name = request.path.name
        if let reason = Site.refusal(ofName: name) { throw .badRequest(reason) }
        guard sites.site(named: name) == nil else {
            throw ControlError(status: 409, code: "Conflict", message: SiteStoreError.nameTaken(name).description)
        }
        let body = request.body ?? [:]
        guard let location = body.member("location")?.stringValue, !location.isEmpty else {
            throw .badRequest("The location property is required for this definition.", code: "LocationRequired")
        }
        let kind = body.member("kind")?.stringValue ?? "app"
        guard kind.lowercased().split(separator: ",").contains("functionapp") else {
            throw ControlError(
                status: 501, code: "NotImplemented",
                message:
                    "Sites of kind '\(kind)' are not supported by this server; use a function app (kind 'functionapp,linux')."
            )
        }
        var new = Site(
            id: siteID, kind: kind, location: location, created: provider.clock.now(),
            secrets: SiteSecrets(
                publishingCredentials: .generate(siteName: name, randomness: provider.randomness)))
        do { try apply(body, to: &new) } catch { throw Self.control(error, siteID) }
        let asked = try askedIdentity(body)
        if new.serverFarmID == nil {
            guard let group = siteID.resourceGroupID else { throw .badRequest("A site lies in a resource group.") }
            new.serverFarmID = try await implicitPlan(location: location, isLinux: new.isLinux, group: group).id
        }
        new.identity = try await identity(asked, current: nil)
        let made = new
        do { try await sites.create(made) } catch {
            await dismiss(made.identity, unlessIt: nil, after: error)
            throw Self.control(error, siteID)
        }
        return .json(200, wire(made))
    }

    func patchSite() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/write")
        return try await changingIdentity { () async throws(ControlError) in try await change() }
    }

    /// A PUT of an existing site brings the whole of an earlier GET back; like a PATCH, it changes what it names.
    private func change() async throws(ControlError) -> ControlResponse {
        let body = request.body ?? [:]
        guard var trial = sites.site(siteID) else { throw noResource(siteID) }
        let current = trial.identity
        // What will be refused is refused here, before an identity is made for it.
        do { try apply(body, to: &trial) } catch { throw Self.control(error, siteID) }
        let asked = try askedIdentity(body)
        let identity = try await identity(asked, current: current)
        let changed: Site
        do {
            let now = provider.clock.now()
            changed = try await sites.update(siteID) { site in
                try apply(body, to: &site)
                site.identity = identity
                site.lastModified = now
            }
        } catch {
            await dismiss(identity, unlessIt: current, after: error)
            throw Self.control(error, siteID)
        }
        // Last: a site never names an identity that is gone.
        if asked == .removed { try await removeIdentity() }
        return .json(200, wire(changed))
    }

    func deleteSite() async throws(ControlError) -> ControlResponse {
        try require("sites/delete", at: siteID)
        try requireReadable(siteID)
        return try await changingIdentity { () async throws(ControlError) in
            guard sites.site(siteID) != nil else { return .empty(204) }
            // The identity first: a crash in between leaves a site without a working one, which deleting again mends.
            try await removeIdentity()
            do { return .empty(try await sites.delete(siteID) ? 200 : 204) } catch {
                throw Self.control(error, siteID)
            }
        }
    }

    // MARK: Life

    func start() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/start/action")
        do { try await runtime.start(siteID) } catch { throw Self.control(error, siteID) }
        return .empty(200)
    }
    func stop() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/stop/action")
        do { try await runtime.stop(siteID) } catch { throw Self.control(error, siteID) }
        return .empty(200)
    }
    func restart() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/restart/action")
        try await running { () async throws(FunctionsError) in try await runtime.restart(siteID) }
        return .empty(200)
    }
    func syncTriggers() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/syncfunctiontriggers/action")
        try await running { () async throws(FunctionsError) in try await runtime.syncTriggers(siteID) }
        return .empty(204)
    }
    func listSyncStatus() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/host/listsyncstatus/action")
        return .json(200, ["status": "success"])
    }

    func listHostNameBindings() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/hostNameBindings/read")
        let host = request.names.authority(of: .site(site.name))
        let binding: JSONValue = [
            "id": .string("\(site.id)/hostNameBindings/\(host)"), "name": .string("\(site.name)/\(host)"),
            "type": "Microsoft.Web/sites/hostNameBindings",
            "location": .string(Self.displayName(ofRegion: site.location)),
            "properties": ["siteName": .string(site.name), "hostNameType": "Verified"],
        ]
        return .json(200, ["value": [binding]])
    }

    /// Slots are not supported, so a site has none.
    func listSlots() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/slots/read")
        return .json(200, ["value": []])
    }

    // MARK: Applying a body

    /// Takes over what a PUT or PATCH body names. Read-only members, as a GET shows them, are passed over; app settings
    /// that are null or absent stay as they are.
    private func apply(_ body: JSONValue, to site: inout Site) throws {
        if let kind = body.member("kind")?.stringValue { site.kind = kind }
        if let tags = body.member("tags")?.objectValue { site.tags = tags.compactMapValues(\.stringValue) }
        guard let properties = body.member("properties")?.objectValue else { return }
        for (name, value) in properties where !value.isNull { try apply(name, value, to: &site) }
    }

    private func apply(_ name: String, _ value: JSONValue, to site: inout Site) throws {
        switch name.lowercased() {
        case "httpsonly": site.httpsOnly = try flag(name, value)
        case "clientaffinityenabled": site.clientAffinityEnabled = try flag(name, value)
        case "clientcertenabled": site.clientCertEnabled = try flag(name, value)
        case "clientcertmode":
            guard let mode = value.stringValue.flatMap(Site.ClientCertMode.init(rawValue:)) else {
                throw SiteConfigError(name, "use Required, Optional or OptionalInteractiveUser")
            }
            site.clientCertMode = mode
        case "clientcertexclusionpaths": site.clientCertExclusionPaths = value.stringValue
        case "publicnetworkaccess":
            guard let access = value.stringValue.flatMap(Site.PublicNetworkAccess.init(rawValue:)) else {
                throw SiteConfigError(name, "use Enabled or Disabled")
            }
            site.publicNetworkAccess = access
        case "dailymemorytimequota":
            guard let quota = value.intValue, quota >= 0 else {
                throw SiteConfigError(name, "use GB-seconds a day, 0 for none")
            }
            site.dailyMemoryTimeQuota = quota
        case "keyvaultreferenceidentity":
            guard value.stringValue?.lowercased() == "systemassigned" else {
                throw SiteConfigError(name, "only SystemAssigned is supported")
            }
            site.keyVaultReferenceIdentity = "SystemAssigned"
        case "serverfarmid":
            let id = ResourceID(value.stringValue ?? "")
            // Whoever may write a site may not for that run it on anybody's plan, nor learn which plans there are.
            if id != site.serverFarmID { try require("serverfarms/join/action", at: id) }
            try requireReadable(id)
            guard sites.plan(id) != nil else { throw SiteConfigError(name, "the plan '\(id)' does not exist") }
            site.serverFarmID = id
        case "siteconfig":
            try site.config.apply(value.objectValue ?? [:])
            if let settings = value.member("appSettings")?.arrayValue {
                site.secrets.appSettings = try Self.appSettings(settings)
            }
        case "reserved", "functionappconfig": site.otherProperties[name] = value
        default:
            if Self.kept.contains(name.lowercased()) { site.otherProperties[name] = value }
        }
    }

    /// Members without a meaning here that a client expects to read back. All others of a GET are computed.
    private static let kept: Set = [
        "clientaffinityproxyenabled", "containersize", "hostnamesdisabled", "vnetrouteallenabled",
        "virtualnetworksubnetid",
        "storageaccountrequired", "redundancymode", "endtoendencryptionenabled",
    ]

    private func flag(_ name: String, _ value: JSONValue) throws -> Bool {
        guard let flag = value.boolValue else { throw SiteConfigError(name, "a boolean is required") }
        return flag
    }

    /// `[{"name","value"}]`, as `siteConfig.appSettings` writes them.
    private static func appSettings(_ entries: [JSONValue]) throws -> [String: RedactedString] {
        var settings: [String: RedactedString] = [:]
        for entry in entries {
            guard let name = entry.member("name")?.stringValue else {
                throw SiteConfigError("appSettings", "every entry needs a name")
            }
            try checkSettingName(name)
            settings[name] = RedactedString(entry.member("value")?.stringValue ?? "")
        }
        return settings
    }

    /// A setting becomes an environment variable: its name cannot be empty, and cannot hold `=` or NUL.
    static func checkSettingName(_ name: String) throws(SiteConfigError) {
        guard !name.isEmpty, name.utf8.count <= 512, !name.utf8.contains(where: { $0 == 0 || $0 == 0x3d }) else {
            throw SiteConfigError("appSettings", "a name has 1 to 512 bytes and neither '=' nor NUL")
        }
    }
}
