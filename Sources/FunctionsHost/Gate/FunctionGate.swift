internal import CofferCore
public import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// What a site's host name answers: the platform's rules, then routes, keys, quota, and the handler behind them.
public final class FunctionGate: WireService {
    private let runtime: FunctionRuntime
    private let handlers: HandlerClient
    private let admin: AdminAPI

    public init(_ runtime: FunctionRuntime) {
        self.runtime = runtime
        handlers = HandlerClient(client: runtime.services.handlers, timers: runtime.services.group)
        admin = AdminAPI(runtime: runtime)
    }

    public func respond(to request: Request) async -> Response {
        guard case .site(let name) = request.endpoint, let entry = runtime.entry(named: name) else {
            return Pages.siteNotFound()
        }
        let policy = entry.policy
        if let refusal = policy.refusal(of: request) { return refusal }
        let now = runtime.services.clock.now()
        if entry.meter.isSpent(quota: policy.site.dailyMemoryTimeQuota, now: now) {
            return Pages.quotaSpent(secondsToMidnight: UsageMeter.secondsToMidnight(from: now))
        }
        if let answer = policy.cors.preflight(request) { return answer }
        if let refusal = policy.certificateRefusal(of: request) { return refusal }
        var response = await routed(request, entry)
        policy.cors.decorate(&response, for: request)
        decorate(&response, for: request, policy.site, host: entry.host.loadedApp()?.host)
        return response
    }

    private func routed(_ request: Request, _ entry: FunctionRuntime.Entry) async -> Response {
        guard let path = request.pathSegments else { return Pages.text(.badRequest, "The path is malformed.") }
        switch path.first?.lowercased() {
        case "admin":
            return await awayFromEventLoop { await admin.respond(to: request, path: Array(path.dropFirst()), entry) }
        case "runtime" where path.count >= 2 && path[1].lowercased() == "webhooks":
            return await awayFromEventLoop { await admin.webhook(request, path: Array(path.dropFirst(2)), entry) }
        default: break
        }
        let app: RunningApp
        do throws(HostFailure) {
            app = try await entry.host.app()
        } catch { return Pages.unavailable(error.message) }
        if let match = app.catalog.match(method: request.method.rawValue, path: path) {
            return await call(match.function, match.parameters, request, app, entry)
        }
        guard path.isEmpty, [.GET, .HEAD].contains(request.method) else { return Response(status: .notFound) }
        if app.settings.value("AzureWebJobsDisableHomepage")?.reveal().lowercased() == "true" {
            return Response(status: .noContent)
        }
        var home = Pages.home(entry.policy.site.name)
        if request.method == .HEAD, case .bytes(let page) = home.body {
            home.body = .omitted(length: page.readableBytes)
        }
        return home
    }

    // MARK: Functions

    private func call(
        _ function: Function, _ parameters: [String: String?], _ request: Request, _ app: RunningApp,
        _ entry: FunctionRuntime.Entry
    ) async -> Response {
        guard let trigger = function.trigger else { return Response(status: .notFound) }
        var authorization = KeyAuthorization.none
        if trigger.level != .anonymous || function.isDisabled {
            if let key = PresentedKey.of(request) {
                do throws(FunctionsError) {
                    authorization = try await entry.host.keys().authorize(key, function: function.name)
                } catch { return Pages.unavailable(error.message) }
            }
            guard authorization.opens(trigger.level) else { return Response(status: .unauthorized) }
        }
        guard !function.isDisabled || authorization == .master else { return Response(status: .notFound) }
        return await invoke(function, trigger, parameters, request, app, entry)
    }

    /// Authorized: takes a worker and runs it.
    func invoke(
        _ function: Function, _ trigger: Function.HTTPTrigger, _ parameters: [String: String?], _ request: Request,
        _ app: RunningApp,
        _ entry: FunctionRuntime.Entry
    ) async -> Response {
        guard let worker = app.worker, let host = app.host, let handler = host.customHandler else {
            return Pages.unavailable(app.workerMissing ?? "The app has no handler.")
        }
        let limit = Self.bodyLimit(app)
        guard (request.body.declaredLength ?? 0) <= limit else {
            return Pages.text(.payloadTooLarge, "The request body is larger than \(limit) bytes.")
        }
        let most = runtime.services.configuration.concurrentRequestsPerSite
        let asked = host.maxConcurrentRequests > 0 ? host.maxConcurrentRequests : most
        let acquired: Int?
        do throws(WorkerUnavailable) {
            acquired = try await worker.acquire(limit: min(asked, most))
        } catch { return Pages.unavailable(error.message, retryAfterSeconds: error.retryAfterSeconds) }
        guard let port = acquired else {
            return Response(status: .tooManyRequests, headers: ["X-FUNCTION-SCALEOUT": "1", "Retry-After": "1"])
        }
        let invocation = Invocation(function: function, entry: entry, worker: worker, services: runtime.services)
        let release = Once { invocation.finish() }
        let times = CallTimes(
            silence: runtime.services.configuration.requestTimeoutSeconds, whole: host.functionTimeoutSeconds)
        do throws(HandlerClient.Failure) {
            if handler.forwardsRequests && trigger.isPlain {
                return try await handlers.forward(
                    request, port: port, invocationID: invocation.id, bodyLimitBytes: limit, times: times,
                    cutOff: { invocation.log(.error, "The handler did not end its answer in time; it was cut off.") },
                    release: { release.run() })
            }
            defer { release.run() }
            // A payload is JSON around the whole body.
            return try await awayFromEventLoop { () async throws(HandlerClient.Failure) in
                try await exchange(
                    function, trigger, parameters, request, port: port, invocation, bodyLimit: limit,
                    timeout: times.tillAnswer)
            }
        } catch {
            release.run()
            return Self.failed(error, limit: limit, timeout: times.tillAnswer)
        }
    }

    private func exchange(
        _ function: Function, _ trigger: Function.HTTPTrigger, _ parameters: [String: String?], _ request: Request,
        port: Int,
        _ invocation: Invocation, bodyLimit: Int, timeout: Int64
    ) async throws(HandlerClient.Failure) -> Response {
        let body: ByteBuffer
        do {
            body = try await request.body.collect(upTo: bodyLimit)
        } catch EdgeError.bodyTooLarge {
            throw .init(reason: .bodyTooLarge)
        } catch {
            throw .init(reason: .clientWentAway)
        }
        let target = request.rawPath + (request.rawQuery.isEmpty ? "" : "?" + request.rawQuery)
        let url =
            request.transport.scheme.rawValue + "://"
            + (request.header("Host") ?? request.names.authority(of: request.endpoint)) + target
        let payload = InvocationPayload.request(
            request, url: url, body: body, function: function, trigger: trigger, parameters: parameters,
            now: runtime.services.clock.now(), invocationID: invocation.id)
        let answer = try await handlers.invoke(
            payload, function: function.name, port: port, invocationID: invocation.id, timeoutSeconds: timeout)
        do throws(InvocationPayload.Malformed) {
            let result = try InvocationPayload.answer(
                status: answer.status, contentType: answer.contentType, body: answer.body, trigger: trigger)
            for line in result.logs { invocation.log(.information, line) }
            return result.response
        } catch {
            invocation.log(.error, error.message)
            return Response(status: .internalServerError)
        }
    }

    private static func failed(_ failure: HandlerClient.Failure, limit: Int, timeout: Int64) -> Response {
        switch failure.reason {
        case .timedOut: Pages.text(.gatewayTimeout, "The function did not answer within \(timeout) seconds.")
        case .bodyTooLarge: Pages.text(.payloadTooLarge, "The request body is larger than \(limit) bytes.")
        case .clientWentAway: Pages.text(.badRequest, "The request body ended early.")
        case .broken: Pages.text(.badGateway, "The function's handler broke the connection.")
        }
    }

    /// `FUNCTIONS_REQUEST_BODY_SIZE_LIMIT`, by default 100 MiB.
    private static func bodyLimit(_ app: RunningApp) -> Int {
        let standard = 104_857_600
        guard let text = app.settings.value("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT")?.reveal(), let limit = Int(text),
            limit > 0
        else {
            return standard
        }
        return limit
    }

    private func decorate(_ response: inout Response, for request: Request, _ site: Site, host: HostConfiguration?) {
        for (name, value) in host?.customHeaders ?? [:] where !response.headers.contains(name: name) {
            response.headers.add(name: name, value: value)
        }
        guard request.transport.scheme == .https, !response.headers.contains(name: "Strict-Transport-Security") else {
            return
        }
        let authority = request.names.authority(of: request.endpoint)
        if let hsts = host?.hsts {
            if !hsts.excludedHosts.contains(where: { authority.hasPrefix($0) }) {
                response.headers.add(name: "Strict-Transport-Security", value: hsts.value)
            }
        } else if site.httpsOnly {
            response.headers.add(name: "Strict-Transport-Security", value: "max-age=31536000")
        }
    }
}

/// One call of a function: its identifier, its time, and what is told about it when it is over.
struct Invocation: Sendable {
    let id: String
    private let function: Function
    private let entry: FunctionRuntime.Entry
    private let worker: Worker
    private let services: HostServices
    private let started = NIODeadline.now()

    init(function: Function, entry: FunctionRuntime.Entry, worker: Worker, services: HostServices) {
        id = services.randomness.uuidString()
        self.function = function
        self.entry = entry
        self.worker = worker
        self.services = services
    }

    /// Called exactly once.
    func finish() {
        let duration = NIODeadline.now() - started
        let worker = worker
        entry.meter.record(milliseconds: duration.nanoseconds / 1_000_000, now: services.clock.now()) {
            worker.residentBytes()
        }
        worker.release()
        log(
            .information,
            "Executed 'Functions.\(function.name)' (Id=\(id), Duration=\(duration.nanoseconds / 1_000_000)ms)")
    }

    func log(_ level: FunctionLogEntry.Level, _ message: String) {
        services.logs.write(
            FunctionLogEntry(
                time: services.clock.now(), site: entry.policy.site.id, functionName: function.name, invocationID: id,
                level: level,
                category: "Function.\(function.name)",
                message: String(message.prefix(FunctionLogEntry.messageLimitBytes / 4))))
    }
}
