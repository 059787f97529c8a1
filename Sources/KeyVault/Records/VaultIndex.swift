import CofferCore
import EncryptionAtRest
import Foundation
import Synchronization

/// All vaults by name, live and deleted: a name stays taken until its vault is purged.
///
/// Layout (record domain `vault`, partition `index`): `vault/{name}` → `Vault`; `backup-key` → 32 bytes. Names in lower
/// case.
final class VaultIndex: Sendable {
    private let records: SealedRecords
    /// Decoded records. The store is asked every time; only the decoding of a record that has not changed is spared.
    private let decoded = Mutex<[String: Entry]>([:])
    /// Above this many the cache starts anew.
    private static let decodedLimit = 1_024

    init(store: SealedStore) { records = store.records(.vault, "index") }

    struct Entry: Sendable {
        var vault: Vault
        let version: RecordVersion
    }

    private func key(_ name: String) -> String { "vault/" + name.lowercased() }

    func find(_ name: String) async throws -> Entry? {
        guard let record = try await records.get(key(name)) else { return nil }
        if let known = decoded.withLock({ $0[record.key] }), known.version == record.version { return known }
        let entry = Entry(
            vault: try JSONDecoder().decode(Vault.self, from: Data(record.value)), version: record.version)
        decoded.withLock { decoded in
            if decoded.count >= Self.decodedLimit { decoded.removeAll() }
            decoded[record.key] = entry
        }
        return entry
    }

    /// In the order of names.
    func all() async throws -> [Vault] {
        try await records.scan(prefix: "vault/").map { try JSONDecoder().decode(Vault.self, from: Data($0.value)) }
    }

    /// Writes if the record is still the one that was read (nil: still absent). false on conflict.
    func put(_ vault: Vault, replacing version: RecordVersion?) async throws -> Bool {
        let name = key(vault.name)
        let check: RecordCheck = version.map { .unchanged(name, $0) } ?? .absent(name)
        return try await records.commit(checks: [check], [.put(name, encoded(vault))]) != .conflict
    }
    func remove(_ entry: Entry) async throws -> Bool {
        let name = key(entry.vault.name)
        return try await records.commit(checks: [.unchanged(name, entry.version)], [.delete(name)]) != .conflict
    }

    /// The key backups are sealed under; made once.
    func backupKey(_ randomness: any Randomness) async throws -> SecretBytes {
        try await retryingConflicts {
            if let record = try await records.get("backup-key") { return SecretBytes(copying: record.value) }
            let key = randomness.secret(32)
            let result = try await records.commit(
                checks: [.absent("backup-key")], [.put("backup-key", key.withUnsafeBytes { Array($0) })])
            return result == .conflict ? nil : key
        }
    }
}

/// Sorted names: equal values have equal bytes.
func encoded(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return [UInt8](try encoder.encode(value))
}

/// Runs `attempt` until it does not return nil (a commit conflict). Attempts read again, so each decides on what it
/// saw.
func retryingConflicts<Result>(_ attempt: () async throws -> Result?) async throws -> Result {
    for _ in 0..<32 {
        if let result = try await attempt() { return result }
    }
    throw VaultError.busy
}
