internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

/// `properties.encryption` as a caller sends it.
struct EncryptionRequest {
    /// Where the account's key is to lie from now on.
    enum Target: Equatable {
        case platform
        case customer(CustomerKeyReference)
    }
    private let block: JSONValue?
    private let keySource: String?

    init(_ block: JSONValue?) throws(ControlError) {
        self.block = block.flatMap { $0.isNull ? nil : $0 }
        keySource = try self.block?.choice("keySource", ["Microsoft.Storage", "Microsoft.Keyvault"])
        if let identity = self.block?.member("identity")?.objectValue, identity.contains(where: { !$0.value.isNull }) {
            throw .featureNotSupported("encryption.identity (user-assigned or federated)")
        }
        for service in ["blob", "file"]
        where try self.block?.member("services")?.member(service)?.bool("enabled") == false {
            throw .badRequest("Encryption of \(service)s cannot be switched off.", code: "InvalidRequestPropertyValue")
        }
    }

    /// What only creation can choose.
    func applyAtCreation(to account: inout AccountRecord) throws(ControlError) {
        try requireSourceOfKey()
        if keySource == "Microsoft.Keyvault" {
            throw ControlError(
                status: 400, code: "BadRequest",
                message:
                    "Managed Service Identity (MSI) is not set for this account. A customer-managed key at "
                    + "creation needs a user-assigned "
                    + "identity, which this server does not have: create the account with a system-assigned "
                    + "identity, let that identity get, wrap "
                    + "and unwrap with the key, then update the account.")
        }
        if try block?.bool("requireInfrastructureEncryption") == true {
            throw .featureNotSupported("encryption.requireInfrastructureEncryption")
        }
        account.queueKeyType = try keyType("queue")
        account.tableKeyType = try keyType("table")
    }

    /// Refuses an update that would change what only creation can choose.
    func requireUnchangedChoices(_ account: AccountRecord) throws(ControlError) {
        if try block?.bool("requireInfrastructureEncryption") == true {
            throw .featureNotSupported("encryption.requireInfrastructureEncryption")
        }
        for (service, current) in [("queue", account.queueKeyType), ("table", account.tableKeyType)] {
            if let wanted = try keyType(service), wanted != (current ?? "Service") {
                throw ControlError(
                    status: 400, code: "AccountPropertyCannotBeUpdated",
                    message: "The key type of \(service)s is chosen when the account is created.")
            }
        }
    }

    private func keyType(_ service: String) throws(ControlError) -> String? {
        try block?.member("services")?.member(service)?.choice("keyType", ["Account", "Service"])
    }

    /// Where the platform's key is in force, a vault's key means nothing without the source: to ignore it would leave
    /// the caller in the belief that the key is theirs.
    private func requireSourceOfKey() throws(ControlError) {
        guard keySource == nil, block?.member("keyvaultproperties")?.isNull == false else { return }
        throw .badRequest(
            "The encryption keyvault properties need the keySource Microsoft.Keyvault beside them.",
            code: "InvalidRequestPropertyValue")
    }

    /// nil: leave the key where it is. The reference is what the request says, nothing merged in: without a version it
    /// follows rotation.
    func target(current: AccountKeyStatus.Source) throws(ControlError) -> Target? {
        guard let block else { return nil }
        let source: String
        if let keySource {
            source = keySource
        } else if case .customer = current {
            source = "Microsoft.Keyvault"
        } else {
            source = "Microsoft.Storage"
        }
        guard source == "Microsoft.Keyvault" else {
            try requireSourceOfKey()
            return .platform
        }
        guard let key = block.member("keyvaultproperties"), !key.isNull else {
            if case .customer = current { return nil }
            throw .badRequest(
                "The encryption keyvault properties are missing from the request.", code: "MissingKeyvaultProperties")
        }
        guard let name = key.member("keyname")?.stringValue, !name.isEmpty,
            let vault = key.member("keyvaulturi")?.stringValue,
            vault.lowercased().hasPrefix("https://"), vault.utf8.count <= 1_024
        else {
            throw .badRequest(
                "The encryption keyvault properties need a keyname and a keyvaulturi.",
                code: "MissingKeyvaultProperties")
        }
        let version = key.member("keyversion")?.stringValue
        return .customer(
            CustomerKeyReference(vaultURI: vault, keyName: name, keyVersion: version?.isEmpty == true ? nil : version))
    }
}

extension StorageAccountService {
    /// Moves the account's key, or that of one of its encryption scopes. The vault is asked as the account's own
    /// identity; when it refuses, nothing has changed.
    func moveKey(
        of account: AccountRecord, scope: String? = nil, from status: AccountKeyStatus,
        to target: EncryptionRequest.Target?
    ) async throws {
        var subject: Logger.Metadata = ["account": "\(account.name)"]
        subject["scope"] = scope.map { "\($0)" }
        switch (target, status.source) {
        case (nil, _), (.platform, .platform): return
        case (.platform, .customer):
            _ = try await store.accountKeys.usePlatformKey(account.id, scope: scope)
            logger.info("A storage account went back to the platform's key.", metadata: subject)
        case (.customer(let reference), .customer(let current, _, _)) where reference == current:
            // An update of something else repeats the key. It is a chance to follow a rotation, and no reason to fail
            // when the vault says no.
            do {
                _ = try await store.accountKeys.followRotation(account.id, scope: scope)
            } catch let error as KeyUnavailable {
                logger.info(
                    "The customer's key could not be had; the account stays as it is.",
                    metadata: subject.merging(["reason": "\(error.code.rawValue)"]) { $1 })
            }
        case (.customer(let reference), _):
            let identity = try await eligibleIdentity(of: account, for: reference)
            _ = try await store.accountKeys.useCustomerKey(account.id, scope: scope, reference, as: identity.caller)
            logger.info(
                "A storage account took a customer's key.",
                metadata: subject.merging(["key": "\(reference.keyName)"]) { $1 })
        }
    }
}

extension StorageAccountService {
    /// The account's identity, once the vault has said that it may use the key.
    func eligibleIdentity(
        of account: AccountRecord, for reference: CustomerKeyReference
    ) async throws -> ManagedIdentity {
        guard let identity = account.identity else {
            throw ControlError(
                status: 400, code: "BadRequest",
                message:
                    "Managed Service Identity (MSI) is not set for this account. Assign a system-assigned "
                    + "identity first."
            )
        }
        try await eligibility.customerKeyEligibility(reference, as: identity.caller)
        return identity
    }
}

extension ControlError {
    /// The vault refused between the check and the wrap, or the old key is out of reach.
    init(_ unavailable: KeyUnavailable) {
        switch unavailable.code {
        case .accessDenied:
            self.init(
                status: 403, code: "KeyVaultAuthenticationFailure",
                message: "The operation failed because of authentication issue on the keyvault. \(unavailable.message)")
        case .keyNotFound, .vaultNotFound:
            self.init(status: 400, code: unavailable.code.rawValue, message: unavailable.message)
        case .scopeNotAvailable:
            self.init(status: 409, code: unavailable.code.rawValue, message: unavailable.message)
        }
    }
}
