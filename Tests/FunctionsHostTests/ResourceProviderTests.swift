import AccessControl
import CofferCore
import Glibc
import Logging
import ResourceProviders
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// Remembers which resources have an identity, and what was there when one was removed.
private final class RecordedIdentities: ManagedIdentities {
    let removed = Mutex<[(resource: ResourceID, siteExisted: Bool)]>([])
    let sites: SiteStore
    init(_ sites: SiteStore) { self.sites = sites }

    func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity {
        testIdentity
    }
    func removeSystemAssignedIdentity(of resource: ResourceID) async throws {
        let exists = sites.site(resource) != nil
        removed.withLock { $0.append((resource, exists)) }
    }
    func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken {
        try await TestIdentities().issueToken(for: identity, audience: audience)
    }
    func servicePrincipal(applicationID: String, secret: RedactedString, tenantID: String) async throws -> Caller {
        try await TestIdentities().servicePrincipal(applicationID: applicationID, secret: secret, tenantID: tenantID)
    }
}

@Suite struct ResourceProviderTests {
    private static let owner = Caller(kind: .servicePrincipal, objectID: "owner", tenantID: "t")
    /// Contributor of one resource group.
    private static let developer = Caller(kind: .servicePrincipal, objectID: "developer", tenantID: "t")
    private static let group = ResourceID("/subscriptions/s/resourceGroups/rg")
    private static let foreignPlan = "/subscriptions/s/resourceGroups/other/providers/Microsoft.Web/serverfarms/plan"

    private let world: World
    private let identities: RecordedIdentities
    private let provider: WebResourceProvider

    init() async throws {
        world = try await World()
        identities = RecordedIdentities(world.sites)
        let access = AccessController()
        let now = world.clock.now()
        func assignment(_ name: String, _ scope: ResourceID, _ caller: Caller) -> RoleAssignment {
            RoleAssignment(
                name: name, scope: scope, roleID: "r", principalID: caller.objectID, principalType: "ServicePrincipal",
                created: now, createdBy: "")
        }
        access.publish(
            RoleBook(
                definitions: [
                    RoleDefinition(
                        id: "r", roleName: "All", description: "", isBuiltIn: true,
                        permissions: RolePermissions(actions: ["*"]), assignableScopes: [.root])
                ],
                assignments: [assignment("a", .root, Self.owner), assignment("b", Self.group, Self.developer)]))
        provider = WebResourceProvider(
            sites: world.sites, runtime: world.runtime, access: access, identities: identities, clock: world.clock,
            randomness: SystemRandomness(), log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    @discardableResult private func send(
        _ method: ControlRequest.Method, _ path: String, _ body: JSONValue? = nil, as caller: Caller
    ) async throws(ControlError) -> ControlResponse {
        try await provider.respond(
            to: ControlRequest(
                method: method, path: ResourceID(path), query: [:], apiVersion: "2024-11-01", body: body,
                names: .azurePublic), as: caller)
    }

    /// A crash between the two leaves a site without an identity, never an identity without a site.
    @Test func aSitesIdentityGoesBeforeTheSite() async throws {
        #expect(try await send(.delete, "\(world.id)", as: Self.owner).status == 200)
        let removed = identities.removed.withLock { $0 }
        #expect(removed.map(\.resource) == [world.id] && removed.allSatisfy(\.siteExisted))
        #expect(world.sites.site(world.id) == nil)
        #expect(try await send(.delete, "\(world.id)", as: Self.owner).status == 204)
    }

    @Test func aPlanIsJoinedOnlyByThoseWhoMay() async throws {
        try await send(.put, Self.foreignPlan, ["location": "eastus"], as: Self.owner)
        for plan in [Self.foreignPlan, Self.foreignPlan + "2"] {
            // The same answer whether the plan exists or not.
            let error = await #expect(throws: ControlError.self) {
                try await send(
                    .patch, "\(world.id)", ["properties": ["serverFarmId": .string(plan)]], as: Self.developer)
            }
            #expect(error?.status == 403)
        }
        try await send(
            .patch, "\(world.id)", ["properties": ["serverFarmId": .string(Self.foreignPlan)]], as: Self.owner)
        // Whoever changes something else, and names the plan the site has, joins nothing.
        let same: JSONValue = ["properties": ["serverFarmId": .string(Self.foreignPlan), "httpsOnly": true]]
        #expect(try await send(.patch, "\(world.id)", same, as: Self.developer).status == 200)
    }

    @Test func changesOfAPlanAtTheSameTimeAllStay() async throws {
        for number in 0..<20 {
            let path = "\(Self.group)/providers/Microsoft.Web/serverfarms/plan\(number)"
            try await send(.put, path, ["location": "eastus"], as: Self.owner)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for change: JSONValue in [["kind": "linux"], ["tags": ["a": "b"]], ["sku": ["name": "P1V3"]]] {
                    group.addTask { try await send(.patch, path, change, as: Self.owner) }
                }
                try await group.waitForAll()
            }
            let plan = try #require(world.sites.plan(ResourceID(path)))
            #expect(plan.kind == "linux" && plan.tags == ["a": "b"] && plan.tier == "PremiumV3")
        }
    }
}

@Suite struct ListenerTests {
    /// Go, Node and .NET listen on `::` unless told otherwise, and take IPv4 there too.
    @Test func aListenerOfBothFamiliesIsFoundWithItsUser() throws {
        let file = socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        try #require(file >= 0)
        defer { close(file) }
        var off: Int32 = 0
        setsockopt(file, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &off, socklen_t(MemoryLayout<Int32>.size))
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(file, $0, length) == 0 ? getsockname(file, $0, &length) : -1
            }
        }
        try #require(result == 0 && listen(file, 1) == 0)
        let listener = try #require(ProcessTree.listener(onPort: Int(UInt16(bigEndian: address.sin6_port))))
        #expect(listener.user == geteuid())
        #expect(ProcessTree.holds(listener, below: getpid()))
        // Another process's: one that this process did not make.
        #expect(!ProcessTree.holds(ProcessTree.Listener(user: geteuid(), inode: "1"), below: getpid()))
    }
}
