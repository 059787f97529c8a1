import AccessControl
import CofferCore
import ResourceProviders

/// `Microsoft.OperationalInsights`: log analytics workspaces and their query.
struct WorkspaceProvider: ResourceProvider {
    let service: MonitorService
    let namespace = "Microsoft.OperationalInsights"
    let resourceTypes = [
        ResourceTypeDescription("workspaces", apiVersions: ["2025-02-01", "2023-09-01", "2021-12-01-preview"])
    ]
    private static let action = "Microsoft.OperationalInsights/workspaces/"

    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let types = request.path.types.map { $0.lowercased() }
        switch (request.method, types, request.path.names.count) {
        case (.get, ["workspaces"], 0): return try await list(request, as: caller)
        case (.put, ["workspaces"], 1): return try await createOrUpdate(request, as: caller)
        case (.patch, ["workspaces"], 1): return try await update(request, as: caller)
        case (.get, ["workspaces"], 1), (.head, ["workspaces"], 1):
            try service.require(caller, Self.action + "read", at: request.path)
            return .json(200, Self.wire(try await workspace(request.path)))
        case (.delete, ["workspaces"], 1):
            return .empty(try await delete(request.path, as: caller) ? 200 : 204)
        case (.post, ["workspaces", "api"], 2) where request.path.names.last?.lowercased() == "query":
            return try await query(request, as: caller)
        default:
            throw .notImplemented("\(request.method.rawValue) \(request.path.resourceType ?? "")")
        }
    }

    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] {
        try await service.records.workspaces(below: scope).map {
            TrackedResource(
                id: $0.id, type: "Microsoft.OperationalInsights/workspaces", location: $0.location, tags: $0.tags)
        }
    }
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        _ = try await delete(id, as: caller)
    }

    // MARK: Operations

    private func workspace(_ id: ResourceID) async throws(ControlError) -> MonitorRecords.Workspace {
        guard let workspace = try await service.records.workspace(id) else { throw .resourceNotFound(id) }
        return workspace
    }

    private func list(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw .badRequest("The path names no scope.") }
        let readable = try await service.records.workspaces(below: scope).filter {
            service.access.decide(caller, .control(Self.action + "read"), at: $0.id).isAllowed
        }
        return .json(200, ["value": .array(readable.map(Self.wire))])
    }

    private func createOrUpdate(_ request: ControlRequest, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        try service.require(caller, Self.action + "write", at: request.path)
        let body = request.body ?? [:]
        guard let location = body.member("location")?.stringValue, !location.isEmpty else {
            throw .badRequest("The location property is required for this definition.", code: "LocationRequired")
        }
        guard (4...63).contains(request.path.name.count) else {
            throw .badRequest("A workspace name has 4 to 63 letters, digits and hyphens.", code: "InvalidResourceName")
        }
        let existing = try await service.records.workspace(request.path)
        let properties = body.member("properties") ?? [:]
        let workspace = MonitorRecords.Workspace(
            id: existing?.id ?? request.path, location: location.lowercased().replacing(" ", with: ""),
            tags: tags(body),
            customerID: existing?.customerID ?? service.randomness.uuidString(),
            created: existing?.created ?? service.clock.now(),
            retentionDays: properties.member("retentionInDays")?.intValue ?? 30, properties: properties)
        try await service.records.save(workspace)
        return .json(existing == nil ? 201 : 200, Self.wire(workspace))
    }

    private func update(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        try service.require(caller, Self.action + "write", at: request.path)
        var workspace = try await workspace(request.path)
        let body = request.body ?? [:]
        if body.member("tags") != nil { workspace.tags = tags(body) }
        workspace.properties = workspace.properties.merged(with: body.member("properties") ?? [:])
        workspace.retentionDays = workspace.properties.member("retentionInDays")?.intValue ?? workspace.retentionDays
        try await service.records.save(workspace)
        return .json(200, Self.wire(workspace))
    }

    private func delete(_ id: ResourceID, as caller: Caller) async throws(ControlError) -> Bool {
        try service.require(caller, Self.action + "delete", at: id)
        guard let workspace = try await service.records.workspace(id) else { return false }
        try await service.records.delete(workspace)
        return true
    }

    /// `POST {workspace}/api/query` with `{"query": "FunctionAppLogs | where _ResourceId == '…' | take 100"}`.
    private func query(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let id = ResourceID(segments: Array(request.path.segments.dropLast(2)))
        try service.require(caller, Self.action + "query/read", at: id)
        let workspace = try await workspace(id)
        let query = try LogQuery(request.body?.member("query")?.stringValue ?? "")
        var rows: [JSONValue] = []
        var bytes = 0
        var isCut = false
        try await service.records.read(batchesOf: workspace.customerID) { batch in
            guard query.selects(batch) else { return rows.count >= query.limit }
            for line in batch.lines.reversed() where rows.count < query.limit {
                isCut = bytes >= Self.answerBytesLimit
                if isCut { return true }
                bytes += line.message.utf8.count
                rows.append([
                    .string(line.time.iso8601WithTicks), .string(line.level), .string(line.message),
                    .string(line.functionName), .string(batch.resource.description),
                ])
            }
            return rows.count >= query.limit
        }
        let columns: [(String, String)] = [
            ("TimeGenerated", "datetime"), ("Level", "string"), ("Message", "string"), ("FunctionName", "string"),
            ("_ResourceId", "string"),
        ]
        let table: JSONValue = [
            "name": "PrimaryResult",
            "columns": .array(columns.map { ["name": .string($0.0), "type": .string($0.1)] }),
            "rows": .array(rows.reversed()),
        ]
        var answer: JSONValue = ["tables": [table]]
        if isCut {
            answer["error"] = [
                "code": "PartialError",
                "message":
                    "The answer is cut: its messages have more than \(Self.answerBytesLimit) bytes. Take fewer rows.",
            ]
        }
        return .json(200, answer)
    }
    /// Of an answer's messages. The service has a limit of this size, too ("Azure Monitor service limits", Log queries).
    private static let answerBytesLimit = 64 << 20

    private func tags(_ body: JSONValue) -> [String: String] {
        (body.member("tags")?.objectValue ?? [:]).compactMapValues(\.stringValue)
    }

    private static func wire(_ workspace: MonitorRecords.Workspace) -> JSONValue {
        var properties = workspace.properties
        properties["customerId"] = .string(workspace.customerID)
        properties["provisioningState"] = "Succeeded"
        properties["retentionInDays"] = .integer(workspace.retentionDays)
        properties["createdDate"] = .string(workspace.created.iso8601)
        if properties.member("sku") == nil { properties["sku"] = ["name": "PerGB2018"] }
        return [
            "id": .string(workspace.id.description), "name": .string(workspace.id.name),
            "type": "Microsoft.OperationalInsights/workspaces", "location": .string(workspace.location),
            "tags": .object(workspace.tags.mapValues { .string($0) }), "properties": properties,
        ]
    }
}
