internal import AccessControl
public import CofferCore
internal import EncryptionAtRest
internal import Logging
public import ResourceProviders

/// The control plane: `Microsoft.KeyVault`. Every operation answers at once (200), with the change durable.
extension KeyVaultService: ResourceProvider {
    public var namespace: String { "Microsoft.KeyVault" }

    private static let apiVersions = [
        "2026-05-15", "2026-02-01", "2025-05-01", "2024-11-01", "2024-04-01-preview", "2023-07-01", "2023-02-01",
        "2022-07-01",
        "2021-10-01", "2019-09-01", "2018-02-14", "2016-10-01", "2015-06-01",
    ]
    public var resourceTypes: [ResourceTypeDescription] {
        [
            "vaults", "vaults/accessPolicies", "vaults/keys", "vaults/secrets", "deletedVaults", "locations",
            "locations/deletedVaults",
            "checkNameAvailability", "operations",
        ].map { ResourceTypeDescription($0, apiVersions: Self.apiVersions) }
    }

    public func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        do {
            return try await dispatch(request, as: caller)
        } catch let error as ControlError {
            throw error
        } catch {
            let error = vaultError(error)
            throw ControlError(status: error.status, code: error.code, message: error.message)
        }
    }

    private func dispatch(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        let path = request.path
        let types = path.types.map { $0.lowercased() }
        let hasName = path.names.count == types.count
        switch (types, hasName) {
        case (["vaults"], false) where request.method == .get: return try await listVaults(request, as: caller)
        case (["vaults"], true): return try await serveVault(request, as: caller)
        case (["vaults", "accesspolicies"], true) where request.method == .put:
            return try await changeAccessPolicies(request, as: caller)
        case (["vaults", "keys"], _), (["vaults", "keys", "versions"], _), (["vaults", "secrets"], _):
            return try await serveVaultObjects(request, types, as: caller)
        case (["vaults", "privateendpointconnections"], false) where request.method == .get,
            (["vaults", "privatelinkresources"], false) where request.method == .get:
            _ = try await readableVault(path.vaultID, as: caller)
            return .json(200, ["value": []])
        case (["checknameavailability"], false) where request.method == .post:
            return try await checkNameAvailability(request, as: caller)
        case (["deletedvaults"], false) where request.method == .get:
            return try await listDeletedVaults(request, as: caller)
        case (["locations", "deletedvaults"], true) where request.method == .get:
            return try await getDeletedVault(request, as: caller)
        case (["locations", "deletedvaults", "purge"], false) where request.method == .post:
            return try await purgeDeletedVault(request, as: caller)
        case (["operations"], false) where request.method == .get: return .json(200, ["value": []])
        // `az keyvault list` and its like ask for both kinds at once: there are no managed HSMs.
        case (["managedhsms"], false) where request.method == .get,
            (["deletedmanagedhsms"], false) where request.method == .get:
            return .json(200, ["value": []])
        case let (kinds, _) where kinds.first == "managedhsms" && request.method == .get:
            throw ControlError.resourceNotFound(path)
        case let (kinds, _) where kinds.first == "managedhsms" || kinds.first == "deletedmanagedhsms":
            throw ControlError.notImplemented("Managed HSM")
        default:
            throw ControlError(
                status: 404, code: "InvalidResourceType",
                message:
                    "The resource type could not be found in the namespace 'Microsoft.KeyVault' for api version "
                    + "'\(request.apiVersion)'."
            )
        }
    }

    func require(_ caller: Caller, _ action: String, at scope: ResourceID) throws(ControlError) {
        let action = Action.control("Microsoft.KeyVault/" + action)
        guard access.decide(caller, action, at: scope).isAllowed else {
            throw .authorizationFailed(caller, action, scope)
        }
    }

    // MARK: Vaults

    private func serveVault(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        switch request.method {
        case .get, .head: return .json(200, try await readableVault(request.path, as: caller).body(request.names))
        case .put, .patch: return try await writeVault(request, as: caller)
        case .delete: return try await deleteVault(request.path, as: caller)
        case .post: throw ControlError.badRequest("A vault has no POST.")
        }
    }

    /// The live vault of an identifier. Throws 403 before 404, so that names are not told to everyone.
    func readableVault(_ id: ResourceID, as caller: Caller, action: String = "vaults/read") async throws -> Vault {
        try require(caller, action, at: id)
        guard let vault = try await liveVault(id)?.vault else { throw ControlError.resourceNotFound(id) }
        return vault
    }
    func liveVault(_ id: ResourceID) async throws -> VaultIndex.Entry? {
        guard let entry = try await index.find(id.names.first ?? ""), entry.vault.deletion == nil,
            entry.vault.resourceID == id
        else { return nil }
        return entry
    }

    private func listVaults(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw ControlError.resourceNotFound(request.path) }
        let action = Action.control("Microsoft.KeyVault/vaults/read")
        let vaults = try await index.all().filter {
            $0.deletion == nil && scope.contains($0.resourceID)
                && access.decide(caller, action, at: $0.resourceID).isAllowed
        }
        return .json(200, ["value": .array(vaults.map { $0.body(request.names) })])
    }

    /// Deletes softly: from here on nothing of it can be reached, until it is recovered or purged.
    private func deleteVault(_ id: ResourceID, as caller: Caller) async throws -> ControlResponse {
        try require(caller, "vaults/delete", at: id)
        let deleted = try await retryingConflicts { () async throws -> Vault?? in
            guard let entry = try await liveVault(id) else { return .some(nil) }
            var vault = entry.vault
            vault.deletion = vault.deletion(at: clock.now())
            return try await index.put(vault, replacing: entry.version) ? .some(vault) : nil
        }
        guard let deleted else { return .empty(204) }
        changed(deleted, "deleted", by: caller)
        return .empty(200)
    }

    /// After a change of a vault is durable and before it is acknowledged.
    func changed(_ vault: Vault, _ what: String, by caller: Caller?) {
        handles.drop(vault: vault.incarnation)
        announce(vault.name.lowercased())
        logger.info("vault \(what)", metadata: ["vault": "\(vault.name)", "oid": "\(caller?.objectID ?? "scheduled")"])
    }

    private func checkNameAvailability(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw ControlError.resourceNotFound(request.path) }
        try require(caller, "checkNameAvailability/read", at: scope)
        guard let name = request.body?.member("name")?.stringValue else {
            throw ControlError.badRequest("The property 'name' is required.")
        }
        if !isValidVaultName(name) {
            return .json(
                200, ["nameAvailable": false, "reason": "AccountNameInvalid", "message": .string(vaultNameRule(name))])
        }
        if try await index.find(name) != nil {
            return .json(
                200,
                [
                    "nameAvailable": false, "reason": "AlreadyExists",
                    "message": .string(
                        "The vault name '\(name)' is already in use. A deleted vault keeps its name until it is purged."
                    ),
                ])
        }
        return .json(200, ["nameAvailable": true])
    }

    // MARK: Deleted vaults

    private func listDeletedVaults(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw ControlError.resourceNotFound(request.path) }
        try require(caller, "deletedVaults/read", at: scope)
        let vaults = try await index.all().filter { $0.deletion != nil && scope.contains($0.resourceID) }
        return .json(200, ["value": .array(vaults.map(\.deletedBody))])
    }

    private func deletedVault(_ path: ResourceID, _ name: String, _ location: String) async throws -> VaultIndex.Entry {
        guard let entry = try await index.find(name), entry.vault.deletion != nil,
            entry.vault.location == normalizedLocation(location),
            entry.vault.resourceID.subscription?.lowercased() == path.subscription?.lowercased()
        else {
            throw ControlError(
                status: 404, code: "DeletedVaultNotFound",
                message: "The specified deleted vault '\(name)' does not exist in location '\(location)'.")
        }
        return entry
    }

    private func getDeletedVault(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        try require(caller, "locations/deletedVaults/read", at: request.path)
        let names = request.path.names
        return .json(200, try await deletedVault(request.path, names[1], names[0]).vault.deletedBody)
    }

    private func purgeDeletedVault(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        let path = ResourceID(segments: Array(request.path.segments.dropLast()))
        try require(caller, "locations/deletedVaults/purge/action", at: path)
        let vault = try await deletedVault(path, path.names[1], path.names[0]).vault
        try requirePurgeable(vault)
        try await purgeVault(named: vault.name, by: caller)
        return .empty(200)
    }

    /// Throws 405 while purge protection keeps a deleted vault.
    private func requirePurgeable(_ vault: Vault) throws(ControlError) {
        guard vault.isPurgeProtected, let deletion = vault.deletion, deletion.scheduledPurge > clock.now() else {
            return
        }
        throw ControlError(
            status: 405, code: "MethodNotAllowed",
            message:
                "Operation 'DeletedVaultPurge' is not allowed. Purge protection is on for the vault '\(vault.name)': it "
                + "stays until \(deletion.scheduledPurge.iso8601).")
    }

    /// Removes a deleted vault with everything in it. Its objects go first and its name last: after a crash the purge
    /// can be repeated.
    ///
    /// Protection is asked here once more: since the caller looked, the vault may have been recovered, protected and
    /// deleted again.
    func purgeVault(named name: String, by caller: Caller? = nil) async throws {
        guard let entry = try await index.find(name), entry.vault.deletion != nil else { return }
        try requirePurgeable(entry.vault)
        // Taking the recovery away first keeps a vault that is being emptied from coming back half full.
        var vault = entry.vault
        vault.deletion?.scheduledPurge = Timestamp(unixSeconds: 0)
        guard try await index.put(vault, replacing: entry.version) else { throw VaultError.busy }
        try await records(of: vault).destroy()
        if let last = try await index.find(name), last.vault == vault { _ = try await index.remove(last) }
        changed(vault, "purged", by: caller)
    }

    // MARK: For Resource Manager

    public func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] {
        do throws(VaultError) {
            return try await answering { () async throws -> [TrackedResource] in
                try await index.all().filter { $0.deletion == nil && scope.contains($0.resourceID) }.map {
                    TrackedResource(
                        id: $0.resourceID, type: "Microsoft.KeyVault/vaults", location: $0.location, tags: $0.tags)
                }
            }
        } catch {
            throw ControlError(status: error.status, code: error.code, message: error.message)
        }
    }

    public func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        do {
            _ = try await deleteVault(id, as: caller)
        } catch let error as ControlError {
            throw error
        } catch {
            let error = vaultError(error)
            throw ControlError(status: error.status, code: error.code, message: error.message)
        }
    }
}

extension ResourceID {
    /// The vault an identifier below it belongs to.
    var vaultID: ResourceID {
        let below = (types.count - 1) + (names.count - 1)
        return ResourceID(segments: Array(segments.dropLast(max(0, below))))
    }
}

/// 3 to 24 letters, digits and hyphens; a letter first, a letter or digit last, no two hyphens in a row.
func isValidVaultName(_ name: String) -> Bool {
    let bytes = Array(name.lowercased().utf8)
    func isLetter(_ byte: UInt8) -> Bool { (97...122).contains(byte) }
    func isDigit(_ byte: UInt8) -> Bool { (48...57).contains(byte) }
    return (3...24).contains(bytes.count) && isLetter(bytes[0]) && (isLetter(bytes.last!) || isDigit(bytes.last!))
        && bytes.allSatisfy { isLetter($0) || isDigit($0) || $0 == 0x2d } && !name.contains("--")
}
func vaultNameRule(_ name: String) -> String {
    "The vault name '\(name)' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name must "
        + "begin with a letter, end "
        + "with a letter or digit, and not contain consecutive hyphens. Follow this link for more information: "
        + "https://go.microsoft.com/fwlink/?linkid=2147742"
}
func normalizedLocation(_ location: String) -> String { location.lowercased().filter { $0 != " " } }
