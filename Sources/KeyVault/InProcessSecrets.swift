public import CofferCore
internal import EncryptionAtRest
internal import Logging

/// Names a secret by its URI: `https://vault…/secrets/name[/version]`.
public struct SecretIdentifier: Sendable, Equatable {
    public let vaultName: String
    public let name: String
    /// nil for the newest.
    public let version: String?
    public init(vaultName: String, name: String, version: String?) {
        self.vaultName = vaultName
        self.name = name
        self.version = version
    }
}

/// The operations on secrets for other rooms of the process. They are the wire's: the caller passes the same checks.
extension KeyVaultService {
    /// Reads a secret's URI of any family of names; nil when it is none, or names a host that is not a vault here.
    public func secretIdentifier(_ uri: String) -> SecretIdentifier? {
        guard let (vaultName, path) = vaultURI(uri), path.count == 2 || path.count == 3,
            path[0].lowercased() == "secrets",
            isValidObjectName(path[1])
        else { return nil }
        return SecretIdentifier(vaultName: vaultName, name: path[1], version: path.count == 3 ? path[2] : nil)
    }

    /// The vault of a URI such as `https://name.vault…/`, of any family of names; nil when the host is not a vault
    /// here.
    public func vaultName(ofURI uri: String) -> String? { vaultURI(uri)?.name }

    func vaultURI(_ uri: String) -> (name: String, path: [String])? {
        guard uri.lowercased().hasPrefix("https://") else { return nil }
        let parts = uri.dropFirst(8).split(separator: "/", omittingEmptySubsequences: true).map(String.init)
        guard let authority = parts.first, case .vault(let name)? = hostNames.match(authority)?.endpoint else {
            return nil
        }
        return (name, Array(parts.dropFirst()))
    }

    /// `version` nil means the newest.
    public func getSecret(
        as caller: Caller, _ name: String, version: String? = nil, in vault: VaultAddress
    ) async throws(VaultError) -> SecretValue {
        try await answering { () async throws -> SecretValue in
            let (found, value) = try await readSecret(as: caller, name, version: version, in: vault)
            let text = value.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
            return SecretValue(
                value: RedactedString(text), name: found.header.name, version: found.version.id,
                identifier: found.identifier(hostNames.own), contentType: found.version.contentType,
                expires: found.version.attributes.expires)
        }
    }

    /// Makes a new version; returns its identifier.
    public func setSecret(
        as caller: Caller, _ name: String, _ value: RedactedString, contentType: String? = nil, in vault: VaultAddress
    ) async throws(VaultError) -> String {
        guard isValidObjectName(name) else { throw .badParameter("The name '\(name)' is invalid for a secret.") }
        return try await answering { () async throws -> String in
            let creation = SecretCreation(
                value: SecretBytes(copying: Array(value.reveal().utf8)), contentType: contentType,
                attributes: AttributeChanges(), tags: [:])
            return try await setSecret(as: caller, name, in: vault, creation).identifier(hostNames.own)
        }
    }

    public func deleteSecret(as caller: Caller, _ name: String, in vault: VaultAddress) async throws(VaultError) {
        try await answering { () async throws -> Void in _ = try await delete(as: caller, .secret, name, in: vault) }
    }

    /// Every live secret, in the order of names.
    public func listSecrets(as caller: Caller, in vault: VaultAddress) async throws(VaultError) -> [SecretProperties] {
        try await answering { () async throws -> [SecretProperties] in
            let page = try await list(as: caller, .secret, isDeleted: false, in: vault, after: nil, limit: .max)
            return page.items.map {
                SecretProperties(
                    name: $0.header.name, isEnabled: $0.version.attributes.isEnabled,
                    contentType: $0.version.contentType)
            }
        }
    }

    /// Runs an operation and turns whatever it throws into what the wire answers.
    func answering<Result>(_ operation: () async throws -> Result) async throws(VaultError) -> Result {
        do { return try await operation() } catch { throw vaultError(error) }
    }

    /// Failures below a refusal are logged here, and answered without their details.
    func vaultError(_ error: any Error) -> VaultError {
        switch error {
        case let error as VaultError: return error
        case let error as SealedStoreError:
            logger.error("the store refused", metadata: ["code": "\(error.code)", "message": "\(error.message)"])
            return VaultError(
                503, "ServiceUnavailable", "The vault's store is not available right now. Try again.",
                retryAfterSeconds: 1)
        default:
            logger.error("an operation failed", metadata: ["error": "\(type(of: error))"])
            return VaultError(500, "InternalServerError", "The operation failed inside the server; its log says more.")
        }
    }
}
