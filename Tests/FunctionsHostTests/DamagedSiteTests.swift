import AccessControl
import CofferCore
import EncryptionAtRest
import HTTPEdge
import NIOHTTP1
import NIOPosix
import ResourceProviders
import StorageEngine
import TestSupport
import Testing

@testable import FunctionsHost

/// A record that does not open takes its own site or plan away, and nothing else.
@Suite struct DamagedSiteTests {
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")
    private let engine = InMemoryEngine()
    private let world: World
    private let other: ResourceID
    private let plan: ResourceID
    private let group = ResourceID("/subscriptions/s/resourceGroups/rg")

    init() async throws {
        world = try await World(metadata: engine)
        other = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/Other")
        plan = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/serverfarms/P1")
        let credentials = SiteSecrets(
            publishingCredentials: .generate(siteName: "Other", randomness: SystemRandomness()))
        try await world.sites.create(
            Site(
                id: other, kind: "functionapp,linux", location: "eastus", created: world.clock.now(),
                secrets: credentials))
        let now = world.clock.now()
        let id = plan
        _ = try await world.sites.putPlan(id) { _ in
            Plan(
                id: id, kind: "linux", location: "eastus", tags: [:], sku: ["name": "B1", "tier": "Basic"],
                reserved: true, created: now)
        }
    }

    private func damage(_ partition: String, _ row: String) async throws {
        let partition = Partition("r/sites/" + partition)
        let row = RowKey(row)
        var value = try #require(try await engine.get(partition, [row])[0]).value
        value[value.count - 1] ^= 1
        _ = try await engine.commit(partition, checks: [], writes: [.put(row, value)])
    }

    /// As after a restart.
    private func restart(
        _ body: (SiteStore, FunctionGate, WebResourceProvider) async throws -> Void
    ) async throws {
        let store = try SealedStore(
            metadata: engine, extents: engine, rootKey: rootKey(), clock: world.clock, randomness: SystemRandomness())
        let sites = SiteStore(store: store)
        try await sites.load()
        let runtime = FunctionRuntime(
            sites: sites, vaults: world.vaults, http: world.storage, identities: TestIdentities(), logs: world.logs,
            configuration: FunctionsHostConfiguration(names: world.names, instanceID: "instance-2"),
            group: MultiThreadedEventLoopGroup.singleton, clock: world.clock, randomness: SystemRandomness(),
            logger: silentLogger)
        let access = AccessController()
        access.publish(
            RoleBook(
                definitions: BuiltInRoles.all,
                assignments: [
                    RoleAssignment(
                        name: "a", scope: .root, roleID: BuiltInRoles.owner, principalID: Self.owner.objectID,
                        principalType: "ServicePrincipal", created: world.clock.now(), createdBy: "")
                ]))
        let provider = WebResourceProvider(
            sites: sites, runtime: runtime, access: access, identities: TestIdentities(), clock: world.clock,
            randomness: SystemRandomness(), log: silentLogger)
        try await body(sites, FunctionGate(runtime), provider)
        await runtime.shutdown()
    }

    private func outcome(
        _ provider: WebResourceProvider, _ method: ControlRequest.Method, _ path: ResourceID
    ) async -> Int {
        let body: JSONValue = ["location": "eastus", "kind": "functionapp,linux", "properties": [:]]
        do throws(ControlError) {
            return try await provider.respond(
                to: ControlRequest(
                    method: method, path: path, query: [:], apiVersion: "2024-11-01",
                    body: method == .put ? body : nil, names: .azurePublic), as: Self.owner
            ).status
        } catch { return error.status }
    }

    @Test(arguments: ["site", "usage"])
    func aSite(row: String) async throws {
        try await world.sites.save(UsageRecord(day: 1, megabyteMilliseconds: 1), of: "MyApp")
        try await damage("site/myapp", row)
        try await restart { sites, gate, provider in
            #expect(sites.damaged == ["site myapp"] && sites.sites().map(\.id) == [other])
            for method in [.get, .put, .delete] as [ControlRequest.Method] {
                #expect(await outcome(provider, method, world.id) == 500)
            }
            #expect(await outcome(provider, .get, other) == 200)
            #expect(await outcome(provider, .delete, plan) == 500, "the site may lie in it")
            await #expect(throws: ControlError.self) { try await provider.requireAllTracked(below: group) }
            #expect(await gate.respond(to: request("myapp")).status == .internalServerError)
            #expect(await gate.respond(to: request("nobody")).status == .notFound)
        }
        // Nothing was written over it.
        try await restart { sites, _, _ in #expect(sites.damaged == ["site myapp"]) }
    }

    @Test func aPlan() async throws {
        try await damage("plans", "plan/" + plan.canonical)
        try await restart { sites, _, provider in
            #expect(sites.damaged.count == 1 && sites.plans().isEmpty && sites.sites().count == 2)
            for method in [.get, .put, .delete] as [ControlRequest.Method] {
                #expect(await outcome(provider, method, plan) == 500)
            }
            await #expect(throws: ControlError.self) { try await provider.requireAllTracked(below: group) }
            try await provider.requireAllTracked(below: ResourceID("/subscriptions/s/resourceGroups/other"))
            // Nor by the way that a function app makes its plan.
            let id = plan
            await #expect(throws: SiteStoreError.damaged(id)) {
                _ = try await sites.putPlan(id) { _ in throw SiteStoreError.notFound(id) }
            }
        }
    }

    private func request(_ site: String) -> Request {
        Request(
            id: "r", method: .GET, rawPath: "/", rawQuery: "", headers: [:], endpoint: .site(site),
            names: world.names.own, transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"),
            body: .empty)
    }
}
