import CofferCore
import EncryptionAtRest
import Foundation

/// One vault's keys and secrets.
///
/// Layout (record domain `vault`, partition `objects-{incarnation}`; `K` is `key` or `secret`, names in lower case,
/// sequences in ten digits):
/// * `K/{name}` → `ObjectHeader`
/// * `K-version/{name}/{sequence}` → `ObjectVersion`
/// * `K-sequence/{name}/{version id}` → the sequence, as text
/// * `K-material/{name}/{sequence}` → PKCS#8 DER, or the secret's value; read only by the operations that need it
/// * `purged` → nothing; the vault was purged, and no object is added any more
struct ObjectRecords: Sendable {
    private let records: SealedRecords
    private let vault: Vault
    private let memory: RecordMemory<Found>

    /// `memory` is the service's one: every write of every vault goes through it.
    init(store: SealedStore, vault: Vault, memory: RecordMemory<Found>) {
        records = store.records(.vault, "objects-" + vault.incarnation)
        self.vault = vault
        self.memory = memory
    }

    struct Header: Sendable {
        var value: ObjectHeader
        let version: RecordVersion
    }
    struct Version: Sendable {
        var value: ObjectVersion
        let version: RecordVersion
    }
    /// A version of a live object.
    struct Found: Sendable {
        var header: Header
        var version: Version
    }
    /// A version to be written, with its private part.
    struct NewVersion: Sendable {
        var version: ObjectVersion
        var material: SecretBytes
    }

    private static let purgedKey = "purged"
    private func headerKey(_ kind: ObjectKind, _ name: String) -> String { "\(kind.rawValue)/\(name.lowercased())" }
    private func key(_ kind: ObjectKind, _ part: String, _ name: String, _ tail: String) -> String {
        "\(kind.rawValue)-\(part)/\(name.lowercased())/\(tail)"
    }
    private func digits(_ sequence: Int) -> String {
        let text = String(sequence)
        return String(repeating: "0", count: max(0, 10 - text.utf8.count)) + text
    }

    private func memoryName(_ kind: ObjectKind, _ name: String) -> String {
        "\(vault.incarnation)/\(headerKey(kind, name))"
    }

    // MARK: Reading

    /// A version of a live object, as it is in the store; `version` empty means the newest. nil when there is none.
    func remembered(_ kind: ObjectKind, _ name: String, version: String) async throws -> Found? {
        let version = version.lowercased()
        return try await memory.value(memoryName(kind, name), version) {
            try await find(kind, name, version: version)
        }
    }

    /// The same, from the store itself.
    func find(_ kind: ObjectKind, _ name: String, version: String) async throws -> Found? {
        guard let header = try await header(kind, name), header.value.deletion == nil else { return nil }
        var sequence: Int? = header.value.latestSequence
        if !version.isEmpty, version.lowercased() != header.value.latestVersion {
            sequence = try await self.sequence(kind, name, versionID: version.lowercased())
        }
        guard let sequence, let found = try await self.version(kind, name, sequence: sequence) else { return nil }
        return Found(header: header, version: found)
    }

    func header(_ kind: ObjectKind, _ name: String) async throws -> Header? {
        guard let record = try await records.get(headerKey(kind, name)) else { return nil }
        return Header(
            value: try JSONDecoder().decode(ObjectHeader.self, from: Data(record.value)), version: record.version)
    }
    /// Headers whose lower-case name sorts after `after`, with the name to continue from.
    func headers(_ kind: ObjectKind, after: String?, limit: Int) async throws -> [(
        position: String, header: ObjectHeader
    )] {
        let prefix = "\(kind.rawValue)/"
        return try await records.scan(prefix: prefix, after: after.map { prefix + $0 }, limit: limit).map { record in
            (
                String(record.key.dropFirst(prefix.count)),
                try JSONDecoder().decode(ObjectHeader.self, from: Data(record.value))
            )
        }
    }
    func version(_ kind: ObjectKind, _ name: String, sequence: Int) async throws -> Version? {
        guard let record = try await records.get(key(kind, "version", name, digits(sequence))) else { return nil }
        return Version(
            value: try JSONDecoder().decode(ObjectVersion.self, from: Data(record.value)), version: record.version)
    }
    func sequence(_ kind: ObjectKind, _ name: String, versionID: String) async throws -> Int? {
        guard let record = try await records.get(key(kind, "sequence", name, versionID)) else { return nil }
        return Int(String(decoding: record.value, as: UTF8.self))
    }
    /// Oldest first, from the sequence after `after`.
    func versions(_ kind: ObjectKind, _ name: String, after: Int?, limit: Int = .max) async throws -> [ObjectVersion] {
        let prefix = key(kind, "version", name, "")
        return try await records.scan(prefix: prefix, after: after.map { prefix + digits($0) }, limit: limit).map {
            try JSONDecoder().decode(ObjectVersion.self, from: Data($0.value))
        }
    }
    func material(_ kind: ObjectKind, _ name: String, sequence: Int) async throws -> SecretBytes? {
        try await records.secret(key(kind, "material", name, digits(sequence)))
    }

    // MARK: Writing

    /// Adds versions and replaces the header, if it is still the one that was read (nil: still absent). false on
    /// conflict.
    func add(_ kind: ObjectKind, _ header: ObjectHeader, replacing read: RecordVersion?, _ added: [NewVersion])
        async throws -> Bool
    {
        let name = header.name
        let headerKey = headerKey(kind, name)
        var writes: [RecordWrite] = [.put(headerKey, try encoded(header))]
        for new in added {
            let sequence = digits(new.version.sequence)
            writes.append(.put(key(kind, "version", name, sequence), try encoded(new.version)))
            writes.append(.put(key(kind, "sequence", name, new.version.id), Array(String(new.version.sequence).utf8)))
            writes.append(.putSecret(key(kind, "material", name, sequence), new.material))
        }
        let check: RecordCheck = read.map { .unchanged(headerKey, $0) } ?? .absent(headerKey)
        guard try await commit(kind, name, [check, .absent(Self.purgedKey)], writes) else {
            // Not a conflict that another attempt could win: there is no vault any more.
            if try await records.get(Self.purgedKey) != nil { throw VaultError.vaultNotFound(vault.name) }
            return false
        }
        return true
    }
    func replace(_ kind: ObjectKind, _ header: Header) async throws -> Bool {
        let key = headerKey(kind, header.value.name)
        return try await commit(
            kind, header.value.name, [.unchanged(key, header.version)], [.put(key, try encoded(header.value))])
    }
    /// Replaces one version's attributes, if neither it nor the header (a deletion) has changed.
    func replace(_ kind: ObjectKind, _ version: Version, under header: Header) async throws -> Bool {
        let name = header.value.name
        let key = key(kind, "version", name, digits(version.value.sequence))
        return try await commit(
            kind, name, [.unchanged(headerKey(kind, name), header.version), .unchanged(key, version.version)],
            [.put(key, try encoded(version.value))])
    }
    /// Removes an object with all its versions.
    func purge(_ kind: ObjectKind, _ header: Header) async throws -> Bool {
        let name = header.value.name
        var writes: [RecordWrite] = [.delete(headerKey(kind, name))]
        for part in ["version", "sequence", "material"] {
            writes += try await records.keys(prefix: key(kind, part, name, "")).map { .delete($0) }
        }
        return try await commit(kind, name, [.unchanged(headerKey(kind, name), header.version)], writes)
    }

    /// false on conflict.
    private func commit(_ kind: ObjectKind, _ name: String, _ checks: [RecordCheck], _ writes: [RecordWrite])
        async throws -> Bool
    {
        try await memory.writing(memoryName(kind, name)) {
            try await records.commit(checks: checks, writes) != .conflict
        }
    }

    /// Removes everything, in steps: repeatable after a crash. A later vault of the same name has another incarnation.
    ///
    /// The mark goes first and stays, so that an object whose making began before the purge (a key of 4096 bits takes
    /// seconds) does not outlive it.
    func destroy() async throws {
        _ = try await records.commit([.put(Self.purgedKey, [])])
        while true {
            let batch = try await records.keys(prefix: "", limit: 500).filter { $0 != Self.purgedKey }
            guard !batch.isEmpty else { return }
            _ = try await records.commit(batch.map { .delete($0) })
        }
    }
}
