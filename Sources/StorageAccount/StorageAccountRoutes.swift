public import CofferCore
internal import EncryptionAtRest
public import ResourceProviders

extension StorageAccountService {
    public var namespace: String { "Microsoft.Storage" }

    public var resourceTypes: [ResourceTypeDescription] {
        [
            "storageAccounts", "storageAccounts/blobServices", "storageAccounts/blobServices/containers",
            "storageAccounts/encryptionScopes", "checkNameAvailability", "skus",
            "locations", "locations/usages", "locations/checkNameAvailability", "usages", "operations",
        ].map { ResourceTypeDescription($0, apiVersions: Self.apiVersions) }
    }
    /// What `/providers` lists; any other well-formed version is served like the newest.
    static let apiVersions = [
        "2025-08-01", "2025-06-01", "2025-01-01", "2024-01-01", "2023-05-01", "2023-01-01", "2022-09-01", "2021-09-01",
        "2019-06-01",
    ]

    public func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let types = request.path.types.map { $0.lowercased() }
        switch types.first {
        case "storageaccounts"? where request.path.names.isEmpty: return try await collection(request, caller)
        case "storageaccounts"? where types.count == 1: return try await oneAccount(request, caller)
        case "storageaccounts"?: return try await belowAccount(request, caller, Array(types.dropFirst()))
        default: return try await subscriptionLevel(request, caller, types)
        }
    }

    private func collection(_ request: ControlRequest, _ caller: Caller) async throws(ControlError) -> ControlResponse {
        guard request.method == .get else { throw methodNotAllowed(request) }
        let scope = ResourceID(segments: request.path.segments.dropLast(3))
        return try await listAccounts(below: scope, as: caller, names: request.names)
    }

    private func oneAccount(_ request: ControlRequest, _ caller: Caller) async throws(ControlError) -> ControlResponse {
        guard request.path.resourceGroup != nil else {
            throw .badRequest(
                "A storage account lies in a resource group: "
                    + "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.Storage/…"
            )
        }
        switch request.method {
        case .put: return try await putAccount(request, as: caller)
        case .patch: return try await patchAccount(request, as: caller)
        case .get: return try await getAccount(request.path, as: caller, names: request.names)
        case .head:
            var response = try await getAccount(request.path, as: caller, names: request.names)
            response.body = .none
            return response
        case .delete: return ControlResponse.empty(try await deleteAccount(request.path, as: caller) ? 200 : 204)
        case .post: throw methodNotAllowed(request)
        }
    }

    private func belowAccount(
        _ request: ControlRequest, _ caller: Caller, _ types: [String]
    ) async throws(ControlError) -> ControlResponse {
        guard let account = accountID(in: request.path) else { throw methodNotAllowed(request) }
        if request.method == .post, types.count == 1, request.path.names.count == 1 {
            switch types[0] {
            case "listkeys": return try await listKeys(account, as: caller, expand: request.query["$expand"])
            case "regeneratekey": return try await regenerateKey(account, request.body, as: caller)
            case "listaccountsas": return try await listAccountSAS(account, request.body, as: caller)
            case "listservicesas": return try await listServiceSAS(account, request.body, as: caller)
            case "revokeuserdelegationkeys": return try await revokeUserDelegationKeys(account, as: caller)
            default: break
            }
        }
        if types == ["blobservices"] { return try await blobServices(request, account, as: caller) }
        if types == ["encryptionscopes"] { return try await encryptionScopes(request, account, as: caller) }
        if types == ["blobservices", "containers"] { return try await containers(request, account, as: caller) }
        // Authorized first, so that the refusal says nothing about an account to those who may not read it.
        _ = try await readable(account, as: caller)
        throw .notImplemented("\(request.path.resourceType ?? "This resource type") (\(request.method.rawValue))")
    }

    private func subscriptionLevel(
        _ request: ControlRequest, _ caller: Caller, _ types: [String]
    ) async throws(ControlError) -> ControlResponse {
        switch (request.method, types) {
        case (.post, ["checknameavailability"]), (.post, ["locations", "checknameavailability"]):
            return try await checkNameAvailability(request, as: caller)
        case (.get, ["skus"]): return try listSkus(request, as: caller)
        case (.get, ["usages"]), (.get, ["locations", "usages"]): return try await listUsages(request, as: caller)
        case (.get, ["operations"]): return listOperations()
        default:
            throw .notImplemented("\(request.path.resourceType ?? "This resource type") (\(request.method.rawValue))")
        }
    }

    /// `…/storageAccounts/{name}` of a path that goes on below it.
    private func accountID(in path: ResourceID) -> ResourceID? {
        guard path.resourceGroup != nil, path.segments.count > 8 else { return nil }
        return ResourceID(segments: Array(path.segments.prefix(8)))
    }

    func methodNotAllowed(_ request: ControlRequest) -> ControlError {
        ControlError(
            status: 405, code: "MethodNotAllowed",
            message: "\(request.method.rawValue) is not allowed on \(request.path.resourceType ?? "this path").")
    }

    // MARK: For Resource Manager

    public func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] {
        try await allAccounts().filter { scope.contains($0.record.resourceID) }.map { account in
            TrackedResource(
                id: account.record.resourceID, type: "Microsoft.Storage/storageAccounts",
                location: account.record.location,
                kind: account.record.kind, tags: account.record.tags)
        }
    }

    /// Nobody knows in which group an account lies whose records do not open. Which it is, the log says: who may delete
    /// a group need not learn of another's.
    public func requireAllTracked(below scope: ResourceID) async throws(ControlError) {
        _ = try await allAccounts()
        guard !directory.damagedNames.isEmpty else { return }
        throw ControlError(
            SealedStoreError(.corrupt, "The records of a storage account do not open, and it may lie in the group."))
    }

    public func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        _ = try await deleteAccount(id, as: caller)
    }
}
