internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import ResourceProviders

extension AuthorizationProvider {
    /// "Azure RBAC limits": custom roles in one tenant.
    static let customRolesLimit = 5_000
    /// Patterns in one role, all four lists together.
    static let patternsLimit = 2_048

    // MARK: Reading

    func listDefinitions(at scope: ResourceID, _ request: ControlRequest, _ caller: Caller) throws(ControlError)
        -> ControlResponse
    {
        // At the root only the built-in ones show, and those are public knowledge.
        if scope != .root { try authorize(caller, "roleDefinitions/read", at: scope) }
        let text = request.query["$filter"] ?? ""
        let filter = text.isEmpty ? nil : Filter(parsing: text)
        if filter == nil, !text.isEmpty { throw ResourceManager.invalidFilter(text) }
        var values: [JSONValue] = []
        for definition in roles.current.definitions.values.sorted(by: { ($0.roleName, $0.id) < ($1.roleName, $1.id) }) {
            guard
                definition.assignableScopes.contains(where: {
                    $0.contains(scope) || (scope != .root && scope.contains($0))
                })
            else { continue }
            if let filter {
                guard let verdict = evaluate(filter, definition, at: scope) else {
                    throw ResourceManager.invalidFilter(text)
                }
                guard verdict else { continue }
            }
            values.append(json(definition, at: scope))
        }
        return .json(200, ["value": .array(values)])
    }

    private func evaluate(_ filter: Filter, _ definition: RoleDefinition, at scope: ResourceID) -> Bool? {
        filter.evaluate { path in
            switch path.lowercased() {
            case "rolename": [definition.roleName]
            case "type": [definition.isBuiltIn ? "BuiltInRole" : "CustomRole"]
            case "name", "id": [definition.id]
            default: nil
            }
        } call: { name, arguments in
            name == "atscopeandbelow" && arguments.isEmpty ? true : nil
        }
    }

    func showDefinition(_ name: String, at scope: ResourceID, _ caller: Caller) throws(ControlError) -> ControlResponse
    {
        guard let definition = roles.current.definitions[name.lowercased()] else { throw Self.roleDoesNotExist(name) }
        if !definition.isBuiltIn { try authorize(caller, "roleDefinitions/read", at: scope) }
        return .json(200, json(definition, at: scope))
    }

    func json(_ definition: RoleDefinition, at scope: ResourceID) -> JSONValue {
        [
            "id": .string(definitionID(definition.id, at: scope)), "name": .string(definition.id),
            "type": "Microsoft.Authorization/roleDefinitions",
            "properties": [
                "roleName": .string(definition.roleName),
                "type": .string(definition.isBuiltIn ? "BuiltInRole" : "CustomRole"),
                "description": .string(definition.description),
                "assignableScopes": .array(definition.assignableScopes.map { .string($0.description) }),
                "permissions": [Self.json(definition.permissions)],
            ],
        ]
    }

    // MARK: Writing

    func putDefinition(_ name: String, at scope: ResourceID, _ request: ControlRequest, _ caller: Caller) async throws
        -> ControlResponse
    {
        try authorize(caller, "roleDefinitions/write", at: scope)
        let wanted = try requestedDefinition(name, request)
        // Whoever makes a role assignable somewhere must be allowed to make roles there.
        for assignable in wanted.assignableScopes { try authorize(caller, "roleDefinitions/write", at: assignable) }
        return try await roles.change { roles in
            let known = roles.definitions[wanted.id]
            if let known {
                guard !known.isBuiltIn else {
                    throw ControlError.badRequest(
                        "Built-in roles cannot be changed.", code: "RoleDefinitionUpdateNotPermitted")
                }
                for assignable in known.assignableScopes {
                    try authorize(caller, "roleDefinitions/write", at: assignable)
                }
            }
            let lowerName = wanted.roleName.lowercased()
            if roles.definitions.values.contains(where: { $0.roleName.lowercased() == lowerName && $0.id != wanted.id })
            {
                throw ControlError(
                    status: 409, code: "RoleDefinitionWithSameNameExists",
                    message:
                        "A custom role with the same name '\(wanted.roleName)' already exists in this directory. Use a "
                        + "different name."
                )
            }
            guard known != nil || roles.definitions.count - BuiltInRoles.all.count < Self.customRolesLimit else {
                throw ControlError.badRequest(
                    "No more role definitions can be created (limit: \(Self.customRolesLimit)).",
                    code: "RoleDefinitionLimitExceeded")
            }
            let nameKey = RoleStore.definitionNameKey(wanted.roleName)
            let isRenamed = known?.roleName.lowercased() != lowerName
            var writes: [RecordWrite] = []
            if let known, isRenamed { writes.append(.delete(RoleStore.definitionNameKey(known.roleName))) }
            writes += [
                try TreeRecords.put(RoleStore.definitionKey(wanted.id), wanted),
                TreeRecords.put(nameKey, text: wanted.id),
            ]
            return RoleStore.Change(
                result: .json(201, json(wanted, at: scope)),
                checks: isRenamed ? [.absent(nameKey)] : [.present(nameKey)], writes: writes
            ) { $0.definitions[wanted.id] = wanted }
        }
    }

    private func requestedDefinition(_ name: String, _ request: ControlRequest) throws(ControlError) -> RoleDefinition {
        guard let id = UUID(uuidString: name) else {
            throw .badRequest(
                "The role definition ID '\(name.prefix(100))' must be a GUID.", code: "InvalidRoleDefinitionId")
        }
        let properties = try Self.properties(request)
        guard let roleName = properties.member("roleName")?.stringValue, (1...512).contains(roleName.count) else {
            throw .badRequest(
                "The property 'roleName' is required, with 1 to 512 characters.", code: "InvalidRoleDefinition")
        }
        if let type = properties.member("type")?.stringValue, type.lowercased() != "customrole" {
            throw .badRequest("Only roles of type 'CustomRole' can be created.", code: "InvalidRoleDefinition")
        }
        let scopes = (properties.member("assignableScopes")?.arrayValue ?? []).compactMap(\.stringValue).map {
            ResourceID($0)
        }
        guard !scopes.isEmpty, scopes.count <= 2_000,
            scopes.allSatisfy({ $0.subscription?.lowercased() == installation.subscriptionID.lowercased() })
        else {
            throw .badRequest(
                "The property 'assignableScopes' needs at least one scope of this subscription.",
                code: "InvalidAssignableScopes")
        }
        let permissions = properties.member("permissions")?.arrayValue ?? []
        guard permissions.count == 1, let only = permissions.first else {
            throw .badRequest("A custom role has exactly one element in 'permissions'.", code: "InvalidRoleDefinition")
        }
        return RoleDefinition(
            id: id.uuidString, roleName: roleName, description: properties.member("description")?.stringValue ?? "",
            isBuiltIn: false,
            permissions: try Self.permissions(only), assignableScopes: scopes)
    }

    private static func permissions(_ value: JSONValue) throws(ControlError) -> RolePermissions {
        func list(_ name: String) throws(ControlError) -> [String] {
            guard let member = value.member(name), !member.isNull else { return [] }
            guard let elements = member.arrayValue else {
                throw .badRequest("'\(name)' must be a list of texts.", code: "InvalidRoleDefinition")
            }
            let names = elements.compactMap(\.stringValue)
            guard names.count == elements.count,
                names.allSatisfy({ (1...512).contains($0.utf8.count) && ($0 == "*" || $0.contains("/")) })
            else {
                throw .badRequest("'\(name)' holds what is not an operation name.", code: "InvalidActionOrNotAction")
            }
            return names
        }
        guard value.member("condition")?.stringValue?.isEmpty ?? true else {
            throw .badRequest(
                "Conditions in role definitions are not supported by this server.", code: "ConditionNotSupported")
        }
        let permissions = RolePermissions(
            actions: try list("actions"), notActions: try list("notActions"), dataActions: try list("dataActions"),
            notDataActions: try list("notDataActions"))
        let count =
            permissions.actions.count + permissions.notActions.count + permissions.dataActions.count
            + permissions.notDataActions.count
        guard count <= patternsLimit else {
            throw .badRequest("A role has at most \(patternsLimit) operations.", code: "InvalidRoleDefinition")
        }
        return permissions
    }

    func deleteDefinition(_ name: String, at scope: ResourceID, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "roleDefinitions/delete", at: scope)
        return try await roles.change { roles in
            guard let known = roles.definitions[name.lowercased()] else { return RoleStore.Change(result: .empty(204)) }
            guard !known.isBuiltIn else {
                throw ControlError.badRequest(
                    "Built-in roles cannot be deleted.", code: "RoleDefinitionDeleteNotPermitted")
            }
            for assignable in known.assignableScopes { try authorize(caller, "roleDefinitions/delete", at: assignable) }
            guard !roles.assignments.values.contains(where: { $0.roleID == known.id }) else {
                throw ControlError.badRequest(
                    "There are existing role assignments referencing role (code: RoleDefinitionHasAssignments).",
                    code: "RoleDefinitionHasAssignments")
            }
            return RoleStore.Change(
                result: .json(200, json(known, at: scope)), checks: [.present(RoleStore.definitionKey(known.id))],
                writes: [
                    .delete(RoleStore.definitionKey(known.id)), .delete(RoleStore.definitionNameKey(known.roleName)),
                ]
            ) { $0.definitions[known.id] = nil }
        }
    }
}
