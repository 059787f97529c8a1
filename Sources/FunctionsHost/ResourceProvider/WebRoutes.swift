import CofferCore
import ResourceProviders

/// The route table of `Microsoft.Web`: method and path below the namespace, and the operation.
enum WebRoutes {
    /// An operation, as an unapplied method.
    typealias Perform = @Sendable (WebOperation) -> () async throws(ControlError) -> ControlResponse

    struct Route: Sendable {
        let method: ControlRequest.Method
        let pattern: [Substring]
        /// Where the path must hang: at a resource group, or anywhere above.
        let needsGroup: Bool
        let perform: Perform

        /// `*` at the end stands for one segment and all that follow.
        func hasLength(of path: [String]) -> Bool {
            pattern.last == "*" ? path.count >= pattern.count : path.count == pattern.count
        }
    }

    private static func route(
        _ method: ControlRequest.Method, _ pattern: String, needsGroup: Bool = true,
        _ perform: @escaping Perform
    ) -> Route {
        Route(method: method, pattern: pattern.split(separator: "/"), needsGroup: needsGroup, perform: perform)
    }

    static let table: [Route] = catalog + plans + siteLife + siteConfiguration + keys + hostRuntime

    private static let catalog: [Route] = [
        route(.get, "georegions", needsGroup: false, WebOperation.listGeoRegions),
        route(.get, "functionappstacks", needsGroup: false, WebOperation.listFunctionAppStacks),
        route(.get, "webappstacks", needsGroup: false, WebOperation.listWebAppStacks),
        route(.post, "checknameavailability", needsGroup: false, WebOperation.checkNameAvailability),
    ]
    private static let plans: [Route] = [
        route(.get, "serverfarms", needsGroup: false, WebOperation.listPlans),
        route(.get, "serverfarms/{plan}", WebOperation.getPlan),
        route(.put, "serverfarms/{plan}", WebOperation.putPlan),
        route(.patch, "serverfarms/{plan}", WebOperation.putPlan),
        route(.delete, "serverfarms/{plan}", WebOperation.deletePlan),
        route(.get, "serverfarms/{plan}/sites", WebOperation.listSitesOfPlan),
    ]
    private static let siteLife: [Route] = [
        route(.get, "sites", needsGroup: false, WebOperation.listSites),
        route(.get, "sites/{site}", WebOperation.getSite),
        route(.head, "sites/{site}", WebOperation.getSite),
        route(.put, "sites/{site}", WebOperation.putSite),
        route(.patch, "sites/{site}", WebOperation.patchSite),
        route(.delete, "sites/{site}", WebOperation.deleteSite),
        route(.post, "sites/{site}/start", WebOperation.start),
        route(.post, "sites/{site}/stop", WebOperation.stop),
        route(.post, "sites/{site}/restart", WebOperation.restart),
        route(.post, "sites/{site}/syncfunctiontriggers", WebOperation.syncTriggers),
        route(.post, "sites/{site}/listsyncfunctiontriggerstatus", WebOperation.listSyncFunctionTriggerStatus),
        route(.post, "sites/{site}/host/default/sync", WebOperation.syncTriggers),
        route(.post, "sites/{site}/host/default/listsyncstatus", WebOperation.listSyncStatus),
        route(.get, "sites/{site}/hostnamebindings", WebOperation.listHostNameBindings),
        route(.get, "sites/{site}/slots", WebOperation.listSlots),
    ]
    private static let siteConfiguration: [Route] = [
        route(.get, "sites/{site}/config/web", WebOperation.getWebConfig),
        route(.put, "sites/{site}/config/web", WebOperation.setWebConfig),
        route(.patch, "sites/{site}/config/web", WebOperation.setWebConfig),
        route(.post, "sites/{site}/config/appsettings/list", WebOperation.listAppSettings),
        route(.put, "sites/{site}/config/appsettings", WebOperation.setAppSettings),
        route(.post, "sites/{site}/config/connectionstrings/list", WebOperation.listConnectionStrings),
        route(.put, "sites/{site}/config/connectionstrings", WebOperation.setConnectionStrings),
        route(.get, "sites/{site}/config/slotconfignames", WebOperation.getSlotConfigNames),
        route(.put, "sites/{site}/config/slotconfignames", WebOperation.setSlotConfigNames),
        route(.get, "sites/{site}/config/configreferences/appsettings", WebOperation.listSettingReferences),
        route(.get, "sites/{site}/config/configreferences/appsettings/{setting}", WebOperation.getSettingReference),
        route(.post, "sites/{site}/config/configreferences/appsettings/refresh", WebOperation.refreshReferences),
        route(
            .get, "sites/{site}/config/configreferences/connectionstrings", WebOperation.listConnectionStringReferences),
        route(
            .get, "sites/{site}/config/configreferences/connectionstrings/{setting}",
            WebOperation.getConnectionStringReference),
        route(.post, "sites/{site}/config/publishingcredentials/list", WebOperation.listPublishingCredentials),
        route(.post, "sites/{site}/newpassword", WebOperation.newPublishingPassword),
        route(.post, "sites/{site}/publishxml", WebOperation.listPublishingProfile),
        route(.get, "sites/{site}/basicpublishingcredentialspolicies", WebOperation.listPublishingPolicies),
        route(.get, "sites/{site}/basicpublishingcredentialspolicies/{door}", WebOperation.getPublishingPolicy),
        route(.put, "sites/{site}/basicpublishingcredentialspolicies/{door}", WebOperation.setPublishingPolicy),
    ]
    private static let keys: [Route] = [
        route(.post, "sites/{site}/host/default/listkeys", WebOperation.listHostKeys),
        route(.put, "sites/{site}/host/default/{kind}/{key}", WebOperation.setHostKey),
        route(.delete, "sites/{site}/host/default/{kind}/{key}", WebOperation.deleteHostKey),
        route(.get, "sites/{site}/functions", WebOperation.listFunctions),
        route(.get, "sites/{site}/functions/{function}", WebOperation.getFunction),
        route(.get, "sites/{site}/functions/admin/token", WebOperation.functionsAdminToken),
        route(.post, "sites/{site}/functions/{function}/listkeys", WebOperation.listFunctionKeys),
        route(.post, "sites/{site}/functions/{function}/listsecrets", WebOperation.listFunctionSecrets),
        route(.put, "sites/{site}/functions/{function}/keys/{key}", WebOperation.setFunctionKey),
        route(.delete, "sites/{site}/functions/{function}/keys/{key}", WebOperation.deleteFunctionKey),
    ]

    private static let hostRuntime: [Route] = [ControlRequest.Method.get, .post, .put, .delete].map {
        route($0, "sites/{site}/hostruntime/admin/*", WebOperation.hostRuntime)
    }

    /// The route of a request and what stands in its `{…}` places. Names compare without regard to ASCII case.
    static func match(_ request: ControlRequest) -> (Route, [String: String])? {
        let segments = request.path.segments
        guard let start = segments.lastIndex(where: { $0.lowercased() == "providers" }), start + 1 < segments.count
        else { return nil }
        let tail = Array(segments[(start + 2)...])
        for route in table where route.method == request.method && route.hasLength(of: tail) {
            guard !route.needsGroup || (request.path.resourceGroup != nil && start == 4) else { continue }
            var parameters: [String: String] = [:]
            let fits = zip(route.pattern, tail).allSatisfy { pattern, segment in
                if pattern.hasPrefix("{") {
                    parameters[String(pattern.dropFirst().dropLast())] = segment
                    return true
                }
                return pattern == "*" || pattern == segment.lowercased()
            }
            if fits { return (route, parameters) }
        }
        return nil
    }
}
