internal import CofferCore
internal import Foundation
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// `/admin/functions`.
extension AdminAPI {
    func functions(
        _ request: Request, _ path: [String], _ entry: FunctionRuntime.Entry, mayRun: Bool
    ) async throws(FunctionsError) -> Response {
        let id = entry.policy.site.id
        guard let name = path.first else {
            guard request.method == .GET else { return Response(status: .methodNotAllowed) }
            let all = try await runtime.functions(of: id)
            return Self.json(.ok, .array(all.map { Self.metadata($0, request) }))
        }
        if request.method == .GET, path.count == 1, name.lowercased() == "download" {
            return try await download(request, entry)
        }
        switch (request.method, path.dropFirst().map { $0.lowercased() }) {
        case (.GET, []): return Self.json(.ok, Self.metadata(try await runtime.function(name, of: id), request))
        case (.GET, ["status"]):
            let errors = try await runtime.function(name, of: id).errors
            return Self.json(.ok, errors.isEmpty ? [:] : ["errors": .array(errors.map { .string($0) })])
        case (.GET, ["keys"]): return Self.list(try await runtime.functionKeys(name, of: id), request)
        case (.POST, []):
            return mayRun ? try await run(name, request, entry) : Response(status: .forbidden)
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

    static func metadata(_ function: FunctionDescription, _ request: Request) -> JSONValue {
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

    // MARK: Running

    /// Answers at once; the run goes on by itself, and its end is in the function's log.
    private func run(_ name: String, _ request: Request, _ entry: FunctionRuntime.Entry) async throws(FunctionsError)
        -> Response
    {
        let site = entry.policy.site
        let now = runtime.services.clock.now()
        guard !entry.meter.isSpent(quota: site.dailyMemoryTimeQuota, now: now) else {
            throw FunctionsError(.hostNotRunning, "The daily usage quota of this function app is spent.")
        }
        // Who comes over Resource Manager has not passed the gate; a stopped app is refused here.
        let app = try await app(entry)
        guard let function = app.catalog.function(name) else {
            throw FunctionsError(.functionNotFound, "The function '\(name)' was not found in the package.")
        }
        guard function.errors.isEmpty, let trigger = function.trigger else {
            throw FunctionsError(
                .functionNotFound,
                "The function '\(function.name)' is in error: " + function.errors.joined(separator: " "))
        }
        guard app.worker != nil else {
            throw FunctionsError(.hostNotRunning, app.workerMissing ?? "The app has no handler.")
        }
        guard let body = try await Self.body(of: request), body.objectValue != nil,
            let input = Self.input(of: body)
        else { return Pages.text(.badRequest, "The body is a JSON object; its member 'input' is a string.") }
        guard let (call, parameters) = Self.call(trigger, input, app, request) else {
            return Pages.text(
                .badRequest, "The function's route has parameters: call its URL, which says what they are.")
        }
        let (invoker, logs) = (invoker, runtime.services.logs)
        Task.detached {
            let answer = await invoker.invoke(function, trigger, parameters, call, app, entry)
            // What is not read is not over.
            if case .stream(_, let write) = answer.body { try? await write(Nowhere()) }
            guard answer.status.code >= 400 else { return }
            logs.write(
                FunctionLogEntry(
                    time: now, site: site.id, functionName: function.name, level: .error,
                    category: "Function.\(function.name)",
                    message: "A run of '\(function.name)' from the admin API ended with \(answer.status.code)."))
        }
        return Response(status: .accepted)
    }

    /// Empty when there is none; nil when it is no text.
    private static func input(of body: JSONValue) -> String? {
        guard let input = body.member("input"), !input.isNull else { return "" }
        return input.stringValue
    }

    /// The request that the function would have got: its input is the body. nil when the route wants more than
    /// literals.
    private static func call(
        _ trigger: Function.HTTPTrigger, _ input: String, _ app: RunningApp, _ request: Request
    ) -> (Request, parameters: [String: String?])? {
        var path: [String] = []
        for segment in trigger.route.segments { if case .literal(let text) = segment { path.append(text) } }
        guard let parameters = trigger.route.match(path) else { return nil }
        let segments = app.catalog.routePrefix.split(separator: "/").map { String($0) } + path
        let target = segments.map { "/" + Self.escaped($0) }
        let takesPost = trigger.methods.isEmpty || trigger.methods.contains("POST")
        let isJSON = (try? JSONValue(parsing: Array(input.utf8))) != nil
        let headers: HTTPHeaders = [
            "Host": request.names.authority(of: request.endpoint), "Content-Length": String(input.utf8.count),
            "Content-Type": isJSON ? "application/json" : "text/plain; charset=utf-8",
        ]
        let call = Request(
            id: request.id, method: takesPost ? .POST : HTTPMethod(rawValue: trigger.methods[0]),
            rawPath: target.joined(), rawQuery: "", headers: headers, endpoint: request.endpoint, names: request.names,
            transport: request.transport, body: .bytes(ByteBuffer(string: input)))
        return (call, parameters)
    }

    /// RFC 3986 §2.3: all but the unreserved characters is escaped.
    static func escaped(_ segment: String) -> String {
        let unreserved = CharacterSet(
            charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
        return segment.addingPercentEncoding(withAllowedCharacters: unreserved) ?? segment
    }

    private struct Nowhere: ResponseBodyWriter {
        func write(_ bytes: ByteBuffer) async throws {}
    }
}
