import CofferCore
import Crypto
import EncryptionAtRest
import Foundation

/// All versions of a key or secret, sealed for this installation: `1 | nonce | AES-256-GCM(JSON) | tag`. Opens in any
/// vault of the same subscription, under the kind and subscription it was made for.
private struct Backup: Codable {
    struct Version: Codable {
        var version: ObjectVersion
        var material: [UInt8]
    }
    var name: String
    var rotationPolicy: RotationPolicy?
    var versions: [Version]

    mutating func wipeMaterial() {
        for index in versions.indices { wipe(&versions[index].material) }
    }
}

private let backupFormat: UInt8 = 1

extension KeyVaultService {
    func backup(as caller: Caller, _ kind: ObjectKind, _ name: String, in address: VaultAddress) async throws -> [UInt8]
    {
        let vault = try await open(address, as: caller)
        try vault.require(.lifecycle("backup", kind), object: name)
        let newest = try await vault.find(kind, name, version: nil)
        var backup = Backup(name: newest.header.name, rotationPolicy: newest.header.rotationPolicy, versions: [])
        defer { backup.wipeMaterial() }
        for version in try await vault.objects.versions(kind, name, after: nil) {
            guard let material = try await vault.objects.material(kind, name, sequence: version.sequence) else {
                continue
            }
            backup.versions.append(Backup.Version(version: version, material: material.withUnsafeBytes { Array($0) }))
        }
        var plain = try JSONEncoder().encode(backup)
        defer { plain.resetBytes(in: 0..<plain.count) }
        let nonce = try AES.GCM.Nonce(data: randomness.bytes(12))
        let sealed = try AES.GCM.seal(
            plain, using: try await symmetricBackupKey(), nonce: nonce, authenticating: backupContext(kind, vault.vault)
        )
        return [backupFormat] + Array(sealed.combined ?? Data())
    }

    /// Brings all versions back under the name they had. Throws 409 when the name is taken, by a live or by a deleted
    /// object.
    func restore(as caller: Caller, _ kind: ObjectKind, _ blob: [UInt8], in address: VaultAddress) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.lifecycle("restore", kind))
        let key = try await symmetricBackupKey()
        guard var backup = open(blob, key, backupContext(kind, vault.vault)), let newest = backup.versions.last?.version
        else {
            throw VaultError.badParameter(
                "Backup blob is not valid: it is damaged, of another kind of object, or made in another subscription "
                    + "or installation."
            )
        }
        defer { backup.wipeMaterial() }
        let header = ObjectHeader(
            name: backup.name, latestSequence: newest.sequence, latestVersion: newest.id,
            rotationPolicy: backup.rotationPolicy)
        let versions = backup.versions.map {
            ObjectRecords.NewVersion(version: $0.version, material: SecretBytes(copying: $0.material))
        }
        guard try await vault.objects.add(kind, header, replacing: nil, versions) else {
            if let deletion = try await vault.objects.header(kind, backup.name)?.value.deletion {
                throw VaultError.nameTaken(kind, backup.name, by: deletion, at: clock.now())
            }
            throw VaultError.conflict(
                nil, "\(kind.title) \(backup.name) already exists: a backup is not restored over it.")
        }
        changed(kind, backup.name, in: vault, "restored")
        return StoredObject(vault: vault.vault, kind: kind, header: header, version: newest)
    }

    private func open(_ blob: [UInt8], _ key: SymmetricKey, _ context: Data) -> Backup? {
        guard blob.first == backupFormat, let box = try? AES.GCM.SealedBox(combined: Data(blob.dropFirst())),
            var plain = try? AES.GCM.open(box, using: key, authenticating: context)
        else { return nil }
        defer { plain.resetBytes(in: 0..<plain.count) }
        return try? JSONDecoder().decode(Backup.self, from: plain)
    }

    private func symmetricBackupKey() async throws -> SymmetricKey {
        try await index.backupKey(randomness).withUnsafeBytes { SymmetricKey(data: $0) }
    }
    private func backupContext(_ kind: ObjectKind, _ vault: Vault) -> Data {
        Data("coffer-vault-backup/v1|\(kind.rawValue)|\(vault.resourceID.subscription?.lowercased() ?? "")".utf8)
    }
}
