import CofferCore
import EncryptionAtRest
import Logging

/// The life after deletion, for keys and secrets alike: delete, look at, recover, purge. Soft deletion is always on.
extension KeyVaultService {
    /// Deletes the object with all its versions; recoverable for the vault's retention time.
    func delete(as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.delete(kind), object: name)
        let deleted = try await retryingConflicts { () async throws -> StoredObject? in
            var newest = try await vault.read(kind, name, version: nil)
            newest.header.value.deletion = vault.vault.deletion(at: clock.now())
            guard try await vault.objects.replace(kind, newest.header) else { return nil }
            return StoredObject(
                vault: vault.vault, kind: kind, header: newest.header.value, version: newest.version.value)
        }
        changed(kind, name, in: vault, "deleted")
        return deleted
    }

    func getDeleted(as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.getDeleted(kind), object: name)
        let header = try await vault.deletedHeader(kind, name)
        guard let newest = try await vault.objects.version(kind, name, sequence: header.value.latestSequence) else {
            throw VaultError.deletedObjectNotFound(kind, name)
        }
        return StoredObject(vault: vault.vault, kind: kind, header: header.value, version: newest.value)
    }

    func list(
        as caller: Caller, _ kind: ObjectKind, isDeleted: Bool, in address: VaultAddress, after: String?, limit: Int
    ) async throws -> Page<StoredObject> {
        let vault = try await open(address, as: caller)
        try vault.require(.list(kind))
        return try await vault.list(kind, isDeleted: isDeleted, after: after, limit: limit)
    }

    func listVersions(
        as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress, after: Int?, limit: Int
    ) async throws -> Page<StoredObject> {
        let vault = try await open(address, as: caller)
        try vault.require(.list(kind), object: name)
        return try await vault.listVersions(kind, name, after: after, limit: limit)
    }

    func recover(as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.lifecycle("recover", kind), object: name)
        let recovered = try await retryingConflicts { () async throws -> StoredObject? in
            var header = try await vault.deletedHeader(kind, name)
            guard let deletion = header.value.deletion, deletion.scheduledPurge > clock.now() else {
                throw VaultError.beingPurged(kind, name)
            }
            header.value.deletion = nil
            guard try await vault.objects.replace(kind, header) else { return nil }
            return try await vault.find(kind, name, version: nil)
        }
        changed(kind, name, in: vault, "recovered")
        return recovered
    }

    /// Removes a deleted object for good. Throws 403 under purge protection.
    func purge(as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress) async throws {
        let vault = try await open(address, as: caller)
        try vault.require(.lifecycle("purge", kind), object: name)
        try vault.requirePurgeable()
        try await retryingConflicts { () async throws -> Void? in
            let header = try await vault.deletedHeader(kind, name)
            return try await vault.objects.purge(kind, header) ? () : nil
        }
        changed(kind, name, in: vault, "purged")
    }

    /// After a change of an object is durable and before it is acknowledged: decoded keys go, lease holders hear of it,
    /// the log has a line.
    func changed(_ kind: ObjectKind, _ name: String, in vault: OpenVault, _ what: String) {
        if kind == .key {
            handles.drop(vault: vault.vault.incarnation, key: name.lowercased())
            announce(vault.vault.name.lowercased())
        }
        logger.info(
            "\(kind.rawValue) \(what)",
            metadata: ["vault": "\(vault.vault.name)", "oid": "\(vault.caller.objectID)"])
    }
}

extension OpenVault {
    func deletedHeader(_ kind: ObjectKind, _ name: String) async throws -> ObjectRecords.Header {
        guard let header = try await objects.header(kind, name), header.value.deletion != nil else {
            throw VaultError.deletedObjectNotFound(kind, name)
        }
        return header
    }
}
