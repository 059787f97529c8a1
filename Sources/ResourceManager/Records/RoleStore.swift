internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import Synchronization

/// Every custom role and assignment, as stored.
struct Roles: Sendable {
    /// Built-in ones included.
    var definitions: [String: RoleDefinition] = Dictionary(uniqueKeysWithValues: BuiltInRoles.all.map { ($0.id, $0) })
    /// By name (a GUID).
    var assignments: [String: RoleAssignment] = [:]
}

/// The roles in force: durable first, then published, then answered. Changes pass one at a time, so that a published
/// book is never older than the one before it.
final class RoleStore: Sendable {
    private let tree: TreeRecords
    private let controller: AccessController
    private let turnstile = Turnstile()
    private let roles = Mutex(Roles())

    init(tree: TreeRecords, controller: AccessController) {
        self.tree = tree
        self.controller = controller
    }

    var current: Roles { roles.withLock { $0 } }

    func load() async throws { try await turnstile.pass { try await reload() } }

    private func reload() async throws {
        var fresh = Roles()
        for definition: RoleDefinition in try await tree.all("definition/") {
            fresh.definitions[definition.id] = definition
        }
        for assignment: RoleAssignment in try await tree.all("assignment/") {
            fresh.assignments[assignment.name] = assignment
        }
        publish(fresh)
    }
    private func publish(_ fresh: Roles) {
        roles.withLock { $0 = fresh }
        controller.publish(
            RoleBook(definitions: Array(fresh.definitions.values), assignments: Array(fresh.assignments.values)))
    }

    struct Change<Result> {
        var result: Result
        var checks: [RecordCheck] = []
        var writes: [RecordWrite] = []
        var apply: (inout Roles) -> Void = { _ in }
    }

    /// `decide` sees the roles in force and may run again after a conflict. What it returns is committed, then
    /// published, then returned.
    func change<Result>(_ decide: (Roles) throws -> Change<Result>) async throws -> Result {
        try await turnstile.pass {
            for _ in 0..<TreeRecords.attempts {
                let change = try decide(current)
                if change.writes.isEmpty { return change.result }
                do {
                    if try await tree.commit(change.checks, change.writes) {
                        var fresh = current
                        change.apply(&fresh)
                        publish(fresh)
                        return change.result
                    }
                } catch {
                    // The commit may have happened: what is in force must follow the store, whatever the answer.
                    try await reload()
                    throw error
                }
                try await reload()
            }
            throw SealedStoreError(.unavailable, "The role assignments are contested; try again.")
        }
    }

    // MARK: Records

    static func assignmentKey(_ name: String) -> String { "assignment/\(name.lowercased())" }
    static func uniqueKey(_ assignment: RoleAssignment) -> String {
        "assigned/\(assignment.principalID)/\(assignment.roleID)\(assignment.scope.canonical)"
    }
    static func definitionKey(_ id: String) -> String { "definition/\(id.lowercased())" }
    static func definitionNameKey(_ name: String) -> String { "definition-named/\(name.lowercased())" }

    static func removal(_ assignments: [RoleAssignment]) -> [RecordWrite] {
        assignments.flatMap { [.delete(assignmentKey($0.name)), .delete(uniqueKey($0))] }
    }

    /// Removes the assignments at and below a scope that is gone, with `also` in the same commit.
    func removeAssignments(at scope: ResourceID, also writes: [RecordWrite] = []) async throws {
        try await change { roles in
            let gone = roles.assignments.values.filter { scope.contains($0.scope) }
            return Change(result: (), writes: writes + Self.removal(gone)) { roles in
                for assignment in gone { roles.assignments[assignment.name] = nil }
            }
        }
    }
}
