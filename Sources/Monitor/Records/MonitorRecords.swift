import CofferCore
import EncryptionAtRest
import Foundation
import ResourceProviders

/// How workspaces, settings and log batches lie in the store: one partition for the resources, one for each workspace's
/// lines.
struct MonitorRecords: Sendable {
    /// Most batches a workspace keeps; the oldest go first. A batch holds at most `LogIngestion.batchLineLimit` lines.
    static let batchLimit = 2_000

    let store: SealedStore

    struct Workspace: Codable, Sendable {
        var id: ResourceID
        var location: String
        var tags: [String: String]
        /// The workspace's own GUID, `customerId` on the wire.
        var customerID: String
        var created: Timestamp
        var retentionDays: Int64
        var properties: JSONValue
    }
    struct Setting: Codable, Sendable {
        var resource: ResourceID
        var name: String
        var workspace: ResourceID?
        var properties: JSONValue
    }
    struct Batch: Codable, Sendable {
        var resource: ResourceID
        var category: String
        var lines: [LogLine]
    }

    private var resources: SealedRecords { store.records(.resources, "monitor") }
    private func batches(_ customerID: String) -> SealedRecords {
        store.records(.resources, "monitor/logs/\(customerID)")
    }

    // MARK: Workspaces and settings

    private func key(_ id: ResourceID) -> String { "workspace" + id.canonical }
    private func key(_ resource: ResourceID, _ name: String) -> String {
        "setting" + resource.canonical + "|" + name.lowercased()
    }

    func workspace(_ id: ResourceID) async throws(ControlError) -> Workspace? {
        try await read(Workspace.self, key(id))
    }
    func workspaces(below scope: ResourceID) async throws(ControlError) -> [Workspace] {
        try await scan(Workspace.self, prefix: "workspace/").filter { scope.contains($0.id) }
    }
    func save(_ workspace: Workspace) async throws(ControlError) {
        try await write(.put(key(workspace.id), encoded(workspace)))
    }
    func delete(_ workspace: Workspace) async throws(ControlError) {
        try await write(.delete(key(workspace.id)))
        try await storing { () async throws(SealedStoreError) in
            let logs = batches(workspace.customerID)
            while true {
                let some = try await logs.scan(prefix: "", limit: 500)
                if some.isEmpty { return }
                _ = try await logs.commit(some.map { .delete($0.key) })
            }
        }
    }

    func setting(_ resource: ResourceID, _ name: String) async throws(ControlError) -> Setting? {
        try await read(Setting.self, key(resource, name))
    }
    func settings(of resource: ResourceID) async throws(ControlError) -> [Setting] {
        try await scan(Setting.self, prefix: "setting" + resource.canonical + "|")
    }
    func save(_ setting: Setting) async throws(ControlError) {
        try await write(.put(key(setting.resource, setting.name), encoded(setting)))
    }
    func delete(_ setting: Setting) async throws(ControlError) {
        try await write(.delete(key(setting.resource, setting.name)))
    }

    // MARK: Log lines

    /// Appends one batch; with every hundredth, what exceeds the limit goes in the same commit. `number` must grow by
    /// one with every batch of the workspace.
    func append(_ batch: Batch, number: UInt64, to customerID: String) async throws(ControlError) {
        try await storing { () async throws(SealedStoreError) in
            var writes: [RecordWrite] = [.put(Self.batchKey(number), encoded(batch))]
            let logs = batches(customerID)
            if number % 100 == 0, number > Self.batchLimit,
                let first = try await logs.scan(prefix: "", limit: 1).first.flatMap({ UInt64($0.key, radix: 16) })
            {
                // More than a hundred where some could not be removed in their time.
                let last = min(number - UInt64(Self.batchLimit), first + 999)
                writes += stride(from: first, through: last, by: 1).map { .delete(Self.batchKey($0)) }
            }
            _ = try await logs.commit(writes)
        }
    }

    /// Shows one batch after the other, newest first, until `isEnough` says so: a workspace may hold gigabytes.
    func read(batchesOf customerID: String, until isEnough: (Batch) -> Bool) async throws(ControlError) {
        let logs = batches(customerID)
        var number = try await lastBatchNumber(of: customerID)
        let first = number - min(number, UInt64(Self.batchLimit) + 200)
        while number > first {
            let key = Self.batchKey(number)
            let record = try await storing { () async throws(SealedStoreError) in try await logs.get(key) }
            let batch = record.flatMap { try? JSONDecoder().decode(Batch.self, from: Data($0.value)) }
            if let batch, isEnough(batch) { return }
            number -= 1
        }
    }

    /// 0 when there is none. Looks at a few batches, not at all.
    func lastBatchNumber(of customerID: String) async throws(ControlError) -> UInt64 {
        try await storing { () async throws(SealedStoreError) in
            let logs = batches(customerID)
            func next(after number: UInt64) async throws(SealedStoreError) -> UInt64? {
                let found = try await logs.scan(prefix: "", after: Self.batchKey(number), limit: 1).first
                return found.flatMap { UInt64($0.key, radix: 16) }
            }
            // There is a batch of `low`, and none above `low + step` once the first loop ends.
            var low: UInt64 = 0
            var step: UInt64 = 1
            while let found = try await next(after: low + step - 1) {
                low = found
                step *= 2
            }
            while step > 1 {
                step /= 2
                if let found = try await next(after: low + step - 1) { low = found }
            }
            return low
        }
    }
    private static func batchKey(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    // MARK: Plumbing

    private func encoded(_ value: some Encodable) -> [UInt8] {
        // These records hold nothing JSONEncoder refuses.
        (try? JSONEncoder().encode(value)).map { [UInt8]($0) } ?? []
    }
    private func read<Value: Decodable & Sendable>(_ type: Value.Type, _ key: String) async throws(ControlError)
        -> Value?
    {
        try await storing { () async throws(SealedStoreError) in
            try await resources.get(key).flatMap { try? JSONDecoder().decode(type, from: Data($0.value)) }
        }
    }
    private func scan<Value: Decodable & Sendable>(_ type: Value.Type, prefix: String) async throws(ControlError)
        -> [Value]
    {
        try await storing { () async throws(SealedStoreError) in
            try await resources.scan(prefix: prefix).compactMap {
                try? JSONDecoder().decode(type, from: Data($0.value))
            }
        }
    }
    private func write(_ write: RecordWrite) async throws(ControlError) {
        try await storing { () async throws(SealedStoreError) in _ = try await resources.commit([write]) }
    }
    private func storing<Value: Sendable>(
        _ body: () async throws(SealedStoreError) -> Value
    ) async throws(ControlError) -> Value {
        do {
            return try await body()
        } catch {
            throw ControlError(
                status: 503, code: "ServerTimeout", message: "The store is not available: \(error.message)")
        }
    }
}
