internal import CofferCore
internal import ResourceProviders

extension StorageAccountService {
    /// Skus – List: which units go with which kinds.
    func listSkus(_ request: ControlRequest, as caller: Caller) throws(ControlError) -> ControlResponse {
        try require(caller, .control("Microsoft.Storage/skus/read"), at: try subscription(of: request))
        var list: [JSONValue] = []
        for kind in AccountRules.kinds {
            for sku in AccountRules.skus where sku.kinds.contains(kind) {
                list.append(
                    [
                        "resourceType": "storageAccounts", "kind": .string(kind), "name": .string(sku.name),
                        "tier": .string(sku.name.hasPrefix("Premium") ? "Premium" : "Standard"), "locations": [],
                        "capabilities": [],
                        "restrictions": [],
                    ])
            }
        }
        return .json(200, ["value": .array(list)])
    }

    /// Usages – List By Location. There is no limit but the disk; Azure's default is told, because clients divide by
    /// it.
    func listUsages(_ request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        let subscription = try subscription(of: request)
        try require(caller, .control("Microsoft.Storage/locations/usages/read"), at: subscription)
        let location = request.path.types.count == 2 ? request.path.names.first?.lowercased() : nil
        let count = try await allAccounts().filter { account in
            subscription.contains(account.record.resourceID) && (location.map { $0 == account.record.location } ?? true)
        }.count
        return .json(
            200,
            [
                "value": [
                    [
                        "unit": "Count", "currentValue": .integer(Int64(count)), "limit": 250,
                        "name": ["value": "StorageAccounts", "localizedValue": "Storage Accounts"],
                    ]
                ]
            ])
    }

    /// Operations – List: the actions that roles can grant here. Open to every caller, as in Azure.
    func listOperations() -> ControlResponse {
        let control = [
            "storageAccounts/read", "storageAccounts/write", "storageAccounts/delete",
            "storageAccounts/listkeys/action",
            "storageAccounts/regeneratekey/action", "storageAccounts/listAccountSas/action",
            "storageAccounts/listServiceSas/action",
            "storageAccounts/revokeUserDelegationKeys/action", "storageAccounts/blobServices/read",
            "storageAccounts/blobServices/write",
            "storageAccounts/blobServices/generateUserDelegationKey/action",
            "storageAccounts/blobServices/containers/read",
            "storageAccounts/blobServices/containers/write", "storageAccounts/blobServices/containers/delete",
            "checknameavailability/read", "skus/read", "locations/usages/read",
        ]
        let data = ["read", "write", "delete", "add/action", "move/action", "filter/action", "tags/read", "tags/write"]
            .map { "storageAccounts/blobServices/containers/blobs/\($0)" }
        func operation(_ name: String, isData: Bool) -> JSONValue {
            ["name": .string("Microsoft.Storage/\(name)"), "isDataAction": .bool(isData), "origin": "user,system"]
        }
        return .json(
            200,
            ["value": .array(control.map { operation($0, isData: false) } + data.map { operation($0, isData: true) })])
    }

    private func subscription(of request: ControlRequest) throws(ControlError) -> ResourceID {
        guard let subscription = request.path.subscription else { throw methodNotAllowed(request) }
        return ResourceID(segments: ["subscriptions", subscription])
    }
}
