internal import CofferCore
internal import EncryptionAtRest

/// How accounts lie in the sealed store: domain `storage`, partition `accounts`.
///
///     account/{name}     AccountRecord, JSON
///     keys/{name}        the account's secrets, JSON (sealed like every record)
///     blob/{name}        blobServices/default, JSON
///     scope/{id hex}/{scope}  EncryptionScopeRecord, JSON
///     deleting/{id hex}  an account whose record is gone and whose bytes are still to be destroyed; the resource whose
///                        identity goes too, as text
struct AccountRecords: Sendable {
    let records: SealedRecords

    private struct StoredSecrets: Codable {
        struct Key: Codable {
            let name: String
            let created: Timestamp
            let secret: [UInt8]
        }
        let keys: [Key]
        let delegationSecret: [UInt8]
    }

    struct Stored: Sendable {
        let account: AccountRecord
        let accountVersion: RecordVersion
        let secrets: AccountSecrets
        let secretsVersion: RecordVersion
        let blobService: BlobServiceProperties
        let scopes: EncryptionScopes
    }

    static func accountKey(_ name: String) -> String { "account/\(name)" }
    static func secretsKey(_ name: String) -> String { "keys/\(name)" }
    static func blobServiceKey(_ name: String) -> String { "blob/\(name)" }
    static func scopeKey(_ id: AccountID, _ scope: String) -> String { "scope/\(id.bytes.hex)/\(scope)" }
    private static func deletingKey(_ id: AccountID) -> String { "deleting/\(id.bytes.hex)" }

    func read(_ name: String) async throws(SealedStoreError) -> Stored? {
        guard let row = try await records.get(Self.accountKey(name)) else { return nil }
        return try await stored(row)
    }

    func names() async throws(SealedStoreError) -> [String] {
        let prefix = Self.accountKey("")
        return try await records.keys(prefix: prefix).map { String($0.dropFirst(prefix.count)) }
    }

    private func stored(_ row: SealedRecord) async throws(SealedStoreError) -> Stored {
        let account = try decode(AccountRecord.self, row)
        guard let secrets = try await records.get(Self.secretsKey(account.name)) else {
            throw SealedStoreError(.corrupt, "The keys of a storage account are missing beside its record.")
        }
        let blobService = try await records.get(Self.blobServiceKey(account.name))
        return Stored(
            account: account, accountVersion: row.version, secrets: try Self.secrets(secrets),
            secretsVersion: secrets.version,
            blobService: try blobService.map { row throws(SealedStoreError) in
                try decode(BlobServiceProperties.self, row)
            }
                ?? BlobServiceProperties(),
            scopes: try await scopes(of: account.id))
    }

    private func scopes(of id: AccountID) async throws(SealedStoreError) -> EncryptionScopes {
        let prefix = Self.scopeKey(id, "")
        var scopes = EncryptionScopes()
        do {
            for row in try await records.scan(prefix: prefix) {
                scopes.add(try decode(EncryptionScopeRecord.self, row))
            }
            return scopes
        } catch {
            guard error.code == .corrupt else { throw error }
        }
        // One by one, to serve the account and all the others without the one that does not open.
        scopes = EncryptionScopes()
        for key in try await records.keys(prefix: prefix) {
            do {
                guard let row = try await records.get(key) else { continue }
                scopes.add(try decode(EncryptionScopeRecord.self, row))
            } catch {
                guard error.code == .corrupt else { throw error }
                scopes.setAside(String(key.dropFirst(prefix.count)))
            }
        }
        return scopes
    }

    func put(_ scope: EncryptionScopeRecord, of id: AccountID) throws(SealedStoreError) -> RecordWrite {
        .put(Self.scopeKey(id, scope.name), try encode(scope))
    }

    /// Removes what tells of a deleted account's scopes; their keys went with the account's.
    func endScopes(of id: AccountID) async throws(SealedStoreError) {
        let keys = try await records.keys(prefix: Self.scopeKey(id, ""))
        for start in stride(from: 0, to: keys.count, by: Self.pageRecords) {
            _ = try await records.commit(keys[start..<min(start + Self.pageRecords, keys.count)].map { .delete($0) })
        }
    }
    /// Records deleted in one commit.
    private static let pageRecords = 500

    /// An account whose deletion was acknowledged or begun, and may not be finished.
    struct Deletion: Sendable {
        let id: AccountID
        /// Whose system-assigned identity goes with the account.
        var identityOf: ResourceID?
    }
    func deletedIDs() async throws(SealedStoreError) -> [AccountID] {
        try await records.keys(prefix: "deleting/").compactMap { key in
            guard let id = [UInt8](hex: key.dropFirst("deleting/".count)), id.count == 16 else { return nil }
            return AccountID(bytes: id)
        }
    }
    func deletion(of id: AccountID) async throws(SealedStoreError) -> Deletion {
        let resource = try await records.get(Self.deletingKey(id))?.value ?? []
        return Deletion(
            id: id, identityOf: resource.isEmpty ? nil : ResourceID(String(decoding: resource, as: UTF8.self)))
    }
    func begin(_ deletion: Deletion) -> RecordWrite {
        .put(Self.deletingKey(deletion.id), Array((deletion.identityOf?.description ?? "").utf8))
    }
    func end(_ deletion: Deletion) async throws(SealedStoreError) {
        _ = try await records.commit([.delete(Self.deletingKey(deletion.id))])
    }

    func put(_ account: AccountRecord) throws(SealedStoreError) -> RecordWrite {
        .put(Self.accountKey(account.name), try encode(account))
    }

    func put(_ properties: BlobServiceProperties, of name: String) throws(SealedStoreError) -> RecordWrite {
        .put(Self.blobServiceKey(name), try encode(properties))
    }

    func put(_ secrets: AccountSecrets, of name: String) throws(SealedStoreError) -> RecordWrite {
        let stored = StoredSecrets(
            keys: secrets.keys.map { key in
                StoredSecrets.Key(
                    name: key.name, created: key.created, secret: key.secret.withUnsafeBytes { Array($0) })
            },
            delegationSecret: secrets.delegationSecret.withUnsafeBytes { Array($0) })
        return .put(Self.secretsKey(name), try encode(stored))
    }

    private static func secrets(_ row: SealedRecord) throws(SealedStoreError) -> AccountSecrets {
        let stored = try decode(StoredSecrets.self, row)
        return AccountSecrets(
            keys: stored.keys.map {
                AccountSecrets.Key(name: $0.name, created: $0.created, secret: SecretBytes(copying: $0.secret))
            },
            delegationSecret: SecretBytes(copying: stored.delegationSecret))
    }
}

private func decode<Value: Decodable>(_ type: Value.Type, _ row: SealedRecord) throws(SealedStoreError) -> Value {
    do {
        return try JSONValue(parsing: row.value).decode(type)
    } catch {
        throw SealedStoreError(
            .corrupt, "A record of a storage account does not decode; it was written by another version.")
    }
}

private func encode(_ value: some Encodable) throws(SealedStoreError) -> [UInt8] {
    do {
        return try JSONValue(encoding: value).serialized()
    } catch {
        throw SealedStoreError(.corrupt, "A record of a storage account does not encode.")
    }
}
