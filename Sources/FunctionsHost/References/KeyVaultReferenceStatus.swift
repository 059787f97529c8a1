public import CofferCore

/// How one setting's Key Vault reference stands, as `config/configreferences` shows it.
public struct KeyVaultReferenceStatus: Sendable, Equatable {
    /// The service's own words.
    public enum Status: String, Sendable {
        case initialized = "Initialized"
        case resolved = "Resolved"
        case invalidSyntax = "InvalidSyntax"
        case msiNotEnabled = "MSINotEnabled"
        case vaultNotFound = "VaultNotFound"
        case secretNotFound = "SecretNotFound"
        case secretVersionNotFound = "SecretVersionNotFound"
        case accessToKeyVaultDenied = "AccessToKeyVaultDenied"
        case fetchTimedOut = "FetchTimedOut"
        case otherReasons = "OtherReasons"
    }
    /// The literal text of the setting: not a secret, it only names one.
    public let reference: String
    public let status: Status
    public let vaultName: String?
    public let secretName: String?
    /// What the reference asks for; nil follows the newest version.
    public let secretVersion: String?
    /// What was used, once resolved.
    public let activeVersion: String?
    public let details: String
    public init(
        reference: String, status: Status, vaultName: String?, secretName: String?, secretVersion: String?,
        activeVersion: String?,
        details: String
    ) {
        self.reference = reference
        self.status = status
        self.vaultName = vaultName
        self.secretName = secretName
        self.secretVersion = secretVersion
        self.activeVersion = activeVersion
        self.details = details
    }
}

/// How all references of a site stand, by the names of what holds them.
public struct KeyVaultReferences: Sendable, Equatable {
    public var appSettings: [String: KeyVaultReferenceStatus] = [:]
    public var connectionStrings: [String: KeyVaultReferenceStatus] = [:]
    public init() {}
}

/// What an app may ask of the vaults. The composition root joins it to KeyVault; every call is authorized there, as the
/// caller.
public protocol VaultSecrets: Sendable {
    /// The newest enabled version when `version` is nil.
    func secret(
        _ name: String, version: String?, inVault vault: String, as caller: Caller
    ) async throws(VaultSecretsError) -> VaultSecret
    /// The names of all secrets that are not deleted.
    func secretNames(inVault vault: String, as caller: Caller) async throws(VaultSecretsError) -> [String]
    /// Makes a new version.
    func setSecret(_ name: String, to value: RedactedString, inVault vault: String, as caller: Caller)
        async throws(VaultSecretsError)
    /// Soft delete where the vault has it. A secret that is not there is no error.
    func deleteSecret(_ name: String, inVault vault: String, as caller: Caller) async throws(VaultSecretsError)
}

public struct VaultSecret: Sendable {
    public let value: RedactedString
    public let version: String
    public init(value: RedactedString, version: String) {
        self.value = value
        self.version = version
    }
}

public struct VaultSecretsError: Error, Sendable {
    public enum Reason: Sendable {
        case vaultNotFound, secretNotFound, versionNotFound, accessDenied, timedOut
        /// The secret is disabled, expired, deleted and not yet purged, or the vault cannot answer.
        case unavailable
    }
    public let reason: Reason
    /// For the status's details; holds no secret.
    public let message: String
    public init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }
}
