internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import ResourceProviders

/// How the control plane lies in the store: JSON values under `group/{name}`, `assignment/{name}`,
/// `assigned/{principal}/{role}{scope}` (the name: what makes an assignment unique), `definition/{id}`,
/// `definition-named/{name}` (the id), `started`.
struct TreeRecords: Sendable {
    let records: SealedRecords
    init(_ records: SealedRecords) { self.records = records }

    /// Attempts before a contested write gives up.
    static let attempts = 16
    static let startedKey = "started"
    static func groupKey(_ name: String) -> String { "group/\(name.lowercased())" }

    func group(_ name: String) async throws -> (group: ResourceGroup, version: RecordVersion)? {
        guard let record = try await records.get(Self.groupKey(name)) else { return nil }
        return (try JSONDecoder().decode(ResourceGroup.self, from: Data(record.value)), record.version)
    }
    /// In the order of their names.
    func groups() async throws -> [ResourceGroup] { try await all("group/") }

    func all<Value: Decodable>(_ prefix: String) async throws -> [Value] {
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
        throw ControlError(
            status: 409, code: "Conflict", message: "The resource is being changed by other requests; try again.")
    }
}
