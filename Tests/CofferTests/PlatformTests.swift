import AccessControl
import CofferCore
import ResourceProviders
import StorageAccount
import Testing

@testable import coffer

@Suite struct PlatformTests {
    /// The storage account's control plane leads to the containers of the Blob service.
    @Test func theRoomsAreJoined() async throws {
        let home = TestHome()
        let platform = try await home.platform()
        let subscription = ResourceID("/subscriptions/\(platform.installation.subscriptionID)")
        let owner = Caller(kind: .user, objectID: "owner", tenantID: platform.installation.tenantID)
        platform.access.publish(
            RoleBook(
                definitions: BuiltInRoles.all,
                assignments: [
                    RoleAssignment(
                        name: "1", scope: subscription, roleID: BuiltInRoles.owner, principalID: owner.objectID,
                        principalType: "User", created: Timestamp(unixSeconds: 0), createdBy: owner.objectID)
                ]))
        func send(_ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil) async throws -> Int {
            try await platform.accounts.respond(
                to: ControlRequest(
                    method: method, path: path, query: [:], apiVersion: "2025-01-01", body: body,
                    names: .coffer(domain: "coffer.localhost", port: nil)), as: owner
            ).status
        }
        let account = subscription.appending(
            "resourceGroups", "g", "providers", "Microsoft.Storage", "storageAccounts", "contoso1")
        let sku: JSONValue = ["sku": ["name": "Standard_LRS"], "kind": "StorageV2", "location": "eastus"]
        #expect(try await send(.put, account, sku) == 200)
        let box = account.appending("blobServices", "default", "containers", "box")
        #expect(try await send(.put, box) == 201)
        #expect(try await send(.get, box) == 200)
        #expect(try await send(.delete, box) == 200)
        await platform.close()
    }
}
