import CofferCore
import EncryptionAtRest
import ResourceProviders

/// PUT and PATCH of a vault, its recovery, and its access policies.
extension KeyVaultService {
    func writeVault(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        let id = request.path
        try require(caller, "vaults/write", at: id)
        let body = request.body ?? [:]
        let written = try await retryingConflicts { () async throws -> Vault? in
            let entry = try await index.find(id.name)
            let vault = try await decide(request, body, entry?.vault, as: caller)
            return try await index.put(vault, replacing: entry?.version) ? vault : nil
        }
        changed(written, "written", by: caller)
        return .json(200, written.body(request.names))
    }

    /// The vault as the request wants it, or the refusal.
    private func decide(_ request: ControlRequest, _ body: JSONValue, _ existing: Vault?, as caller: Caller)
        async throws -> Vault
    {
        let id = request.path
        let recovers = body.member("properties")?.member("createMode")?.stringValue?.lowercased() == "recover"
        if let existing, existing.deletion == nil, existing.resourceID == id {
            return try update(existing, body, isPatch: request.method == .patch, as: caller)
        }
        if request.method == .patch { throw ControlError.resourceNotFound(id) }
        guard isValidVaultName(id.name) else {
            throw ControlError.badRequest(vaultNameRule(id.name), code: "VaultNameNotValid")
        }
        guard let existing else {
            if recovers {
                throw ControlError(
                    status: 404, code: "DeletedVaultNotFound",
                    message: "A vault cannot be recovered because no deleted vault named '\(id.name)' exists.")
            }
            return try create(id, body, request.apiVersion, as: caller)
        }
        guard existing.deletion != nil, existing.resourceID.subscription?.lowercased() == id.subscription?.lowercased()
        else {
            throw ControlError(
                status: 409, code: "VaultAlreadyExists",
                message:
                    "The vault name '\(id.name)' is already in use. Vault names are globaly unique so it is possible "
                    + "that the name is "
                    + "already taken. If you are sure that the vault name was not taken then it is possible that a "
                    + "vault with the same name "
                    + "was recently deleted but not purged after being placed in a recoverable state.")
        }
        guard recovers else {
            throw ControlError(
                status: 409, code: "ConflictError",
                message:
                    "A vault with the same name already exists in deleted state. You need to either recover or purge "
                    + "existing key vault. "
                    + "Follow this link https://go.microsoft.com/fwlink/?linkid=2149745 for more information on soft "
                    + "delete."
            )
        }
        return try recover(existing, id, body, as: caller)
    }

    private func recover(_ deleted: Vault, _ id: ResourceID, _ body: JSONValue, as caller: Caller) throws -> Vault {
        guard deleted.resourceID == id,
            body.member("location")?.stringValue.map({ normalizedLocation($0) == deleted.location }) != false
        else {
            throw ControlError.badRequest(
                "A deleted vault is recovered where it was: resource group "
                    + "'\(deleted.resourceID.resourceGroup ?? "")', location "
                    + "'\(deleted.location)'.")
        }
        guard let deletion = deleted.deletion, deletion.scheduledPurge > clock.now() else {
            throw ControlError(
                status: 409, code: "ConflictError", message: "The vault '\(deleted.name)' is being purged.")
        }
        var vault = deleted
        vault.deletion = nil
        stamp(&vault, caller)
        return vault
    }

    private func create(_ id: ResourceID, _ body: JSONValue, _ apiVersion: String, as caller: Caller) throws -> Vault {
        guard let location = body.member("location")?.stringValue, !location.isEmpty else {
            throw ControlError.badRequest(
                "The location property is required for this definition.", code: "LocationRequired")
        }
        let now = clock.now()
        var vault = Vault(
            incarnation: makeVersionID(), name: id.name, resourceID: id, location: normalizedLocation(location),
            tenantID: "", created: now,
            createdBy: caller.objectID, modified: now, modifiedBy: caller.objectID)
        // From 2026-02-01 a vault that does not say answers to roles.
        vault.usesRoles = apiVersion >= "2026-02-01"
        try VaultProperties(body, installation: installation).apply(to: &vault, isNew: true, isPatch: false)
        return vault
    }

    private func update(_ existing: Vault, _ body: JSONValue, isPatch: Bool, as caller: Caller) throws -> Vault {
        var vault = existing
        if let location = body.member("location")?.stringValue, normalizedLocation(location) != vault.location {
            throw ControlError(
                status: 409, code: "InvalidResourceLocation",
                message:
                    "The resource '\(vault.name)' already exists in location '\(vault.location)'. A resource with "
                    + "the same name cannot be "
                    + "created in location '\(location)'. Please select a new resource name.")
        }
        try VaultProperties(body, installation: installation).apply(to: &vault, isNew: false, isPatch: isPatch)
        stamp(&vault, caller)
        return vault
    }

    private func stamp(_ vault: inout Vault, _ caller: Caller) {
        vault.modified = clock.now()
        vault.modifiedBy = caller.objectID
    }

    // MARK: Access policies

    /// `PUT …/accessPolicies/{add|replace|remove}`: union, replacement or difference per identity.
    func changeAccessPolicies(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        let id = request.path.vaultID
        let kind = request.path.name.lowercased()
        try require(caller, "vaults/accessPolicies/write", at: id)
        guard let given = request.body?.member("properties")?.member("accessPolicies") else {
            throw ControlError.badRequest("The property 'properties.accessPolicies' is required.")
        }
        let policies = try AccessPolicy.list(given, installation: installation)
        let written = try await retryingConflicts { () async throws -> Vault? in
            guard let entry = try await liveVault(id) else { throw ControlError.resourceNotFound(id) }
            var vault = entry.vault
            for policy in policies {
                let place = vault.accessPolicies.firstIndex { $0.isSameIdentity(as: policy) }
                switch (kind, place) {
                case ("add", let place?): vault.accessPolicies[place].add(policy)
                case ("replace", let place?): vault.accessPolicies[place] = policy
                case ("add", nil), ("replace", nil): vault.accessPolicies.append(policy)
                case ("remove", let place?):
                    vault.accessPolicies[place].remove(policy)
                    if vault.accessPolicies[place].isEmpty { vault.accessPolicies.remove(at: place) }
                case ("remove", nil): break
                default:
                    throw ControlError.badRequest("The operation kind '\(kind)' is not one of add, replace, remove.")
                }
            }
            guard vault.accessPolicies.count <= Limits.accessPolicies else { throw AccessPolicy.tooMany }
            stamp(&vault, caller)
            return try await index.put(vault, replacing: entry.version) ? vault : nil
        }
        changed(written, "access policies changed", by: caller)
        return .json(
            200,
            [
                "id": .string("\(id)/accessPolicies/"), "type": "Microsoft.KeyVault/vaults/accessPolicies",
                "location": .string(written.location),
                "properties": ["accessPolicies": .array(written.accessPolicies.map(\.body))],
            ])
    }
}

extension AccessPolicy {
    static let tooMany = ControlError.badRequest(
        "A vault holds at most \(KeyVaultService.Limits.accessPolicies) access policies.")

    /// The permission names each area knows; anything else is refused, so that a typing error does not look like a
    /// grant.
    private static let known: [String: Set<String>] = [
        "keys": [
            "get", "list", "update", "create", "import", "delete", "recover", "backup", "restore", "decrypt", "encrypt",
            "unwrapkey",
            "wrapkey", "verify", "sign", "purge", "release", "rotate", "getrotationpolicy", "setrotationpolicy", "all",
        ],
        "secrets": ["get", "list", "set", "delete", "recover", "backup", "restore", "purge", "all"],
        "certificates": [
            "get", "list", "update", "create", "import", "delete", "recover", "backup", "restore", "managecontacts",
            "manageissuers",
            "getissuers", "listissuers", "setissuers", "deleteissuers", "purge", "all",
        ],
        "storage": [
            "get", "list", "delete", "set", "update", "regeneratekey", "getsas", "listsas", "deletesas", "setsas",
            "recover", "backup",
            "restore", "purge", "all",
        ],
    ]

    static func list(_ value: JSONValue, installation: Installation) throws(ControlError) -> [AccessPolicy] {
        guard let entries = value.arrayValue else { throw .badRequest("The property 'accessPolicies' must be a list.") }
        guard entries.count <= KeyVaultService.Limits.accessPolicies else { throw tooMany }
        var policies: [AccessPolicy] = []
        for entry in entries {
            let policy = try AccessPolicy(entry, installation)
            // One entry for each identity: a later one adds to it.
            if let place = policies.firstIndex(where: { $0.isSameIdentity(as: policy) }) {
                policies[place].add(policy)
            } else {
                policies.append(policy)
            }
        }
        return policies
    }

    private init(_ entry: JSONValue, _ installation: Installation) throws(ControlError) {
        guard let objectID = entry.member("objectId")?.stringValue, !objectID.isEmpty, objectID.utf8.count <= 64 else {
            throw .badRequest("An access policy needs an objectId.")
        }
        let tenantID = entry.member("tenantId")?.stringValue ?? installation.tenantID
        guard tenantID.lowercased() == installation.tenantID.lowercased() else {
            throw .badRequest("An access policy's tenantId must be the vault's tenant '\(installation.tenantID)'.")
        }
        let permissions = entry.member("permissions") ?? [:]
        func names(_ area: String) throws(ControlError) -> [String] {
            guard let value = permissions.member(area), !value.isNull else { return [] }
            var names: [String] = []
            for name in value.arrayValue ?? [.null] {
                guard let text = name.stringValue, Self.known[area]?.contains(text.lowercased()) == true else {
                    throw .badRequest("An invalid value was provided for 'accessPolicies.permissions.\(area)'.")
                }
                if !names.contains(where: { $0.lowercased() == text.lowercased() }) { names.append(text) }
            }
            return names
        }
        self.init(
            tenantID: tenantID, objectID: objectID, applicationID: entry.member("applicationId")?.stringValue,
            keys: try names("keys"),
            secrets: try names("secrets"), certificates: try names("certificates"), storage: try names("storage"))
    }

    var isEmpty: Bool { keys.isEmpty && secrets.isEmpty && certificates.isEmpty && storage.isEmpty }

    mutating func add(_ other: AccessPolicy) {
        for area in Self.areas {
            for name in other[keyPath: area]
            where !self[keyPath: area].contains(where: { $0.lowercased() == name.lowercased() }) {
                self[keyPath: area].append(name)
            }
        }
    }
    mutating func remove(_ other: AccessPolicy) {
        for area in Self.areas {
            let removed = Set(other[keyPath: area].map { $0.lowercased() })
            self[keyPath: area].removeAll { removed.contains($0.lowercased()) }
        }
    }
    private static var areas: [WritableKeyPath<AccessPolicy, [String]>] {
        [\.keys, \.secrets, \.certificates, \.storage]
    }

    var body: JSONValue {
        func list(_ names: [String]) -> JSONValue { .array(names.map { .string($0) }) }
        var permissions: [String: JSONValue] = [
            "keys": list(keys), "secrets": list(secrets), "certificates": list(certificates),
        ]
        if !storage.isEmpty { permissions["storage"] = list(storage) }
        var entry: [String: JSONValue] = [
            "tenantId": .string(tenantID), "objectId": .string(objectID), "permissions": .object(permissions),
        ]
        if let applicationID { entry["applicationId"] = .string(applicationID) }
        return .object(entry)
    }
}
