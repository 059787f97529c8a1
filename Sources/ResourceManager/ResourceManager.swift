public import AccessControl
public import CofferCore
public import EncryptionAtRest
internal import Foundation
public import HTTPEdge
public import Logging
internal import NIOHTTP1
public import ResourceProviders
internal import Synchronization

/// The control plane (`management.…`): verifies the caller, resolves the path, and hands the request to the room that
/// owns the namespace.
///
/// `start(administrator:)` comes first: it loads the roles and publishes them. Until then every decision is a refusal.
public final class ResourceManager: WireService {
    let installation: Installation
    let names: HostNames
    let tree: TreeRecords
    let roles: RoleStore
    let controller: AccessController
    let verifier: TokenVerifier
    let directory: any PrincipalDirectory
    /// By lower-cased namespace, Resource Manager's own included.
    let providers: [String: any ResourceProvider]
    let clock: any WallClock
    let logger: Logger
    private let audiences: Set<String>
    private let limits = Mutex(RateLimit())

    /// `records` are the domain `resources`, any one partition. `providers` own a namespace each.
    public init(
        installation: Installation, names: HostNames, records: SealedRecords, controller: AccessController,
        verifier: TokenVerifier,
        directory: any PrincipalDirectory, providers: [any ResourceProvider], clock: any WallClock, logger: Logger
    ) {
        self.installation = installation
        self.names = names
        self.tree = TreeRecords(records)
        self.roles = RoleStore(tree: tree, controller: controller)
        self.controller = controller
        self.verifier = verifier
        self.directory = directory
        self.clock = clock
        self.logger = logger
        let authorization = AuthorizationProvider(
            installation: installation, roles: roles, controller: controller, directory: directory, clock: clock,
            providers: providers)
        let resources = ResourcesProvider(tree: tree, controller: controller, providers: providers)
        var byNamespace: [String: any ResourceProvider] = [:]
        for provider in providers + [authorization, resources] as [any ResourceProvider] {
            let previous = byNamespace.updateValue(provider, forKey: provider.namespace.lowercased())
            precondition(previous == nil, "two providers own \(provider.namespace)")
        }
        self.providers = byNamespace
        audiences = Set(names.families.map { $0.url(of: .management) } + ["https://management.core.windows.net"])
    }

    /// Loads and publishes the roles. At the very first start it makes `administrator` (an object identifier) Owner of
    /// the subscription; later the argument makes no difference, so that a removed assignment stays removed.
    public func start(administrator: String) async throws {
        try await roles.load()
        let owner = RoleAssignment(
            name: administrator.lowercased(), scope: subscriptionID, roleID: BuiltInRoles.owner,
            principalID: administrator,
            principalType: "ServicePrincipal", description: "Made at first start.", created: clock.now(),
            createdBy: administrator)
        if try await tree.records.get(TreeRecords.startedKey) == nil {
            try await assignOwner(owner, isFirstStart: true)
        }
        // A deletion that the process did not live to finish: its caller is gone, so the group is offered again as it
        // is.
        for group in try await tree.groups() where group.state == .deleting {
            try await setState(.succeeded, of: group.name)
        }
    }

    /// Gives `administrator` the Owner role again, for an operator who locked everyone out.
    public func restoreAdministrator(_ administrator: String) async throws {
        let owner = RoleAssignment(
            name: administrator.lowercased(), scope: subscriptionID, roleID: BuiltInRoles.owner,
            principalID: administrator,
            principalType: "ServicePrincipal", description: "Restored by the operator.", created: clock.now(),
            createdBy: administrator)
        try await assignOwner(owner, isFirstStart: false)
    }

    private func assignOwner(_ owner: RoleAssignment, isFirstStart: Bool) async throws {
        try await roles.change { roles in
            let exists = roles.assignments.values.contains {
                $0.principalID == owner.principalID && $0.roleID == owner.roleID && $0.scope == owner.scope
            }
            var writes: [RecordWrite] = isFirstStart ? [TreeRecords.put(TreeRecords.startedKey, text: "1")] : []
            if !exists {
                writes += [
                    try TreeRecords.put(RoleStore.assignmentKey(owner.name), owner),
                    TreeRecords.put(RoleStore.uniqueKey(owner), text: owner.name),
                ]
            }
            return RoleStore.Change(result: (), writes: writes) { if !exists { $0.assignments[owner.name] = owner } }
        }
    }

    var subscriptionID: ResourceID { ResourceID(segments: ["subscriptions", installation.subscriptionID]) }

    // MARK: Wire

    public func respond(to request: Request) async -> Response {
        var response = await answer(request)
        ARMWire.addCommonHeaders(&response, request: request, at: clock.now())
        return response
    }

    private func answer(_ request: Request) async -> Response {
        guard request.rawPath.utf8.count <= Self.pathBytesLimit, let segments = request.pathSegments,
            segments.allSatisfy(Self.isSegment),
            let method = ControlRequest.Method(rawValue: request.method.rawValue)
        else {
            return ARMWire.response(
                .badRequest("The request URI or its method is not valid.", code: "InvalidRequestUri"), to: request)
        }
        let query = Dictionary(request.query.map { ($0.name.lowercased(), $0.value) }) { first, _ in first }
        if segments.first?.lowercased() == "metadata" { return metadata(segments, query, request) }
        let caller: Caller
        switch await authenticate(request) {
        case .success(let verified): caller = verified
        case .failure(let refusal): return refusal.response
        }
        guard let remaining = limits.withLock({ $0.take(caller.objectID, at: clock.now()) }) else {
            return ARMWire.response(
                ControlError(
                    status: 429, code: "TooManyRequests",
                    message: "Too many requests; wait for the time in Retry-After."), to: request)
        }
        var response: Response
        do {
            let version = try ARMWire.apiVersion(query)
            let path = ResourceID(segments: segments)
            try ResourcesProvider.refuseDeployment(path, method)
            let control = ControlRequest(
                method: method, path: path, query: query, apiVersion: version, body: try await ARMWire.body(request),
                names: request.names)
            response = ARMWire.response(try await dispatch(control, as: caller), to: request)
        } catch let error as ControlError {
            response = ARMWire.response(error, to: request)
        } catch {
            logger.error("control plane request failed", metadata: ["error": "\(error)", "request": "\(request.id)"])
            response = ARMWire.response(
                ControlError(
                    status: 503, code: "ServiceUnavailable", message: "The request cannot be served now; try again."),
                to: request)
        }
        let kind = method == .get || method == .head ? "reads" : method == .delete ? "deletes" : "writes"
        response.headers.replaceOrAdd(name: "x-ms-ratelimit-remaining-subscription-\(kind)", value: "\(remaining)")
        return response
    }

    /// Longest path, in bytes: an identifier must fit into a record's key.
    private static let pathBytesLimit = 2_048

    /// An escaped `/` or a control character would let one identifier pass for another.
    private static func isSegment(_ segment: String) -> Bool {
        segment.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f && $0 != "/" && $0 != "\\" }
    }

    private func metadata(_ segments: [String], _ query: [String: String], _ request: Request) -> Response {
        guard request.method == .GET, segments.count == 2 else {
            return ARMWire.response(
                ControlError(status: 404, code: "NotFound", message: "There is no such metadata."), to: request)
        }
        switch segments[1].lowercased() {
        case "clouds":
            return ARMWire.response(.json(200, CloudMetadata.clouds(request.names)), to: request)
        case "endpoints":
            do {
                let version = try ARMWire.apiVersion(query)
                return ARMWire.response(
                    .json(200, CloudMetadata.endpoints(request.names, apiVersion: version)), to: request)
            } catch {
                return ARMWire.response(error, to: request)
            }
        default:
            return ARMWire.response(
                ControlError(status: 404, code: "NotFound", message: "There is no such metadata."), to: request)
        }
    }

    private struct AuthenticationRefusal: Error { let response: Response }

    private func authenticate(_ request: Request) async -> Result<Caller, AuthenticationRefusal> {
        func refuse(_ code: String, _ message: String, isMissing: Bool = false) -> Result<Caller, AuthenticationRefusal>
        {
            .failure(
                AuthenticationRefusal(
                    response: ARMWire.unauthenticated(
                        code, message, login: request.names.url(of: .login), tenant: installation.tenantID,
                        isMissing: isMissing,
                        request: request)))
        }
        guard let header = request.header("Authorization") else {
            return refuse(
                "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.", isMissing: true
            )
        }
        guard header.lowercased().hasPrefix("bearer ") else {
            return refuse(
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is provided in an invalid format.")
        }
        do {
            return .success(
                try await verifier.verify(
                    String(header.dropFirst(7)).trimmingCharacters(in: .whitespaces), audiences: audiences))
        } catch {
            let code =
                switch error.reason {
                case .expired: "ExpiredAuthenticationToken"
                case .wrongAudience: "InvalidAuthenticationTokenAudience"
                case .wrongIssuer: "InvalidAuthenticationTokenTenant"
                case .malformed, .badSignature, .notYetValid, .missingClaim, .principalUnknown:
                    "InvalidAuthenticationToken"
                case .unavailable: "ServerTimeout"
                }
            if error.reason == .unavailable {
                let refusal = ControlError(status: 503, code: code, message: error.message)
                return .failure(AuthenticationRefusal(response: ARMWire.response(refusal, to: request)))
            }
            return refuse(code, error.message)
        }
    }

    // MARK: Authorization

    func authorize(_ caller: Caller, _ action: String, at scope: ResourceID) throws(ControlError) {
        guard controller.decide(caller, .control(action), at: scope).isAllowed else {
            throw .authorizationFailed(caller, .control(action), scope)
        }
    }
    func isAllowed(_ caller: Caller, _ action: String, at scope: ResourceID) -> Bool {
        controller.decide(caller, .control(action), at: scope).isAllowed
    }
}
