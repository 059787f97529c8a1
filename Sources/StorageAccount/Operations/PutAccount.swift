internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

extension StorageAccountService {
    /// Storage Accounts – Create. On an account that exists already it is an update, as in Azure.
    func putAccount(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let id = request.path
        try require(caller, Self.action("write"), at: id)
        guard let body = request.body, body.objectValue != nil else {
            throw .badRequest("The request needs a body.", code: "InvalidRequestContent")
        }
        let name = id.name
        guard AccountRules.isName(name) else {
            throw ControlError(
                status: 400, code: "AccountNameInvalid",
                message: "\(name) is not a valid storage account name. \(AccountRules.nameMessage)")
        }
        let location = try AccountRules.location(body.member("location"))
        do {
            return try await directory.change(name) { records, stored in
                let change: AppliedChange
                if let stored {
                    try self.requireSameAccount(stored.account, id, location: location)
                    change = try await self.applyUpdate(body, to: stored, in: records)
                } else {
                    change = try await self.create(id, location: location, body, in: records)
                }
                return .json(200, try await self.resource(change.account, change.secrets, names: request.names))
            }
        } catch {
            throw ControlError(anyError: error)
        }
    }

    struct AppliedChange: Sendable {
        let account: AccountRecord
        let secrets: AccountSecrets
    }

    private func requireSameAccount(_ account: AccountRecord, _ id: ResourceID, location: String) throws(ControlError) {
        guard account.resourceID == id else {
            guard account.resourceID.subscription?.lowercased() == id.subscription?.lowercased() else {
                throw Self.taken(account.name)
            }
            throw ControlError(
                status: 409, code: "StorageAccountInAnotherResourceGroup",
                message: "The account \(account.name) is already in another resource group in this subscription.")
        }
        guard account.location == location else {
            throw ControlError(
                status: 409, code: "InvalidResourceLocation",
                message:
                    "The resource '\(account.name)' already exists in location '\(account.location)' in resource group "
                    + "'\(id.resourceGroup ?? "")'. A resource with the same name cannot be created in location "
                    + "'\(location)'."
            )
        }
    }

    private static func taken(_ name: String) -> ControlError {
        ControlError(
            status: 409, code: "StorageAccountAlreadyTaken",
            message: "The storage account named \(name) is already taken.")
    }

    private func create(
        _ id: ResourceID, location: String, _ body: JSONValue, in records: AccountRecords
    ) async throws -> AppliedChange {
        guard let kindText = body.member("kind")?.stringValue else {
            throw ControlError.badRequest("The request needs a kind.", code: "InvalidRequestContent")
        }
        guard let kind = AccountRules.kinds.first(where: { $0.lowercased() == kindText.lowercased() }) else {
            throw ControlError.invalidValue("kind", "It is one of \(AccountRules.kinds.joined(separator: ", ")).")
        }
        guard let skuText = body.member("sku")?.member("name")?.stringValue else {
            throw ControlError.badRequest("The request needs a sku with a name.", code: "InvalidRequestContent")
        }
        let sku = try AccountRules.sku(skuText, kind: kind)
        let properties = body.member("properties") ?? [:]
        let now = clock.now()
        var account = AccountRecord(
            name: id.name, id: AccountID(bytes: randomness.bytes(16)),
            resourceID: ResourceID(
                segments: [
                    "subscriptions", id.subscription ?? "", "resourceGroups", id.resourceGroup ?? "", "providers",
                    "Microsoft.Storage",
                    "storageAccounts", id.name,
                ]),
            location: location, kind: kind, skuName: sku, created: now,
            tags: try AccountRules.tags(body.member("tags")) ?? [:],
            identity: nil, settings: AccountSettings(), encryptionEnabled: now, queueKeyType: nil, tableKeyType: nil)
        if kind == "BlobStorage", properties.member("accessTier")?.stringValue == nil {
            throw ControlError.badRequest(
                "The access tier is required for an account of kind 'BlobStorage'.", code: "AccountPropertyIsInvalid")
        }
        if account.tier == "Standard", kind == "StorageV2" { account.settings.accessTier = "Hot" }
        try account.settings.apply(properties, kind: kind, tier: account.tier)
        try EncryptionRequest(properties.member("encryption")).applyAtCreation(to: &account)
        if try wantsIdentity(body.member("identity")) == true {
            try await removeLeftIdentity(of: account)
            account.identity = try await newIdentity(of: account)
        }
        let secrets = AccountSecrets(created: now, randomness: randomness)
        try await store.accountKeys.create(account.id)
        let result = try await records.records.commit(
            checks: [.absent(AccountRecords.accountKey(account.name))],
            [try records.put(account), try records.put(secrets, of: account.name)])
        guard result != .conflict else {
            try? await store.accountKeys.destroy(account.id)
            throw Self.taken(account.name)
        }
        logger.info("Created a storage account.", metadata: ["account": "\(account.name)"])
        return AppliedChange(account: account, secrets: secrets)
    }

    /// Whether the body asks for a system-assigned identity: nil when it says nothing. Throws 400 for kinds of identity
    /// that do not exist here.
    func wantsIdentity(_ identity: JSONValue?) throws(ControlError) -> Bool? {
        guard let identity, !identity.isNull, let type = identity.member("type")?.stringValue else { return nil }
        switch type.lowercased().filter({ $0 != " " }) {
        case "systemassigned": return true
        case "none": return false
        case "userassigned", "systemassigned,userassigned": throw .featureNotSupported("identity.type UserAssigned")
        default: throw .invalidValue("identity.type", "It is SystemAssigned or None.")
        }
    }

    /// One left by a crash in the middle of a deletion is not this account's: its roles must not come back.
    func removeLeftIdentity(of account: AccountRecord) async throws {
        try await identities.removeSystemAssignedIdentity(of: account.resourceID)
    }

    func newIdentity(of account: AccountRecord) async throws(ControlError) -> ManagedIdentity {
        do {
            return try await identities.systemAssignedIdentity(of: account.resourceID, displayName: account.name)
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(
                status: 503, code: "ServiceUnavailable", message: "The account's identity could not be made. Try again."
            )
        }
    }
}
