public import CofferCore

/// Names a storage account for good: 16 random bytes made at its creation. A later account of the same name has another.
public struct AccountID: Sendable, Hashable, Codable {
    public let bytes: [UInt8]
    public init(bytes: [UInt8]) {
        precondition(bytes.count == 16)
        self.bytes = bytes
    }
}

/// The account encryption keys (AEK): made once, stored once, wrapped by the platform key or by a customer's key.
///
/// Every change of wrapping is O(1) whatever the amount of data: unwrap, wrap, write the other slot, verify, retire the old one.
public final class AccountKeys: Sendable {
    init() {}

    /// Joins the vaults. Called once, before the first account is opened.
    public func attach(_ custodian: any CustomerKeyCustodian) { preconditionFailure() }

    /// Makes the AEK of a new account, wrapped by the platform key. Durable when it returns.
    public func create(_ account: AccountID) async throws(SealedStoreError) { preconditionFailure() }

    /// Wraps the AEK by the customer's key, as `identity`; from here on the account's data answers to it. A reference without a version follows
    /// rotation. Throws `KeyUnavailable` and changes nothing when the identity may not wrap and unwrap with it.
    public func useCustomerKey(
        _ account: AccountID, _ reference: CustomerKeyReference, as identity: Caller
    ) async throws -> AccountKeyStatus { preconditionFailure() }

    /// Back to the platform key. Needs the customer's key one last time.
    public func usePlatformKey(_ account: AccountID) async throws -> AccountKeyStatus { preconditionFailure() }

    /// Re-wraps under the newest version of an unversioned reference, if there is a newer one. Called when a vault announces a rotation, and
    /// from a timer.
    public func followRotation(_ account: AccountID) async throws -> AccountKeyStatus { preconditionFailure() }

    public func status(_ account: AccountID) async throws(SealedStoreError) -> AccountKeyStatus { preconditionFailure() }

    /// Forgets the AEK: every byte of the account is gone with it. Durable when it returns.
    public func destroy(_ account: AccountID) async throws(SealedStoreError) { preconditionFailure() }
}

public struct AccountKeyStatus: Sendable, Equatable {
    public enum Source: Sendable, Equatable {
        case platform
        case customer(CustomerKeyReference, currentVersionedKeyIdentifier: String, lastRotation: Timestamp)
    }
    public let source: Source
    public init(source: Source) { self.source = source }
}

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
}

/// The vaults, as EncryptionAtRest needs them. Every call is made as the account's identity and can be refused.
public protocol CustomerKeyCustodian: Sendable {
    /// RSA-OAEP-256 under the reference's version, or the newest enabled one.
    func wrapKey(_ key: SecretBytes, with reference: CustomerKeyReference, as caller: Caller) async throws(KeyUnavailable) -> CustomerWrappedKey
    func unwrapKey(_ wrapped: CustomerWrappedKey, as caller: Caller) async throws(KeyUnavailable) -> SecretBytes
    /// The version an unversioned reference stands for now.
    func currentKeyIdentifier(of reference: CustomerKeyReference, as caller: Caller) async throws(KeyUnavailable) -> String
    /// Calls back, before the change is acknowledged, whenever access to a vault's keys may have changed: a policy, a role, a key or the vault
    /// itself. `vaultURI` nil means any vault.
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

/// Why an account's key cannot be had. Data operations answer 403 with `code`.
public struct KeyUnavailable: Error, Sendable, Equatable {
    /// The documented storage error codes.
    public enum Code: String, Sendable {
        case keyNotFound = "KeyVaultEncryptionKeyNotFound"
        case vaultNotFound = "KeyVaultVaultNotFound"
        case accessDenied = "KeyVaultAccessTokenCannotBeAcquired"
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
