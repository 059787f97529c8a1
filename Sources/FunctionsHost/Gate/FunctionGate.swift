internal import CofferCore
public import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// What a site's host name answers: the platform's rules, then routes, keys, quota, and the handler behind them.
public final class FunctionGate: WireService {
    private let runtime: FunctionRuntime
    private let invoker: FunctionInvoker
    private let admin: AdminAPI

    public init(_ runtime: FunctionRuntime) {
        self.runtime = runtime
        invoker = FunctionInvoker(runtime.services)
        admin = AdminAPI(runtime)
    }

    public func respond(to request: Request) async -> Response {
        guard case .site(let name) = request.endpoint else { return Pages.siteNotFound() }
        guard let entry = runtime.entry(named: name) else { return runtime.noSite(named: name) }
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
        var request = request
        if trigger.level != .anonymous || function.isDisabled {
            let authorization: GateAuthorization
            do throws(FunctionsError) {
                authorization = try await GateAuthorization.of(
                    request, function: function.name, at: entry.host, runtime.services)
            } catch { return Pages.unavailable(error.message) }
            guard authorization.opens(trigger.level) else { return Response(status: .unauthorized) }
            guard !function.isDisabled || authorization.isMaster else { return Response(status: .notFound) }
        }
        if let token = PresentedToken.bearer(request), await isOfPlatform(token, entry) {
            request = request.withoutBearerToken
        }
        return await invoker.invoke(function, trigger, parameters, request, app, entry)
    }

    /// Whether a token may be one for the site's host, ended or not: it would open the host for the handler as well.
    /// Unknown means yes.
    private func isOfPlatform(_ token: RedactedString, _ entry: FunctionRuntime.Entry) async -> Bool {
        do throws(FunctionsError) { return try await entry.host.tokens().mayVouch(for: token) } catch { return true }
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
