public import CofferCore

/// What a role grants. Wildcards (`*`) match any run of characters, as in Azure role definitions; names compare without
/// regard to case.
public struct RolePermissions: Sendable, Codable, Equatable {
    public var actions: [String]
    public var notActions: [String]
    public var dataActions: [String]
    public var notDataActions: [String]
    public init(
        actions: [String] = [], notActions: [String] = [], dataActions: [String] = [], notDataActions: [String] = []
    ) {
        self.actions = actions
        self.notActions = notActions
        self.dataActions = dataActions
        self.notDataActions = notDataActions
    }

    public func grants(_ action: Action) -> Bool {
        var name = action.name
        return name.withUTF8 { CompiledPermissions(self).grants($0, isDataAction: action.isDataAction) }
    }
}

public struct RoleDefinition: Sendable, Codable, Equatable {
    /// The GUID that names the role, lower case.
    public var id: String
    public var roleName: String
    public var description: String
    public var isBuiltIn: Bool
    public var permissions: RolePermissions
    public var assignableScopes: [ResourceID]
    public init(
        id: String, roleName: String, description: String, isBuiltIn: Bool, permissions: RolePermissions,
        assignableScopes: [ResourceID]
    ) {
        self.id = id.lowercased()
        self.roleName = roleName
        self.description = description
        self.isBuiltIn = isBuiltIn
        self.permissions = permissions
        self.assignableScopes = assignableScopes
    }
}

public struct RoleAssignment: Sendable, Codable, Equatable {
    /// The GUID that names the assignment.
    public var name: String
    public var scope: ResourceID
    public var roleID: String
    public var principalID: String
    public var principalType: String
    public var description: String?
    public var created: Timestamp
    public var createdBy: String
    public init(
        name: String, scope: ResourceID, roleID: String, principalID: String, principalType: String,
        description: String? = nil,
        created: Timestamp, createdBy: String
    ) {
        self.name = name
        self.scope = scope
        self.roleID = roleID.lowercased()
        self.principalID = principalID.lowercased()
        self.principalType = principalType
        self.description = description
        self.created = created
        self.createdBy = createdBy
    }
}

/// Every role and assignment in force at one moment.
public struct RoleBook: Sendable {
    /// One class, so that handing the book out of a lock is one retain.
    private final class Contents: Sendable {
        let permissions: [String: RolePermissions]
        let grants: [String: [Grant]]
        init(permissions: [String: RolePermissions], grants: [String: [Grant]]) {
            self.permissions = permissions
            self.grants = grants
        }
    }
    /// One role of one principal with every scope it is assigned at: a role is matched once, however often it is
    /// assigned.
    private struct Grant: Sendable {
        let roleID: String
        let permissions: CompiledPermissions
        var scopes: [ResourceID]
    }
    private let contents: Contents

    /// An assignment whose role is not among `definitions` grants nothing.
    public init(definitions: [RoleDefinition] = [], assignments: [RoleAssignment] = []) {
        let permissions = Dictionary(definitions.map { ($0.id, $0.permissions) }) { _, last in last }
        let compiled = permissions.mapValues { CompiledPermissions($0) }
        var grants: [String: [Grant]] = [:]
        for assignment in assignments {
            guard let role = compiled[assignment.roleID] else { continue }
            var own = grants.removeValue(forKey: assignment.principalID) ?? []
            if let index = own.firstIndex(where: { $0.roleID == assignment.roleID }) {
                own[index].scopes.append(assignment.scope)
            } else {
                own.append(Grant(roleID: assignment.roleID, permissions: role, scopes: [assignment.scope]))
            }
            grants[assignment.principalID] = own
        }
        contents = Contents(permissions: permissions, grants: grants)
    }

    public func decide(_ caller: Caller, _ action: Action, at scope: ResourceID) -> AccessDecision {
        var name = action.name
        let allowed = name.withUTF8 { name in
            contents.grants[caller.objectID]?.contains { grant in
                grant.permissions.grants(name, isDataAction: action.isDataAction)
                    && grant.scopes.contains { $0.contains(scope) }
            } ?? false
        }
        return allowed
            ? .allowed
            : .refused(reason: "No role assignment of '\(caller.objectID)' grants '\(action)' at '\(scope)'.")
    }

    /// Whether any assignment of the caller lies at, above or below `scope`: what makes a subscription show in a
    /// caller's list.
    public func hasAssignment(_ caller: Caller, touching scope: ResourceID) -> Bool {
        contents.grants[caller.objectID]?.contains { grant in
            grant.scopes.contains { $0.contains(scope) || scope.contains($0) }
        } ?? false
    }

    /// What each role that covers `scope` grants the caller.
    public func permissions(of caller: Caller, at scope: ResourceID) -> [RolePermissions] {
        (contents.grants[caller.objectID] ?? []).filter { grant in grant.scopes.contains { $0.contains(scope) } }
            .compactMap { contents.permissions[$0.roleID] }
    }
}

/// The patterns of one role, ready to match.
struct CompiledPermissions: Sendable {
    private let actions: [ActionPattern]
    private let notActions: [ActionPattern]
    private let dataActions: [ActionPattern]
    private let notDataActions: [ActionPattern]

    init(_ permissions: RolePermissions) {
        actions = permissions.actions.map(ActionPattern.init)
        notActions = permissions.notActions.map(ActionPattern.init)
        dataActions = permissions.dataActions.map(ActionPattern.init)
        notDataActions = permissions.notDataActions.map(ActionPattern.init)
    }

    func grants(_ name: UnsafeBufferPointer<UInt8>, isDataAction: Bool) -> Bool {
        if isDataAction {
            dataActions.contains { $0.matches(name) } && !notDataActions.contains { $0.matches(name) }
        } else {
            actions.contains { $0.matches(name) } && !notActions.contains { $0.matches(name) }
        }
    }
}
