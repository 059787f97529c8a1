import AccessControl
import CofferCore
import EncryptionAtRest
import Foundation
import HTTPEdge
import IdentityService
import Logging
import NIOCore
import NIOHTTP1
import ResourceManager
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport

/// A room that owns one namespace and keeps widgets: enough of a provider to route to, list and delete.
final class Widgets: ResourceProvider {
    let namespace = "Contoso.Widgets"
    let resourceTypes = [ResourceTypeDescription("widgets", apiVersions: ["2024-01-01"])]
    private let controller: AccessController
    private struct State {
        var widgets: [ResourceID: TrackedResource] = [:]
        /// Widgets that refuse deletion while another exists, by name.
        var needs: [String: String] = [:]
        var undeletable: Set<String> = []
        var isDamaged = false
    }
    private let state = Mutex(State())
    init(controller: AccessController) { self.controller = controller }

    func hold(_ name: String, whileExists other: String) { state.withLock { $0.needs[name] = other } }
    func forbidDeletion(_ name: String) { state.withLock { _ = $0.undeletable.insert(name) } }
    /// Whether a widget cannot be read, and shows in no list.
    func damage(_ isDamaged: Bool) { state.withLock { $0.isDamaged = isDamaged } }
    var names: Set<String> { state.withLock { Set($0.widgets.keys.map(\.name)) } }

    private func check(_ caller: Caller, _ operation: String, _ id: ResourceID) throws(ControlError) {
        let action = Action.control("Contoso.Widgets/widgets/\(operation)")
        guard controller.decide(caller, action, at: id).isAllowed else {
            throw .authorizationFailed(caller, action, id)
        }
    }
    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse {
        switch request.method {
        case .put, .patch:
            try check(caller, "write", request.path)
            var tags: [String: String] = [:]
            for (name, value) in request.body?.member("tags")?.objectValue ?? [:] { tags[name] = value.stringValue }
            let widget = TrackedResource(
                id: request.path, type: "Contoso.Widgets/widgets", location: "eastus", tags: tags)
            state.withLock { $0.widgets[request.path] = widget }
            return .json(200, ["id": .string(request.path.description), "api": .string(request.apiVersion)])
        case .delete:
            try await deleteTrackedResource(request.path, as: caller)
            return .empty(200)
        default:
            try check(caller, "read", request.path)
            guard state.withLock({ $0.widgets[request.path] }) != nil else { throw .resourceNotFound(request.path) }
            return .json(200, ["id": .string(request.path.description)])
        }
    }
    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource] {
        state.withLock { $0.widgets.values.filter { scope.contains($0.id) } }
    }
    func requireAllTracked(below scope: ResourceID) async throws(ControlError) {
        guard state.withLock({ $0.isDamaged }) else { return }
        throw ControlError(status: 500, code: "InternalServerError", message: "A widget cannot be read.")
    }
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError) {
        try check(caller, "delete", id)
        let isHeld = state.withLock { state in
            state.undeletable.contains(id.name)
                || state.needs[id.name].map { other in state.widgets.keys.contains { $0.name == other } } ?? false
        }
        guard !isHeld else { throw ControlError(status: 409, code: "InUse", message: "The widget is in use.") }
        state.withLock { $0.widgets[id] = nil }
    }
}

/// The control plane on an in-memory engine, with real tokens.
struct ControlPlane {
    static let subscription = "66666666-7777-4888-8999-aaaaaaaaaaaa"
    let clock = FixedClock("2026-11-22T03:00:00Z")
    let engine = InMemoryEngine()
    let names = HostNames(domain: "coffer.localhost", port: nil)
    let installation = Installation(
        tenantID: "11111111-2222-4333-8444-555555555555", subscriptionID: ControlPlane.subscription,
        subscriptionName: "Local")
    let controller = AccessController()
    let verifier: TokenVerifier
    let identity: IdentityService
    let widgets: Widgets
    let manager: ResourceManager
    let administrator: Administrator
    let token: String

    init() async throws {
        verifier = TokenVerifier(clock: clock)
        let store = try Self.store(engine, clock)
        let logger = silentLogger
        identity = IdentityService(
            installation: installation, names: names, records: store.records(.identity, "directory"),
            verifier: verifier, clock: clock,
            randomness: SystemRandomness(), logger: logger, secretRounds: 500)
        administrator = try await identity.bootstrap()
        widgets = Widgets(controller: controller)
        manager = Self.manager(store, installation, names, controller, verifier, identity, widgets, clock, logger)
        try await manager.start(administrator: administrator.objectID)
        token = try await Self.signIn(identity, names, clock, administrator.clientID, administrator.secret!.reveal())
    }

    private static func store(_ engine: InMemoryEngine, _ clock: FixedClock) throws -> SealedStore {
        try SealedStore(
            metadata: engine, extents: engine,
            rootKey: rootKey(),
            clock: clock, randomness: SystemRandomness())
    }
    private static func manager(
        _ store: SealedStore, _ installation: Installation, _ names: HostNames, _ controller: AccessController,
        _ verifier: TokenVerifier,
        _ identity: IdentityService, _ widgets: Widgets, _ clock: FixedClock, _ logger: Logger
    ) -> ResourceManager {
        ResourceManager(
            installation: installation, names: names, records: store.records(.resources, "tree"),
            controller: controller, verifier: verifier,
            directory: identity, providers: [widgets], clock: clock, logger: logger)
    }

    /// The control plane of a new process over the same engine.
    func restarted() async throws -> (manager: ResourceManager, controller: AccessController) {
        let controller = AccessController()
        let manager = Self.manager(
            try Self.store(engine, clock), installation, names, controller, verifier, identity,
            Widgets(controller: controller), clock,
            silentLogger)
        try await manager.start(administrator: administrator.objectID)
        return (manager, controller)
    }

    private static func signIn(
        _ identity: IdentityService, _ names: HostNames, _ clock: FixedClock, _ id: String, _ secret: String
    ) async throws -> String {
        let form =
            "grant_type=client_credentials&client_id=\(id)&client_secret=\(secret)&scope=https://management.coffer.localhost//.default"
        let request = Request(
            id: "r", method: .POST, rawPath: "/11111111-2222-4333-8444-555555555555/oauth2/v2.0/token", rawQuery: "",
            headers: ["Content-Type": "application/x-www-form-urlencoded"], endpoint: .login, names: names.own,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"),
            body: .bytes(ByteBuffer(string: form)))
        return await answer(LoginService(identity).respond(to: request)).body["access_token"]?.stringValue ?? ""
    }

    /// A principal without any role, and its token.
    func principal(_ name: String) async throws -> (id: String, token: String, caller: Caller) {
        let identity = try await identity.systemAssignedIdentity(
            of: ResourceID("/principals/\(name)"), displayName: name)
        let token = try await self.identity.issueToken(for: identity, audience: "https://management.coffer.localhost/")
        return (identity.principalID, token.token.reveal(), identity.caller)
    }

    struct Answer {
        let status: Int
        let headers: HTTPHeaders
        let body: JSONValue
        var code: String? { body["error"]?["code"]?.stringValue }
        var values: [JSONValue] { body["value"]?.arrayValue ?? [] }
    }

    func send(
        _ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil, token: String? = nil,
        version: String? = "2024-11-01",
        headers extra: HTTPHeaders = [:], raw: String? = nil, family: NameFamily? = nil,
        to manager: ResourceManager? = nil
    ) async -> Answer {
        let parts = path.split(separator: "?", maxSplits: 1).map(String.init)
        let query =
            (parts.count > 1 ? [parts[1].replacing(" ", with: "%20")] : [])
            + (version.map { ["api-version=\($0)"] } ?? [])
        var headers: HTTPHeaders = [
            "Authorization": "Bearer \(token ?? self.token)", "Content-Type": "application/json",
        ]
        for (name, value) in extra { headers.replaceOrAdd(name: name, value: value) }
        let text = raw ?? body.map { String(decoding: $0.serialized(), as: UTF8.self) } ?? ""
        let request = Request(
            id: UUID().uuidString.lowercased(), method: method, rawPath: parts[0],
            rawQuery: query.joined(separator: "&"), headers: headers,
            endpoint: .management, names: family ?? names.own,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"),
            body: .bytes(ByteBuffer(string: text)))
        let response = await (manager ?? self.manager).respond(to: request)
        let (status, json) = answer(response)
        return Answer(status: status, headers: response.headers, body: json)
    }

    var root: String { "/subscriptions/\(Self.subscription)" }
    func group(_ name: String) -> String { "\(root)/resourceGroups/\(name)" }
    func widget(_ name: String, in group: String = "rg") -> String {
        "\(self.group(group))/providers/Contoso.Widgets/widgets/\(name)"
    }

    func makeGroup(_ name: String = "rg") async -> Answer { await send(.PUT, group(name), ["location": "eastus"]) }

    @discardableResult
    func assign(
        _ role: String, to principal: String, at scope: String, token: String? = nil, name: String = UUID().uuidString
    ) async -> Answer {
        await send(
            .PUT, "\(scope)/providers/Microsoft.Authorization/roleAssignments/\(name)",
            [
                "properties": [
                    "roleDefinitionId": "\(root)/providers/Microsoft.Authorization/roleDefinitions/\(role)",
                    "principalId": .string(principal),
                    "principalType": "ServicePrincipal",
                ]
            ], token: token, version: "2022-04-01")
    }
}

func answer(_ response: Response) -> (status: Int, body: JSONValue) {
    guard case .bytes(let buffer) = response.body else { return (Int(response.status.code), .null) }
    return (Int(response.status.code), (try? JSONValue(parsing: buffer.readableBytesView)) ?? .null)
}

enum Role {
    static let owner = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
    static let contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
    static let reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
    static let userAccessAdministrator = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
}
