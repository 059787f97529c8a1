internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// The host's REST API below `/admin` (Azure Functions host): status, keys, functions, files. The master key opens it,
/// and a token of the platform; any other valid key gets 403, none or an unknown one 401.
struct AdminAPI: Sendable {
    let runtime: FunctionRuntime
    let invoker: FunctionInvoker
    /// Of what a request brings.
    static let bodyLimitBytes = 64 << 10

    init(_ runtime: FunctionRuntime) {
        self.runtime = runtime
        invoker = FunctionInvoker(runtime.services)
    }

    /// Answers a request from outside.
    func respond(to request: Request, path: [String], _ entry: FunctionRuntime.Entry) async -> Response {
        let folded = path.map { $0.lowercased() }
        if folded == ["host", "ping"], [.GET, .POST].contains(request.method) { return Self.ping }
        let authorization: GateAuthorization
        do throws(FunctionsError) {
            authorization = try await authorize(request, entry)
        } catch { return Self.response(for: error) }
        guard !authorization.isNobody else { return Response(status: .unauthorized) }
        // Whoever comes this way comes from outside, whatever `x-ms-platform-internal` says: the front end, whose word
        // that header is, is this gate.
        guard authorization.administers, !(await entry.host.isAdminIsolated()) else {
            return Response(status: folded.first == "vfs" ? .unauthorized : .forbidden)
        }
        do throws(FunctionsError) {
            return try await answer(request, path: path, entry, mayRun: authorization.isMaster)
        } catch { return Self.response(for: error) }
    }

    /// Answers whoever was let in. `mayRun`: also runs functions.
    func answer(
        _ request: Request, path: [String], _ entry: FunctionRuntime.Entry, mayRun: Bool
    ) async throws(FunctionsError) -> Response {
        let rest = Array(path.dropFirst())
        switch path.first?.lowercased() {
        case "host": return try await host(request, rest, entry)
        case "functions": return try await functions(request, rest, entry, mayRun: mayRun)
        case "vfs": return try await files(request, rest, entry)
        default: return Self.unsupported()
        }
    }

    /// `/runtime/webhooks/EXTENSION`: no extension exists here, so whoever is let in finds nothing.
    func webhook(_ request: Request, path: [String], _ entry: FunctionRuntime.Entry) async -> Response {
        let name = (path.first?.lowercased() ?? "") + "_extension"
        let authorization: GateAuthorization
        do throws(FunctionsError) {
            authorization = try await authorize(request, entry)
        } catch { return Self.response(for: error) }
        if authorization.administers { return Response(status: .notFound) }
        switch authorization.key {
        case .system(let key): return Response(status: key.lowercased() == name ? .notFound : .forbidden)
        case .hostFunction, .master: return Response(status: .forbidden)
        case .function, .none: return Response(status: .unauthorized)
        }
    }

    private func authorize(_ request: Request, _ entry: FunctionRuntime.Entry) async throws(FunctionsError)
        -> GateAuthorization
    {
        try await GateAuthorization.of(request, function: nil, at: entry.host, runtime.services)
    }

    /// The app of a host that runs; loads it if need be. One that is stopped is not loaded for this.
    func app(_ entry: FunctionRuntime.Entry) async throws(FunctionsError) -> RunningApp {
        guard entry.policy.site.state == .running else { throw FunctionsError(.hostNotRunning, "The app is stopped.") }
        do throws(HostFailure) {
            return try await entry.host.app()
        } catch { throw FunctionsError(.hostNotRunning, error.message) }
    }

    /// nil when the body is no JSON, or ends early. Throws `.bodyTooLarge`.
    static func body(of request: Request) async throws(FunctionsError) -> JSONValue? {
        let bytes: ByteBuffer
        do {
            bytes = try await request.body.collect(upTo: bodyLimitBytes)
        } catch EdgeError.bodyTooLarge {
            throw FunctionsError(.bodyTooLarge, "The request body is larger than \(bodyLimitBytes) bytes.")
        } catch { return nil }
        return try? JSONValue(parsing: bytes.readableBytesView)
    }

    static let ping = Response(status: .ok, headers: ["Cache-Control": "no-store, no-cache"])

    static func json(_ status: HTTPResponseStatus, _ value: JSONValue) -> Response {
        Response.json(status, value.serialized(), headers: ["Cache-Control": "no-store"])
    }
    static func unsupported() -> Response {
        Pages.text(.notImplemented, "This operation of the Functions host is not supported by this server.")
    }

    static func response(for error: FunctionsError) -> Response {
        switch error.code {
        case .siteNotFound, .functionNotFound, .keyNotFound: Pages.text(.notFound, error.message)
        case .invalidKey, .masterKeyCannotBeDeleted: Pages.text(.badRequest, error.message)
        case .bodyTooLarge: Pages.text(.payloadTooLarge, error.message)
        case .conflict: Pages.text(.conflict, error.message)
        case .secretStoreUnavailable, .hostNotRunning: Pages.unavailable(error.message)
        }
    }
}
