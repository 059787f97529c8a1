import CofferCore
import EncryptionAtRest
import NIOHTTP1
import StorageEngine
import TestSupport
import Testing

@testable import KeyVault

@Suite struct SecretTests {
    @Test func setGetListUpdate() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault("Contoso-Vault")
        func send(_ method: String, _ path: String, _ body: JSONValue? = nil) async -> TestVaults.Answer {
            await vaults.send(.init(rawValue: method), path, body, as: vaults.owner, vault: "contoso-vault")
        }
        let first = await send(
            "PUT", "/secrets/external-url",
            ["value": "https://x/y?sig=1", "contentType": "text/plain", "tags": ["a": "b"]])
        #expect(first.status == 200)
        #expect(first.body["value"] == "https://x/y?sig=1")
        let id = try #require(first.body["id"]?.stringValue)
        #expect(
            id.wholeMatch(of: /https:\/\/contoso-vault\.vault\.coffer\.localhost\/secrets\/external-url\/[0-9a-f]{32}/)
                != nil)
        #expect(first.body["attributes"]?["recoveryLevel"] == "Recoverable+Purgeable")
        let second = await send("PUT", "/secrets/External-Url", ["value": "v2"])
        #expect(second.body["id"]?.stringValue != id)
        #expect((await send("GET", "/secrets/external-url/")).body["value"] == "v2")
        let old = String(id.split(separator: "/").last!)
        #expect((await send("GET", "/secrets/external-url/\(old)")).body["value"] == "https://x/y?sig=1")
        let list = await send("GET", "/secrets")
        #expect(list.body["value"]?.arrayValue?.count == 1)
        #expect(list.body["value"]?.arrayValue?.first?["value"] == nil)
        #expect(list.body["nextLink"] == .null)
        #expect((await send("GET", "/secrets/external-url/versions")).body["value"]?.arrayValue?.count == 2)
        let updated = await send(
            "PATCH", "/secrets/external-url/",
            ["attributes": ["enabled": false, "exp": 1_893_456_000], "contentType": "x"])
        #expect(updated.status == 200 && updated.body["value"] == nil && updated.body["contentType"] == "x")
        let refused = await send("GET", "/secrets/external-url/")
        #expect(refused.status == 403 && refused.code == "Forbidden" && refused.innerCode == "SecretDisabled")
        #expect((await send("GET", "/secrets/external-url/\(old)")).status == 200)
    }

    @Test func expiredSecretsAreStillReadable() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "v", "attributes": ["exp": 1_000]])
        #expect((await vaults.owned(.GET, "/secrets/s")).body["value"] == "v")
    }

    @Test func limitsHold() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let largest = String(repeating: "x", count: 25_600)
        #expect(await vaults.owned(.PUT, "/secrets/s", ["value": .string(largest)]).status == 200)
        #expect(await vaults.owned(.PUT, "/secrets/s", ["value": .string(largest + "x")]).status == 400)
        #expect(
            await vaults.owned(.PUT, "/secrets/s", ["value": .string(String(repeating: "x", count: 300_000))]).status
                == 413)
        let tags = Dictionary(uniqueKeysWithValues: (0..<16).map { ("t\($0)", JSONValue.string("v")) })
        #expect(await vaults.owned(.PUT, "/secrets/s", ["value": "v", "tags": .object(tags)]).status == 400)
        #expect(await vaults.owned(.PUT, "/secrets/s", [:]).status == 400)
        #expect(
            await vaults.owned(.PUT, "/secrets/\(String(repeating: "n", count: 128))", ["value": "v"]).status == 400)
    }

    @Test(arguments: ["keys", "secrets"])
    func backupRestoresAllVersions(area: String) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        try await vaults.makeVault("vault2")
        let make: (HTTPVerb, String, JSONValue) =
            area == "keys" ? (.post, "/keys/o/create", ["kty": "EC"]) : (.put, "/secrets/o", ["value": "top secret"])
        for _ in 0..<2 { _ = await vaults.owned(make.0.method, make.1, make.2) }
        let backup = await vaults.owned(.POST, "/\(area)/o/backup")
        let value = try #require(backup.body["value"]?.stringValue)
        #expect(![UInt8](base64URL: value)!.contains(Array("top secret".utf8)))
        let body: JSONValue = ["value": .string(value)]
        #expect(await vaults.owned(.POST, "/\(area)/restore", body).status == 409)
        let restored = await vaults.owned(.POST, "/\(area)/restore", body, vault: "vault2")
        #expect(restored.status == 200)
        let versions = await vaults.owned(.GET, "/\(area)/o/versions", vault: "vault2")
        #expect(versions.body["value"]?.arrayValue?.count == 2)
        let other = area == "keys" ? "secrets" : "keys"
        #expect(await vaults.owned(.POST, "/\(other)/restore", body, vault: "vault2").status == 400)
        var damaged = [UInt8](base64URL: value)!
        damaged[damaged.count / 2] ^= 1
        #expect(
            await vaults.owned(.POST, "/\(area)/restore", ["value": .string(damaged.base64URL)], vault: "vault2").status
                == 400)
    }

    @Test func otherRoomsUseTheSameOperationsAndChecks() async throws {
        let vaults = try await TestVaults()
        let app = TestVaults.caller(5, kind: .managedIdentity)
        try await vaults.makeVault(policies: [TestVaults.policy(app, secrets: ["Get"])])
        let vault = VaultAddress(name: "Vault1")
        let id = try await vaults.service.setSecret(as: vaults.owner, "s", RedactedString("value"), in: vault)
        let parsed = try #require(vaults.service.secretIdentifier(id.replacing("coffer.localhost", with: "azure.net")))
        #expect(parsed.vaultName == "vault1" && parsed.name == "s" && parsed.version?.count == 32)
        let read = try await vaults.service.getSecret(as: app, "s", version: parsed.version, in: vault)
        #expect(read.value.reveal() == "value" && read.identifier == id)
        #expect("\(read)".contains("value: <redacted>"))
        await #expect(throws: VaultError.self) { try await vaults.service.listSecrets(as: app, in: vault) }
        await #expect(throws: VaultError.self) { try await vaults.service.deleteSecret(as: app, "s", in: vault) }
        #expect(try await vaults.service.listSecrets(as: vaults.owner, in: vault).map(\.name) == ["s"])
        try await vaults.service.deleteSecret(as: vaults.owner, "s", in: vault)
        await #expect(throws: VaultError.self) { try await vaults.service.getSecret(as: app, "s", in: vault) }
        for text in [
            "http://v1.vault.azure.net/secrets/s", "https://example.com/secrets/s",
            "https://vault1.vault.azure.net/keys/s", "", "https://",
        ] {
            #expect(vaults.service.secretIdentifier(text) == nil)
        }
    }

    /// What reaches the engine holds neither names of secrets' values nor keys in clear.
    @Test func theEngineSeesNoPlaintext() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "very-secret-value"])
        for partition in try await vaults.engine.partitions(after: nil, limit: 100) {
            for row in try await vaults.engine.scan(partition, from: .init([]), upTo: nil, limit: 1_000) {
                #expect(!row.value.contains(Array("very-secret-value".utf8)))
            }
        }
    }
}

enum HTTPVerb {
    case post, put
    var method: HTTPMethod { self == .post ? .POST : .PUT }
}
