import AccessControl
import CofferCore
import NIOCore
import ResourceProviders
import TestSupport
import Testing

@testable import FunctionsHost

/// Who may do what: every route of `Microsoft.Web` against the action it asks for.
@Suite struct SiteAccessTests {
    /// One request, and the actions without which it is refused; the first is asked before anything else.
    struct Attempt: Sendable, CustomTestStringConvertible {
        let method: ControlRequest.Method
        /// Below the namespace.
        let path: String
        let actions: [String]
        let body: JSONValue?
        /// Of who holds the actions.
        let status: Int
        var testDescription: String { "\(method.rawValue) \(path)" }
        init(
            _ method: ControlRequest.Method, _ path: String, _ actions: String..., body: JSONValue? = nil,
            status: Int = 200
        ) {
            (self.method, self.path, self.actions, self.body, self.status) = (method, path, actions, body, status)
        }
    }

    static let attempts: [Attempt] = plans + life + configuration + publishing + keys + host
    private static let app = "sites/MyApp"
    private static let function = "sites/MyApp/functions/HttpTrigger1"

    private static let plans: [Attempt] = [
        Attempt(.get, "serverfarms/plan1", "serverfarms/read"),
        Attempt(.put, "serverfarms/plan1", "serverfarms/write", body: ["location": "eastus", "kind": "linux"]),
        Attempt(.put, "serverfarms/new", "serverfarms/write", body: ["location": "eastus"]),
        Attempt(.patch, "serverfarms/plan1", "serverfarms/write", body: ["tags": ["a": "b"]]),
        Attempt(.delete, "serverfarms/spare", "serverfarms/delete"),
        Attempt(.get, "serverfarms/plan1/sites", "serverfarms/read"),
    ]
    private static let life: [Attempt] = [
        Attempt(.get, app, "sites/read"), Attempt(.head, app, "sites/read"),
        Attempt(.put, app, "sites/write", body: ["location": "eastus", "properties": ["httpsOnly": true]]),
        Attempt(.put, "sites/NewApp", "sites/write", body: ["location": "eastus", "kind": "functionapp,linux"]),
        Attempt(.patch, app, "sites/write", body: ["properties": ["httpsOnly": true]]),
        Attempt(.delete, app, "sites/delete"),
        Attempt(.post, "\(app)/start", "sites/start/action"), Attempt(.post, "\(app)/stop", "sites/stop/action"),
        Attempt(.post, "\(app)/restart", "sites/restart/action"),
        Attempt(.post, "\(app)/syncfunctiontriggers", "sites/syncfunctiontriggers/action", status: 204),
        Attempt(.post, "\(app)/host/default/sync", "sites/syncfunctiontriggers/action", status: 204),
        Attempt(.post, "\(app)/host/default/listsyncstatus", "sites/host/listsyncstatus/action"),
        Attempt(.get, "\(app)/hostNameBindings", "sites/hostNameBindings/read"),
        Attempt(.get, "\(app)/slots", "sites/slots/read"),
    ]
    private static let configuration: [Attempt] = [
        Attempt(.get, "\(app)/config/web", "sites/config/read"),
        Attempt(.put, "\(app)/config/web", "sites/config/write", body: ["properties": ["http20Enabled": true]]),
        Attempt(.patch, "\(app)/config/web", "sites/config/write", body: ["properties": ["http20Enabled": true]]),
        Attempt(.post, "\(app)/config/appsettings/list", "sites/config/list/action"),
        Attempt(.put, "\(app)/config/appsettings", "sites/config/write", body: ["properties": ["A": "1"]]),
        Attempt(.post, "\(app)/config/connectionstrings/list", "sites/config/list/action"),
        Attempt(
            .put, "\(app)/config/connectionstrings", "sites/config/write",
            body: ["properties": ["A": ["value": "1", "type": "Custom"]]]),
        Attempt(.get, "\(app)/config/slotConfigNames", "sites/config/read"),
        Attempt(
            .put, "\(app)/config/slotConfigNames", "sites/config/write",
            body: ["properties": ["appSettingNames": ["A"]]]),
        Attempt(.get, "\(app)/config/configreferences/appsettings", "sites/config/read"),
        Attempt(.get, "\(app)/config/configreferences/appsettings/Reference", "sites/config/read"),
        Attempt(.get, "\(app)/config/configreferences/connectionstrings", "sites/config/read"),
        Attempt(.get, "\(app)/config/configreferences/connectionstrings/Reference", "sites/config/read"),
        // Answers with the list of references.
        Attempt(
            .post, "\(app)/config/configreferences/appsettings/refresh", "sites/config/write", "sites/config/read"),
    ]
    private static let publishing: [Attempt] = [
        Attempt(.post, "\(app)/config/publishingcredentials/list", "sites/config/list/action"),
        Attempt(.post, "\(app)/newpassword", "sites/newpassword/action", status: 204),
        Attempt(.post, "\(app)/publishxml", "sites/publishxml/action"),
        Attempt(.get, "\(app)/basicPublishingCredentialsPolicies", "sites/basicPublishingCredentialsPolicies/read"),
        Attempt(.get, "\(app)/basicPublishingCredentialsPolicies/ftp", "sites/basicPublishingCredentialsPolicies/read"),
        Attempt(
            .put, "\(app)/basicPublishingCredentialsPolicies/scm", "sites/basicPublishingCredentialsPolicies/write",
            body: ["properties": ["allow": false]]),
    ]
    private static let keys: [Attempt] = [
        Attempt(.post, "\(app)/host/default/listkeys", "sites/host/listkeys/action"),
        Attempt(.put, "\(app)/host/default/functionKeys/new", "sites/host/functionKeys/write", status: 201),
        Attempt(.put, "\(app)/host/default/systemKeys/new", "sites/host/systemKeys/write", status: 201),
        Attempt(.put, "\(app)/host/default/masterKey/_master", "sites/host/masterKey/write", status: 201),
        // By whatever list it is named.
        Attempt(.put, "\(app)/host/default/functionKeys/_MASTER", "sites/host/masterKey/write", status: 201),
        Attempt(.put, "\(app)/host/default/systemKeys/_master", "sites/host/masterKey/write", status: 201),
        Attempt(.delete, "\(app)/host/default/functionKeys/old", "sites/host/functionKeys/delete", status: 204),
        Attempt(.delete, "\(app)/host/default/systemKeys/old", "sites/host/systemKeys/delete", status: 204),
        // Nobody may; who could not anyhow does not learn it.
        Attempt(.delete, "\(app)/host/default/masterKey/_master", "sites/host/masterKey/delete", status: 400),
        Attempt(.get, "\(app)/functions", "sites/functions/read"), Attempt(.get, function, "sites/functions/read"),
        Attempt(.post, "\(function)/listkeys", "sites/functions/listkeys/action"),
        Attempt(.post, "\(function)/listsecrets", "sites/functions/listsecrets/action"),
        Attempt(.put, "\(function)/keys/new", "sites/functions/keys/write", status: 201),
        Attempt(.delete, "\(function)/keys/old", "sites/functions/keys/delete", status: 204),
    ]

    private static let bridge = "sites/MyApp/hostruntime/admin"
    private static let host: [Attempt] = [
        // What they give is as good as the master key.
        Attempt(.get, "\(app)/functions/admin/token", "sites/host/listkeys/action", "sites/functions/token/read"),
        Attempt(
            .post, "\(app)/listsyncfunctiontriggerstatus", "sites/host/listkeys/action",
            "sites/listsyncfunctiontriggerstatus/action"),
        Attempt(.get, "\(bridge)/host/status", "sites/hostruntime/host/read"),
        Attempt(.get, "\(bridge)/functions/HttpTrigger1/status", "sites/hostruntime/host/read"),
        Attempt(.get, "\(bridge)/host/config", "sites/hostruntime/host/action"),
        Attempt(.post, "\(bridge)/host/restart", "sites/hostruntime/host/action"),
        Attempt(.put, "\(bridge)/host/state", "sites/hostruntime/host/action", status: 400),
        Attempt(
            .delete, function.replacing("functions", with: "hostruntime/admin/functions"),
            "sites/hostruntime/host/action", status: 400),
    ]

    /// Lists and the name of what they show: who may not read it is not refused, and does not see it.
    static let lists = [("sites", "MyApp"), ("serverfarms", "plan1")]
    /// Of nobody's resources: every caller gets the same answer.
    static let common: [Attempt] = [
        Attempt(.get, "georegions"), Attempt(.get, "functionAppStacks"), Attempt(.get, "webAppStacks"),
        Attempt(.post, "checkNameAvailability", body: ["name": "NewApp", "type": "Microsoft.Web/sites"]),
    ]
    /// What shows keys, passwords or settings in clear.
    static let revealing = [
        "\(app)/host/default/listkeys", "\(function)/listkeys", "\(function)/listsecrets",
        "\(app)/config/appsettings/list", "\(app)/config/connectionstrings/list",
        "\(app)/config/publishingcredentials/list", "\(app)/publishxml", "\(app)/listsyncfunctiontriggerstatus",
    ]

    // MARK: The world

    private static let caller = Caller(kind: .user, objectID: "someone", tenantID: "t")
    private static let group = ResourceID("/subscriptions/s/resourceGroups/rg")
    private static let reference = "@Microsoft.KeyVault(VaultName=vault1;SecretName=name)"

    private let world: World
    private let provider: WebResourceProvider
    private let access = AccessController()

    /// A site in a plan, with a function, keys, settings and references; and a plan without a site.
    init() async throws {
        let settings = [
            "WEBSITE_RUN_FROM_PACKAGE": World.package, "Setting": "planted-setting", "Reference": Self.reference,
        ]
        world = try await World(settings: settings) { site in
            site.serverFarmID = Self.id("serverfarms/plan1")
            site.secrets.connectionStrings = [
                "Planted": ConnectionString(value: RedactedString("planted-connection"), kind: .custom),
                "Reference": ConnectionString(value: RedactedString(Self.reference), kind: .custom),
            ]
        }
        let created = world.clock.now()
        for name in ["plan1", "spare"] {
            let plan = Plan(
                id: Self.id("serverfarms/\(name)"), kind: "linux", location: "eastus", sku: ["name": "B1"],
                reserved: true, created: created)
            _ = try await world.sites.putPlan(plan.id) { _ in plan }
        }
        world.storage.put(World.package, Array(Self.package.build().readableBytesView))
        _ = try await world.runtime.setHostKey(.functionKeys, "old", to: nil, of: world.id)
        _ = try await world.runtime.setHostKey(.systemKeys, "old", to: nil, of: world.id)
        _ = try await world.runtime.setFunctionKey("old", to: nil, function: "HttpTrigger1", of: world.id)
        provider = WebResourceProvider(
            sites: world.sites, runtime: world.runtime, access: access, identities: TestIdentities(),
            clock: world.clock, randomness: SystemRandomness(), log: silentLogger)
    }

    private static var package: ZipBuilder {
        var zip = ZipBuilder()
        zip.add("host.json", #"{"version":"2.0"}"#)
        zip.add(
            "HttpTrigger1/function.json",
            #"{"bindings":[{"type":"httpTrigger","name":"req"},{"type":"http","direction":"out","name":"res"}]}"#)
        return zip
    }

    private static func id(_ path: String) -> ResourceID {
        ResourceID("\(group)/providers/Microsoft.Web/\(path)")
    }
    /// The site or plan a path names or lies below.
    private static func resource(_ path: ResourceID) -> ResourceID {
        ResourceID(segments: Array(path.segments.prefix(8)))
    }

    // MARK: Roles

    private func publish(_ roles: [(permissions: RolePermissions, scope: ResourceID)]) {
        var definitions: [RoleDefinition] = []
        var assignments: [RoleAssignment] = []
        for (number, role) in roles.enumerated() {
            definitions.append(
                RoleDefinition(
                    id: "\(number)", roleName: "Role \(number)", description: "", isBuiltIn: false,
                    permissions: role.permissions, assignableScopes: [.root]))
            assignments.append(assignment(of: "\(number)", at: role.scope))
        }
        access.publish(RoleBook(definitions: definitions, assignments: assignments))
    }
    private func assignment(of role: String, at scope: ResourceID) -> RoleAssignment {
        RoleAssignment(
            name: "assignment of \(role)", scope: scope, roleID: role, principalID: Self.caller.objectID,
            principalType: "User", created: world.clock.now(), createdBy: "")
    }

    /// The caller holds these, there, and nothing else.
    private func grant(_ actions: [String], at scope: ResourceID) {
        publish([(RolePermissions(actions: actions.map { "Microsoft.Web/" + $0 }), scope)])
    }
    private func grantEverything() { publish([(RolePermissions(actions: ["*"]), .root)]) }
    /// The caller holds every action there is but this, and this one on resources whose names begin like ours.
    private func grantAll(but action: String) {
        let action = "Microsoft.Web/" + action
        publish([
            (RolePermissions(actions: ["*"], notActions: [action]), .root),
            (RolePermissions(actions: [action]), Self.id("sites/MyApp2")),
            (RolePermissions(actions: [action]), Self.id("serverfarms/plan12")),
        ])
    }

    // MARK: Requests

    private struct Outcome {
        let status: Int
        /// Of a refusal.
        let code: String?
        /// The body, or the message of the refusal.
        let text: String
        var isForbidden: Bool { status == 403 && code == "AuthorizationFailed" }
    }

    private static func request(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil
    ) -> ControlRequest {
        ControlRequest(
            method: method, path: path, query: [:], apiVersion: "2024-11-01", body: body, names: .azurePublic)
    }

    private func send(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil
    ) async -> Outcome {
        do throws(ControlError) {
            let response = try await provider.respond(to: Self.request(method, path, body), as: Self.caller)
            return Outcome(status: response.status, code: nil, text: Self.text(response.body))
        } catch {
            return Outcome(status: error.status, code: error.code, text: error.message)
        }
    }
    private func send(_ attempt: Attempt) async -> Outcome {
        await send(attempt.method, Self.id(attempt.path), attempt.body)
    }

    private static func text(_ body: ControlResponse.Body) -> String {
        switch body {
        case .none: ""
        case .json(let value): String(decoding: value.serialized(), as: UTF8.self)
        case .xml(let text): text
        }
    }

    /// The whole message: it names the action and the scope, and says no more.
    private static func refusal(_ action: String, _ scope: ResourceID) -> String {
        ControlError.authorizationFailed(caller, .control("Microsoft.Web/" + action), scope).message
    }

    // MARK: Every route

    /// A route that is new has no test here; this says so.
    @Test func everyRouteIsAttempted() {
        func name(_ route: WebRoutes.Route) -> String {
            "\(route.method.rawValue) \(route.pattern.joined(separator: "/"))"
        }
        let all = Self.attempts + Self.common + Self.lists.map { Attempt(.get, $0.0) }
        let attempted = all.compactMap { attempt in
            WebRoutes.match(Self.request(attempt.method, Self.id(attempt.path))).map { name($0.0) }
        }
        #expect(Set(attempted) == Set(WebRoutes.table.map(name)))
    }

    @Test(arguments: attempts)
    func theActionAloneSuffices(attempt: Attempt) async {
        grant(attempt.actions, at: Self.resource(Self.id(attempt.path)))
        let outcome = await send(attempt)
        #expect(outcome.status == attempt.status, "\(outcome.text)")
    }

    @Test(arguments: attempts)
    func withoutTheActionNothingHappens(attempt: Attempt) async throws {
        let path = Self.id(attempt.path)
        let host = try #require(world.runtime.entry(named: "myapp")).host
        let before = try await state()
        let app = try #require(host.loadedApp())
        for action in attempt.actions {
            grantAll(but: action)
            let outcome = await send(attempt)
            #expect(outcome.isForbidden && outcome.text == Self.refusal(action, Self.resource(path)))
        }
        #expect(host.loadedApp() === app, "it was restarted")
        #expect(try await state() == before)
    }

    /// Who may do nothing with a site or plan does not learn whether there is one.
    @Test func namesDoNotLeak() async throws {
        for attempt in Self.attempts {
            var segments = Self.id(attempt.path).segments
            segments[7] = "nothing"
            let path = ResourceID(segments: segments)
            let action = try #require(attempt.actions.first)
            grantAll(but: action)
            let outcome = await send(attempt.method, path, attempt.body)
            let isRefused = outcome.isForbidden && outcome.text == Self.refusal(action, Self.resource(path))
            #expect(isRefused, "\(attempt.testDescription): \(outcome.text)")
        }
    }

    /// Everything a caller could have changed or carried off.
    private struct State: Equatable {
        let sites: [Site]
        let plans: [Plan]
        let hostKeys: HostKeys
        let functionKeys: [AccessKey]
    }
    private func state() async throws -> State {
        let hostKeys = try await world.runtime.hostKeys(of: world.id)
        let functionKeys = try await world.runtime.functionKeys("HttpTrigger1", of: world.id)
        return State(
            sites: world.sites.sites(), plans: world.sites.plans(), hostKeys: hostKeys, functionKeys: functionKeys)
    }

    // MARK: Lists

    private func names(_ path: ResourceID) async throws -> [String] {
        let outcome = await send(.get, path)
        #expect(outcome.status == 200)
        let list = try JSONValue(parsing: outcome.text.utf8)
        return (list["value"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
    }

    @Test(arguments: lists)
    func listsShowWhatTheCallerMayRead(type: String, name: String) async throws {
        for scope in [Self.group, Self.group.parent] {
            let path = scope.appending("providers", "Microsoft.Web", type)
            grantAll(but: type + "/read")
            #expect(try await names(path) == [])
            grant([type + "/read"], at: Self.id("\(type)/\(name)"))
            #expect(try await names(path) == [name])
        }
    }

    @Test func aPlanShowsTheSitesTheCallerMayRead() async throws {
        let path = Self.id("serverfarms/plan1/sites")
        grantAll(but: "sites/read")
        #expect(try await names(path) == [])
        grantEverything()
        #expect(try await names(path) == ["MyApp"])
    }

    @Test(arguments: common)
    func whatIsNobodysIsTheSameForAll(attempt: Attempt) async {
        let path = ResourceID("/subscriptions/s/providers/Microsoft.Web/\(attempt.path)")
        publish([])
        let unknown = await send(attempt.method, path, attempt.body)
        grantEverything()
        let owner = await send(attempt.method, path, attempt.body)
        #expect(unknown.status == 200 && unknown.text == owner.text)
        #expect(!unknown.text.contains("MyApp"))
    }

    // MARK: Readers

    private func publishReader() {
        access.publish(
            RoleBook(
                definitions: BuiltInRoles.all, assignments: [assignment(of: BuiltInRoles.reader, at: Self.group)]))
    }

    private func secrets() async throws -> [String] {
        let site = try #require(world.sites.site(world.id))
        let state = try await state()
        let keys = state.hostKeys.functionKeys + state.hostKeys.systemKeys + state.functionKeys
        let texts = [site.secrets.publishingCredentials.password, state.hostKeys.masterKey] + keys.map(\.value)
        return ["planted-setting", "planted-connection"] + texts.map { $0.reveal() }
    }

    @Test(arguments: revealing)
    func aReaderSeesNoSecret(path: String) async throws {
        let secrets = try await secrets()
        grantEverything()
        let owner = await send(.post, Self.id(path))
        #expect(owner.status == 200 && secrets.contains { owner.text.contains($0) })
        publishReader()
        let reader = await send(.post, Self.id(path))
        #expect(reader.isForbidden)
        #expect(!secrets.contains { reader.text.contains($0) })
    }

    @Test func aReaderReadsAndDoesNothingElse() async throws {
        let secrets = try await secrets()
        let before = try await state()
        publishReader()
        for attempt in Self.attempts {
            let isReading = attempt.actions.allSatisfy { $0.hasSuffix("/read") }
            let outcome = await send(attempt)
            #expect(outcome.isForbidden != isReading, "\(attempt.testDescription): \(outcome.status)")
            #expect(!isReading || outcome.status == attempt.status, "\(attempt.testDescription)")
            #expect(!secrets.contains { outcome.text.contains($0) }, "\(attempt.testDescription)")
        }
        #expect(try await state() == before)
    }

    // MARK: More than one scope

    /// Resource Manager deletes what a group holds in the name of who deletes the group.
    @Test func aGroupsDeletionAsksForEachResource() async throws {
        for (id, action) in [(world.id, "sites/delete"), (Self.id("serverfarms/spare"), "serverfarms/delete")] {
            grantAll(but: action)
            let error = await #expect(throws: ControlError.self) {
                try await provider.deleteTrackedResource(id, as: Self.caller)
            }
            #expect(error?.status == 403 && error?.message == Self.refusal(action, id))
        }
        #expect(world.sites.site(world.id) != nil && world.sites.plan(Self.id("serverfarms/spare")) != nil)
    }

    @Test func aNewSiteJoinsOnlyAPlanItsMakerMay() async throws {
        let (site, plan) = (Self.id("sites/NewApp"), Self.id("serverfarms/plan1"))
        let body: JSONValue = [
            "location": "eastus", "kind": "functionapp,linux", "properties": ["serverFarmId": .string("\(plan)")],
        ]
        grantAll(but: "serverfarms/join/action")
        let refused = await send(.put, site, body)
        #expect(refused.isForbidden && refused.text == Self.refusal("serverfarms/join/action", plan))
        #expect(world.sites.site(site) == nil)
        grant(["sites/write", "serverfarms/join/action"], at: Self.group)
        #expect(await send(.put, site, body).status == 200)
        #expect(world.sites.site(site)?.serverFarmID == plan)
    }
}
