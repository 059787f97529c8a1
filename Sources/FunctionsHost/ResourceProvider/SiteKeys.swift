import CofferCore
import ResourceProviders

/// Functions and access keys over Resource Manager. Reader holds none of the `listkeys` actions.
extension WebOperation {
    // MARK: Host keys

    /// A bare object, without the `properties` envelope, as the service answers it.
    func listHostKeys() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/host/listkeys/action")
        let keys = try await running { () async throws(FunctionsError) in try await runtime.hostKeys(of: siteID) }
        return .json(
            200,
            [
                "masterKey": .string(keys.masterKey.reveal()), "functionKeys": Self.map(keys.functionKeys),
                "systemKeys": Self.map(keys.systemKeys),
            ])
    }

    func setHostKey() async throws(ControlError) -> ControlResponse {
        // `_master` is the master key in every list.
        let isMaster = parameters["key"]?.lowercased() == "_master"
        let kind = isMaster ? .masterKey : try kind()
        _ = try site(for: "sites/host/\(kind.rawValue)/write")
        let value = try askedValue()
        let change = try await running { () async throws(FunctionsError) in
            try await runtime.setHostKey(kind, parameters["key"] ?? "", to: value, of: siteID)
        }
        return Self.answer(change, id: request.path, type: "Microsoft.Web/sites/host/\(kind.rawValue)")
    }

    func deleteHostKey() async throws(ControlError) -> ControlResponse {
        let kind = try kind()
        _ = try site(for: "sites/host/\(kind.rawValue)/delete")
        try await running { () async throws(FunctionsError) in
            try await runtime.deleteHostKey(kind, parameters["key"] ?? "", of: siteID)
        }
        return .empty(204)
    }

    private func kind() throws(ControlError) -> HostKeyKind {
        guard let kind = HostKeyKind(wireName: parameters["kind"] ?? "") else {
            throw .badRequest("The key type is functionKeys, systemKeys or masterKey.")
        }
        return kind
    }

    // MARK: Functions

    func listFunctions() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/functions/read")
        let functions = try await running { () async throws(FunctionsError) in try await runtime.functions(of: siteID) }
        return .json(200, ["value": .array(functions.map { wire($0, of: site) }), "nextLink": .null])
    }

    func getFunction() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/functions/read")
        let function = try await running { () async throws(FunctionsError) in
            try await runtime.function(name, of: siteID)
        }
        return .json(200, wire(function, of: site))
    }

    private var name: String { parameters["function"] ?? "" }

    private func wire(_ function: FunctionDescription, of site: Site) -> JSONValue {
        let host = request.names.url(of: .site(site.name))
        let script = "\(host)/admin/vfs/site/wwwroot/\(function.name)/"
        return [
            "id": .string("\(site.id)/functions/\(function.name)"), "name": .string("\(site.name)/\(function.name)"),
            "type": "Microsoft.Web/sites/functions", "location": .string(Self.displayName(ofRegion: site.location)),
            "properties": [
                "name": .string(function.name), "function_app_id": .null, "script_root_path_href": .string(script),
                "config_href": .string(script + "function.json"),
                "href": .string("\(host)/admin/functions/\(function.name)"),
                "config": function.config, "files": .null, "test_data": "", "isDisabled": .bool(function.isDisabled),
                "invoke_url_template": function.invokePath.map { .string("\(host)/\($0)") } ?? .null,
                "language": .string(function.language), "errors": .array(function.errors.map { .string($0) }),
            ],
        ]
    }

    // MARK: Function keys

    func listFunctionKeys() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/functions/listkeys/action")
        let keys = try await running { () async throws(FunctionsError) in
            try await runtime.functionKeys(name, of: siteID)
        }
        return .json(200, Self.map(keys))
    }

    func listFunctionSecrets() async throws(ControlError) -> ControlResponse {
        let site = try site(for: "sites/functions/listsecrets/action")
        let keys = try await running { () async throws(FunctionsError) in
            try await runtime.functionKeys(name, of: siteID)
        }
        let function = try await running { () async throws(FunctionsError) in
            try await runtime.function(name, of: siteID)
        }
        guard let key = keys.first(where: { $0.name == "default" }) ?? keys.first, let path = function.invokePath else {
            throw .badRequest("The function '\(name)' has no HTTP trigger or no key.")
        }
        let url = "\(request.names.url(of: .site(site.name)))/\(path)?code=\(key.value.reveal())"
        return .json(200, ["key": .string(key.value.reveal()), "trigger_url": .string(url)])
    }

    func setFunctionKey() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/functions/keys/write")
        let value = try askedValue()
        let change = try await running { () async throws(FunctionsError) in
            try await runtime.setFunctionKey(parameters["key"] ?? "", to: value, function: name, of: siteID)
        }
        return Self.answer(change, id: request.path, type: "Microsoft.Web/sites/functions/keys")
    }

    func deleteFunctionKey() async throws(ControlError) -> ControlResponse {
        _ = try site(for: "sites/functions/keys/delete")
        try await running { () async throws(FunctionsError) in
            try await runtime.deleteFunctionKey(parameters["key"] ?? "", function: name, of: siteID)
        }
        return .empty(204)
    }

    // MARK: Shapes

    /// The value of the body, with or without the `properties` envelope; nil (null or absent) asks the host to generate
    /// one.
    private func askedValue() throws(ControlError) -> RedactedString? {
        guard let value = properties.member("value"), !value.isNull else { return nil }
        guard let text = value.stringValue else { throw .badRequest("The value of a key must be a string.") }
        return RedactedString(text)
    }
    private static func map(_ keys: [AccessKey]) -> JSONValue {
        .object(Dictionary(keys.map { ($0.name, .string($0.value.reveal())) }) { _, last in last })
    }
    private static func answer(_ change: KeyChange, id: ResourceID, type: String) -> ControlResponse {
        .json(
            change.isNew ? 201 : 200,
            [
                "id": .string(id.description), "name": .string(change.key.name), "type": .string(type),
                "properties": ["name": .string(change.key.name), "value": .string(change.key.value.reveal())],
            ])
    }
}
