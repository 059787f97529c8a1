internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import ResourceProviders

extension ResourceManager {
    private static let type = "Microsoft.Resources/subscriptions/resourceGroups"

    func listGroups(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        let filter = try parsedFilter(request)
        var groups = try await tree.groups().filter { isAllowed(caller, "\(Self.type)/read", at: groupID($0.name)) }
        if let filter {
            groups = try groups.filter {
                try isMatch(filter, tags: $0.tags, ["name": [$0.name], "location": [$0.location]])
            }
        }
        if let top = request.query["$top"].flatMap(Int.init), top >= 0 { groups = Array(groups.prefix(top)) }
        return .json(200, ["value": .array(groups.map { $0.json(subscription: installation.subscriptionID) })])
    }

    func groupID(_ name: String) -> ResourceID { subscriptionID.appending("resourceGroups", name) }

    func showGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "\(Self.type)/read", at: request.path)
        return .json(200, try await requireGroup(request, caller).json(subscription: installation.subscriptionID))
    }

    func groupExists(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "\(Self.type)/read", at: request.path)
        return .empty(try await tree.group(request.path.name) == nil ? 404 : 204)
    }

    func putGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "\(Self.type)/write", at: request.path)
        let name = request.path.name
        guard ResourceGroup.isValidName(name) else {
            throw ControlError.badRequest(
                "The provided resource group name '\(name.prefix(100))' is not valid. The name has 1 to "
                    + "\(ResourceGroup.nameCharactersLimit) "
                    + "characters: letters, digits, '-', '.', '(', ')' or '_', and does not end with a period.",
                code: "InvalidResourceGroupName")
        }
        let body = try requireObject(request)
        guard let wanted = body.member("location")?.stringValue, !wanted.isEmpty else {
            throw ControlError.badRequest(
                "The location property is required for this definition.", code: "LocationRequired")
        }
        guard let location = Location.named(wanted) else {
            throw ControlError.badRequest(
                "The provided location '\(wanted.prefix(64))' is not available for resource group. List of available "
                    + "regions is "
                    + "'\(Location.all.map(\.name).joined(separator: ","))'.",
                code: "LocationNotAvailableForResourceGroup")
        }
        let tags = try Tags.parse(body.member("tags")) ?? [:]
        let managedBy = body.member("managedBy")?.stringValue
        return try await tree.retrying {
            let stored = try await tree.group(name)
            if let known = stored?.group {
                guard known.state != .deleting else { throw Self.groupIsBeingDeleted(known.name) }
                guard known.location == location.name else {
                    throw ControlError(
                        status: 409, code: "InvalidResourceGroupLocation",
                        message:
                            "Invalid resource group location '\(location.name)'. The Resource group already exists in "
                            + "location "
                            + "'\(known.location)'.")
                }
            }
            let group = ResourceGroup(
                name: stored?.group.name ?? name, location: location.name, tags: tags,
                managedBy: managedBy ?? stored?.group.managedBy,
                state: .succeeded, created: stored?.group.created ?? clock.now())
            guard try await write(group, over: stored?.version) else { return nil }
            return .json(stored == nil ? 201 : 200, group.json(subscription: installation.subscriptionID))
        }
    }

    func patchGroup(_ request: ControlRequest, _ caller: Caller) async throws -> ControlResponse {
        try authorize(caller, "\(Self.type)/write", at: request.path)
        let body = try requireObject(request)
        let tags = try Tags.parse(body.member("tags"))
        return try await tree.retrying {
            _ = try await requireGroup(request, caller)
            guard let stored = try await tree.group(request.path.name) else { return nil }
            var group = stored.group
            guard group.state != .deleting else { throw Self.groupIsBeingDeleted(group.name) }
            if let tags { group.tags = tags }
            if let managedBy = body.member("managedBy")?.stringValue { group.managedBy = managedBy }
            guard try await write(group, over: stored.version) else { return nil }
            return .json(200, group.json(subscription: installation.subscriptionID))
        }
    }

    private func write(_ group: ResourceGroup, over version: RecordVersion?) async throws -> Bool {
        let key = TreeRecords.groupKey(group.name)
        return try await tree.commit(
            [version.map { .unchanged(key, $0) } ?? .absent(key)], [TreeRecords.put(key, group)])
    }

    func setState(_ state: ResourceGroup.State, of name: String) async throws {
        try await tree.retrying {
            guard let stored = try await tree.group(name) else { return () }
            var group = stored.group
            group.state = state
            return try await write(group, over: stored.version) ? () : nil
        }
    }

    func requireObject(_ request: ControlRequest) throws(ControlError) -> JSONValue {
        guard let body = request.body, body.objectValue != nil else {
            throw .badRequest(
                "The request content is required and must be a JSON object.", code: "InvalidRequestContent")
        }
        return body
    }
}
