internal import CofferCore
internal import EncryptionAtRest
internal import Foundation

/// How the directory lies in the store: JSON values under `application/{appId}`, `principal/{id}`,
/// `principal-of/{appId}` (an id), `identity-of/{resource}` (an id), `signing-keys`, `administrator`.
///
/// Everything is read from the store each time: the directory is small, and no copy can go stale.
struct DirectoryRecords: Sendable {
    private let records: SealedRecords
    init(_ records: SealedRecords) { self.records = records }

    /// Attempts before a contested write gives up.
    static let attempts = 16

    static func applicationKey(_ appID: String) -> String { "application/\(appID.lowercased())" }
    static func principalKey(_ id: String) -> String { "principal/\(id.lowercased())" }
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
    func principal(ofApplication appID: String) async throws -> Versioned<ServicePrincipal>? {
        guard let id = try await text(Self.principalOfKey(appID)) else { return nil }
        return try await principal(id)
    }
    func applications() async throws -> [Application] { try await all("application/") }
    func principals() async throws -> [ServicePrincipal] { try await all("principal/") }
    private func all<Value: Decodable>(_ prefix: String) async throws -> [Value] {
        try await records.scan(prefix: prefix).map { try JSONDecoder().decode(Value.self, from: Data($0.value)) }
    }

    func commit(_ checks: [RecordCheck], _ writes: [RecordWrite]) async throws -> Bool {
        if case .committed = try await records.commit(checks: checks, writes) { return true }
        return false
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
