internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
internal import Foundation

/// How the directory lies in the store: JSON values under `application/{appId}`, `principal/{id}`,
/// `principal-of/{appId}` (an id), `identity-of/{resource}` (an id), `signing-keys`, `administrator`.
///
/// Everything is read from the store each time: the directory is small, and no copy can go stale.
struct DirectoryRecords: PrincipalStanding {
    private let records: SealedRecords
    private let principalsChanged: @Sendable (Set<String>) -> Void

    /// `principalsChanged` hears of every principal that is made, changed or removed, after the commit and before it is
    /// answered.
    init(_ records: SealedRecords, principalsChanged: @escaping @Sendable (Set<String>) -> Void) {
        self.records = records
        self.principalsChanged = principalsChanged
    }

    /// Attempts before a contested write gives up.
    static let attempts = 16

    static func applicationKey(_ appID: String) -> String { "application/\(appID.lowercased())" }
    private static let principalPrefix = "principal/"
    static func principalKey(_ id: String) -> String { principalPrefix + id.lowercased() }
    static func principalOfKey(_ appID: String) -> String { "principal-of/\(appID.lowercased())" }
    static func identityOfKey(_ resource: ResourceID) -> String { "identity-of\(resource.canonical)" }
    static let signingKeysKey = "signing-keys"
    static let administratorKey = "administrator"

    struct Versioned<Value: Sendable>: Sendable {
        let value: Value
        let version: RecordVersion
    }

    func read<Value: Decodable & Sendable>(_ key: String, as type: Value.Type) async throws -> Versioned<Value>? {
        guard let record = try await records.get(key) else { return nil }
        return Versioned(value: try JSONDecoder().decode(type, from: Data(record.value)), version: record.version)
    }
    func text(_ key: String) async throws -> String? {
        try await records.get(key).map { String(decoding: $0.value, as: UTF8.self) }
    }

    func application(_ appID: String) async throws -> Versioned<Application>? {
        try await read(Self.applicationKey(appID), as: Application.self)
    }
    func principal(_ id: String) async throws -> Versioned<ServicePrincipal>? {
        try await read(Self.principalKey(id), as: ServicePrincipal.self)
    }
    /// The principal exists and is enabled.
    func isInGoodStanding(_ objectID: String) async throws -> Bool {
        try await principal(objectID)?.value.isEnabled == true
    }
    func principal(ofApplication appID: String) async throws -> Versioned<ServicePrincipal>? {
        guard let id = try await text(Self.principalOfKey(appID)) else { return nil }
        return try await principal(id)
    }
    func applications() async throws -> [Application] { try await all("application/") }
    func principals() async throws -> [ServicePrincipal] { try await all(Self.principalPrefix) }
    private func all<Value: Decodable>(_ prefix: String) async throws -> [Value] {
        try await records.scan(prefix: prefix).map { try JSONDecoder().decode(Value.self, from: Data($0.value)) }
    }

    func commit(_ checks: [RecordCheck], _ writes: [RecordWrite]) async throws -> Bool {
        let principals = Set(writes.compactMap(Self.principalID))
        // Also when the commit throws: its outcome may be unknown.
        defer { if !principals.isEmpty { principalsChanged(principals) } }
        if case .committed = try await records.commit(checks: checks, writes) { return true }
        return false
    }
    private static func principalID(_ write: RecordWrite) -> String? {
        switch write {
        case .put(let key, _), .putSecret(let key, _), .delete(let key):
            key.hasPrefix(principalPrefix) ? String(key.dropFirst(principalPrefix.utf8.count)) : nil
        }
    }
    static func put(_ key: String, _ value: some Encodable) throws -> RecordWrite {
        .put(key, [UInt8](try JSONEncoder().encode(value)))
    }
    static func put(_ key: String, text: String) -> RecordWrite { .put(key, Array(text.utf8)) }

    /// Runs read, decide, commit until the commit is not in conflict. `attempt` returns nil for a conflict and may run
    /// again.
    func retrying<Result>(_ attempt: () async throws -> Result?) async throws -> Result {
        for _ in 0..<Self.attempts {
            if let result = try await attempt() { return result }
        }
        throw SealedStoreError(.unavailable, "The directory is contested; try again.")
    }
}
