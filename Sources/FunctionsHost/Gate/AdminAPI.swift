internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// The host's REST API below `/admin` (Azure Functions host): status, keys, functions. The master key opens it; any
/// other valid key gets 403, none or an unknown one 401.
struct AdminAPI: Sendable {
    let runtime: FunctionRuntime
    private static let bodyLimitBytes = 64 << 10

    func respond(to request: Request, path: [String], _ entry: FunctionRuntime.Entry) async -> Response {
        let folded = path.map { $0.lowercased() }
        if folded == ["host", "ping"], [.GET, .POST].contains(request.method) {
            return Response(status: .ok, headers: ["Cache-Control": "no-store, no-cache"])
        }
        switch await authorization(of: request, entry) {
        case .failure(let refusal): return refusal
        case .success(.master): break
        case .success(.none): return Response(status: .unauthorized)
        case .success: return Response(status: folded.first == "vfs" ? .unauthorized : .forbidden)
        }
        do throws(FunctionsError) {
            switch folded.first {
            case "host": return try await host(request, Array(path.dropFirst()), entry)
            case "functions": return try await functions(request, Array(path.dropFirst()), entry)
            default: return Self.unsupported()
            }
        } catch { return Self.response(for: error) }
    }

    /// `/runtime/webhooks/EXTENSION`: no extension exists here, so whoever is let in finds nothing.
    func webhook(_ request: Request, path: [String], _ entry: FunctionRuntime.Entry) async -> Response {
        let name = (path.first?.lowercased() ?? "") + "_extension"
        switch await authorization(of: request, entry) {
        case .failure(let refusal): return refusal
        case .success(.master): return Response(status: .notFound)
        case .success(.system(let key)): return Response(status: key.lowercased() == name ? .notFound : .forbidden)
        case .success(.hostFunction): return Response(status: .forbidden)
        case .success(.function), .success(.none): return Response(status: .unauthorized)
        }
    }

    private enum Authorization {
        case success(KeyAuthorization)
        case failure(Response)
    }
    private func authorization(of request: Request, _ entry: FunctionRuntime.Entry) async -> Authorization {
        guard let key = PresentedKey.of(request) else { return .success(.none) }
        do throws(FunctionsError) {
            return .success(try await entry.host.keys().authorize(key, function: nil))
        } catch { return .failure(Pages.unavailable(error.message)) }
    }

    // MARK: admin/host

    private func host(_ request: Request, _ path: [String], _ entry: FunctionRuntime.Entry) async throws(FunctionsError)
        -> Response
    {
        let id = entry.policy.site.id
        switch (request.method, path.map { $0.lowercased() }) {
        case (.GET, ["status"]): return Self.json(.ok, Self.status(await entry.host.status()))
        case (.POST, ["synctriggers"]):
            try await runtime.syncTriggers(id)
            return Self.json(.ok, ["status": "success"])
        case (.POST, ["restart"]):
            try await runtime.restart(id)
            return Response(status: .ok)
        case (.PUT, ["state"]):
            return Pages.text(
                .badRequest, "The app runs from a package; its state is changed through Resource Manager.")
        default: break
        }
        guard let scope = path.first, let kind = HostKeyKind(wireName: scope), kind != .masterKey, path.count <= 2
        else {
            return Self.unsupported()
        }
        guard path.count == 2 else {
            guard request.method == .GET else { return Response(status: .methodNotAllowed) }
            let keys = try await runtime.hostKeys(of: id)
            return Self.list(kind == .systemKeys ? keys.systemKeys : keys.functionKeys, request)
        }
        return try await key(
            request, path[1],
            all: { () async throws(FunctionsError) in
                let keys = try await runtime.hostKeys(of: id)
                let master = AccessKey(name: "_master", value: keys.masterKey)
                return (kind == .systemKeys ? keys.systemKeys : keys.functionKeys) + [master]
            },
            set: { (name, value) async throws(FunctionsError) in
                try await runtime.setHostKey(kind, name, to: value, of: id)
            },
            delete: { (name) async throws(FunctionsError) in try await runtime.deleteHostKey(kind, name, of: id) })
    }

    private static func status(_ status: HostStatus) -> JSONValue {
        var json: JSONValue = [
            "id": .string(status.id), "state": .string(status.state.rawValue), "version": .string(status.version),
            "versionDetails": .string(status.version), "instanceId": .string(status.instanceID),
            "processUptime": .integer(status.processUptimeMilliseconds),
        ]
        if !status.errors.isEmpty { json["errors"] = .array(status.errors.map { .string($0) }) }
        return json
    }

    // MARK: admin/functions

    private func functions(_ request: Request, _ path: [String], _ entry: FunctionRuntime.Entry)
        async throws(FunctionsError) -> Response
    {
        let id = entry.policy.site.id
        guard let name = path.first else {
            guard request.method == .GET else { return Response(status: .methodNotAllowed) }
            let all = try await runtime.functions(of: id)
            return Self.json(.ok, .array(all.map { Self.metadata($0, request) }))
        }
        switch (request.method, path.dropFirst().map { $0.lowercased() }) {
        case (.GET, []): return Self.json(.ok, Self.metadata(try await runtime.function(name, of: id), request))
        case (.GET, ["status"]):
            let errors = try await runtime.function(name, of: id).errors
            return Self.json(.ok, errors.isEmpty ? [:] : ["errors": .array(errors.map { .string($0) })])
        case (.GET, ["keys"]): return Self.list(try await runtime.functionKeys(name, of: id), request)
        case (.PUT, []):
            guard FunctionCatalog.isName(name) else {
                return Pages.text(.badRequest, "\(name.prefix(128)) is not a valid function name")
            }
            return Pages.text(
                .badRequest, "Your app is currently in read only mode. Cannot create or update functions.")
        case (.DELETE, []):
            return Pages.text(.badRequest, "Your app is currently in read only mode. Cannot delete functions.")
        case (_, let rest) where rest.count == 2 && rest[0] == "keys":
            return try await key(
                request, path[2],
                all: { () async throws(FunctionsError) in try await runtime.functionKeys(name, of: id) },
                set: { (key, value) async throws(FunctionsError) in
                    try await runtime.setFunctionKey(key, to: value, function: name, of: id)
                },
                delete: { (key) async throws(FunctionsError) in
                    try await runtime.deleteFunctionKey(key, function: name, of: id)
                })
        default: return Self.unsupported()
        }
    }

    private static func metadata(_ function: FunctionDescription, _ request: Request) -> JSONValue {
        let base = "\(request.transport.scheme.rawValue)://\(request.names.authority(of: request.endpoint))"
        var json: JSONValue = [
            "name": .string(function.name), "href": .string("\(base)/admin/functions/\(function.name)"),
            "config": function.config,
            "language": .string(function.language), "isDisabled": .bool(function.isDisabled), "isDirect": false,
            "isProxy": false,
            "files": .object([:]), "test_data": "",
        ]
        json["script_root_path_href"] = .string("\(base)/admin/vfs/site/wwwroot/\(function.name)/")
        json["config_href"] = .string("\(base)/admin/vfs/site/wwwroot/\(function.name)/function.json")
        json["invoke_url_template"] = function.invokePath.map { .string("\(base)/\($0)") } ?? .null
        return json
    }

    // MARK: Keys

    private func key(
        _ request: Request, _ name: String, all: () async throws(FunctionsError) -> [AccessKey],
        set: (String, RedactedString?) async throws(FunctionsError) -> KeyChange,
        delete: (String) async throws(FunctionsError) -> Void
    ) async throws(FunctionsError) -> Response {
        switch request.method {
        case .GET:
            guard let key = try await all().first(where: { $0.name == name }) else {
                return Response(status: .notFound)
            }
            return Self.json(.ok, Self.key(key, request))
        case .POST:
            return Self.changed(try await set(name, nil), request)
        case .PUT:
            guard let body = try? await request.body.collect(upTo: Self.bodyLimitBytes),
                let value = (try? JSONValue(parsing: body.readableBytesView))?.member("value")?.stringValue,
                !value.isEmpty
            else { return Pages.text(.badRequest, "Invalid key value") }
            return Self.changed(try await set(name, RedactedString(value)), request)
        case .DELETE:
            try await delete(name)
            return Response(status: .noContent)
        default: return Response(status: .methodNotAllowed)
        }
    }

    private static func address(_ request: Request) -> String {
        "\(request.transport.scheme.rawValue)://\(request.names.authority(of: request.endpoint))\(request.rawPath)"
    }
    private static func key(_ key: AccessKey, _ request: Request) -> JSONValue {
        [
            "name": .string(key.name), "value": .string(key.value.reveal()),
            "links": [["rel": "self", "href": .string(address(request))]],
        ]
    }
    private static func list(_ keys: [AccessKey], _ request: Request) -> Response {
        json(
            .ok,
            [
                "keys": .array(keys.map { ["name": .string($0.name), "value": .string($0.value.reveal())] }),
                "links": [["rel": "self", "href": .string(address(request))]],
            ])
    }
    private static func changed(_ change: KeyChange, _ request: Request) -> Response {
        var response = json(change.isNew ? .created : .ok, key(change.key, request))
        response.headers.add(name: "Location", value: address(request))
        return response
    }

    private static func json(_ status: HTTPResponseStatus, _ value: JSONValue) -> Response {
        Response.json(status, value.serialized(), headers: ["Cache-Control": "no-store"])
    }
    private static func unsupported() -> Response {
        Pages.text(.notImplemented, "This operation of the Functions host is not supported by this server.")
    }

    static func response(for error: FunctionsError) -> Response {
        switch error.code {
        case .siteNotFound, .functionNotFound, .keyNotFound: Pages.text(.notFound, error.message)
        case .invalidKey, .masterKeyCannotBeDeleted: Pages.text(.badRequest, error.message)
        case .conflict: Pages.text(.conflict, error.message)
        case .secretStoreUnavailable, .hostNotRunning: Pages.unavailable(error.message)
        }
    }
}
