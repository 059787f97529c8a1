internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

/// `Microsoft.Resources` as an extension of any scope: tags of groups and resources. Template deployments are refused.
struct ResourcesProvider: ResourceProvider {
    let tree: TreeRecords
    let controller: AccessController
    let providers: [any ResourceProvider]

    let namespace = "Microsoft.Resources"
    let resourceTypes = [
        ResourceTypeDescription("resourceGroups", apiVersions: ["2024-11-01", "2022-12-01", "2021-04-01"]),
        ResourceTypeDescription("subscriptions", apiVersions: ["2022-12-01", "2020-01-01"]),
        ResourceTypeDescription("tags", apiVersions: ["2024-11-01", "2021-04-01"]),
    ]

    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] { [] }
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        throw .resourceNotFound(id)
    }

    /// Throws 501 for template deployments, before the body is read: a template that is no strict JSON is refused for
    /// the same reason as any other.
    static func refuseDeployment(_ path: ResourceID, _ method: ControlRequest.Method) throws(ControlError) {
        guard path.providerNamespace?.lowercased() == "microsoft.resources",
            path.types.first?.lowercased() == "deployments"
        else { return }
        let isList = method == .get && path.types.count == 1 && path.names.isEmpty
        guard isList else {
            throw .notImplemented("\(method.rawValue) on 'Microsoft.Resources/\(path.types.joined(separator: "/"))'")
        }
    }

    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let type = request.path.types.first?.lowercased() ?? ""
        switch (type, request.path.types.count, request.method) {
        case ("tags", 1, _) where request.path.names.first?.lowercased() == "default":
            return try await tags(request, caller)
        case ("deployments", 1, .get) where request.path.names.isEmpty:
            // There are none: deployments cannot be made here.
            try authorize(caller, "Microsoft.Resources/deployments/read", at: request.path.extendedScope ?? .root)
            return .json(200, ["value": []])
        default:
            throw .notImplemented(
                "\(request.method.rawValue) on 'Microsoft.Resources/\(request.path.types.joined(separator: "/"))'")
        }
    }

    private func authorize(_ caller: Caller, _ action: String, at scope: ResourceID) throws(ControlError) {
        guard controller.decide(caller, .control(action), at: scope).isAllowed else {
            throw .authorizationFailed(caller, .control(action), scope)
        }
    }

    // MARK: Tags

    private func tags(_ request: ControlRequest, _ caller: Caller) async throws(ControlError) -> ControlResponse {
        guard let scope = request.path.extendedScope, scope.resourceGroup != nil else {
            throw .notImplemented("Tags of a subscription")
        }
        let operation = request.method == .get ? "read" : request.method == .delete ? "delete" : "write"
        try authorize(caller, "Microsoft.Resources/tags/\(operation)", at: scope)
        let current = try await currentTags(of: scope)
        let changed: [String: String]
        switch request.method {
        case .get: return Self.json(current, at: scope)
        case .delete: changed = [:]
        case .put: changed = try Self.tags(in: request)
        case .patch:
            let given = try Self.tags(in: request)
            switch request.body?.member("operation")?.stringValue?.lowercased() {
            case "merge"?: changed = current.merging(given) { _, new in new }
            case "replace"?: changed = given
            case "delete"?: changed = current.filter { given[$0.key] != $0.value }
            default:
                throw .badRequest(
                    "The operation must be 'Merge', 'Replace' or 'Delete'.", code: "InvalidRequestContent")
            }
        case .head, .post:
            throw ControlError(status: 405, code: "MethodNotAllowed", message: "The method is not allowed on tags.")
        }
        try await write(changed, to: scope, request, caller)
        return request.method == .delete ? .empty(200) : Self.json(changed, at: scope)
    }

    private static func tags(in request: ControlRequest) throws(ControlError) -> [String: String] {
        try Tags.parse(request.body?.member("properties")?.member("tags")) ?? [:]
    }
    private static func json(_ tags: [String: String], at scope: ResourceID) -> ControlResponse {
        .json(
            200,
            [
                "id": "\(scope)/providers/Microsoft.Resources/tags/default", "name": "default",
                "type": "Microsoft.Resources/tags",
                "properties": ["tags": .object(tags.mapValues { .string($0) })],
            ])
    }

    private func provider(of scope: ResourceID) throws(ControlError) -> any ResourceProvider {
        guard let namespace = scope.providerNamespace?.lowercased(),
            let provider = providers.first(where: { $0.namespace.lowercased() == namespace })
        else { throw .resourceNotFound(scope) }
        return provider
    }

    private func currentTags(of scope: ResourceID) async throws(ControlError) -> [String: String] {
        guard scope.providerNamespace == nil else {
            let resources = try await provider(of: scope).trackedResources(below: scope)
            guard let resource = resources.first(where: { $0.id == scope }) else { throw .resourceNotFound(scope) }
            return resource.tags
        }
        do {
            return try await tree.group(scope.resourceGroup ?? "")?.group.tags ?? [:]
        } catch {
            throw ControlError(status: 503, code: "ServiceUnavailable", message: "Tags cannot be read now; try again.")
        }
    }

    /// A resource's tags are its room's: a PATCH as the caller, who therefore needs `write` there too.
    private func write(_ tags: [String: String], to scope: ResourceID, _ request: ControlRequest, _ caller: Caller)
        async throws(ControlError)
    {
        guard scope.providerNamespace == nil else {
            let patch = ControlRequest(
                method: .patch, path: scope, query: [:], apiVersion: request.apiVersion,
                body: ["tags": .object(tags.mapValues { .string($0) })], names: request.names)
            _ = try await provider(of: scope).respond(to: patch, as: caller)
            return
        }
        do {
            try await tree.retrying {
                guard let stored = try await tree.group(scope.resourceGroup ?? "") else {
                    throw ControlError.resourceNotFound(scope)
                }
                var group = stored.group
                group.tags = tags
                let key = TreeRecords.groupKey(group.name)
                return try await tree.commit([.unchanged(key, stored.version)], [TreeRecords.put(key, group)])
                    ? () : nil
            }
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(
                status: 503, code: "ServiceUnavailable", message: "Tags cannot be written now; try again.")
        }
    }
}
