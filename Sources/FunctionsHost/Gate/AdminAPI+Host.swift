internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization

/// `/admin/host`.
extension AdminAPI {
    func host(_ request: Request, _ path: [String], _ entry: FunctionRuntime.Entry) async throws(FunctionsError)
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
        case (.GET, ["ping"]), (.POST, ["ping"]): return Self.ping
        case (.POST, ["drain"]):
            try await app(entry).isDraining.store(true, ordering: .releasing)
            return Response(status: .accepted)
        case (.GET, ["drain", "status"]): return Self.json(.ok, Self.drainStatus(try await app(entry)))
        case (.POST, ["resume"]): return try await resume(entry)
        case (.POST, ["log"]): return try await log(request, entry)
        case (.GET, ["config"]): return Self.json(.ok, Self.configuration(of: try await app(entry)))
        default: return try await hostKey(request, path, id)
        }
    }

    private func hostKey(_ request: Request, _ path: [String], _ id: ResourceID) async throws(FunctionsError)
        -> Response
    {
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

    static func status(_ status: HostStatus) -> JSONValue {
        var json: JSONValue = [
            "id": .string(status.id), "state": .string(status.state.rawValue), "version": .string(status.version),
            "versionDetails": .string(status.version), "instanceId": .string(status.instanceID),
            "processUptime": .integer(status.processUptimeMilliseconds),
        ]
        if !status.errors.isEmpty { json["errors"] = .array(status.errors.map { .string($0) }) }
        return json
    }

    // MARK: Draining

    /// No listener stands here that draining would stop: calls over HTTP go on, as they do in the original.
    private static func drainStatus(_ app: RunningApp) -> JSONValue {
        let calls = app.worker?.callers ?? 0
        let state =
            !app.isDraining.load(ordering: .acquiring) ? "Disabled" : calls == 0 ? "Completed" : "InProgress"
        return ["state": .string(state), "outstandingInvocations": .integer(Int64(calls)), "outstandingRetries": 0]
    }

    /// A host that drains starts anew; one that is not up has nothing to go on with.
    private func resume(_ entry: FunctionRuntime.Entry) async throws(FunctionsError) -> Response {
        guard entry.policy.site.state == .running, let app = entry.host.loadedApp() else {
            return Response(status: .conflict)
        }
        if app.isDraining.load(ordering: .acquiring) { try await runtime.restart(entry.policy.site.id) }
        let state = await entry.host.status().state
        return Self.json(state == .running ? .ok : .conflict, ["state": .string(state.rawValue)])
    }

    // MARK: Log and configuration

    private static let logCategory = "Host.Controllers.Host"
    private static let functionNameBytes = 128

    private func log(_ request: Request, _ entry: FunctionRuntime.Entry) async throws(FunctionsError) -> Response {
        let now = runtime.services.clock.now()
        var lines: [FunctionLogEntry] = []
        guard let entries = try await Self.body(of: request)?.arrayValue else {
            return Pages.text(.badRequest, "An array of log entry objects is expected.")
        }
        for line in entries {
            guard let message = line.member("message")?.stringValue, let level = Self.level(of: line) else {
                return Pages.text(.badRequest, "A log entry has a level and a message.")
            }
            guard case .kept(let level) = level else { continue }
            lines.append(
                FunctionLogEntry(
                    time: now, site: entry.policy.site.id,
                    functionName: line.member("functionName")?.stringValue?.cut(Self.functionNameBytes),
                    level: level, category: Self.logCategory, message: message))
        }
        guard lines.count <= FunctionLogEntry.linesPerSecond else {
            return Pages.text(
                .payloadTooLarge, "A request brings at most \(FunctionLogEntry.linesPerSecond) lines; none was kept.")
        }
        guard entry.host.logAllowance.withLock({ $0.take(lines.count, now: .now()) }) else {
            var refusal = Pages.text(
                .tooManyRequests,
                "An app logs at most \(FunctionLogEntry.linesPerSecond) lines a second; none of these was kept.")
            refusal.headers.add(name: "Retry-After", value: "1")
            return refusal
        }
        for line in lines { runtime.services.logs.write(line) }
        return Response(status: .ok)
    }

    private enum Level {
        case kept(FunctionLogEntry.Level)
        /// Below what a function app's logs hold.
        case dropped
    }
    /// .NET's `TraceLevel`, by name or by number; nil for anything else.
    private static func level(of line: JSONValue) -> Level? {
        guard let level = line.member("level") else { return nil }
        switch level.stringValue?.lowercased() ?? level.intValue.map({ String($0) }) {
        case "error", "1": return .kept(.error)
        case "warning", "2": return .kept(.warning)
        case "info", "3": return .kept(.information)
        case "off", "0", "verbose", "4": return .dropped
        default: return nil
        }
    }

    /// The options in force that have a meaning here.
    private static func configuration(of app: RunningApp) -> JSONValue {
        var http: JSONValue = ["routePrefix": .string(app.catalog.routePrefix)]
        if let host = app.host {
            http["maxConcurrentRequests"] = .integer(Int64(host.maxConcurrentRequests))
            http["customHeaders"] = .object(host.customHeaders.mapValues { .string($0) })
        }
        return ["extensions": ["http": http]]
    }
}
