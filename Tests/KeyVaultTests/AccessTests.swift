import AccessControl
import CofferCore
import NIOHTTP1
import ResourceProviders
import Testing

@testable import KeyVault

/// Who may do what: every operation of the data plane against access policies and against roles.
@Suite struct AccessTests {
    struct Operation: Sendable, CustomTestStringConvertible {
        let method: HTTPMethod
        let path: String
        let area: String
        let permission: String
        let action: String
        var body: JSONValue?
        var testDescription: String { "\(method.rawValue) \(path)" }
        init(
            _ method: HTTPMethod, _ path: String, _ area: String, _ permission: String, _ action: String,
            _ body: JSONValue? = nil
        ) {
            (self.method, self.path, self.area, self.permission, self.action, self.body) = (
                method, path, area, permission, action, body
            )
        }
    }

    static let operations: [Operation] = [
        Operation(.POST, "/keys/new/create", "keys", "create", "keys/create/action", ["kty": "EC"]),
        Operation(.GET, "/keys/k", "keys", "get", "keys/read"),
        Operation(.GET, "/keys", "keys", "list", "keys/read"),
        Operation(.GET, "/keys/k/versions", "keys", "list", "keys/read"),
        Operation(.PATCH, "/keys/k", "keys", "update", "keys/update/action", [:]),
        Operation(.DELETE, "/keys/k", "keys", "delete", "keys/delete"),
        Operation(.GET, "/deletedkeys", "keys", "list", "keys/read"),
        Operation(.GET, "/deletedkeys/gone", "keys", "get", "keys/read"),
        Operation(.POST, "/deletedkeys/gone/recover", "keys", "recover", "keys/recover/action"),
        Operation(.DELETE, "/deletedkeys/gone", "keys", "purge", "keys/purge/action"),
        Operation(.POST, "/keys/k/backup", "keys", "backup", "keys/backup/action"),
        Operation(.POST, "/keys/k/rotate", "keys", "rotate", "keys/rotate/action"),
        Operation(.GET, "/keys/k/rotationpolicy", "keys", "getrotationpolicy", "keyrotationpolicies/read"),
        Operation(
            .PUT, "/keys/k/rotationpolicy", "keys", "setrotationpolicy", "keyrotationpolicies/write",
            ["lifetimeActions": []]),
        Operation(
            .POST, "/keys/k/sign", "keys", "sign", "keys/sign/action", ["alg": "ES256", "value": .string(zeros)]),
        Operation(
            .POST, "/keys/k/verify", "keys", "verify", "keys/verify/action",
            ["alg": "ES256", "digest": .string(zeros), "value": .string(zeros)]),
        Operation(.PUT, "/secrets/new", "secrets", "set", "secrets/setSecret/action", ["value": "v"]),
        Operation(.GET, "/secrets/s", "secrets", "get", "secrets/getSecret/action"),
        Operation(.GET, "/secrets", "secrets", "list", "secrets/readMetadata/action"),
        Operation(.PATCH, "/secrets/s", "secrets", "set", "secrets/update/action", [:]),
        Operation(.DELETE, "/secrets/s", "secrets", "delete", "secrets/delete"),
        Operation(.GET, "/deletedsecrets/gone", "secrets", "get", "secrets/readMetadata/action"),
        Operation(.POST, "/deletedsecrets/gone/recover", "secrets", "recover", "secrets/recover/action"),
        Operation(.DELETE, "/deletedsecrets/gone", "secrets", "purge", "secrets/purge/action"),
        Operation(.POST, "/secrets/s/backup", "secrets", "backup", "secrets/backup/action"),
    ]
    private static let zeros = [UInt8](repeating: 0, count: 32).base64URL

    private func prepared(rbac: Bool, policies: [JSONValue] = []) async throws -> TestVaults {
        let vaults = try await TestVaults()
        try await vaults.makeVault(policies: policies)
        for name in ["k", "gone"] {
            #expect(await vaults.owned(.POST, "/keys/\(name)/create", ["kty": "EC"]).status == 200)
        }
        for name in ["s", "gone"] {
            #expect(await vaults.owned(.PUT, "/secrets/\(name)", ["value": "hush"]).status == 200)
        }
        #expect(await vaults.owned(.DELETE, "/keys/gone").status == 200)
        #expect(await vaults.owned(.DELETE, "/secrets/gone").status == 200)
        if rbac {
            _ = try await vaults.control(
                .patch, TestVaults.vaultID("vault1"), ["properties": ["enableRbacAuthorization": true]])
        }
        return vaults
    }

    @Test(arguments: operations)
    func aPolicyGrantsExactlyItsPermission(operation: Operation) async throws {
        let everythingElse = Set(Self.operations.filter { $0.area == operation.area }.map(\.permission)).subtracting([
            operation.permission
        ])
        let (holder, other) = (TestVaults.caller(6), TestVaults.caller(7))
        let isKey = operation.area == "keys"
        let spelled = operation.permission.uppercased()
        let vaults = try await prepared(
            rbac: false,
            policies: [
                TestVaults.policy(holder, keys: isKey ? [spelled] : ["all"], secrets: isKey ? ["all"] : [spelled]),
                TestVaults.policy(
                    other, keys: isKey ? Array(everythingElse) : ["all"],
                    secrets: isKey ? ["all"] : Array(everythingElse)),
            ])
        let refused = await vaults.send(operation.method, operation.path, operation.body, as: other)
        #expect(refused.status == 403 && refused.code == "Forbidden" && refused.innerCode == "ForbiddenByPolicy")
        #expect(
            refused.message?.contains("does not have \(operation.area) \(operation.permission) permission on key vault")
                == true)
        #expect(refused.message?.contains("oid=\(other.objectID)") == true)
        #expect(
            await vaults.send(operation.method, operation.path, operation.body, as: TestVaults.caller(9)).status == 403)
        let allowed = await vaults.send(operation.method, operation.path, operation.body, as: holder)
        #expect((200...204).contains(allowed.status), "\(allowed.message ?? "")")
    }

    @Test(arguments: operations)
    func aRoleGrantsAtItsScopeAndPoliciesCountForNothing(operation: Operation) async throws {
        let holder = TestVaults.caller(6)
        let vaults = try await prepared(
            rbac: true, policies: [TestVaults.policy(holder, keys: ["all"], secrets: ["all"])])
        // Neither the policy nor ownership of the control plane helps.
        for caller in [holder, vaults.owner] {
            let refused = await vaults.send(operation.method, operation.path, operation.body, as: caller)
            #expect(refused.status == 403 && refused.innerCode == "ForbiddenByRbac")
            #expect(refused.message?.contains("Action: 'Microsoft.KeyVault/vaults/\(operation.action)'") == true)
        }
        vaults.assign(holder, role: "Key Vault Administrator", at: TestVaults.vaultID("vault2"))
        #expect(await vaults.send(operation.method, operation.path, operation.body, as: holder).status == 403)
        vaults.assign(holder, role: "Key Vault Administrator", at: TestVaults.vaultID("vault1"))
        let allowed = await vaults.send(operation.method, operation.path, operation.body, as: holder)
        #expect((200...204).contains(allowed.status), "\(allowed.message ?? "")")
    }

    @Test func roleOnOneSecretReachesThatSecretOnly() async throws {
        let vaults = try await prepared(rbac: true)
        let reader = TestVaults.caller(6)
        vaults.assign(
            reader, role: "Key Vault Secrets User", at: TestVaults.vaultID("vault1").appending("secrets", "s"))
        #expect((await vaults.send(.GET, "/secrets/S", as: reader)).body["value"] == "hush")
        #expect(await vaults.send(.GET, "/secrets/other", as: reader).status == 403)
        #expect(await vaults.send(.GET, "/secrets", as: reader).status == 403)
        vaults.removeRoles(of: reader)
        #expect(await vaults.send(.GET, "/secrets/s", as: reader).status == 403)
    }

    @Test func aForeignTenantIsRefusedWhateverItsIdentifier() async throws {
        let vaults = try await prepared(rbac: false)
        let twin = Caller(
            kind: .servicePrincipal, objectID: vaults.owner.objectID, tenantID: "99999999-9999-4999-8999-999999999999",
            applicationID: vaults.owner.applicationID)
        #expect(await vaults.send(.GET, "/secrets/s", as: twin).status == 403)
    }

    @Test func anOnBehalfOfPolicyNeedsTheApplicationAndAUser() async throws {
        let user = TestVaults.caller(6, kind: .user)
        var entry = TestVaults.policy(user, secrets: ["get"])
        entry["applicationId"] = "cccccccc-cccc-4ccc-8ccc-cccccccccccc"
        let vaults = try await prepared(rbac: false, policies: [entry])
        let address = VaultAddress(name: "vault1")
        await #expect(throws: VaultError.self) { try await vaults.service.getSecret(as: user, "s", in: address) }
        let through = Caller(
            kind: .user, objectID: user.objectID, tenantID: user.tenantID,
            applicationID: "CCCCCCCC-cccc-4ccc-8ccc-cccccccccccc")
        #expect(try await vaults.service.getSecret(as: through, "s", in: address).value.reveal() == "hush")
    }

    @Test func theFirewallHasTwoGates() async throws {
        let vaults = try await prepared(rbac: false)
        let id = TestVaults.vaultID("vault1")
        func set(_ properties: JSONValue) async throws {
            _ = try await vaults.control(.patch, id, ["properties": properties])
        }
        func status(_ peer: String) async -> TestVaults.Answer {
            await vaults.send(.GET, "/secrets/s", as: vaults.owner, peer: peer)
        }
        try await set([
            "networkAcls": [
                "defaultAction": "Deny", "bypass": "None",
                "ipRules": [["value": "203.0.113.0/24"], ["value": "2001:db8::7"]],
            ]
        ])
        #expect(await status("203.0.113.9").status == 200)
        #expect(await status("::ffff:203.0.113.9").status == 200)
        #expect(await status("2001:db8::7").status == 200)
        let refused = await status("198.51.100.1")
        #expect(refused.status == 403 && refused.innerCode == "ForbiddenByFirewall")
        let address = VaultAddress(name: "vault1")
        await #expect(throws: VaultError.self) {
            try await vaults.service.getSecret(as: vaults.owner, "s", in: address)
        }
        try await set(["networkAcls": ["bypass": "AzureServices"]])
        #expect(try await vaults.service.getSecret(as: vaults.owner, "s", in: address).value.reveal() == "hush")
        try await set(["publicNetworkAccess": "Disabled"])
        #expect(await status("203.0.113.9").innerCode == "ForbiddenByConnection")
        try await set(["publicNetworkAccess": "Enabled", "networkAcls": ["defaultAction": "Allow"]])
        #expect(await status("198.51.100.1").status == 200)
    }
}
