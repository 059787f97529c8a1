internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

extension StorageAccountService {
    /// Storage Accounts – Update.
    func patchAccount(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let id = request.path
        try require(caller, Self.action("write"), at: id)
        guard let body = request.body, body.objectValue != nil else {
            throw .badRequest("The request needs a body.", code: "InvalidRequestContent")
        }
        return try await change(id.name.lowercased()) { records, stored in
            guard let stored, stored.account.resourceID == id else { throw ControlError.resourceNotFound(id) }
            let change = try await self.applyUpdate(body, to: stored, in: records)
            return .json(200, try await self.resource(change.account, change.secrets, names: request.names))
        }
    }

    /// Checks everything that can be refused, then makes the identity, then moves the key, then writes the record: a
    /// refusal changes nothing.
    func applyUpdate(
        _ body: JSONValue, to stored: AccountRecords.Stored, in records: AccountRecords
    ) async throws -> AppliedChange {
        var account = stored.account
        let properties = body.member("properties") ?? [:]
        if let kind = body.member("kind")?.stringValue, kind.lowercased() != account.kind.lowercased() {
            guard account.kind != "StorageV2", kind.lowercased() == "storagev2" else {
                throw ControlError(
                    status: 400, code: "AccountPropertyCannotBeUpdated",
                    message: "An account of kind '\(account.kind)' cannot become '\(kind)'.")
            }
            account.kind = "StorageV2"
            account.settings.accessTier = account.settings.accessTier ?? "Hot"
        }
        if let name = body.member("sku")?.member("name")?.stringValue {
            let sku = try AccountRules.sku(name, kind: account.kind)
            guard sku.hasPrefix("Premium") == account.skuName.hasPrefix("Premium") else {
                throw ControlError(
                    status: 400, code: "AccountPropertyCannotBeUpdated",
                    message: "A sku cannot change between Standard and Premium.")
            }
            account.skuName = sku
        }
        if let tags = try AccountRules.tags(body.member("tags")) { account.tags = tags }
        try account.settings.apply(properties, kind: account.kind, tier: account.tier)
        let status = try await store.accountKeys.status(account.id)
        let encryption = try EncryptionRequest(properties.member("encryption"))
        try encryption.requireUnchangedChoices(account)
        let target = try encryption.target(current: status.source)

        let wantsIdentity = try wantsIdentity(body.member("identity"))
        let isNew = wantsIdentity == true && account.identity == nil
        if isNew, try await store.accountKeys.underCustomerKeys(account.id).isEmpty {
            try await removeLeftIdentity(of: account)
        }
        if wantsIdentity == true { account.identity = try await newIdentity(of: account) }
        let dropsIdentity = wantsIdentity == false && account.identity != nil
        if dropsIdentity {
            let leavesVault = target == .platform || (target == nil && status.source == .platform)
            let scope = try await store.accountKeys.underCustomerKeys(account.id).compactMap { $0 }.first
            guard leavesVault, scope == nil else {
                let subject = leavesVault ? "encryption scope '\(scope ?? "")'" : "account"
                throw ControlError(
                    status: 400, code: "ManagedIdentityInUse",
                    message:
                        "The identity unwraps the customer-managed key of this \(subject); without it the data "
                        + "could not be read again. "
                        + "Switch its key source to Microsoft.Storage first.")
            }
        }
        do { try await moveKey(of: account, from: status, to: target) } catch {
            if isNew { await dismissIdentity(of: account) }
            throw error
        }
        if dropsIdentity { account.identity = nil }
        let result = try await records.records.commit(
            checks: [.unchanged(AccountRecords.accountKey(account.name), stored.accountVersion)],
            [try records.put(account)])
        guard result != .conflict else { throw ControlError.conflict }
        if dropsIdentity { try await identities.removeSystemAssignedIdentity(of: account.resourceID) }
        return AppliedChange(account: account, secrets: stored.secrets)
    }

    /// An identity made for a change that was refused belongs to nobody, unless the account's key is wrapped in its
    /// name by now: then nobody else could ever unwrap it. One that stays is this account's when it asks again.
    private func dismissIdentity(of account: AccountRecord) async {
        do {
            guard try await store.accountKeys.underCustomerKeys(account.id).isEmpty else { return }
            try await identities.removeSystemAssignedIdentity(of: account.resourceID)
        } catch {
            logger.error(
                "An identity that no storage account names could not be removed.",
                metadata: ["account": "\(account.name)", "reason": "\(error)"])
        }
    }
}
