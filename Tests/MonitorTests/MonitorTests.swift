import AccessControl
import CofferCore
import EncryptionAtRest
import Logging
import Monitor
import ResourceProviders
import StorageEngine
import TestSupport
import Testing

struct MonitorTests {
    private static let group = "/subscriptions/s/resourceGroups/g"
    private static let site = ResourceID("\(group)/providers/Microsoft.Web/sites/app")
    private static let workspace = ResourceID("\(group)/providers/Microsoft.OperationalInsights/workspaces/logs")
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")
    private static let stranger = Caller(kind: .servicePrincipal, objectID: "stranger", tenantID: "t")

    private let clock = FixedClock(unixSeconds: 1_800_000_000)
    private let service: MonitorService
    private let engine = InMemoryEngine()

    init() throws {
        let randomness = SystemRandomness()
        let store = try SealedStore(
            metadata: engine, extents: engine, rootKey: rootKey(),
            clock: clock,
            randomness: randomness)
        let access = AccessController()
        access.publish(
            RoleBook(
                definitions: [
                    RoleDefinition(
                        id: "r", roleName: "Owner", description: "", isBuiltIn: true,
                        permissions: RolePermissions(actions: ["*"]),
                        assignableScopes: [.root]),
                    RoleDefinition(
                        id: "d", roleName: "Deployer", description: "", isBuiltIn: false,
                        permissions: RolePermissions(actions: ["Microsoft.Insights/diagnosticSettings/*"]),
                        assignableScopes: [.root]),
                ],
                assignments: [
                    RoleAssignment(
                        name: "a", scope: .root, roleID: "r", principalID: Self.owner.objectID,
                        principalType: "ServicePrincipal",
                        created: Timestamp(unixSeconds: 0), createdBy: ""),
                    RoleAssignment(
                        name: "b", scope: Self.site, roleID: "d", principalID: Self.deployer.objectID,
                        principalType: "ServicePrincipal", created: Timestamp(unixSeconds: 0), createdBy: ""),
                ]))
        service = MonitorService(
            store: store, access: access, clock: clock, randomness: randomness, log: Logger(label: "test"))
    }

    private func send(
        _ provider: any ResourceProvider, _ method: ControlRequest.Method, _ path: String, _ body: JSONValue? = nil,
        as caller: Caller = owner
    ) async throws(ControlError) -> JSONValue? {
        let response = try await provider.respond(
            to: ControlRequest(
                method: method, path: ResourceID(path), query: [:], apiVersion: "2025-02-01", body: body,
                names: .azurePublic),
            as: caller)
        if case .json(let value) = response.body { return value }
        return nil
    }

    /// May write diagnostic settings of the site, and nothing at all of workspaces.
    private static let deployer = Caller(kind: .servicePrincipal, objectID: "deployer", tenantID: "t")

    private func connect() async throws {
        _ = try await send(service.workspaces, .put, "\(Self.workspace)", ["location": "eastus"])
        _ = try await send(
            service.insights, .put, "\(Self.site)/providers/microsoft.insights/diagnosticSettings/diag",
            [
                "properties": [
                    "workspaceId": .string("\(Self.workspace)"),
                    "logs": [["category": "FunctionAppLogs", "enabled": true]],
                ]
            ])
    }

    private func query(_ text: String) async throws -> [JSONValue] {
        let answer = try await send(service.workspaces, .post, "\(Self.workspace)/api/query", ["query": .string(text)])
        return answer?["tables"]?.arrayValue?.first?["rows"]?.arrayValue ?? []
    }

    @Test func linesReachTheWorkspaceASettingNamesAndNoOther() async throws {
        let line = LogLine(
            time: clock.now(), level: "Information", message: "hello planted-log-text", functionName: "F")
        await service.emit([line], category: "FunctionAppLogs", from: Self.site)
        await service.flush()
        try await connect()
        #expect(try await query("FunctionAppLogs").isEmpty)

        await service.emit(Array(repeating: line, count: 600), category: "FunctionAppLogs", from: Self.site)
        await service.emit([line], category: "OtherLogs", from: Self.site)
        await service.flush()
        #expect(try await query("FunctionAppLogs").count == 600)
        #expect(try await query("FunctionAppLogs | where _ResourceId == '\(Self.site)' | take 7").count == 7)
        #expect(try await query("FunctionAppLogs | where _ResourceId == '/subscriptions/other'").isEmpty)

        for partition in try await engine.partitions(after: nil, limit: 1_000) {
            for row in try await engine.scan(partition, from: RowKey([]), upTo: nil, limit: 10_000) {
                #expect(!String(decoding: row.value, as: UTF8.self).contains("planted-log-text"))
            }
        }
    }

    @Test func everyOperationAsksTheRoles() async throws {
        try await connect()
        let attempts: [(any ResourceProvider, ControlRequest.Method, String)] = [
            (service.workspaces, .get, "\(Self.workspace)"), (service.workspaces, .put, "\(Self.workspace)"),
            (service.workspaces, .patch, "\(Self.workspace)"), (service.workspaces, .delete, "\(Self.workspace)"),
            (service.workspaces, .post, "\(Self.workspace)/api/query"),
            (service.insights, .get, "\(Self.site)/providers/microsoft.insights/diagnosticSettings/diag"),
            (service.insights, .put, "\(Self.site)/providers/microsoft.insights/diagnosticSettings/diag"),
            (service.insights, .delete, "\(Self.site)/providers/microsoft.insights/diagnosticSettings/diag"),
        ]
        for (provider, method, path) in attempts {
            await #expect(throws: ControlError.self) {
                try await send(provider, method, path, ["location": "eastus"], as: Self.stranger)
            }
            do {
                _ = try await send(provider, method, path, ["location": "eastus"], as: Self.stranger)
            } catch {
                #expect(error.status == 403 && error.code == "AuthorizationFailed")
            }
        }
        #expect(try await send(service.workspaces, .get, "\(Self.workspace)") != nil)
    }

    @Test(arguments: [
        "", "|", "a b", "T | drop", "T | take -1", "T | take 99999999", "T | where x == 'y'",
        "T | where _ResourceId == 'x",
    ])
    func queriesThatAreNotUnderstoodAreRefused(text: String) async throws {
        try await connect()
        do {
            _ = try await query(text)
            Issue.record("'\(text)' was accepted")
        } catch let error as ControlError {
            #expect(error.status == 400 && error.code == "BadArgumentError")
        }
    }

    /// The activity log, metrics and alerts belong to the same namespace.
    @Test(arguments: [
        "/subscriptions/s/providers/Microsoft.Insights/eventtypes/management/values",
        "\(site)/providers/Microsoft.Insights/metrics", "\(group)/providers/Microsoft.Insights/metricAlerts/a",
    ])
    func whatIsMissingAnswers501(_ path: String) async throws {
        let error = await #expect(throws: ControlError.self) { try await send(service.insights, .get, path) }
        #expect(error?.status == 501 && error?.code == "NotImplemented")
    }

    @Test func whatIsNeverProducedIsRefused() async throws {
        try await connect()
        let path = "\(Self.site)/providers/microsoft.insights/diagnosticSettings/other"
        for properties: JSONValue in [
            [
                "workspaceId": .string("\(Self.workspace)"),
                "logs": [["category": "AppServiceHTTPLogs", "enabled": true]],
            ],
            ["storageAccountId": "/x", "logs": []], ["logs": []], ["workspaceId": "/subscriptions/s/none", "logs": []],
        ] {
            await #expect(throws: ControlError.self) {
                try await send(service.insights, .put, path, ["properties": properties])
            }
        }
    }

    @Test func aSettingCannotReachAWorkspaceItsWriterMayNotUse() async throws {
        try await connect()
        for target in ["\(Self.workspace)", "\(Self.group)/providers/Microsoft.OperationalInsights/workspaces/none"] {
            // The same answer whether the workspace exists or not.
            let error = await #expect(throws: ControlError.self) {
                _ = try await send(
                    service.insights, .put, "\(Self.site)/providers/microsoft.insights/diagnosticSettings/mine",
                    ["properties": ["workspaceId": .string(target), "logs": []]], as: Self.deployer)
            }
            #expect(error?.status == 403 && error?.code == "AuthorizationFailed")
        }
    }
}
