import AccessControl
import CofferCore
import EncryptionAtRest
import Logging
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import Monitor

/// How many lines the server says it dropped.
private final class Dropped: Sendable {
    let counts = Mutex<[String]>([])
}
private struct RecordedLog: LogHandler {
    let dropped: Dropped
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) {
        guard case .string(let lines)? = event.metadata?["lines"] else { return }
        dropped.counts.withLock { $0.append(lines) }
    }
}

/// Logs come from code that nobody here wrote: however much of it comes, the server holds what it may.
struct BoundTests {
    private static let group = "/subscriptions/s/resourceGroups/g"
    private static let site = ResourceID("\(group)/providers/Microsoft.Web/sites/app")
    private static let workspace = ResourceID("\(group)/providers/Microsoft.OperationalInsights/workspaces/logs")
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")

    private let clock = FixedClock(unixSeconds: 1_800_000_000)
    private let dropped = Dropped()
    private let service: MonitorService

    init() async throws {
        let engine = InMemoryEngine()
        let store = try SealedStore(
            metadata: engine, extents: engine, rootKey: rootKey(), clock: clock, randomness: SystemRandomness())
        let access = AccessController()
        access.publish(
            RoleBook(
                definitions: [
                    RoleDefinition(
                        id: "r", roleName: "Owner", description: "", isBuiltIn: true,
                        permissions: RolePermissions(actions: ["*"]), assignableScopes: [.root])
                ],
                assignments: [
                    RoleAssignment(
                        name: "a", scope: .root, roleID: "r", principalID: Self.owner.objectID,
                        principalType: "ServicePrincipal", created: clock.now(), createdBy: "")
                ]))
        let dropped = dropped
        service = MonitorService(
            store: store, access: access, clock: clock, randomness: SystemRandomness(),
            log: Logger(label: "test") { _ in RecordedLog(dropped: dropped) })
        try await send(service.workspaces, .put, "\(Self.workspace)", ["location": "eastus"])
        try await connect("diag")
    }

    @discardableResult private func send(
        _ provider: any ResourceProvider, _ method: ControlRequest.Method, _ path: String, _ body: JSONValue? = nil
    ) async throws(ControlError) -> JSONValue? {
        let response = try await provider.respond(
            to: ControlRequest(
                method: method, path: ResourceID(path), query: [:], apiVersion: "2025-02-01", body: body,
                names: .azurePublic), as: Self.owner)
        if case .json(let value) = response.body { return value }
        return nil
    }

    private static func setting(_ name: String) -> String {
        "\(site)/providers/microsoft.insights/diagnosticSettings/\(name)"
    }
    /// Sends the site's logs to the workspace.
    private func connect(_ name: String) async throws(ControlError) {
        let logs: JSONValue = [["category": "FunctionAppLogs", "enabled": true]]
        let properties: JSONValue = ["workspaceId": .string("\(Self.workspace)"), "logs": logs]
        try await send(service.insights, .put, Self.setting(name), ["properties": properties])
    }

    private func line(_ message: String) -> LogLine {
        LogLine(time: clock.now(), level: "Information", message: message, functionName: "F")
    }
    /// All at once, as far as they are taken; returns when they are sealed.
    private func write(_ messages: [String]) async {
        await service.emit(messages.map(line), category: "FunctionAppLogs", from: Self.site)
        await service.flush()
    }
    /// What a query finds, oldest first.
    private func messages() async throws -> [String] {
        let answer = try await send(
            service.workspaces, .post, "\(Self.workspace)/api/query", ["query": "FunctionAppLogs"])
        let rows = answer?["tables"]?.arrayValue?.first?["rows"]?.arrayValue ?? []
        return rows.compactMap { row in row.arrayValue?.dropFirst(2).first?.stringValue }
    }

    @Test func aLongLineIsCut() async throws {
        let limit = LogIngestion.lineCharacterLimit
        let longest = String(repeating: "é", count: limit)
        await write([longest, longest + "beyond", "short"])
        #expect(try await messages() == [longest, longest, "short"])
    }

    /// What waits in memory is bounded, whoever does not wait for it.
    @Test func theNewestLinesAreDroppedAndCounted() async throws {
        let limit = LogIngestion.waitingLineLimit
        // Nothing is sealed before the last of them has come.
        await write((0..<limit + 10).map { "\($0)" })
        #expect(try await messages() == (0..<limit).map { "\($0)" })
        #expect(dropped.counts.withLock { $0 } == ["10"])
        // What waited is sealed, so there is room.
        await write(["later"])
        #expect(try await messages().last == "later")
        #expect(dropped.counts.withLock { $0 } == ["10"])
    }

    @Test func aQueryAnswersTheNewestRows() async throws {
        let (limit, waiting) = (LogQuery.rowLimit, LogIngestion.waitingLineLimit)
        var written: [String] = []
        while written.count <= limit {
            let more = (0..<waiting).map { "\(written.count + $0)" }
            await write(more)
            written += more
        }
        #expect(try await messages() == Array(written.suffix(limit)))
    }

    /// With every hundredth batch the oldest go, down to the limit.
    @Test func theOldestBatchesGo() async throws {
        let limit = MonitorRecords.batchLimit
        let workspace = try #require(try await service.records.workspace(Self.workspace))
        func append(_ numbers: ClosedRange<Int>) async throws {
            for number in numbers {
                let batch = MonitorRecords.Batch(
                    resource: Self.site, category: "FunctionAppLogs", lines: [line("\(number)")])
                try await service.records.append(batch, number: UInt64(number), to: workspace.customerID)
            }
        }
        try await append(1...limit)
        var written = (1...limit).map { "\($0)" }
        #expect(try await messages() == written, "nothing goes before the limit is reached")
        try await append(limit + 1...limit + 99)
        // After those that are there, as after a restart.
        await write(["newest"])
        written += (limit + 1...limit + 99).map { "\($0)" } + ["newest"]
        let kept = try await messages()
        #expect((limit..<limit + 100).contains(kept.count))
        #expect(kept == Array(written.suffix(kept.count)))
    }

    /// Whatever lies between: numbers are missing where a batch could not be written.
    @Test func theNewestBatchIsFound() async throws {
        let random = SeededRandomness(3)
        for round in 0..<40 {
            let customer = "workspace\(round)"
            #expect(try await service.records.lastBatchNumber(of: customer) == 0)
            var numbers: [UInt64] = []
            for _ in 0..<random.number(1..<12) {
                numbers.append(UInt64(random.number(1..<(1 << random.number(1..<20)))))
            }
            for number in numbers.sorted() {
                let batch = MonitorRecords.Batch(resource: Self.site, category: "c", lines: [line("\(number)")])
                try await service.records.append(batch, number: number, to: customer)
            }
            #expect(try await service.records.lastBatchNumber(of: customer) == numbers.max())
        }
    }

    /// Every line is written once for each of them.
    @Test func aResourceHasFewSettings() async throws {
        for name in ["b", "c", "d", "e"] { try await connect(name) }
        let error = await #expect(throws: ControlError.self) { try await connect("f") }
        #expect(error?.status == 409 && error?.code == "Conflict")
        // One of them can still be changed, and another take its place.
        try await connect("E")
        try await send(service.insights, .delete, Self.setting("b"))
        try await connect("f")
    }
}
