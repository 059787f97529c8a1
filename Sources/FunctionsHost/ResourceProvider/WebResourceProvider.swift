public import AccessControl
public import CofferCore
public import Logging
public import ResourceProviders

/// `Microsoft.Web`: the control plane of plans and function apps.
///
/// Each operation authorizes its caller first, with the operation's own Azure action at the resource's scope. What is
/// not in the route table answers 501 and stands in docs/compatibility.md.
public final class WebResourceProvider: ResourceProvider {
    let sites: SiteStore
    let runtime: FunctionRuntime
    let access: AccessController
    let identities: any ManagedIdentities
    let clock: any WallClock
    let randomness: any Randomness
    let log: Logger
    /// For what makes or removes the identity of a site.
    let identityTurnstile = Turnstile()

    public init(
        sites: SiteStore, runtime: FunctionRuntime, access: AccessController, identities: any ManagedIdentities,
        clock: any WallClock, randomness: any Randomness, log: Logger
    ) {
        self.sites = sites
        self.runtime = runtime
        self.access = access
        self.identities = identities
        self.clock = clock
        self.randomness = randomness
        self.log = log
    }

    public let namespace = "Microsoft.Web"
    public var resourceTypes: [ResourceTypeDescription] {
        [
            "sites", "sites/config", "sites/functions", "sites/host", "sites/hostNameBindings",
            "sites/basicPublishingCredentialsPolicies", "serverFarms", "geoRegions", "functionAppStacks",
            "publishingUsers", "checkNameAvailability",
        ].map {
            ResourceTypeDescription(
                $0, apiVersions: ["2025-05-01", "2024-11-01", "2024-04-01", "2023-12-01", "2022-03-01"])
        }
    }

    public func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        guard let (route, parameters) = WebRoutes.match(request) else {
            throw .notImplemented("\(request.method.rawValue) \(request.path.resourceType ?? "Microsoft.Web")")
        }
        let operation = WebOperation(provider: self, request: request, caller: caller, parameters: parameters)
        return try await route.perform(operation)()
    }

    public func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] {
        let plans = sites.plans().filter { scope.contains($0.id) }.map {
            TrackedResource(
                id: $0.id, type: "Microsoft.Web/serverFarms", location: $0.location, kind: $0.kind, tags: $0.tags)
        }
        let apps = sites.sites().filter { scope.contains($0.id) }.map {
            TrackedResource(id: $0.id, type: "Microsoft.Web/sites", location: $0.location, kind: $0.kind, tags: $0.tags)
        }
        // Sites first: a plan with sites in it cannot be deleted.
        return apps + plans
    }

    /// Nobody knows in which group a site lies whose record does not open; a plan's row tells its own. Which site it
    /// is, the log says: who may delete a group need not learn of another's.
    public func requireAllTracked(below scope: ResourceID) async throws(ControlError) {
        guard sites.damagedSite != nil || sites.hasDamagedPlan(below: scope) else { return }
        throw Self.damaged("The records of a function app or plan do not open, and it may lie in the group.")
    }

    fileprivate static func damaged(_ what: String) -> ControlError {
        ControlError(
            status: 500, code: "InternalServerError",
            message: "\(what) 'coffer verify' tells what is damaged; restore the data folder from a copy.")
    }

    public func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        let request = ControlRequest(
            method: .delete, path: id, query: [:], apiVersion: "2025-05-01", body: nil, names: .azurePublic)
        _ = try await respond(to: request, as: caller)
    }
}

/// One request on its way through an operation.
struct WebOperation: Sendable {
    let provider: WebResourceProvider
    let request: ControlRequest
    let caller: Caller
    /// What stood in the route's `{…}` places, in the caller's spelling.
    let parameters: [String: String]

    var sites: SiteStore { provider.sites }
    var runtime: FunctionRuntime { provider.runtime }
    /// `properties` of the body; a body without the envelope counts as its properties.
    var properties: JSONValue { request.body?.member("properties") ?? request.body ?? [:] }

    /// Throws 403 unless the roles grant `Microsoft.Web/{action}`.
    func require(_ action: String, at scope: ResourceID) throws(ControlError) {
        let action = Action.control("Microsoft.Web/" + action)
        guard provider.access.decide(caller, action, at: scope).isAllowed else {
            throw .authorizationFailed(caller, action, scope)
        }
    }
    /// 404, or 500 for a site or plan that is there and cannot be read.
    func noResource(_ id: ResourceID) -> ControlError {
        do throws(ControlError) { try requireReadable(id) } catch { return error }
        return .resourceNotFound(id)
    }
    /// Before what would otherwise take a site or plan that cannot be read for none.
    func requireReadable(_ id: ResourceID) throws(ControlError) {
        let isPlan = id.resourceType?.lowercased() == "microsoft.web/serverfarms"
        guard isPlan ? sites.isDamaged(plan: id) : sites.isDamaged(site: id.name) else { return }
        throw WebResourceProvider.damaged("The records of '\(id.name)' do not open.")
    }
    func isAllowed(_ action: String, at scope: ResourceID) -> Bool {
        provider.access.decide(caller, .control("Microsoft.Web/" + action), at: scope).isAllowed
    }

    /// `/subscriptions/…/providers/Microsoft.Web/sites/NAME` of a path at or below a site.
    var siteID: ResourceID { ResourceID(segments: Array(request.path.segments.prefix(8))) }

    /// The site a path names; the caller needs `action` on it. Access is checked before existence, so that names do not
    /// leak.
    func site(for action: String) throws(ControlError) -> Site {
        try require(action, at: siteID)
        guard let site = sites.site(siteID) else { throw noResource(siteID) }
        return site
    }

    /// Changes the site in one step and maps the store's refusals.
    func update(_ change: @escaping @Sendable (inout Site) throws -> Void) async throws(ControlError) -> Site {
        let now = provider.clock.now()
        do {
            return try await sites.update(siteID) { site in
                try change(&site)
                site.lastModified = now
            }
        } catch {
            throw Self.control(error, siteID)
        }
    }

    static func control(_ error: any Error, _ id: ResourceID) -> ControlError {
        switch error {
        case let error as ControlError: return error
        case let error as SiteConfigError: return .badRequest(error.description)
        case SiteStoreError.notFound: return .resourceNotFound(id)
        case SiteStoreError.damaged(let id):
            return WebResourceProvider.damaged("The records of '\(id.name)' do not open.")
        case let error as SiteStoreError: return ControlError(status: 409, code: "Conflict", message: error.description)
        case let error as FunctionsError: return control(error)
        default:
            return ControlError(
                status: 503, code: "ServiceUnavailable", message: "The store is not available; try again.")
        }
    }

    static func control(_ error: FunctionsError) -> ControlError {
        switch error.code {
        case .siteNotFound, .functionNotFound, .keyNotFound:
            ControlError(status: 404, code: "NotFound", message: error.message)
        case .invalidKey, .masterKeyCannotBeDeleted: .badRequest(error.message)
        case .bodyTooLarge: ControlError(status: 413, code: "RequestEntityTooLarge", message: error.message)
        case .conflict: ControlError(status: 409, code: "Conflict", message: error.message)
        // 400, not 5xx: the answer is definite, and clients repeat a 5xx for minutes.
        case .secretStoreUnavailable, .hostNotRunning: .badRequest(error.message, code: "BadRequest")
        }
    }

    func running<Value: Sendable>(
        _ body: () async throws(FunctionsError) -> Value
    ) async throws(ControlError) -> Value {
        do { return try await body() } catch { throw Self.control(error) }
    }
}
