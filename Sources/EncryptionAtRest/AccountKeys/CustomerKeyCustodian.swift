public import CofferCore

/// A key in a vault, as `keyVaultProperties` names it.
public struct CustomerKeyReference: Sendable, Codable, Hashable {
    /// `https://name.vault…/`, of any family of names.
    public let vaultURI: String
    public let keyName: String
    /// nil follows the newest version.
    public let keyVersion: String?
    public init(vaultURI: String, keyName: String, keyVersion: String?) {
        self.vaultURI = vaultURI
        self.keyName = keyName
        self.keyVersion = keyVersion
    }

    /// The first label of the vault's host name, in lower case: what announcements name. nil when the URI has none.
    var vaultName: String? {
        let host = vaultURI.lowercased().split(separator: "://", maxSplits: 1).last.map(String.init) ?? ""
        let label = host.prefix { $0 != "." && $0 != "/" && $0 != ":" }
        return label.isEmpty ? nil : String(label)
    }
}

/// The vaults, as EncryptionAtRest needs them. Every call is made as the account's identity and can be refused.
public protocol CustomerKeyCustodian: Sendable {
    /// RSA-OAEP-256 under the reference's version, or the newest enabled one.
    func wrapKey(_ key: SecretBytes, with reference: CustomerKeyReference, as caller: Caller)
        async throws(KeyUnavailable) -> CustomerWrappedKey
    func unwrapKey(_ wrapped: CustomerWrappedKey, as caller: Caller) async throws(KeyUnavailable) -> SecretBytes
    /// The version an unversioned reference stands for now.
    func currentKeyIdentifier(of reference: CustomerKeyReference, as caller: Caller) async throws(KeyUnavailable)
        -> String
    /// Calls back, before the change is acknowledged, whenever access to a vault's keys may have changed: a policy, a
    /// role, a key or the vault itself. `vaultName` nil means any vault.
    func onChange(_ observer: @escaping @Sendable (_ vaultName: String?) -> Void)
}

public struct CustomerWrappedKey: Sendable, Codable, Equatable {
    /// The key's identifier with its version: `https://name.vault…/keys/name/version`.
    public let keyIdentifier: String
    public let ciphertext: [UInt8]
    public init(keyIdentifier: String, ciphertext: [UInt8]) {
        self.keyIdentifier = keyIdentifier
        self.ciphertext = ciphertext
    }
}

/// Why the key of an account or an encryption scope cannot be had. Data operations answer with `code`: 403, and 409
/// for a scope that is not available.
public struct KeyUnavailable: Error, Sendable, Equatable {
    /// The documented storage error codes.
    public enum Code: String, Sendable {
        case keyNotFound = "KeyVaultEncryptionKeyNotFound"
        case vaultNotFound = "KeyVaultVaultNotFound"
        case accessDenied = "KeyVaultAccessTokenCannotBeAcquired"
        case scopeNotAvailable = "EncryptionScopeNotAvailable"
    }
    public let code: Code
    public let message: String
    /// false for a time-out: it does not end a lease that still runs.
    public let isDenial: Bool
    public init(_ code: Code, _ message: String, isDenial: Bool = true) {
        self.code = code
        self.message = message
        self.isDenial = isDenial
    }
}
