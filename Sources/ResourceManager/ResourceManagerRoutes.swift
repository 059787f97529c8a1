internal import AccessControl
internal import CofferCore
internal import Foundation
internal import ResourceProviders

extension ResourceManager {
    /// The route table. Literal segments compare without regard to case; what names a provider goes to the provider.
    func dispatch(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        let path = request.path.segments.map { $0.lowercased() }
        try checkSubscription(request.path)
        switch (request.method, path.count) {
        case (.get, 1) where path[0] == "subscriptions": return listSubscriptions(caller)
        case (.get, 1) where path[0] == "tenants": return listTenants()
        case (.get, 1) where path[0] == "providers": return listProviders(request)
        case (.get, 2) where path[0] == "providers": return try showProvider(path[1], request)
        default: break
        }
        if path.first == "subscriptions", path.count >= 2,
            let answer = try await dispatchInSubscription(request, path, caller)
        {
            return answer
        }
        return try await routeToProvider(request, as: caller)
    }

    private func dispatchInSubscription(_ request: ControlRequest, _ path: [String], _ caller: Caller) async throws
        -> ControlResponse?
    {
        guard path.count > 2 else {
            guard request.method == .get else { throw methodNotAllowed(request) }
            return try showSubscription(caller)
        }
        switch (path[2], path.count, request.method) {
        case ("locations", 3, .get): return try listLocations(caller)
        case ("providers", 3, .get): return listProviders(request)
        case ("providers", 4, .get): return try showProvider(path[3], request)
        case ("providers", 5, .post) where ["register", "unregister"].contains(path[4]):
            return try register(path[3], isRegistering: path[4] == "register", request, caller)
        case ("resources", 3, .get): return try await listResources(below: subscriptionID, request, caller)
        case ("resourcegroups", 3, .get): return try await listGroups(request, caller)
        case ("resourcegroups", 4, _): return try await resourceGroup(request, caller)
        case ("resourcegroups", 5, .get) where path[4] == "resources":
            let group = groupID(request.path.segments[3])
            // Otherwise an empty list would tell that the group exists.
            guard controller.hasAssignment(caller, touching: group) else {
                throw ControlError.authorizationFailed(
                    caller, .control("Microsoft.Resources/subscriptions/resourceGroups/resources/read"), group)
            }
            _ = try await requireGroup(request, caller)
            return try await listResources(below: groupID(request.path.segments[3]), request, caller)
        case ("resourcegroups", 5, .post)
        where ["exporttemplate", "moveresources", "validatemoveresources"].contains(path[4]):
            throw ControlError.notImplemented("The action '\(request.path.name)' of resource groups")
        default: return nil
        }
    }

    private func resourceGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        switch request.method {
        case .get: return try await showGroup(request, caller)
        case .head: return try await groupExists(request, caller)
        case .put: return try await putGroup(request, caller)
        case .patch: return try await patchGroup(request, caller)
        case .delete: return try await deleteGroup(request, caller)
        case .post: throw methodNotAllowed(request)
        }
    }

    /// The last `providers` segment decides, so that an extension resource goes to its own provider and not to its
    /// parent's.
    private func routeToProvider(_ request: ControlRequest, as caller: Caller) async throws -> ControlResponse {
        guard let namespace = request.path.providerNamespace, !request.path.types.isEmpty else {
            throw ControlError(
                status: 404, code: "NotFound", message: "No resource or operation has the path '\(request.path)'.")
        }
        guard let provider = providers[namespace.lowercased()] else { throw unknownNamespace(namespace) }
        if let scope = request.path.extendedScope, let outer = scope.providerNamespace,
            providers[outer.lowercased()] == nil
        {
            throw unknownNamespace(outer)
        }
        try await checkGroup(request, caller)
        let answer = try await provider.respond(to: request, as: caller)
        if request.method == .delete, (200..<300).contains(answer.status) {
            // Azure drops the assignments scoped at a deleted resource; a soft-deleted vault gets none of them back.
            try await roles.removeAssignments(at: request.path)
        }
        return answer
    }

    /// The group of a resource must be there, and stay. A caller without any role in it gets the provider's refusal
    /// either way, so that the answer does not tell which groups there are.
    private func checkGroup(_ request: ControlRequest, _ caller: Caller) async throws {
        guard let group = request.path.resourceGroupID, controller.hasAssignment(caller, touching: group) else {
            return
        }
        let known = try await requireGroup(request, caller)
        if known.state == .deleting, [.put, .patch, .post].contains(request.method) {
            throw Self.groupIsBeingDeleted(known.name)
        }
    }

    // MARK: Common refusals

    private func checkSubscription(_ path: ResourceID) throws(ControlError) {
        guard let subscription = path.subscription,
            subscription.lowercased() != installation.subscriptionID.lowercased()
        else { return }
        guard UUID(uuidString: subscription) != nil else {
            throw .badRequest(
                "The provided subscription identifier '\(subscription)' is malformed or invalid.",
                code: "InvalidSubscriptionId")
        }
        throw ControlError(
            status: 404, code: "SubscriptionNotFound", message: "The subscription '\(subscription)' could not be found."
        )
    }

    func unknownNamespace(_ namespace: String) -> ControlError {
        ControlError(
            status: 404, code: "InvalidResourceNamespace",
            message: "The resource namespace '\(namespace)' is invalid: this server has no such provider. "
                + "'az provider list' shows those it has.")
    }
    func methodNotAllowed(_ request: ControlRequest) -> ControlError {
        ControlError(
            status: 405, code: "MethodNotAllowed",
            message: "The method '\(request.method.rawValue)' is not allowed on '\(request.path)'.")
    }
    static func groupIsBeingDeleted(_ name: String) -> ControlError {
        ControlError(
            status: 409, code: "ResourceGroupBeingDeleted",
            message: "The resource group '\(name)' is in deprovisioning state and cannot perform this operation.")
    }

    /// The group a path lies in. A caller who may not read it learns nothing about whether it exists.
    func requireGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ResourceGroup {
        guard let name = request.path.resourceGroup, let id = request.path.resourceGroupID else {
            throw ControlError.resourceNotFound(request.path)
        }
        if let stored = try await tree.group(name) { return stored.group }
        try authorize(caller, "Microsoft.Resources/subscriptions/resourceGroups/read", at: id)
        throw ControlError(
            status: 404, code: "ResourceGroupNotFound", message: "Resource group '\(name)' could not be found.")
    }
}
