internal import AccessControl
internal import CofferCore
internal import ResourceProviders

extension ResourceManager {
    private var subscriptionJSON: JSONValue {
        [
            "id": .string(subscriptionID.description), "subscriptionId": .string(installation.subscriptionID),
            "tenantId": .string(installation.tenantID), "displayName": .string(installation.subscriptionName),
            "state": "Enabled",
            "authorizationSource": "RoleBased", "managedByTenants": [],
        ]
    }

    /// The subscription shows to whoever has a role anywhere in it.
    func listSubscriptions(_ caller: Caller) -> ControlResponse {
        let isVisible = controller.hasAssignment(caller, touching: subscriptionID)
        return .json(
            200,
            ["value": isVisible ? [subscriptionJSON] : [], "count": ["type": "Total", "value": isVisible ? 1 : 0]])
    }

    func showSubscription(_ caller: Caller) throws(ControlError) -> ControlResponse {
        try requireVisible(caller, "Microsoft.Resources/subscriptions/read")
        return .json(200, subscriptionJSON)
    }

    func listTenants() -> ControlResponse {
        .json(
            200,
            [
                "value": [
                    [
                        "id": "/tenants/\(installation.tenantID)", "tenantId": .string(installation.tenantID),
                        "displayName": .string(installation.subscriptionName), "domains": [], "tenantCategory": "Home",
                    ]
                ]
            ])
    }

    func listLocations(_ caller: Caller) throws(ControlError) -> ControlResponse {
        try requireVisible(caller, "Microsoft.Resources/subscriptions/locations/read")
        return .json(200, ["value": .array(Location.all.map { $0.json(subscription: installation.subscriptionID) })])
    }

    private func requireVisible(_ caller: Caller, _ action: String) throws(ControlError) {
        guard controller.hasAssignment(caller, touching: subscriptionID) else {
            throw .authorizationFailed(caller, .control(action), subscriptionID)
        }
    }

    // MARK: Providers

    private func json(_ provider: any ResourceProvider, _ request: ControlRequest) -> JSONValue {
        let types = provider.resourceTypes.map { type -> JSONValue in
            [
                "resourceType": .string(type.name), "locations": .array(Location.displayNames),
                "apiVersions": .array(type.apiVersions.map { .string($0) }), "capabilities": "None",
            ]
        }
        let prefix = request.path.subscription.map { "/subscriptions/\($0)" } ?? ""
        return [
            "id": "\(prefix)/providers/\(provider.namespace)", "namespace": .string(provider.namespace),
            "resourceTypes": .array(types),
            "registrationState": "Registered", "registrationPolicy": "RegistrationFree",
        ]
    }

    func listProviders(_ request: ControlRequest) -> ControlResponse {
        let all = providers.values.sorted { $0.namespace < $1.namespace }
        return .json(200, ["value": .array(all.map { json($0, request) })])
    }

    func showProvider(_ namespace: String, _ request: ControlRequest) throws(ControlError) -> ControlResponse {
        guard let provider = providers[namespace.lowercased()] else { throw unknownNamespace(namespace) }
        return .json(200, json(provider, request))
    }

    /// Every namespace served here is always registered, so registering is done already and unregistering is refused.
    func register(_ namespace: String, isRegistering: Bool, _ request: ControlRequest, _ caller: Caller)
        throws(ControlError) -> ControlResponse
    {
        guard let provider = providers[namespace.lowercased()] else { throw unknownNamespace(namespace) }
        try authorize(
            caller, "\(provider.namespace)/\(isRegistering ? "register" : "unregister")/action", at: subscriptionID)
        guard isRegistering else {
            throw ControlError(
                status: 409, code: "CannotUnregisterProvider",
                message: "The namespace '\(provider.namespace)' is part of this server and cannot be unregistered.")
        }
        return .json(200, json(provider, request))
    }
}
