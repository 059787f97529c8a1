import CofferCore
import HTTPEdge
import NIOCore
import NIOHTTP1
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

struct AccessRestrictionTests {
    private func set(_ rules: [AccessRestriction], _ action: AccessRestriction.Action? = nil) -> AccessRestrictionSet {
        AccessRestrictionSet(AccessRestrictions(rules: rules, defaultAction: action))
    }
    private func rule(
        _ action: AccessRestriction.Action, _ priority: Int64, _ networks: String..., headers: [String: [String]] = [:]
    ) -> AccessRestriction {
        AccessRestriction(
            action: action, priority: priority, address: networks.isEmpty ? .any : .networks(networks), headers: headers
        )
    }
    private func allows(_ set: AccessRestrictionSet, _ peer: String, _ headers: HTTPHeaders = [:]) -> Bool {
        set.allows(peer: peer, headers: headers)
    }

    @Test func defaults() {
        #expect(allows(set([]), "1.2.3.4"))
        #expect(!allows(set([], .deny), "1.2.3.4"))
        #expect(!allows(set([rule(.allow, 1, "10.0.0.0/8")]), "1.2.3.4"))
        #expect(allows(set([rule(.allow, 1, "10.0.0.0/8")]), "10.1.2.3"))
        #expect(allows(set([rule(.deny, 1, "10.0.0.0/8")], .allow), "1.2.3.4"))
        // A lone denial denies everyone else too.
        #expect(!allows(set([rule(.deny, 1, "10.0.0.0/8")]), "1.2.3.4"))
    }

    @Test func priorityDecides() {
        let rules = [rule(.deny, 200, "10.0.0.0/8"), rule(.allow, 100, "10.1.0.0/16"), rule(.deny, 100, "10.1.0.0/16")]
        #expect(allows(set(rules, .allow), "10.1.0.1"))
        #expect(!allows(set(rules, .allow), "10.2.0.1"))
        #expect(allows(set(rules, .allow), "11.0.0.1"))
    }

    @Test func bothFamilies() {
        let rules = set([rule(.allow, 1, "2001:db8::/32", "192.0.2.1")])
        #expect(allows(rules, "2001:db8::1") && allows(rules, "192.0.2.1") && allows(rules, "::ffff:192.0.2.1"))
        #expect(
            !allows(rules, "2001:db9::1") && !allows(rules, "192.0.2.2") && !allows(rules, "")
                && !allows(rules, "nonsense"))
        #expect(allows(set([rule(.allow, 1)]), "nonsense"))
    }

    @Test func headers() {
        let rules = set([
            rule(
                .allow, 1, headers: ["x-azure-fdid": ["a", "b"], "x-forwarded-host": ["*.example.com", "other.org"]]),
            rule(.allow, 2, headers: ["x-forwarded-for": ["203.0.113.0/24"]]),
        ])
        #expect(allows(rules, "1.1.1.1", ["X-Azure-FDID": "B", "X-Forwarded-Host": "a.Example.com"]))
        #expect(!allows(rules, "1.1.1.1", ["X-Azure-FDID": "b", "X-Forwarded-Host": "a.b.example.com"]))
        #expect(!allows(rules, "1.1.1.1", ["X-Azure-FDID": "c", "X-Forwarded-Host": "other.org"]))
        #expect(!allows(rules, "1.1.1.1", ["X-Azure-FDID": "a"]))
        #expect(allows(rules, "1.1.1.1", ["X-Forwarded-For": "8.8.8.8, 203.0.113.9:4711"]))
        #expect(!allows(rules, "1.1.1.1", ["X-Forwarded-For": "8.8.8.8"]))
    }

    @Test func configuration() throws {
        var config = SiteConfig()
        try config.apply([
            "ipSecurityRestrictions": [
                [
                    "ipAddress": "203.0.113.0/24", "action": "Allow", "priority": 200, "name": "office",
                    "tag": "Default",
                ],
                ["ipAddress": "Any", "action": "Deny", "priority": 2_147_483_647, "name": "Deny all"],
            ]
        ])
        #expect(config.accessRestrictions.rules.map(\.name) == ["office"])
        #expect(config.json["ipSecurityRestrictions"]?.arrayValue?.count == 2)
        var again = SiteConfig()
        try again.apply(config.json)
        #expect(again == config)
        let refusals: [JSONValue] = [
            ["ipAddress": "AzureCloud", "tag": "ServiceTag"], ["vnetSubnetResourceId": "/x"],
            ["ipAddress": "1.2.3.4/33"], ["ipAddress": "x"],
            ["ipAddress": "1.2.3.4", "priority": 0], ["action": "Allow"], ["ipAddress": "1.2.3.4", "action": "Maybe"],
            ["ipAddress": "1.2.3.4", "headers": ["x-other": ["a"]]],
            ["ipAddress": "1.2.3.4", "name": "a name that is far too long to be one"],
        ]
        for refusal in refusals {
            #expect(throws: SiteConfigError.self) { try config.apply(["ipSecurityRestrictions": .array([refusal])]) }
        }
        #expect(throws: SiteConfigError.self) {
            try config.apply(["cors": ["allowedOrigins": ["*"], "supportCredentials": true]])
        }
        #expect(throws: SiteConfigError.self) { try config.apply(["minTlsVersion": "9"]) }
        #expect(throws: SiteConfigError.self) { try config.apply(["remoteDebuggingEnabled": true]) }
        #expect(again == config)
    }
}

struct GateTests {
    @Test func platformRules() async throws {
        let world = try await World()
        #expect(try await world.send(world.get("/")).status == 200)
        #expect(try await world.send(world.get("/api/none")).status == 404)
        let other = Request(
            id: "r", method: .GET, rawPath: "/", rawQuery: "", headers: [:], endpoint: .site("other"),
            names: world.names.own,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "::1"), body: .empty)
        #expect(try await world.send(other).status == 404)
        try await world.sites.update(world.id) { $0.httpsOnly = true }
        let redirect = try await world.send(world.request(.GET, "/a?b=c", scheme: .http))
        #expect(redirect.status == 301)
        #expect(redirect.headers.first(name: "Location") == "https://myapp.azurewebsites.coffer.localhost/a?b=c")
        #expect(
            try await world.send(world.get("/")).headers.first(name: "Strict-Transport-Security") == "max-age=31536000")
        try await world.sites.update(world.id) { $0.config.minTLSVersion = .v1_3 }
        #expect(try await world.send(world.request(.GET, "/", tls: .v1_2)).status == 403)
        #expect(world.runtime.minimumTLSVersion(of: .site("MYAPP")) == .v1_3)
        try await world.runtime.stop(world.id)
        let stopped = try await world.send(world.get("/"))
        #expect(stopped.status == 403 && stopped.body.contains("stopped"))
        try await world.runtime.start(world.id)
        #expect(try await world.send(world.get("/")).status == 200)
        try await world.sites.update(world.id) {
            $0.config.accessRestrictions.rules = [
                .init(action: .allow, priority: 1, address: .networks(["10.0.0.0/8"]))
            ]
        }
        let forbidden = try await world.send(world.get("/"))
        #expect(forbidden.status == 403 && forbidden.headers.first(name: "x-ms-forbidden-ip") == "198.51.100.7")
        #expect(try await world.send(world.request(.GET, "/", peer: "10.0.0.1")).status == 200)
        try await world.sites.update(world.id) { site in
            site.config.accessRestrictions.rules = []
            site.publicNetworkAccess = .disabled
        }
        #expect(try await world.send(world.get("/")).status == 403)
        try await world.sites.update(world.id) { site in
            site.publicNetworkAccess = .enabled
            site.clientCertEnabled = true
            site.clientCertExclusionPaths = "/open,/other"
        }
        #expect(try await world.send(world.get("/")).status == 403)
        #expect(try await world.send(world.get("/open/x")).status == 404)
        #expect(try await world.sites.delete(world.id))
        #expect(try await world.send(world.get("/")).status == 404)
    }

    @Test func cors() async throws {
        let world = try await World {
            $0.config.cors = CORSSettings(allowedOrigins: ["https://a.example"], supportCredentials: true)
        }
        let preflight: HTTPHeaders = [
            "Origin": "https://a.example", "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "x-a",
        ]
        let answer = try await world.send(world.request(.OPTIONS, "/api/x", headers: preflight))
        #expect(answer.status == 204)
        #expect(answer.headers.first(name: "Access-Control-Allow-Origin") == "https://a.example")
        #expect(answer.headers.first(name: "Access-Control-Allow-Methods") == "PUT")
        #expect(answer.headers.first(name: "Access-Control-Allow-Headers") == "x-a")
        #expect(answer.headers.first(name: "Access-Control-Allow-Credentials") == "true")
        var foreign = preflight
        foreign.replaceOrAdd(name: "Origin", value: "https://A.example")
        let refused = try await world.send(world.request(.OPTIONS, "/api/x", headers: foreign))
        #expect(refused.headers.first(name: "Access-Control-Allow-Origin") == nil)
        let simple = try await world.send(world.get("/", headers: ["Origin": "https://a.example"]))
        #expect(simple.headers.first(name: "Access-Control-Allow-Origin") == "https://a.example")
        #expect(
            try await world.send(world.get("/", headers: ["Origin": "https://b.example"])).headers.first(
                name: "Access-Control-Allow-Origin") == nil)
        try await world.sites.update(world.id) { $0.config.cors = CORSSettings(allowedOrigins: ["*"]) }
        #expect(
            try await world.send(world.get("/", headers: ["Origin": "https://b.example"])).headers.first(
                name: "Access-Control-Allow-Origin") == "*")
        try await world.sites.update(world.id) { $0.config.cors = CORSSettings() }
        #expect(try await world.send(world.request(.OPTIONS, "/api/x", headers: preflight)).status == 404)
    }

    @Test func quota() async throws {
        let meter = UsageMeter(nil)
        let noon = Timestamp(iso8601: "2026-03-01T12:00:00Z")!
        // 200 MB count as 256; 8 s of it are 2 GB-seconds.
        meter.record(milliseconds: 8_000, now: noon) { 200 << 20 }
        #expect(
            meter.isSpent(quota: 2, now: noon) && !meter.isSpent(quota: 3, now: noon)
                && !meter.isSpent(quota: 0, now: noon))
        let saved = try #require(meter.unwritten())
        #expect(saved.megabyteMilliseconds == 256 * 8_000)
        meter.noteWritten(saved)
        #expect(meter.unwritten() == nil)
        #expect(UsageMeter(saved).isSpent(quota: 2, now: noon))
        let tomorrow = Timestamp(iso8601: "2026-03-02T00:00:00Z")!
        #expect(!meter.isSpent(quota: 2, now: tomorrow))
        #expect(meter.isSpent(quota: 2, now: tomorrow.adding(seconds: -1)))
        #expect(UsageMeter.secondsToMidnight(from: tomorrow.adding(seconds: -1)) == 1)
        meter.record(milliseconds: 1, now: tomorrow) { nil }
        #expect(meter.unwritten() == UsageRecord(day: saved.day + 1, megabyteMilliseconds: 128 * 100))
        let world = try await World { $0.dailyMemoryTimeQuota = 1 }
        world.runtime.entry(named: "myapp")?.meter.record(milliseconds: 8_000, now: world.clock.now()) { 128 << 20 }
        let spent = try await world.send(world.get("/"))
        #expect(spent.status == 403 && spent.headers.first(name: "Retry-After") == "43200")
        world.clock.advance(seconds: 43_200)
        #expect(try await world.send(world.get("/")).status == 200)
    }

    @Test func usageThatWasNotWrittenIsWrittenTheNextTime() async throws {
        let engine = FaultyEngine(InMemoryEngine())
        let world = try await World(metadata: engine)
        world.runtime.entry(named: "myapp")?.meter.record(milliseconds: 8_000, now: world.clock.now()) { 128 << 20 }
        engine.fail(at: 0, .before)
        await world.runtime.shutdown()
        #expect(try await world.sites.usage(of: "myapp") == nil)
        engine.heal()
        await world.runtime.shutdown()
        #expect(try await world.sites.usage(of: "myapp")?.megabyteMilliseconds == 128 * 8_000)
    }

    @Test func packageFailuresAreSaid() async throws {
        let reference = "@Microsoft.KeyVault(SecretUri=https://vault1.vault.coffer.localhost/secrets/url)"
        let world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": reference]) { $0.identity = testIdentity }
        func answer() async throws -> World.Answer { try await world.send(world.get("/api/HttpTrigger1")) }
        var seen = try await answer()
        #expect(seen.status == 503 && seen.body.contains("AccessToKeyVaultDenied"))
        world.vaults.allow(testIdentity)
        world.vaults.put("url", World.package + "?sv=1&sig=abcdef", version: "v1")
        world.clock.advance(seconds: 60)
        seen = try await answer()
        #expect(seen.status == 503 && seen.body.contains("404") && !seen.body.contains("sig="))
        // Not again with every request.
        let before = world.storage.requests(for: World.package)
        _ = try await answer()
        #expect(world.storage.requests(for: World.package) == before)
        world.clock.advance(seconds: 60)
        world.storage.put(World.package, Array("\u{1f}\u{8b}".unicodeScalars.map { UInt8($0.value) }))
        #expect(try await answer().body.contains("GZIP"))
        world.clock.advance(seconds: 60)
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        #expect(try await answer().status == 401)
        #expect(try await world.runtime.functions(of: world.id).map(\.name) == ["HttpTrigger1"])
        #expect(try await world.runtime.function("httptrigger1", of: world.id).invokePath == "api/httptrigger1")
        // It goes on with what it has, until it is restarted.
        world.storage.refuse("https://packages.", with: 403)
        #expect(try await answer().status == 401)
        try await world.runtime.restart(world.id)
        #expect(try await answer().status == 503)
        let one = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": "1"])
        #expect(try await one.send(one.get("/")).status == 503)
    }

    /// Whoever waited for it gets the app of after the restart.
    @Test func whatIsLoadedWhenARestartIsAskedForIsNotServed() async throws {
        let world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package, "TEXT": "one"])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        let (sites, id) = (world.sites, world.id)
        world.storage.meanwhile(World.package) {
            _ = try? await sites.update(id) { $0.secrets.appSettings["TEXT"] = RedactedString("two") }
        }
        let host = try #require(world.runtime.entry(named: "myapp")).host
        #expect(try await host.app().settings.value("TEXT")?.reveal() == "two")
        #expect(world.storage.requests(for: World.package) == 2)
    }

    @Test(.enabled(if: canSandbox))
    func aShutDownWaitsForTheWorkerThatARestartEnds() async throws {
        let world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        let host = try #require(world.runtime.entry(named: "myapp")).host
        let worker = try #require(try await host.app().worker)
        let port = try #require(try await worker.acquire(limit: 1))
        host.restart()
        let isDown = Mutex(false)
        async let end: Void = {
            await host.shutDown()
            isDown.withLock { $0 = true }
        }()
        for _ in 0..<1_000 { await Task.yield() }
        #expect(!isDown.withLock { $0 }, "a call is under way")
        worker.release()
        await end
        #expect(ProcessTree.listener(onPort: port) == nil)
    }

    @Test func adminAPI() async throws {
        let world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        let keys = try await world.runtime.hostKeys(of: world.id)
        let master: HTTPHeaders = ["x-functions-key": keys.masterKey.reveal()]
        func send(_ method: HTTPMethod, _ path: String, _ body: String? = nil) async throws -> World.Answer {
            try await world.send(world.request(method, path, headers: master, body: body))
        }
        #expect(try await world.send(world.get("/admin/host/ping")).status == 200)
        #expect(try await world.send(world.get("/admin/host/status")).status == 401)
        // What is no token opens nothing.
        for name in ["Authorization", "x-ms-site-token", "x-ms-site-restricted-token"] {
            let request = world.get("/admin/host/status", headers: [name: "Bearer a.b.c"])
            #expect(try await world.send(request).status == 401)
        }
        #expect(
            try await world.send(world.get("/admin/host/status?code=\(keys.functionKeys[0].value.reveal())")).status
                == 403)
        let functionKey = try await world.runtime.functionKeys("HttpTrigger1", of: world.id)[0].value.reveal()
        #expect(try await world.send(world.get("/admin/host/status?code=\(functionKey)")).status == 401)
        let made = try await send(.PUT, "/admin/host/functionkeys/one", #"{"name":"one","value":"value-1"}"#)
        #expect(
            made.status == 201
                && made.headers.first(name: "Location")?.hasSuffix("/admin/host/functionkeys/one") == true)
        #expect(try await send(.PUT, "/admin/host/keys/one", #"{"value":"value-2"}"#).status == 200)
        #expect(try await send(.PUT, "/admin/host/keys/one", "{}").status == 400)
        #expect(try await send(.GET, "/admin/host/keys/one").body.contains("value-2"))
        #expect(try await send(.POST, "/admin/host/keys/two").status == 201)
        #expect(try await send(.GET, "/admin/host/keys").body.contains("two"))
        #expect(try await send(.DELETE, "/admin/host/keys/two").status == 204)
        #expect(try await send(.DELETE, "/admin/host/keys/two").status == 404)
        #expect(try await send(.DELETE, "/admin/host/systemkeys/_master").status == 400)
        #expect(try await send(.GET, "/admin/host/systemkeys/_master").body.contains(keys.masterKey.reveal()))
        #expect(try await send(.GET, "/admin/functions").body.contains("invoke_url_template"))
        #expect(try await send(.GET, "/admin/functions/HttpTrigger1/keys").body.contains("default"))
        #expect(try await send(.GET, "/admin/functions/None/keys").status == 404)
        #expect(try await send(.GET, "/admin/functions/httptrigger1/status").status == 200)
        #expect(try await send(.PUT, "/admin/functions/New", "{}").status == 400)
        #expect(try await send(.GET, "/admin/host/processes").status == 501)
        #expect(try await world.send(world.get("/runtime/webhooks/eventgrid")).status == 401)
        #expect(try await send(.GET, "/runtime/webhooks/eventgrid").status == 404)
    }

    @Test func levels() {
        let table: [(KeyAuthorization, Set<AuthorizationLevel>)] = [
            (.none, [.anonymous]), (.function(name: "a"), [.anonymous, .function]),
            (.hostFunction(name: "a"), [.anonymous, .function]),
            (.system(name: "a"), [.anonymous, .system]), (.master, [.anonymous, .user, .function, .system, .admin]),
        ]
        for (authorization, levels) in table {
            for level in [AuthorizationLevel.anonymous, .user, .function, .system, .admin] {
                #expect(authorization.opens(level) == levels.contains(level), "\(authorization) \(level)")
            }
        }
    }
}

struct WorkerStateTests {
    private let start = Timestamp(unixSeconds: 1_000)

    @Test func startsOnceAndServes() {
        var state = WorkerState()
        #expect(state.wanted(now: start) == .launch)
        #expect(state.wanted(now: start) == .none)
        #expect(state.becameReady(now: start) == .none)
        #expect(state.wanted(now: start) == .none)
        #expect(state.idledOut() == .terminate(gracefully: true))
        #expect(state.ended("late news", now: start) == .none)
        #expect(state.wanted(now: start) == .launch)
        #expect(state.stop() == .terminate(gracefully: false))
        #expect(state.wanted(now: start) == .none && state.becameReady(now: start) == .none && state.phase == .stopped)
    }

    @Test func backsOffExponentially() {
        var state = WorkerState()
        var now = start
        var delays: [Int64] = []
        _ = state.wanted(now: now)
        for _ in 0..<9 {
            guard case .retry(let delay) = state.ended("crash", now: now) else { break }
            delays.append(delay)
            #expect(state.wanted(now: now) == .none)
            now = now.adding(seconds: delay)
            #expect(state.wanted(now: now) == .launch)
        }
        #expect(delays == [1, 2, 4, 8, 16, 32, 60, 60, 60])
        _ = state.becameReady(now: now)
        #expect(state.ended("crash", now: now.adding(seconds: 61)) == .retry(afterSeconds: 1))
    }

    @Test func unreadyIsKilled() {
        var state = WorkerState()
        #expect(state.readinessFailed("x", now: start) == .none)
        _ = state.wanted(now: start)
        #expect(state.readinessFailed("never listened", now: start) == .terminate(gracefully: false))
        #expect(state.ended("killed", now: start) == .retry(afterSeconds: 1))
        #expect(state.lastFailure == "never listened")
    }

    /// Whatever it was before: a caller is told of the start that failed last.
    @Test func theLastFailureIsTheOneSaid() {
        var state = WorkerState()
        var now = start
        for reason in ["exited with code 3", "was ended by signal 9", "exited with code 4"] {
            #expect(state.wanted(now: now) == .launch && state.lastFailure == nil)
            guard case .retry(let delay) = state.ended(reason, now: now) else { break }
            #expect(state.lastFailure == reason)
            now = now.adding(seconds: delay)
        }
    }

    /// Whatever comes in whatever order: never two launches without an end between them.
    @Test func anyOrderOfEvents() {
        var random = SplitMix(seed: 3)
        for _ in 0..<500 {
            var state = WorkerState()
            var alive = false
            var now = start
            for _ in 0..<60 {
                now = now.adding(seconds: Int64(random.next() % 5))
                let action: WorkerState.Action
                switch random.next() % 6 {
                case 0, 1: action = state.wanted(now: now)
                case 2: action = alive ? state.becameReady(now: now) : .none
                case 3:
                    action = state.ended("x", now: now)
                    alive = false
                case 4: action = state.readinessFailed("y", now: now)
                default: action = random.next() % 8 == 0 ? state.stop() : state.idledOut()
                }
                if action == .launch {
                    #expect(!alive && state.phase != .stopped)
                    alive = true
                }
                if case .terminate = action { alive = false }
            }
        }
    }
}
