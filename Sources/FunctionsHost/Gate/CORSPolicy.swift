internal import HTTPEdge
internal import NIOHTTP1

/// The platform's CORS: in force as soon as one origin is allowed; the app is then not asked (App Service, "CORS").
struct CORSPolicy: Sendable {
    private let settings: CORSSettings
    init(_ settings: CORSSettings) { self.settings = settings }

    var isActive: Bool { !settings.allowedOrigins.isEmpty }

    /// The answer to a preflight (Fetch standard §3.2.2); nil when the request is none. An origin that is not allowed
    /// gets no CORS headers.
    func preflight(_ request: Request) -> Response? {
        guard isActive, request.method == .OPTIONS, let origin = request.header("Origin"),
            let method = request.header("Access-Control-Request-Method")
        else { return nil }
        var response = Response(status: .noContent)
        guard let allowed = allowedOrigin(origin) else { return Response(status: .ok) }
        add(allowed, to: &response.headers)
        if HeaderText.isName(method) { response.headers.add(name: "Access-Control-Allow-Methods", value: method) }
        if let headers = request.header("Access-Control-Request-Headers"), HeaderText.isValue(headers) {
            response.headers.add(name: "Access-Control-Allow-Headers", value: headers)
        }
        response.headers.add(name: "Access-Control-Max-Age", value: "86400")
        return response
    }

    /// Puts the headers on an answer and takes the app's own ones off.
    func decorate(_ response: inout Response, for request: Request) {
        guard isActive else { return }
        for name in ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"] {
            response.headers.remove(name: name)
        }
        guard let origin = request.header("Origin"), let allowed = allowedOrigin(origin) else { return }
        add(allowed, to: &response.headers)
    }

    private func allowedOrigin(_ origin: String) -> String? {
        if settings.allowedOrigins.contains("*") { return "*" }
        return settings.allowedOrigins.contains(origin) ? origin : nil
    }
    private func add(_ allowed: String, to headers: inout HTTPHeaders) {
        headers.replaceOrAdd(name: "Access-Control-Allow-Origin", value: allowed)
        if allowed != "*" { headers.add(name: "Vary", value: "Origin") }
        if settings.supportCredentials { headers.replaceOrAdd(name: "Access-Control-Allow-Credentials", value: "true") }
    }
}
