import CofferCore
import NIOHTTP1
import ResourceProviders
import StorageEngine
import TestSupport
import Testing

@testable import KeyVault

/// The control plane: Microsoft.KeyVault.
@Suite struct VaultResourceTests {
    private let id = TestVaults.vaultID("Contoso-Vault")
    private func subscription(_ tail: String) -> ResourceID {
        ResourceID("/subscriptions/\(TestVaults.subscription)/providers/Microsoft.KeyVault/\(tail)")
    }

    @Test func createShowUpdateListDelete() async throws {
        let vaults = try await TestVaults()
        #expect(await vaults.refusal(.get, id)?.status == 404)
        let made = try await vaults.control(.put, id, TestVaults.body(purgeProtection: true))
        #expect(made.status == 200)
        let properties = try #require(made.body["properties"])
        #expect(
            made.body["name"] == "Contoso-Vault" && made.body["type"] == "Microsoft.KeyVault/vaults"
                && made.body["location"] == "eastus")
        #expect(properties["vaultUri"] == "https://contoso-vault.vault.coffer.localhost/")
        #expect(properties["enablePurgeProtection"] == true && properties["enableSoftDelete"] == true)
        #expect(properties["provisioningState"] == "Succeeded" && properties["softDeleteRetentionInDays"] == 90)
        #expect(properties["accessPolicies"] == [])
        // What az does for set-policy: the answer of GET with one entry more, sent back with PUT.
        var body = try await vaults.control(.get, id).body
        let app = TestVaults.caller(5)
        body["properties"]?["accessPolicies"] = [TestVaults.policy(app, keys: ["get", "unwrapKey", "wrapKey"])]
        let updated = try await vaults.control(.put, id, body)
        #expect(
            updated.body["properties"]?["accessPolicies"]?.arrayValue?.first?["permissions"]?["keys"] == [
                "get", "unwrapKey", "wrapKey",
            ])
        #expect(updated.body["properties"]?["enablePurgeProtection"] == true)
        let group = try await vaults.control(
            .get, ResourceID("\(TestVaults.group)/providers/Microsoft.KeyVault/vaults"))
        #expect(group.body["value"]?.arrayValue?.count == 1)
        #expect(try await vaults.control(.get, subscription("vaults")).body["value"]?.arrayValue?.count == 1)
        #expect(try await vaults.service.trackedResources(below: TestVaults.group).map(\.id) == [id])
        #expect(try await vaults.control(.delete, id).status == 200)
        #expect(try await vaults.control(.delete, id).status == 204)
        #expect(await vaults.refusal(.get, id)?.code == "ResourceNotFound")
        #expect(try await vaults.service.trackedResources(below: TestVaults.group).isEmpty)
    }

    @Test func aDeletedVaultIsUnreachableAndComesBackWhole() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let id = TestVaults.vaultID("vault1")
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "v"])
        _ = try await vaults.control(.delete, id)
        #expect(await vaults.owned(.GET, "/secrets/s").status == 404)
        #expect(await vaults.refusal(.put, id, TestVaults.body())?.code == "ConflictError")
        let list = try await vaults.control(.get, subscription("deletedVaults")).body["value"]?.arrayValue ?? []
        #expect(list.first?["properties"]?["vaultId"]?.stringValue == id.description)
        let deleted = try await vaults.control(.get, subscription("locations/eastus/deletedVaults/VAULT1")).body
        #expect(
            deleted["properties"]?["scheduledPurgeDate"]?.stringValue
                == vaults.clock.now().adding(seconds: 90 * 86_400).iso8601)
        #expect(await vaults.refusal(.get, subscription("locations/westus/deletedVaults/vault1"))?.status == 404)
        var body = TestVaults.body()
        body["properties"]?["createMode"] = "recover"
        let recovered = try await vaults.control(.put, id, body)
        #expect(recovered.body["properties"]?["accessPolicies"]?.arrayValue?.count == 1)
        #expect((await vaults.owned(.GET, "/secrets/s")).body["value"] == "v")
    }

    @Test func purgeFreesTheNameAndTheContents() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "v"])
        _ = try await vaults.control(.delete, TestVaults.vaultID("vault1"))
        #expect(
            try await vaults.control(.post, subscription("locations/East US/deletedVaults/vault1/purge")).status == 200)
        #expect(try await vaults.objectKeys() == ["purged"])
        try await vaults.makeVault()
        #expect(await vaults.owned(.GET, "/secrets/s").status == 404)
    }

    @Test func purgeProtectionHoldsForVaults() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault(purgeProtection: true, more: ["softDeleteRetentionInDays": 7])
        _ = try await vaults.control(.delete, TestVaults.vaultID("vault1"))
        #expect(
            await vaults.refusal(.post, subscription("locations/eastus/deletedVaults/vault1/purge"))?.code
                == "MethodNotAllowed")
        // As a purge that had looked at the vault before it was protected would go on.
        await #expect(throws: ControlError.self) { try await vaults.service.purgeVault(named: "vault1") }
        #expect(try await vaults.control(.get, subscription("locations/eastus/deletedVaults/vault1")).status == 200)
        vaults.clock.advance(days: 7)
        await vaults.service.performDueWork()
        #expect(await vaults.refusal(.get, subscription("locations/eastus/deletedVaults/vault1"))?.status == 404)
    }

    @Test func badBodiesAreRefused() async throws {
        let vaults = try await TestVaults()
        let bodies: [(JSONValue, String)] = [
            (TestVaults.body(more: ["enablePurgeProtection": false]), "enablePurgeProtection"),
            (TestVaults.body(more: ["enableSoftDelete": false]), "enableSoftDelete"),
            (TestVaults.body(more: ["softDeleteRetentionInDays": 6]), "softDeleteRetentionInDays"),
            (TestVaults.body(more: ["softDeleteRetentionInDays": 91]), "softDeleteRetentionInDays"),
            (TestVaults.body(more: ["tenantId": "99999999-9999-4999-8999-999999999999"]), "tenantId"),
            (TestVaults.body(more: ["sku": ["name": "gold"]]), "sku"),
            (TestVaults.body(more: ["accessPolicies": .null]), "accessPolicies"),
            (TestVaults.body(policies: [TestVaults.policy(TestVaults.caller(2), keys: ["fly"])]), "keys"),
            (TestVaults.body(more: ["networkAcls": ["ipRules": [["value": "300.1.1.1"]]]]), "300.1.1.1"),
            (["properties": TestVaults.body()["properties"]!], "location"),
        ]
        for (body, mention) in bodies {
            let refusal = await vaults.refusal(.put, id, body)
            #expect(
                refusal?.status == 400 && refusal?.message.contains(mention) == true,
                "\(mention): \(refusal?.message ?? "none")")
        }
        for name in ["ab", "1abc", "abc-", "a--b", "a_b", String(repeating: "a", count: 25)] {
            #expect(
                await vaults.refusal(.put, TestVaults.vaultID(name), TestVaults.body())?.code == "VaultNameNotValid")
        }
        try await vaults.makeVault()
        let change: JSONValue = ["properties": ["softDeleteRetentionInDays": 30]]
        #expect(await vaults.refusal(.patch, TestVaults.vaultID("vault1"), change)?.status == 400)
        let elsewhere = ResourceID(
            "/subscriptions/\(TestVaults.subscription)/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/vault1")
        #expect(await vaults.refusal(.put, elsewhere, TestVaults.body())?.code == "VaultAlreadyExists")
    }

    @Test func rolesDecideAboutTheControlPlane() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let (reader, nobody, contributor) = (TestVaults.caller(4), TestVaults.caller(5), TestVaults.caller(6))
        let id = TestVaults.vaultID("vault1")
        vaults.assign(reader, role: "Reader", at: TestVaults.group)
        vaults.assign(
            contributor, role: "Key Vault Contributor", at: ResourceID("/subscriptions/\(TestVaults.subscription)"))
        #expect(await vaults.refusal(.get, id, as: nobody)?.code == "AuthorizationFailed")
        #expect(await vaults.refusal(.get, TestVaults.vaultID("absent"), as: nobody)?.code == "AuthorizationFailed")
        #expect(try await vaults.control(.get, subscription("vaults"), as: nobody).body["value"] == [])
        #expect(try await vaults.control(.get, id, as: reader).status == 200)
        for (method, body) in [(ControlRequest.Method.put, TestVaults.body()), (.patch, [:]), (.delete, .null)]
            as [(ControlRequest.Method, JSONValue)]
        {
            #expect(await vaults.refusal(method, id, body, as: reader)?.code == "AuthorizationFailed")
        }
        #expect(
            await vaults.refusal(.put, ResourceID("\(id)/accessPolicies/add"), [:], as: reader)?.code
                == "AuthorizationFailed")
        #expect(try await vaults.control(.delete, id, as: contributor).status == 200)
        let purge = subscription("locations/eastus/deletedVaults/vault1/purge")
        #expect(await vaults.refusal(.post, purge, as: contributor)?.code == "AuthorizationFailed")
    }

    @Test func accessPoliciesAddReplaceRemove() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let id = TestVaults.vaultID("vault1")
        let app = TestVaults.caller(5)
        func change(_ kind: String, keys: [String], secrets: [String] = []) async throws -> JSONValue? {
            let body: JSONValue = [
                "properties": ["accessPolicies": [TestVaults.policy(app, keys: keys, secrets: secrets)]]
            ]
            let answer = try await vaults.control(.put, ResourceID("\(id)/accessPolicies/\(kind)"), body)
            return answer.body["properties"]?["accessPolicies"]?.arrayValue?.first {
                $0["objectId"]?.stringValue == app.objectID
            }?["permissions"]
        }
        #expect(try await change("add", keys: ["get"])?["keys"] == ["get"])
        #expect(try await change("add", keys: ["list", "GET"], secrets: ["get"])?["keys"] == ["get", "list"])
        #expect(try await change("replace", keys: ["sign"])?["keys"] == ["sign"])
        #expect(try await change("remove", keys: ["Sign"]) == nil)
        #expect(
            await vaults.refusal(
                .put, ResourceID("\(id)/accessPolicies/bend"),
                ["properties": ["accessPolicies": [TestVaults.policy(app)]]])?.status == 400)
    }

    @Test func namesAndHSMs() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        func available(_ name: String) async throws -> JSONValue {
            try await vaults.control(
                .post, subscription("checkNameAvailability"),
                ["name": .string(name), "type": "Microsoft.KeyVault/vaults"]
            ).body
        }
        #expect(try await available("vault2")["nameAvailable"] == true)
        #expect(try await available("VAULT1")["reason"] == "AlreadyExists")
        #expect(try await available("-")["reason"] == "AccountNameInvalid")
        #expect(try await vaults.control(.get, subscription("managedHSMs")).body["value"] == [])
        let hsm = ResourceID("\(TestVaults.group)/providers/Microsoft.KeyVault/managedHSMs/h")
        #expect(await vaults.refusal(.put, hsm, [:])?.status == 501)
    }

    @Test func newVersionsOfTheAPIMakeRoleVaultsByDefault() async throws {
        let vaults = try await TestVaults()
        var body = TestVaults.body()
        body["properties"]?["enableRbacAuthorization"] = nil
        let new = try await vaults.control(.put, TestVaults.vaultID("vault-new"), body, apiVersion: "2026-02-01")
        #expect(new.body["properties"]?["enableRbacAuthorization"] == true)
        let old = try await vaults.control(.put, TestVaults.vaultID("vault-old"), body, apiVersion: "2024-11-01")
        #expect(old.body["properties"]?["enableRbacAuthorization"] == false)
        let again = try await vaults.control(.put, TestVaults.vaultID("vault-old"), body, apiVersion: "2026-02-01")
        #expect(again.body["properties"]?["enableRbacAuthorization"] == false)
    }

    @Test func templatesMakeKeysAndSecrets() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let id = TestVaults.vaultID("vault1")
        let key = try await vaults.control(
            .put, id.appending("keys", "k"), ["properties": ["kty": "RSA", "keySize": 2048]])
        #expect(key.body["properties"]?["keySize"] == 2048)
        let uri = try #require(key.body["properties"]?["keyUriWithVersion"]?.stringValue)
        let again = try await vaults.control(.put, id.appending("keys", "k"), ["properties": ["kty": "RSA"]])
        #expect(again.body["properties"]?["keyUriWithVersion"]?.stringValue == uri)
        #expect(try await vaults.control(.get, ResourceID("\(id)/keys")).body["value"]?.arrayValue?.count == 1)
        #expect(
            try await vaults.control(.get, ResourceID("\(id)/keys/k/versions")).body["value"]?.arrayValue?.count == 1)
        let secret = try await vaults.control(.put, id.appending("secrets", "s"), ["properties": ["value": "hush"]])
        #expect(!String(decoding: secret.body.serialized(), as: UTF8.self).contains("hush"))
        #expect((await vaults.owned(.GET, "/secrets/s")).body["value"] == "hush")
    }
}
