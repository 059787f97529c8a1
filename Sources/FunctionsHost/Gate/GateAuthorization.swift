internal import CofferCore
internal import HTTPEdge
internal import Logging
internal import NIOHTTP1

/// Who asks a site's host, by access key and by token: what either opens is open, as in the original.
struct GateAuthorization: Sendable, Equatable {
    var key = KeyAuthorization.none
    var token: TokenAccess?

    /// The whole of it: every function at any level, every key, every setting of the host.
    var isMaster: Bool { key == .master || token == .full }
    var administers: Bool { isMaster || token == .administration }
    var isNobody: Bool { key == .none && token == nil }

    func opens(_ level: AuthorizationLevel) -> Bool { token == .full || key.opens(level) }
}

extension GateAuthorization {
    /// `function` is the one the request is for; nil on the admin API. Throws when the keys cannot be read, and no
    /// token has shown who asks.
    static func of(
        _ request: Request, function: String?, at host: SiteHost, _ services: HostServices
    ) async throws(FunctionsError) -> GateAuthorization {
        var found = GateAuthorization()
        let key = PresentedKey.of(request)
        do throws(FunctionsError) {
            found.token = try await token(of: request, isAdministrative: function == nil, at: host, services)
        } catch {
            if key == nil { throw error }
        }
        guard let key, !found.isMaster else { return found }
        do throws(FunctionsError) {
            found.key = try await host.keys().authorize(key, function: function)
        } catch {
            guard function == nil, found.administers else { throw error }
        }
        return found
    }

    private static func token(
        of request: Request, isAdministrative: Bool, at host: SiteHost, _ services: HostServices
    ) async throws(FunctionsError) -> TokenAccess? {
        let (web, restricted) = (PresentedToken.web(request), PresentedToken.restricted(request))
        guard web != nil || restricted != nil else { return nil }
        let tokens = try await host.tokens()
        let now = services.clock.now()
        if let web {
            do throws(SiteTokens.Refusal) {
                return try tokens.access(web, now: now)
            } catch {
                // Functions are called with tokens of their own kind all the time.
                if isAdministrative {
                    services.logger.debug(
                        "a token was refused", metadata: ["site": "\(tokens.siteName)", "reason": "\(error)"])
                }
            }
        }
        guard let restricted, let key = tokens.keys.restricted,
            let end = RestrictedToken.end(of: restricted, under: key),
            now < end
        else { return nil }
        return .administration
    }
}

/// The tokens of a request.
enum PresentedToken {
    private static let siteHeader = "x-ms-site-token"
    private static let restrictedHeader = "x-ms-site-restricted-token"
    private static let scheme = "bearer "

    /// The header `x-ms-site-token` when it is there, even wrong; otherwise the bearer token.
    static func web(_ request: Request) -> RedactedString? {
        request.header(siteHeader).map { RedactedString($0) } ?? bearer(request)
    }
    static func bearer(_ request: Request) -> RedactedString? {
        guard let value = request.header("Authorization"),
            value.prefix(scheme.count).lowercased() == scheme
        else { return nil }
        return RedactedString(value.dropFirst(scheme.count).trimmed)
    }
    static func restricted(_ request: Request) -> RedactedString? {
        request.header(restrictedHeader).map { RedactedString($0) }
    }

    /// Between the platform and its host: no handler sees these.
    static let platformHeaders: Set = [siteHeader, restrictedHeader, "x-ms-platform-internal"]
}

extension Request {
    /// Without the bearer token.
    var withoutBearerToken: Request {
        var headers = headers
        headers.remove(name: "Authorization")
        return Request(
            id: id, method: method, rawPath: rawPath, rawQuery: rawQuery, headers: headers, endpoint: endpoint,
            names: names, transport: transport, body: body)
    }
}
