public import CofferCore
public import EncryptionAtRest
public import ResourceProviders

/// Customer-managed keys for the storage accounts of this process. Each call is the account's identity's own and passes
/// the wire's checks.
extension KeyVaultService: CustomerKeyCustodian {
    /// Needs `get` and `wrapKey`.
    public func wrapKey(
        _ key: SecretBytes, with reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> CustomerWrappedKey {
        try await forCustomer { () async throws -> CustomerWrappedKey in
            let vault = try await open(address(of: reference.vaultURI), as: caller)
            try vault.require(.getKey, object: reference.keyName)
            try vault.require(.cryptography(.wrapKey), object: reference.keyName)
            let found = try await currentVersion(of: reference, in: vault)
            let ciphertext = try await encrypt(found, in: vault, .rsaOAEP256, key)
            return CustomerWrappedKey(keyIdentifier: found.identifier(hostNames.own), ciphertext: ciphertext)
        }
    }

    /// Needs `unwrapKey`. An expired version still unwraps; a disabled one does not.
    public func unwrapKey(_ wrapped: CustomerWrappedKey, as caller: Caller) async throws(KeyUnavailable) -> SecretBytes
    {
        try await forCustomer { () async throws -> SecretBytes in
            guard let (vaultName, path) = vaultURI(wrapped.keyIdentifier), path.count == 3, path[0] == "keys" else {
                throw VaultError.vaultNotFound(wrapped.keyIdentifier)
            }
            let address = VaultAddress(name: vaultName)
            return try await decrypt(
                as: caller, .unwrapKey, path[1], version: path[2], in: address, .rsaOAEP256, wrapped.ciphertext
            ).plaintext
        }
    }

    /// Needs `get`.
    public func currentKeyIdentifier(
        of reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> String {
        try await forCustomer { () async throws -> String in
            let vault = try await open(address(of: reference.vaultURI), as: caller)
            try vault.require(.getKey, object: reference.keyName)
            return try await currentVersion(of: reference, in: vault).identifier(hostNames.own)
        }
    }

    public func onChange(_ observer: @escaping @Sendable (_ vaultName: String?) -> Void) { addObserver(observer) }

    /// Whether a storage account may be encrypted with the key, asked before it is: the vault has purge protection, the
    /// key is RSA, enabled and in its time, and the identity holds get, wrapKey and unwrapKey. Throws what
    /// Microsoft.Storage answers (customer-managed keys overview); nothing changes.
    public func customerKeyEligibility(_ reference: CustomerKeyReference, as caller: Caller) async throws(ControlError)
    {
        do throws(VaultError) {
            try await answering { () async throws -> Void in
                let vault = try await open(address(of: reference.vaultURI), as: caller)
                for permission in [.getKey, .cryptography(.wrapKey), .cryptography(.unwrapKey)] as [VaultPermission] {
                    try vault.require(permission, object: reference.keyName)
                }
                guard vault.vault.isPurgeProtected else {
                    throw VaultError(
                        400, "KeyVaultPolicyError",
                        "Keyvault policy recoverable is not set: turn on purge protection for the vault "
                            + "'\(vault.vault.name)' "
                            + "(az keyvault update --enable-purge-protection true).")
                }
                let found = try await currentVersion(of: reference, in: vault)
                guard case .rsa? = found.version.key?.type else {
                    throw VaultError(
                        400, "KeyVaultPolicyError",
                        "The key '\(reference.keyName)' is not an RSA key of 2048, 3072 or 4096 bits.")
                }
                try requireUsable(found, for: .unwrapKey)
            }
        } catch {
            throw Self.eligibilityError(error)
        }
    }

    private static func eligibilityError(_ error: VaultError) -> ControlError {
        switch (error.status, error.code) {
        case (_, "KeyVaultPolicyError"): .badRequest(error.message, code: error.code)
        case (403, _):
            .badRequest(
                "The operation failed because of authentication issue on the keyvault. \(error.message)",
                code: "KeyVaultAuthenticationFailure")
        case (404, "VaultNotFound"): .badRequest(error.message, code: "KeyVaultVaultNotFound")
        case (404, _): .badRequest(error.message, code: "KeyVaultEncryptionKeyNotFound")
        default: ControlError(status: error.status, code: error.code, message: error.message)
        }
    }

    private func address(of vaultURI: String) throws(VaultError) -> VaultAddress {
        guard let name = vaultName(ofURI: vaultURI) else { throw .vaultNotFound(vaultURI) }
        return VaultAddress(name: name)
    }

    /// The reference's version, or the newest that may wrap now.
    private func currentVersion(of reference: CustomerKeyReference, in vault: OpenVault) async throws -> StoredObject {
        if let version = reference.keyVersion, !version.isEmpty {
            let found = try await vault.find(.key, reference.keyName, version: version)
            try requireUsable(found, for: .wrapKey)
            return found
        }
        var found = try await vault.find(.key, reference.keyName, version: nil)
        let newest = found
        while true {
            do {
                try requireUsable(found, for: .wrapKey)
                return found
            } catch {
                let sequence = found.version.sequence - 1
                guard sequence > 0,
                    let older = try await vault.objects.version(.key, reference.keyName, sequence: sequence)
                else {
                    try requireUsable(newest, for: .wrapKey)
                    throw error
                }
                found.version = older.value
            }
        }
    }

    /// Names what is missing by the documented storage error codes.
    private func forCustomer<Result>(_ operation: () async throws -> Result) async throws(KeyUnavailable) -> Result {
        do throws(VaultError) { return try await answering(operation) } catch {
            switch (error.status, error.innerCode, error.code) {
            case (404, _, "VaultNotFound"): throw KeyUnavailable(.vaultNotFound, error.message)
            case (404, _, _), (400, _, _): throw KeyUnavailable(.keyNotFound, error.message)
            case (403, "KeyDisabled"?, _), (403, "KeyExpired"?, _), (403, "KeyNotYetValid"?, _),
                (403, "KeyOperationForbidden"?, _):
                throw KeyUnavailable(.keyNotFound, error.message)
            case (403, _, _): throw KeyUnavailable(.accessDenied, error.message)
            default: throw KeyUnavailable(.keyNotFound, error.message, isDenial: false)
            }
        }
    }
}
