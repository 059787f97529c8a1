import CofferCore
import ResourceProviders

/// `Microsoft.Insights`: diagnostic settings, an extension of the resource whose logs they send.
struct DiagnosticSettingsProvider: ResourceProvider {
    let service: MonitorService
    let namespace = "Microsoft.Insights"
    let resourceTypes = [
        ResourceTypeDescription("diagnosticSettings", apiVersions: ["2021-05-01-preview"]),
        ResourceTypeDescription("diagnosticSettingsCategories", apiVersions: ["2021-05-01-preview"]),
    ]
    private static let action = "Microsoft.Insights/diagnosticSettings/"
    /// Of one resource (Azure Monitor, service limits): every line is written to each of them.
    private static let settingsLimit = 5
    /// The log categories that Coffer produces, by resource type. Others are refused rather than accepted and left
    /// empty.
    private static let categories: [String: [String]] = ["microsoft.web/sites": ["FunctionAppLogs"]]

    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let types = request.path.types.map { $0.lowercased() }
        guard types.first?.hasPrefix("diagnosticsettings") ?? false else { throw Self.missing(request) }
        guard let resource = request.path.extendedScope, resource.providerNamespace != nil else {
            throw .badRequest("A diagnostic setting belongs to a resource; the path names none.")
        }
        switch (request.method, types, request.path.names.count) {
        case (.get, ["diagnosticsettings"], 0):
            try service.require(caller, Self.action + "read", at: resource)
            return .json(200, ["value": .array(try await service.records.settings(of: resource).map(Self.wire))])
        case (.get, ["diagnosticsettings"], 1):
            try service.require(caller, Self.action + "read", at: resource)
            guard let setting = try await service.records.setting(resource, request.path.name) else {
                throw .resourceNotFound(request.path)
            }
            return .json(200, Self.wire(setting))
        case (.put, ["diagnosticsettings"], 1): return try await createOrUpdate(request, of: resource, as: caller)
        case (.delete, ["diagnosticsettings"], 1):
            try service.require(caller, Self.action + "delete", at: resource)
            guard let setting = try await service.records.setting(resource, request.path.name) else {
                return .empty(204)
            }
            try await service.records.delete(setting)
            return .empty(200)
        case (.get, ["diagnosticsettingscategories"], 0):
            try service.require(caller, Self.action + "read", at: resource)
            return .json(
                200, ["value": .array(Self.known(for: resource).map { Self.wire(category: $0, of: resource) })])
        default:
            throw Self.missing(request)
        }
    }

    private static func missing(_ request: ControlRequest) -> ControlError {
        .notImplemented("\(request.method.rawValue) \(request.path.resourceType ?? "")")
    }

    /// Diagnostic settings go with the resource they extend; there is nothing tracked of its own.
    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] { [] }
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        throw .resourceNotFound(id)
    }

    private func createOrUpdate(
        _ request: ControlRequest, of resource: ResourceID, as caller: Caller
    ) async throws(ControlError) -> ControlResponse {
        try service.require(caller, Self.action + "write", at: resource)
        let properties = request.body?.member("properties") ?? [:]
        let known = Self.known(for: resource)
        for entry in properties.member("logs")?.arrayValue ?? [] {
            if let group = entry.member("categoryGroup")?.stringValue, group.lowercased() == "alllogs" { continue }
            let category = entry.member("category")?.stringValue ?? ""
            guard known.contains(where: { $0.lowercased() == category.lowercased() }) else {
                throw .badRequest(
                    "Category '\(category)' is not supported for \(resource.resourceType ?? "this resource"); supported: "
                        + (known.isEmpty ? "none" : known.joined(separator: ", ")) + ".")
            }
        }
        for target in ["storageAccountId", "eventHubAuthorizationRuleId", "marketplacePartnerId"]
        where properties.member(target)?.stringValue?.isEmpty == false {
            throw .badRequest("'\(target)' is not a supported destination; use workspaceId.", code: "NotSupported")
        }
        guard let target = properties.member("workspaceId")?.stringValue, !target.isEmpty else {
            throw .badRequest("At least one destination is required; set workspaceId to a log analytics workspace.")
        }
        // Who may only write the setting must neither learn which workspaces exist nor write into somebody's logs
        // (Azure Monitor, "Diagnostic settings", permissions: sharedKeys/action on the workspace).
        try service.require(
            caller, "Microsoft.OperationalInsights/workspaces/sharedKeys/action", at: ResourceID(target))
        guard let workspace = try await service.records.workspace(ResourceID(target)) else {
            throw ControlError(
                status: 404, code: "ResourceNotFound",
                message: "The workspace '\(target)' was not found. Create it first.")
        }
        let others = try await service.records.settings(of: resource).filter {
            $0.name.lowercased() != request.path.name.lowercased()
        }
        guard others.count < Self.settingsLimit else {
            throw ControlError(
                status: 409, code: "Conflict",
                message: "A resource has at most \(Self.settingsLimit) diagnostic settings; delete one first.")
        }
        let setting = MonitorRecords.Setting(
            resource: resource, name: request.path.name, workspace: workspace.id, properties: properties)
        try await service.records.save(setting)
        return .json(200, Self.wire(setting))
    }

    private static func known(for resource: ResourceID) -> [String] {
        categories[resource.resourceType?.lowercased() ?? ""] ?? []
    }

    private static func wire(_ setting: MonitorRecords.Setting) -> JSONValue {
        var properties = setting.properties
        properties["workspaceId"] = setting.workspace.map { .string($0.description) } ?? .null
        return [
            "id": .string("\(setting.resource)/providers/microsoft.insights/diagnosticSettings/\(setting.name)"),
            "name": .string(setting.name), "type": "Microsoft.Insights/diagnosticSettings", "properties": properties,
        ]
    }
    private static func wire(category: String, of resource: ResourceID) -> JSONValue {
        [
            "id": .string("\(resource)/providers/microsoft.insights/diagnosticSettingsCategories/\(category)"),
            "name": .string(category),
            "type": "Microsoft.Insights/diagnosticSettingsCategories", "properties": ["categoryType": "Logs"],
        ]
    }
}
