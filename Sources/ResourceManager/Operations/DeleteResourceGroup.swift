internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

extension ResourceManager {
    /// Passes over what is left in a group: a plan goes only after its sites, an account only after what uses it.
    private static let passesLimit = 16

    /// Deletes everything in the group as the caller, then the group and the role assignments in it. Answers when it is
    /// done (200).
    ///
    /// When a resource cannot be deleted the group stays, with what is left in it, and the refusal of that resource is
    /// the answer.
    func deleteGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "Microsoft.Resources/subscriptions/resourceGroups/delete", at: request.path)
        let name = request.path.name
        let id = groupID(name)
        try await tree.retrying { () -> Void? in
            let group = try await requireGroup(request, caller)
            guard group.state != .deleting else { throw Self.groupIsBeingDeleted(group.name) }
            guard let stored = try await tree.group(name), stored.group.state != .deleting else { return nil }
            var marked = stored.group
            marked.state = .deleting
            let key = TreeRecords.groupKey(name)
            return try await tree.commit([.unchanged(key, stored.version)], [TreeRecords.put(key, marked)]) ? () : nil
        }
        do {
            try await deleteResources(in: id, as: caller)
            try await roles.removeAssignments(at: id, also: [.delete(TreeRecords.groupKey(name))])
        } catch {
            try await setState(.succeeded, of: name)
            throw error
        }
        return .empty(200)
    }

    private func deleteResources(in group: ResourceID, as caller: Caller) async throws {
        for provider in providers.values { try await provider.requireAllTracked(below: group) }
        var refusal: ControlError?
        for _ in 0..<Self.passesLimit {
            var found = 0
            var deleted = 0
            for provider in providers.values.sorted(by: { $0.namespace < $1.namespace }) {
                for resource in try await provider.trackedResources(below: group) {
                    found += 1
                    do {
                        try await provider.deleteTrackedResource(resource.id, as: caller)
                    } catch {
                        guard error.status != 404 else { continue }
                        refusal = error
                        continue
                    }
                    deleted += 1
                    try await roles.removeAssignments(at: resource.id)
                }
            }
            if found == 0 { return }
            if deleted == 0 { break }
        }
        throw refusal
            ?? ControlError(
                status: 409, code: "ResourceGroupDeletionBlocked",
                message: "Resources are still being added to '\(group)'.")
    }
}
