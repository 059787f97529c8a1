internal import AccessControl
internal import CofferCore
internal import Foundation
internal import ResourceProviders

/// `Microsoft.Authorization` at any scope: role definitions, role assignments, and the caller's permissions.
struct AuthorizationProvider: ResourceProvider {
    let installation: Installation
    let roles: RoleStore
    let controller: AccessController
    let directory: any PrincipalDirectory
    let clock: any WallClock
    /// The other rooms' providers: an assignment is made only at a resource that exists.
    let providers: [any ResourceProvider]

    let namespace = "Microsoft.Authorization"
    let resourceTypes = [
        ResourceTypeDescription("roleAssignments", apiVersions: ["2022-04-01", "2020-04-01-preview", "2015-07-01"]),
        ResourceTypeDescription(
            "roleDefinitions", apiVersions: ["2022-05-01-preview", "2022-04-01", "2018-07-01", "2015-07-01"]),
        ResourceTypeDescription("permissions", apiVersions: ["2022-04-01", "2018-07-01", "2015-07-01"]),
        ResourceTypeDescription("locks", apiVersions: ["2020-05-01", "2016-09-01"]),
        ResourceTypeDescription("policyAssignments", apiVersions: ["2025-11-01", "2022-06-01"]),
        ResourceTypeDescription("denyAssignments", apiVersions: ["2022-04-01"]),
    ]

    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] { [] }
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        throw .resourceNotFound(id)
    }

    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        do {
            return try await route(request, caller)
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(
                status: 503, code: "ServiceUnavailable",
                message: "Authorization cannot be read or written now; try again.")
        }
    }

    private func route(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        guard let scope = request.path.extendedScope, request.path.types.count == 1, let type = request.path.types.first
        else {
            throw ControlError.notImplemented("'\(request.path.resourceType ?? "")'")
        }
        let name = request.path.names.first
        switch (type.lowercased(), request.method, name) {
        case ("roleassignments", .get, nil): return try listAssignments(at: scope, request, caller)
        case ("roleassignments", .get, let name?): return try showAssignment(name, at: scope, caller)
        case ("roleassignments", .put, let name?): return try await putAssignment(name, at: scope, request, caller)
        case ("roleassignments", .delete, let name?): return try await deleteAssignment(name, at: scope, caller)
        case ("roledefinitions", .get, nil): return try listDefinitions(at: scope, request, caller)
        case ("roledefinitions", .get, let name?): return try showDefinition(name, at: scope, caller)
        case ("roledefinitions", .put, let name?): return try await putDefinition(name, at: scope, request, caller)
        case ("roledefinitions", .delete, let name?): return try await deleteDefinition(name, at: scope, caller)
        case ("permissions", .get, nil):
            return .json(200, ["value": .array(controller.permissions(of: caller, at: scope).map(Self.json))])
        case ("locks", .get, nil), ("policyassignments", .get, nil), ("denyassignments", .get, nil):
            // There are none: neither locks nor policies nor deny assignments can be made here.
            try authorize(caller, "\(type)/read", at: scope)
            return .json(200, ["value": []])
        default:
            throw ControlError.notImplemented("\(request.method.rawValue) on 'Microsoft.Authorization/\(type)'")
        }
    }

    func authorize(_ caller: Caller, _ operation: String, at scope: ResourceID) throws(ControlError) {
        let action = Action.control("Microsoft.Authorization/\(operation)")
        guard controller.decide(caller, action, at: scope).isAllowed else {
            throw .authorizationFailed(caller, action, scope)
        }
    }

    /// `/subscriptions/…/roleDefinitions/{id}` inside a subscription, `/providers/…` above it: as clients compare
    /// them with the list.
    func definitionID(_ id: String, at scope: ResourceID) -> String {
        let prefix = scope.subscription.map { "/subscriptions/\($0)" } ?? ""
        return "\(prefix)/providers/Microsoft.Authorization/roleDefinitions/\(id)"
    }

    static func json(_ permissions: RolePermissions) -> JSONValue {
        func list(_ names: [String]) -> JSONValue { .array(names.map { .string($0) }) }
        return [
            "actions": list(permissions.actions), "notActions": list(permissions.notActions),
            "dataActions": list(permissions.dataActions),
            "notDataActions": list(permissions.notDataActions),
        ]
    }

    static func properties(_ request: ControlRequest) throws(ControlError) -> JSONValue {
        // Old clients send the properties bare.
        guard let body = request.body, body.objectValue != nil, case let properties = body.member("properties") ?? body,
            properties.objectValue != nil
        else {
            throw .badRequest(
                "The request was incorrectly formatted: 'properties' is required.", code: "BadRequestFormat")
        }
        return properties
    }
}
