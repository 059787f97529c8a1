internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import ResourceProviders

extension AuthorizationProvider {
    /// "Azure RBAC limits": role assignments in one subscription.
    static let assignmentsLimit = 4_000

    // MARK: Reading

    /// Without a filter: at, above and below the scope. `atScope()`: at and above. `principalId eq` and `assignedTo()`
    /// narrow to a principal.
    func listAssignments(at scope: ResourceID, _ request: ControlRequest, _ caller: Caller) throws(ControlError)
        -> ControlResponse
    {
        try authorize(caller, "roleAssignments/read", at: scope)
        let filter = try request.query["$filter"].flatMap { $0.isEmpty ? nil : $0 }.map {
            (text) throws(ControlError) -> Filter in
            guard let filter = Filter(parsing: text) else { throw ResourceManager.invalidFilter(text) }
            return filter
        }
        var values: [JSONValue] = []
        for assignment in roles.current.assignments.values.sorted(by: { ($0.created, $0.name) < ($1.created, $1.name) })
        {
            guard assignment.scope.contains(scope) || scope.contains(assignment.scope) else { continue }
            if let filter {
                guard let verdict = evaluate(filter, assignment, at: scope) else {
                    throw ResourceManager.invalidFilter("\(filter)")
                }
                guard verdict else { continue }
            }
            values.append(json(assignment))
        }
        return .json(200, ["value": .array(values)])
    }

    private func evaluate(_ filter: Filter, _ assignment: RoleAssignment, at scope: ResourceID) -> Bool? {
        filter.evaluate { path in
            switch path.lowercased() {
            case "principalid": [assignment.principalID]
            case "roledefinitionid": [definitionID(assignment.roleID, at: assignment.scope)]
            case "principaltype": [assignment.principalType]
            default: nil
            }
        } call: { name, arguments in
            switch (name, arguments.count) {
            case ("atscope", 0): assignment.scope.contains(scope)
            case ("atexactscope", 0): assignment.scope == scope
            case ("assignedto", 1): assignment.principalID == arguments[0].lowercased()
            default: nil
            }
        }
    }

    func showAssignment(_ name: String, at scope: ResourceID, _ caller: Caller) throws(ControlError) -> ControlResponse
    {
        try authorize(caller, "roleAssignments/read", at: scope)
        return .json(200, json(try find(name, at: scope)))
    }

    private func find(_ name: String, at scope: ResourceID) throws(ControlError) -> RoleAssignment {
        guard let assignment = roles.current.assignments[name.lowercased()], assignment.scope == scope else {
            throw ControlError(
                status: 404, code: "RoleAssignmentNotFound", message: "The role assignment '\(name)' is not found.")
        }
        return assignment
    }

    func json(_ assignment: RoleAssignment) -> JSONValue {
        let prefix = assignment.scope == .root ? "" : assignment.scope.description
        return [
            "id": "\(prefix)/providers/Microsoft.Authorization/roleAssignments/\(assignment.name)",
            "name": .string(assignment.name),
            "type": "Microsoft.Authorization/roleAssignments",
            "properties": [
                "roleDefinitionId": .string(definitionID(assignment.roleID, at: assignment.scope)),
                "principalId": .string(assignment.principalID),
                "principalType": .string(assignment.principalType), "scope": .string(assignment.scope.description),
                "condition": .null,
                "conditionVersion": .null, "description": assignment.description.map { .string($0) } ?? .null,
                "createdOn": .string(assignment.created.iso8601WithTicks),
                "updatedOn": .string(assignment.created.iso8601WithTicks),
                "createdBy": .string(assignment.createdBy), "updatedBy": .string(assignment.createdBy),
                "delegatedManagedIdentityResourceId": .null,
            ],
        ]
    }

    // MARK: Writing

    func putAssignment(_ name: String, at scope: ResourceID, _ request: ControlRequest, _ caller: Caller) async throws
        -> ControlResponse
    {
        try authorize(caller, "roleAssignments/write", at: scope)
        let wanted = try await requestedAssignment(name, at: scope, request, caller)
        return try await roles.change { roles in
            guard let role = roles.definitions[wanted.roleID] else { throw Self.roleDoesNotExist(wanted.roleID) }
            guard role.assignableScopes.contains(where: { $0.contains(scope) }) else {
                throw ControlError.badRequest(
                    "The role definition '\(role.roleName)' cannot be assigned at scope '\(scope)': it is not among "
                        + "its assignable scopes.",
                    code: "RoleAssignmentScopeNotAssignableToRoleDefinition")
            }
            if let known = roles.assignments[wanted.name] { return try update(known, to: wanted) }
            let twin = roles.assignments.values.first {
                $0.principalID == wanted.principalID && $0.roleID == wanted.roleID && $0.scope == wanted.scope
            }
            if let twin {
                throw ControlError(
                    status: 409, code: "RoleAssignmentExists",
                    message: "The role assignment already exists. The ID of the conflicting role assignment is "
                        + "\(twin.name.filter { $0 != "-" }).")
            }
            guard roles.assignments.count < Self.assignmentsLimit else {
                throw ControlError.badRequest(
                    "No more role assignments can be created (limit: \(Self.assignmentsLimit)).",
                    code: "RoleAssignmentLimitExceeded")
            }
            return RoleStore.Change(
                result: .json(201, json(wanted)), checks: checks(for: wanted), writes: try Self.writes(wanted)
            ) { $0.assignments[wanted.name] = wanted }
        }
    }

    /// Unique by name and by content; the group, if any, must still be there when the commit happens.
    private func checks(for assignment: RoleAssignment) -> [RecordCheck] {
        [.absent(RoleStore.assignmentKey(assignment.name)), .absent(RoleStore.uniqueKey(assignment))]
            + (assignment.scope.resourceGroup.map { [.present(TreeRecords.groupKey($0))] } ?? [])
    }
    private static func writes(_ assignment: RoleAssignment) throws -> [RecordWrite] {
        [
            try TreeRecords.put(RoleStore.assignmentKey(assignment.name), assignment),
            TreeRecords.put(RoleStore.uniqueKey(assignment), text: assignment.name),
        ]
    }

    /// The same name again: only the description may change.
    private func update(_ known: RoleAssignment, to wanted: RoleAssignment) throws -> RoleStore.Change<ControlResponse>
    {
        guard known.scope == wanted.scope, known.principalID == wanted.principalID, known.roleID == wanted.roleID else {
            throw ControlError.badRequest(
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
                code: "RoleAssignmentUpdateNotPermitted")
        }
        var updated = known
        updated.description = wanted.description
        guard updated != known else { return RoleStore.Change(result: .json(200, json(known))) }
        return RoleStore.Change(
            result: .json(200, json(updated)), checks: [.present(RoleStore.assignmentKey(known.name))],
            writes: [try TreeRecords.put(RoleStore.assignmentKey(known.name), updated)]
        ) { [updated] in $0.assignments[known.name] = updated }
    }

    private func requestedAssignment(
        _ name: String, at scope: ResourceID, _ request: ControlRequest, _ caller: Caller
    ) async throws -> RoleAssignment {
        guard let id = UUID(uuidString: name) else {
            throw ControlError.badRequest(
                "The role assignment ID '\(name.prefix(100))' is not valid. The role assignment ID must be a GUID.",
                code: "InvalidRoleAssignmentId")
        }
        let properties = try Self.properties(request)
        guard let roleText = properties.member("roleDefinitionId")?.stringValue,
            let principalText = properties.member("principalId")?.stringValue
        else {
            throw ControlError.badRequest(
                "The request was incorrectly formatted: 'roleDefinitionId' and 'principalId' are required.",
                code: "BadRequestFormat")
        }
        guard properties.member("condition")?.stringValue?.isEmpty ?? true else {
            throw ControlError.badRequest(
                "Conditions on role assignments are not supported by this server; the assignment would grant more "
                    + "than it says.",
                code: "ConditionNotSupported")
        }
        guard UUID(uuidString: principalText) != nil else {
            throw ControlError.badRequest(
                "The principal ID '\(principalText.prefix(100))' is not a GUID.", code: "InvalidPrincipalId")
        }
        let roleID = ResourceID(roleText).name.lowercased()
        guard UUID(uuidString: roleID) != nil else {
            throw ControlError.badRequest(
                "The role definition ID '\(roleText.prefix(200))' is not valid.", code: "InvalidRoleDefinitionId")
        }
        try await requireExistence(of: scope)
        let type = try await principalType(principalText, requested: properties.member("principalType")?.stringValue)
        return RoleAssignment(
            name: id.uuidString.lowercased(), scope: scope, roleID: roleID, principalID: principalText,
            principalType: type,
            description: properties.member("description")?.stringValue.map { String($0.prefix(1_024)) },
            created: clock.now(),
            createdBy: caller.objectID)
    }

    private func principalType(_ id: String, requested: String?) async throws -> String {
        guard let principal = try await directory.principal(id.lowercased()) else {
            throw ControlError.badRequest(
                "Principal \(id.filter { $0 != "-" }) does not exist in the directory \(installation.tenantID). Check "
                    + "that you have the "
                    + "correct principal ID.", code: "PrincipalNotFound")
        }
        if let requested, requested.lowercased() != principal.principalType.lowercased() {
            throw ControlError.badRequest(
                "The PrincipalId '\(id)' has type '\(principal.principalType)', which is different from specified "
                    + "PrincipalType "
                    + "'\(requested.prefix(40))'.", code: "UnmatchedPrincipalType")
        }
        return principal.principalType
    }

    /// Resource Manager has checked the subscription and the group; a resource is asked of its room.
    private func requireExistence(of scope: ResourceID) async throws(ControlError) {
        guard let namespace = scope.providerNamespace else {
            guard [0, 2, 4].contains(scope.segments.count), scope.segments.count < 4 || scope.resourceGroup != nil
            else {
                throw .badRequest("The scope '\(scope)' is not valid.", code: "InvalidScope")
            }
            return
        }
        guard let provider = providers.first(where: { $0.namespace.lowercased() == namespace.lowercased() }),
            let parent = scope.extendedScope, !scope.names.isEmpty, scope.names.count == scope.types.count
        else { throw .badRequest("The scope '\(scope)' is not valid.", code: "InvalidScope") }
        // Children are not listed; their top-level resource must be there.
        let top = ResourceID(segments: Array(scope.segments.prefix(parent.segments.count + 4)))
        guard try await provider.trackedResources(below: parent).contains(where: { $0.id == top }) else {
            throw .resourceNotFound(top)
        }
    }

    static func roleDoesNotExist(_ id: String) -> ControlError {
        ControlError(
            status: 404, code: "RoleDefinitionDoesNotExist",
            message: "The specified role definition with ID '\(id.filter { $0 != "-" })' does not exist.")
    }

    /// 204 for an assignment that is not there, as Azure answers.
    func deleteAssignment(_ name: String, at scope: ResourceID, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "roleAssignments/delete", at: scope)
        return try await roles.change { roles in
            guard let known = roles.assignments[name.lowercased()], known.scope == scope else {
                return RoleStore.Change(result: .empty(204))
            }
            return RoleStore.Change(
                result: .json(200, json(known)), checks: [.present(RoleStore.assignmentKey(known.name))],
                writes: RoleStore.removal([known])
            ) { $0.assignments[known.name] = nil }
        }
    }
}
