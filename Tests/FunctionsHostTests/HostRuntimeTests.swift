import AccessControl
import CofferCore
import NIOCore
import NIOHTTP1
import ResourceProviders
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// A site's host over Resource Manager.
struct HostRuntimeTests {
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")
    private static let reader = Caller(kind: .servicePrincipal, objectID: "reader", tenantID: "t")
    /// May do what it is about, and may not list the master key.
    private static let operate = Caller(kind: .servicePrincipal, objectID: "operator", tenantID: "t")
    private static let stranger = Caller(kind: .servicePrincipal, objectID: "stranger", tenantID: "t")

    private let world: World
    private let provider: WebResourceProvider

    init() async throws {
        world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        let access = AccessController()
        let rights: [(caller: Caller, actions: [String])] = [
            (Self.owner, ["*"]), (Self.reader, ["*/read"]),
            (
                Self.operate,
                [
                    "Microsoft.Web/sites/functions/token/read",
                    "Microsoft.Web/sites/listsyncfunctiontriggerstatus/action",
                    "Microsoft.Web/sites/hostruntime/host/action",
                ]
            ),
        ]
        let now = world.clock.now()
        access.publish(
            RoleBook(
                definitions: rights.map {
                    RoleDefinition(
                        id: $0.caller.objectID, roleName: $0.caller.objectID, description: "", isBuiltIn: false,
                        permissions: RolePermissions(actions: $0.actions), assignableScopes: [.root])
                },
                assignments: rights.map {
                    RoleAssignment(
                        name: $0.caller.objectID, scope: .root, roleID: $0.caller.objectID,
                        principalID: $0.caller.objectID, principalType: "ServicePrincipal", created: now, createdBy: "")
                }))
        provider = WebResourceProvider(
            sites: world.sites, runtime: world.runtime, access: access, identities: TestIdentities(),
            clock: world.clock, randomness: SystemRandomness(), log: silentLogger)
    }

    @discardableResult private func send(
        _ method: ControlRequest.Method, _ path: String, _ body: JSONValue? = nil, as caller: Caller = owner,
        site: String = "MyApp"
    ) async throws(ControlError) -> ControlResponse {
        let id = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/\(site)/\(path)")
        return try await provider.respond(
            to: ControlRequest(
                method: method, path: id, query: [:], apiVersion: "2024-11-01", body: body, names: .azurePublic),
            as: caller)
    }
    private func refusal(
        _ method: ControlRequest.Method, _ path: String, _ body: JSONValue? = nil, as caller: Caller = owner,
        site: String = "MyApp"
    ) async -> ControlError? {
        do throws(ControlError) {
            try await send(method, path, body, as: caller, site: site)
            return nil
        } catch { return error }
    }
    private func json(_ response: ControlResponse) throws -> JSONValue {
        guard case .json(let json) = response.body else { throw ControlError.badRequest("no JSON") }
        return json
    }

    @Test func theTokenOpensTheHostForFiveMinutes() async throws {
        let token = try #require(try json(try await send(.get, "functions/admin/token")).stringValue)
        let claims = try JSONValue(parsing: try #require([UInt8](base64URL: token.split(separator: ".")[1])))
        #expect(claims["iss"] == "https://MyApp.scm.azurewebsites.net")
        #expect(claims["aud"] == "https://MyApp.azurewebsites.net/azurefunctions")
        #expect(claims["exp"]?.intValue == world.clock.now().unixSeconds + 300)
        let headers: HTTPHeaders = ["Authorization": "Bearer " + token]
        #expect(try await world.send(world.get("/admin/host/status", headers: headers)).status == 200)
        world.clock.advance(seconds: 300)
        #expect(try await world.send(world.get("/admin/host/status", headers: headers)).status == 401)
    }

    /// A token is as good as the master key.
    @Test(arguments: [
        (ControlRequest.Method.get, "functions/admin/token"), (.post, "listsyncfunctiontriggerstatus"),
    ])
    func whoMayNotListTheMasterKeyGetsNothingInItsPlace(method: ControlRequest.Method, path: String) async {
        for caller in [Self.reader, Self.operate, Self.stranger] {
            for site in ["MyApp", "NoApp"] {
                #expect(await refusal(method, path, as: caller, site: site)?.status == 403)
            }
        }
        #expect(await refusal(method, path, site: "NoApp")?.status == 404)
    }

    @Test func aKeyThatSignsNothingIsSaid() async throws {
        try await world.sites.update(world.id) {
            $0.secrets.appSettings["AzureWebEncryptionKey"] = RedactedString("0f0f")
        }
        let error = await refusal(.get, "functions/admin/token")
        #expect(error?.status == 400 && error?.message.contains("AzureWebEncryptionKey") == true)
    }

    @Test func theSyncKeySyncs() async throws {
        let answer = try json(try await send(.post, "listsyncfunctiontriggerstatus"))
        let url = try #require(answer["trigger_url"]?.stringValue)
        let key = try #require(answer["key"]?.stringValue)
        #expect(url == "https://MyApp.azurewebsites.net/admin/host/synctriggers?code=\(key)")
        let sync = world.request(.POST, "/admin/host/synctriggers?code=\(key)")
        #expect(try await world.send(sync).body == #"{"status":"success"}"#)
    }

    @Test func theBridgeLeadsToTheHost() async throws {
        let status = try json(try await send(.get, "hostruntime/admin/host/status"))
        #expect(status["state"] == "Running" && status["id"] == "myapp")
        #expect(try await send(.get, "hostruntime/admin/host/ping").status == 200)
        let functions = try json(try await send(.get, "hostruntime/admin/functions"))
        #expect(functions.arrayValue?.compactMap { $0["name"]?.stringValue } == ["HttpTrigger1"])
        #expect(try json(try await send(.get, "hostRuntime/Admin/Functions/httptrigger1/Status")) == [:])
        #expect(try json(try await send(.post, "hostruntime/admin/host/synctriggers"))["status"] == "success")
        let lines: JSONValue = [["level": "info", "message": "over the bridge"]]
        #expect(try await send(.post, "hostruntime/admin/host/log", lines).status == 200)
        #expect(world.logs.entries.withLock { $0.contains { $0.message == "over the bridge" } })
        #expect(try await send(.post, "hostruntime/admin/host/drain").status == 202)
        // An isolated admin API is what the bridge is for.
        try await world.sites.update(world.id) {
            $0.secrets.appSettings["FUNCTIONS_ADMIN_ISOLATION_ENABLED"] = RedactedString("1")
        }
        #expect(try json(try await send(.get, "hostruntime/admin/host/status"))["state"] == "Running")
    }

    @Test func theBridgeAsksTheRoles() async throws {
        let reads = [
            "host/status", "host/ping", "host/drain/status", "functions", "functions/HttpTrigger1",
            "functions/HttpTrigger1/status",
        ]
        for path in reads {
            #expect(await refusal(.get, "hostruntime/admin/\(path)", as: Self.reader) == nil, "\(path)")
            #expect(await refusal(.get, "hostruntime/admin/\(path)", as: Self.operate)?.status == 403)
            #expect(await refusal(.get, "hostruntime/admin/\(path)", as: Self.stranger, site: "NoApp")?.status == 403)
        }
        let actions: [(ControlRequest.Method, String)] = [
            (.get, "host/config"), (.get, "vfs/site/wwwroot/data.txt"), (.get, "functions/download"),
            (.post, "host/restart"), (.post, "host/drain"), (.post, "host/log"), (.post, "functions/HttpTrigger1"),
            (.put, "host/state"), (.delete, "functions/HttpTrigger1"), (.get, "host/none"),
        ]
        for (method, path) in actions {
            #expect(await refusal(method, "hostruntime/admin/\(path)", as: Self.reader)?.status == 403, "\(path)")
            #expect(await refusal(method, "hostruntime/admin/\(path)", as: Self.operate)?.status != 403, "\(path)")
        }
        #expect(await refusal(.get, "hostruntime/admin/host/status", site: "NoApp")?.status == 404)
    }

    @Test func keysDoNotPassTheBridge() async throws {
        for path in [
            "host/keys", "host/functionKeys/default", "host/systemkeys/_master", "host/masterKey",
            "functions/HttpTrigger1/keys", "functions/HttpTrigger1/Keys/default",
        ] {
            #expect(await refusal(.get, "hostruntime/admin/\(path)")?.status == 401, "\(path)")
            for method in [ControlRequest.Method.post, .put, .delete] {
                #expect(await refusal(method, "hostruntime/admin/\(path)", ["value": "v"])?.status == 501)
            }
        }
        #expect(try await world.runtime.hostKeys(of: world.id).functionKeys.map(\.name) == ["default"])
    }

    @Test func theBridgesRefusalsAreResourceManagers() async throws {
        let table: [(ControlRequest.Method, String, Int)] = [
            (.get, "vfs/site/wwwroot/", 501), (.get, "functions/download", 501), (.get, "other", 501),
            (.get, "host/processes", 501), (.put, "host/state", 400), (.post, "functions/None", 404),
            (.post, "functions/HttpTrigger1", 400), (.put, "functions/New", 400), (.put, "functions", 405),
            (.post, "host/log", 400),
        ]
        for (method, path, status) in table {
            let error = await refusal(method, "hostruntime/admin/\(path)")
            #expect(error?.status == status && error?.message.isEmpty == false, "\(path)")
        }
        for path in ["hostruntime", "hostruntime/admin", "hostruntime/runtime/webhooks/eventgrid", "hostruntime/api/x"]
        {
            #expect(await refusal(.get, path)?.status == 501, "\(path)")
        }
        // Nothing runs of an app that is stopped, nor does a client repeat the request for minutes.
        try await world.runtime.stop(world.id)
        let stopped = await refusal(.post, "hostruntime/admin/functions/HttpTrigger1", [:])
        #expect(stopped?.status == 400 && stopped?.message.contains("stopped") == true)
        #expect(await refusal(.post, "hostruntime/admin/host/resume")?.status == 409)
    }
}
