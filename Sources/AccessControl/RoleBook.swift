public import CofferCore

/// What a role grants. Wildcards (`*`) match any run of characters, as in Azure role definitions; names compare without regard to case.
public struct RolePermissions: Sendable, Codable, Equatable {
    public var actions: [String]
    public var notActions: [String]
    public var dataActions: [String]
    public var notDataActions: [String]
    public init(actions: [String] = [], notActions: [String] = [], dataActions: [String] = [], notDataActions: [String] = []) {
        self.actions = actions
        self.notActions = notActions
        self.dataActions = dataActions
        self.notDataActions = notDataActions
    }

    public func grants(_ action: Action) -> Bool {
        let (granted, withheld) = action.isDataAction ? (dataActions, notDataActions) : (actions, notActions)
        return granted.contains { matches($0, action.name) } && !withheld.contains { matches($0, action.name) }
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
        id: String, roleName: String, description: String, isBuiltIn: Bool, permissions: RolePermissions, assignableScopes: [ResourceID]
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
    public var created: Timestamp
    public var createdBy: String
    public init(
        name: String, scope: ResourceID, roleID: String, principalID: String, principalType: String, created: Timestamp, createdBy: String
    ) {
        self.name = name
        self.scope = scope
        self.roleID = roleID.lowercased()
        self.principalID = principalID.lowercased()
        self.principalType = principalType
        self.created = created
        self.createdBy = createdBy
    }
}

/// Every role and assignment in force at one moment.
public struct RoleBook: Sendable {
    private let definitions: [String: RoleDefinition]
    private let assignments: [String: [RoleAssignment]]

    public init(definitions: [RoleDefinition] = [], assignments: [RoleAssignment] = []) {
        self.definitions = Dictionary(definitions.map { ($0.id, $0) }) { _, last in last }
        self.assignments = Dictionary(grouping: assignments, by: \.principalID)
    }

    public func decide(_ caller: Caller, _ action: Action, at scope: ResourceID) -> AccessDecision {
        for assignment in assignments[caller.objectID] ?? [] where assignment.scope.contains(scope) {
            if definitions[assignment.roleID]?.permissions.grants(action) == true { return .allowed }
        }
        return .refused(reason: "No role assignment of '\(caller.objectID)' grants '\(action)' at '\(scope)'.")
    }
}

/// Matches an action name against a pattern whose `*` stands for any run of characters, without regard to ASCII case.
func matches(_ pattern: String, _ name: String) -> Bool {
    let pattern = Array(pattern.lowercased().utf8)
    let name = Array(name.lowercased().utf8)
    var p = 0
    var n = 0
    var star: (pattern: Int, name: Int)?
    while n < name.count {
        if p < pattern.count, pattern[p] == 0x2a {
            star = (p, n)
            p += 1
        } else if p < pattern.count, pattern[p] == name[n] {
            p += 1
            n += 1
        } else if let last = star {
            p = last.pattern + 1
            n = last.name + 1
            star = (last.pattern, n)
        } else {
            return false
        }
    }
    return pattern[p...].allSatisfy { $0 == 0x2a }
}
