import AccessControl
import CofferCore
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// The directory's part: identities by resource. Each that is made is another one.
private final class Identities: ManagedIdentities {
    struct Unavailable: Error {}
    private let known = Mutex<[ResourceID: ManagedIdentity]>([:])
    private let randomness = SeededRandomness(5)
    /// How many were made, whatever became of them.
    let made = Mutex(0)
    /// Whether identities can be removed.
    let isAvailable = Mutex(true)

    func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity {
        if let identity = identity(of: resource) { return identity }
        let identity = ManagedIdentity(
            principalID: randomness.uuidString(), clientID: randomness.uuidString(), tenantID: "t")
        made.withLock { $0 += 1 }
        known.withLock { $0[resource] = identity }
        return identity
    }
    func removeSystemAssignedIdentity(of resource: ResourceID) async throws {
        guard isAvailable.withLock({ $0 }) else { throw Unavailable() }
        known.withLock { $0[resource] = nil }
    }
    func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken {
        try await TestIdentities().issueToken(for: identity, audience: audience)
    }
    func servicePrincipal(applicationID: String, secret: RedactedString, tenantID: String) async throws -> Caller {
        throw Unavailable()
    }
    func identity(of resource: ResourceID) -> ManagedIdentity? { known.withLock { $0[resource] } }
}

/// A site's identity and the site's record change together, or not at all: what is refused leaves both.
@Suite struct SiteIdentityTests {
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")
    private static let assigned: JSONValue = ["identity": ["type": "SystemAssigned"]]
    private static let removed: JSONValue = ["identity": ["type": "None"]]
    /// A member that is refused.
    private static let wrong: JSONValue = ["properties": ["dailyMemoryTimeQuota": .integer(-1)]]

    private let engine = FaultyEngine(InMemoryEngine())
    private let identities = Identities()
    private let world: World
    private let provider: WebResourceProvider

    init() async throws {
        world = try await World(metadata: engine)
        let access = AccessController()
        access.publish(
            RoleBook(
                definitions: [
                    RoleDefinition(
                        id: "r", roleName: "All", description: "", isBuiltIn: true,
                        permissions: RolePermissions(actions: ["*"]), assignableScopes: [.root])
                ],
                assignments: [
                    RoleAssignment(
                        name: "a", scope: .root, roleID: "r", principalID: Self.owner.objectID,
                        principalType: "ServicePrincipal", created: world.clock.now(), createdBy: "")
                ]))
        provider = WebResourceProvider(
            sites: world.sites, runtime: world.runtime, access: access, identities: identities, clock: world.clock,
            randomness: SystemRandomness(), log: silentLogger)
    }

    private func status(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue
    ) async -> Int {
        let request = ControlRequest(
            method: method, path: path, query: [:], apiVersion: "2024-11-01", body: body, names: .azurePublic)
        do throws(ControlError) {
            return try await provider.respond(to: request, as: Self.owner).status
        } catch { return error.status }
    }
    private func patch(_ body: JSONValue) async -> Int { await status(.patch, world.id, body) }

    /// The identity the site's record names.
    private var named: ManagedIdentity? { world.sites.site(world.id)?.identity }
    /// The one the directory has for it.
    private var existing: ManagedIdentity? { identities.identity(of: world.id) }

    @Test func anIdentityComesAndGoes() async throws {
        #expect(await patch(Self.assigned) == 200)
        let first = try #require(named)
        #expect(existing == first)
        // The same one, however often it is asked for, and whatever else is changed.
        #expect(await patch(Self.assigned) == 200)
        #expect(await patch(["properties": ["httpsOnly": true]]) == 200)
        #expect(named == first && existing == first)
        #expect(await patch(Self.removed) == 200)
        #expect(named == nil && existing == nil)
        #expect(await patch(Self.assigned) == 200)
        #expect(named != nil && named == existing && named != first)
    }

    @Test func aRefusedRemovalLeavesTheIdentity() async throws {
        #expect(await patch(Self.assigned) == 200)
        let identity = try #require(named)
        #expect(await patch(Self.removed.merged(with: Self.wrong)) == 400)
        #expect(existing?.principalID == identity.principalID)
        #expect(named == identity)
    }

    @Test func aRefusedAssignmentLeavesNone() async {
        let new = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/NewApp")
        let body = Self.assigned.merged(with: Self.wrong)
        #expect(await patch(body) == 400)
        #expect(named == nil && existing == nil)
        let whole = body.merged(with: ["location": "eastus", "kind": "functionapp,linux"])
        #expect(await status(.put, new, whole) == 400)
        #expect(world.sites.site(new) == nil && identities.identity(of: new) == nil)
        #expect(identities.made.withLock { $0 } == 0)
    }

    /// Made before the record that names it, it must not outlive a record that was never written.
    @Test func anIdentityWhoseSiteCannotBeWrittenIsRemoved() async {
        engine.fail(at: 0, .before)
        #expect(await patch(Self.assigned) == 503)
        engine.heal()
        #expect(identities.made.withLock { $0 } == 1)
        #expect(named == nil && existing == nil)
        #expect(await patch(Self.assigned) == 200)
        #expect(named != nil && named == existing)
    }

    @Test func aSiteThatCannotBeWrittenKeepsItsIdentity() async throws {
        #expect(await patch(Self.assigned) == 200)
        let identity = try #require(named)
        for body in [Self.removed, Self.assigned.merged(with: ["properties": ["httpsOnly": true]])] {
            engine.fail(at: 0, .before)
            #expect(await patch(body) == 503)
            engine.heal()
            #expect(named == identity && existing == identity)
        }
    }

    /// Nobody knows whether the record names it.
    @Test func anUnknownOutcomeKeepsTheIdentity() async throws {
        engine.fail(at: 0, .after)
        #expect(await patch(Self.assigned) == 503)
        engine.heal()
        #expect(existing != nil)
        #expect(await patch(Self.assigned) == 200)
        #expect(named != nil && named == existing)
    }

    @Test func aStartRemovesWhatACrashLeft() async throws {
        #expect(await patch(Self.assigned) == 200)
        try await provider.removeLeftIdentities()
        #expect(named != nil && named == existing)
        identities.isAvailable.withLock { $0 = false }
        #expect(await patch(Self.removed) == 503)
        identities.isAvailable.withLock { $0 = true }
        #expect(existing != nil)
        try await provider.removeLeftIdentities()
        #expect(existing == nil)
    }

    /// One that was to go and could not has roles still: they must not come back with the next.
    @Test func anIdentityLeftBehindDoesNotComeBack() async throws {
        #expect(await patch(Self.assigned) == 200)
        let first = try #require(named)
        identities.isAvailable.withLock { $0 = false }
        #expect(await patch(Self.removed) == 503)
        #expect(named == nil)
        #expect(await patch(Self.assigned) == 503)
        #expect(named == nil)
        identities.isAvailable.withLock { $0 = true }
        #expect(await patch(Self.assigned) == 200)
        #expect(named != nil && named == existing && named != first)
    }
}
