internal import CofferCore
internal import Crypto
internal import EncryptionAtRest

/// One account in memory, ready to authenticate without touching the disk. Immutable: every change makes another.
final class LoadedAccount: Sendable {
    let record: AccountRecord
    let keys: AccountSecrets
    let view: StorageAccountView
    /// Both account keys, decoded.
    let signingKeys: [SymmetricKey]
    let delegationSecret: SymmetricKey
    /// Network rules, parsed; nil when every address may connect.
    let allowedAddresses: [IPv4Range]?
    let provenTokens = ProvenTokens()

    let blobService: BlobServiceProperties
    let scopes: EncryptionScopes

    init(_ stored: AccountRecords.Stored, volume: AccountVolume) {
        record = stored.account
        keys = stored.secrets
        blobService = stored.blobService
        scopes = stored.scopes
        let settings = record.settings
        view = StorageAccountView(
            name: record.name, id: record.id, resourceID: record.resourceID, kind: record.kind, skuName: record.skuName,
            allowsSharedKeyAccess: settings.allowsSharedKeyAccess ?? true,
            allowsBlobPublicAccess: settings.allowsBlobPublicAccess,
            requiresHTTPS: settings.requiresHTTPS, created: record.created, volume: volume)
        signingKeys = keys.keys.map { key in key.secret.withUnsafeBytes { SymmetricKey(data: $0) } }
        delegationSecret = keys.delegationSecret.withUnsafeBytes { SymmetricKey(data: $0) }
        allowedAddresses =
            settings.networkACLs.defaultAction == "Deny"
            ? settings.networkACLs.ipRules.compactMap { IPv4Range($0) } : nil
    }
}

/// The secrets of one account: its two keys and what user delegation keys are derived from.
struct AccountSecrets: Sendable {
    struct Key: Sendable {
        let name: String
        let created: Timestamp
        /// 64 bytes, as Azure's.
        let secret: SecretBytes
    }
    var keys: [Key]
    var delegationSecret: SecretBytes

    static let keyNames = ["key1", "key2"]
    static let keyByteCount = 64

    init(keys: [Key], delegationSecret: SecretBytes) {
        self.keys = keys
        self.delegationSecret = delegationSecret
    }

    init(created: Timestamp, randomness: any Randomness) {
        keys = Self.keyNames.map { Key(name: $0, created: created, secret: randomness.secret(Self.keyByteCount)) }
        delegationSecret = randomness.secret(32)
    }
}
