internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// From an authorized call of a function to its handler and back.
struct FunctionInvoker: Sendable {
    private let services: HostServices
    private let handlers: HandlerClient

    init(_ services: HostServices) {
        self.services = services
        handlers = HandlerClient(client: services.handlers, timers: services.group)
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
        let most = services.configuration.concurrentRequestsPerSite
        let asked = host.maxConcurrentRequests > 0 ? host.maxConcurrentRequests : most
        let acquired: Int?
        do throws(WorkerUnavailable) {
            acquired = try await worker.acquire(limit: min(asked, most))
        } catch { return Pages.unavailable(error.message, retryAfterSeconds: error.retryAfterSeconds) }
        guard let port = acquired else {
            return Response(status: .tooManyRequests, headers: ["X-FUNCTION-SCALEOUT": "1", "Retry-After": "1"])
        }
        let invocation = Invocation(function: function, entry: entry, worker: worker, services: services)
        let release = Once { invocation.finish() }
        let times = CallTimes(
            silence: services.configuration.requestTimeoutSeconds, whole: host.functionTimeoutSeconds)
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
            now: services.clock.now(), invocationID: invocation.id)
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
                category: "Function.\(function.name)", message: message))
    }
}
