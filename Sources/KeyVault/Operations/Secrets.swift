public import CofferCore
internal import EncryptionAtRest

/// One version of a secret, as other rooms of the process read it.
public struct SecretValue: Sendable {
    public let value: RedactedString
    public let name: String
    public let version: String
    /// `https://name.vault…/secrets/name/version`, in the server's own family of names.
    public let identifier: String
    public let contentType: String?
    public let expires: Timestamp?
}

/// A secret without its value, as lists show it.
public struct SecretProperties: Sendable {
    public let name: String
    public let isEnabled: Bool
    public let contentType: String?
}

struct SecretCreation: Sendable {
    var value: SecretBytes
    var contentType: String?
    var attributes: AttributeChanges
    var tags: [String: String]
}

extension KeyVaultService {
    func setSecret(as caller: Caller, _ name: String, in address: VaultAddress, _ creation: SecretCreation) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.setSecret, object: name)
        return try await addSecret(name, in: vault, creation)
    }

    func addSecret(_ name: String, in vault: OpenVault, _ creation: SecretCreation) async throws -> StoredObject {
        guard creation.value.count <= Limits.secretBytes else {
            throw VaultError.badParameter("The secret value is too long: at most \(Limits.secretBytes) bytes.")
        }
        let now = clock.now()
        let id = makeVersionID()
        let added = try await vault.addVersion(.secret, name, at: now, material: creation.value) { sequence, _ in
            ObjectVersion(
                id: id, sequence: sequence, attributes: creation.attributes.made(at: now), tags: creation.tags,
                contentType: creation.contentType)
        }
        changed(.secret, name, in: vault, "set")
        return added
    }

    /// Throws 403 `SecretDisabled` for a disabled version. `nbf` and `exp` inform only (About Key Vault secrets).
    func readSecret(
        as caller: Caller, _ name: String, version: String?, in address: VaultAddress
    ) async throws -> (secret: StoredObject, value: SecretBytes) {
        let vault = try await open(address, as: caller)
        try vault.require(.getSecret, object: name)
        let found = try await vault.find(.secret, name, version: version)
        guard found.version.attributes.isEnabled else {
            throw VaultError.forbidden("SecretDisabled", "Operation get is not allowed on a disabled secret.")
        }
        guard let value = try await vault.objects.material(.secret, name, sequence: found.version.sequence) else {
            throw VaultError.objectNotFound(.secret, name)
        }
        return (found, value)
    }

    func updateSecret(
        as caller: Caller, _ name: String, version: String?, in address: VaultAddress, _ attributes: AttributeChanges,
        contentType: String?, tags: [String: String]?
    ) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.updateSecret, object: name)
        let updated = try await vault.update(.secret, name, version: version) { found in
            attributes.apply(to: &found.attributes, at: clock.now())
            if let tags { found.tags = tags }
            if let contentType { found.contentType = contentType }
        }
        changed(.secret, name, in: vault, "updated")
        return updated
    }
}
