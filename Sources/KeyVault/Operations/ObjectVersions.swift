import CofferCore
import EncryptionAtRest

/// What keys and secrets do alike: find a version, list, change attributes, and add a version.
extension OpenVault {
    /// `version` nil or empty means the newest. Throws 404 when the object is absent or deleted.
    func find(_ kind: ObjectKind, _ name: String, version: String?) async throws -> StoredObject {
        guard let found = try await objects.remembered(kind, name, version: version ?? "") else {
            throw missing(kind, name, version)
        }
        return StoredObject(vault: vault, kind: kind, header: found.header.value, version: found.version.value)
    }

    /// From the store itself: for what is about to be changed.
    func read(_ kind: ObjectKind, _ name: String, version: String?) async throws -> ObjectRecords.Found {
        guard let found = try await objects.find(kind, name, version: version ?? "") else {
            throw missing(kind, name, version)
        }
        return found
    }

    private func missing(_ kind: ObjectKind, _ name: String, _ version: String?) -> VaultError {
        .objectNotFound(kind, version.flatMap { $0.isEmpty ? nil : "\(name)/\($0)" } ?? name)
    }

    /// Adds a version to a live object, or makes the object. Throws 409 when the name belongs to a deleted one.
    func addVersion(
        _ kind: ObjectKind, _ name: String, at now: Timestamp, material: SecretBytes,
        changing change: (inout ObjectHeader) -> Void = { _ in },
        _ makeVersion: (_ sequence: Int, _ header: ObjectHeader?) throws -> ObjectVersion
    ) async throws -> StoredObject {
        try await retryingConflicts {
            let read = try await objects.header(kind, name)
            if let deletion = read?.value.deletion {
                throw VaultError.nameTaken(kind, name, by: deletion, at: now)
            }
            let version = try makeVersion((read?.value.latestSequence ?? 0) + 1, read?.value)
            var header =
                read?.value ?? ObjectHeader(name: name, latestSequence: version.sequence, latestVersion: version.id)
            header.latestSequence = version.sequence
            header.latestVersion = version.id
            change(&header)
            let new = ObjectRecords.NewVersion(version: version, material: material)
            guard try await objects.add(kind, header, replacing: read?.version, [new]) else { return nil }
            return StoredObject(vault: vault, kind: kind, header: header, version: version)
        }
    }

    /// The newest version of every live object, in the order of names.
    func list(_ kind: ObjectKind, isDeleted: Bool, after: String?, limit: Int) async throws -> Page<StoredObject> {
        var items: [StoredObject] = []
        var position = after
        while true {
            let headers = try await objects.headers(kind, after: position, limit: limit)
            for (name, header) in headers {
                position = name
                guard (header.deletion != nil) == isDeleted,
                    let version = try await objects.version(kind, header.name, sequence: header.latestSequence)
                else { continue }
                items.append(StoredObject(vault: vault, kind: kind, header: header, version: version.value))
                if items.count == limit {
                    let more = try await objects.headers(kind, after: position, limit: 1)
                    return Page(items: items, next: more.isEmpty ? nil : position)
                }
            }
            if headers.count < limit { return Page(items: items, next: nil) }
        }
    }

    /// Every version, oldest first: `[-1]` of the list is the newest, as scripts expect. A name that was never used has
    /// none, which the service does not call an error.
    func listVersions(_ kind: ObjectKind, _ name: String, after: Int?, limit: Int) async throws -> Page<StoredObject> {
        guard let header = try await objects.header(kind, name) else { return Page(items: [], next: nil) }
        guard header.value.deletion == nil else { throw VaultError.objectNotFound(kind, name) }
        let versions = try await objects.versions(kind, name, after: after, limit: limit)
        let items = versions.map { StoredObject(vault: vault, kind: kind, header: header.value, version: $0) }
        let next = versions.last.flatMap { $0.sequence < header.value.latestSequence ? String($0.sequence) : nil }
        return Page(items: items, next: next)
    }

    func update(
        _ kind: ObjectKind, _ name: String, version: String?, _ change: (inout ObjectVersion) throws -> Void
    ) async throws -> StoredObject {
        try await retryingConflicts {
            var found = try await read(kind, name, version: version)
            try change(&found.version.value)
            guard try await objects.replace(kind, found.version, under: found.header) else { return nil }
            return StoredObject(vault: vault, kind: kind, header: found.header.value, version: found.version.value)
        }
    }
}
