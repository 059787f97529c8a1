import CofferCore
import EncryptionAtRest
import Foundation

/// All vaults by name, live and deleted: a name stays taken until its vault is purged.
///
/// Layout (record domain `vault`, partition `index`): `vault/{name}` → `Vault`; `backup-key` → 32 bytes. Names in lower
/// case.
final class VaultIndex: Sendable {
    private let records: SealedRecords
    private let memory = RecordMemory<Entry>(limit: KeyVaultService.Limits.rememberedVaults)

    init(store: SealedStore) { records = store.records(.vault, "index") }

    struct Entry: Sendable {
        var vault: Vault
        let version: RecordVersion
    }

    private func key(_ name: String) -> String { "vault/" + name.lowercased() }

    func find(_ name: String) async throws -> Entry? {
        let key = key(name)
        return try await memory.value(key) {
            guard let record = try await records.get(key) else { return nil }
            return Entry(
                vault: try JSONDecoder().decode(Vault.self, from: Data(record.value)), version: record.version)
        }
    }

    /// In the order of names.
    func all() async throws -> [Vault] {
        try await records.scan(prefix: "vault/").map { try JSONDecoder().decode(Vault.self, from: Data($0.value)) }
    }

    /// Writes if the record is still the one that was read (nil: still absent). false on conflict.
    func put(_ vault: Vault, replacing version: RecordVersion?) async throws -> Bool {
        let name = key(vault.name)
        let check: RecordCheck = version.map { .unchanged(name, $0) } ?? .absent(name)
        let value = try encoded(vault)
        return try await memory.writing(name) {
            try await records.commit(checks: [check], [.put(name, value)]) != .conflict
        }
    }
    func remove(_ entry: Entry) async throws -> Bool {
        let name = key(entry.vault.name)
        return try await memory.writing(name) {
            try await records.commit(checks: [.unchanged(name, entry.version)], [.delete(name)]) != .conflict
        }
    }

    /// The key backups are sealed under; made once.
    func backupKey(_ randomness: any Randomness) async throws -> SecretBytes {
        try await retryingConflicts {
            if let key = try await records.secret("backup-key") { return key }
            let key = randomness.secret(32)
            let result = try await records.commit(checks: [.absent("backup-key")], [.putSecret("backup-key", key)])
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
