import AccessControl
import CofferCore
import EncryptionAtRest
import ResourceProviders
import StorageEngine
import TestSupport
import Testing

@testable import StorageAccount

/// Encryption Scopes of the Storage resource provider, as az sends them.
struct EncryptionScopeTests {
    private static let keyURI = "https://cmk.vault.coffer.localhost:8443/keys/cmk"
    private static let customers: JSONValue = [
        "source": "Microsoft.KeyVault", "keyVaultProperties": ["keyUri": .string(keyURI)],
    ]
    private let fixture: Fixture
    private let scopes = Fixture.id("contoso1").appending("encryptionScopes")

    init() async throws {
        fixture = try Fixture()
        try await fixture.create("contoso1")
        fixture.vault.addVersion("cmk", announcing: false)
    }

    private func put(_ name: String, _ properties: JSONValue = [:]) async throws -> JSONValue {
        try await fixture.control(.put, scopes.appending(name), ["properties": properties])
    }
    private func patch(_ name: String, _ properties: JSONValue) async throws -> JSONValue {
        try await fixture.control(.patch, scopes.appending(name), ["properties": properties])
    }
    private func refusal(_ method: ControlRequest.Method, _ name: String, _ properties: JSONValue = [:]) async -> String
    {
        await fixture.refusal(method, scopes.appending(name), ["properties": properties])
    }
    private func names(_ query: [String: String] = [:]) async throws -> [String] {
        let list = try await fixture.control(.get, scopes, query: query)
        return (list["value"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
    }
    private func isAvailable(_ name: String, _ service: StorageAccountService? = nil) async throws -> Bool {
        let service = service ?? fixture.service
        do throws(StorageError) {
            try await service.requireEncryptionScope(name, of: try await service.account(named: "contoso1"))
            return true
        } catch {
            #expect(error.status == 409 && error.code == "EncryptionScopeNotAvailable")
            return false
        }
    }

    @Test func aDamagedRecordDarkensItsScopeAlone() async throws {
        _ = try await put("scope-1")
        _ = try await put("scope-2")
        let id = try await fixture.service.account(named: "contoso1").id
        _ = try await fixture.engine.commit(
            Partition("r/storage/accounts"), checks: [],
            writes: [.put(RowKey("scope/\(id.bytes.hex)/scope-1"), [1, 1, 0])])
        let restarted = fixture.restarted()
        #expect(try await isAvailable("scope-2", restarted))
        let account = try await restarted.account(named: "contoso1")
        let refusal = await #expect(throws: StorageError.self) {
            try await restarted.requireEncryptionScope("scope-1", of: account)
        }
        #expect(refusal?.status == 500)
        // Nor is it written over.
        for method in [.get, .put, .patch] as [ControlRequest.Method] {
            await #expect(throws: ControlError.self) {
                try await fixture.control(method, scopes.appending("scope-1"), ["properties": [:]], service: restarted)
            }
        }
        _ = try await fixture.control(.put, scopes.appending("scope-3"), ["properties": [:]], service: restarted)
    }

    @Test func madeReadListedAndDisabled() async throws {
        let made = try await put("scope-1")
        #expect(made["id"]?.stringValue == scopes.appending("scope-1").description)
        #expect(made["type"] == "Microsoft.Storage/storageAccounts/encryptionScopes" && made["name"] == "scope-1")
        #expect(made["properties"]?["source"] == "Microsoft.Storage" && made["properties"]?["state"] == "Enabled")
        #expect(made["properties"]?["creationTime"] == "2026-11-22T00:00:00.0000000Z")
        fixture.clock.advance(seconds: 60)
        let disabled = try await patch("scope-1", ["state": "Disabled"])
        #expect(disabled["properties"]?["state"] == "Disabled")
        #expect(disabled["properties"]?["lastModifiedTime"] == "2026-11-22T00:01:00.0000000Z")
        #expect(disabled["properties"]?["creationTime"] == "2026-11-22T00:00:00.0000000Z")
        #expect(try await fixture.control(.get, scopes.appending("scope-1")) == disabled)
        #expect(try await !isAvailable("scope-1"))
        let again = fixture.restarted()
        #expect(try await !isAvailable("scope-1", again))
        _ = try await patch("scope-1", ["state": "Enabled"])
        #expect(try await isAvailable("scope-1"))
        #expect(await refusal(.delete, "scope-1") == "405 MethodNotAllowed", "a scope is disabled, never deleted")
    }

    /// The control plane's own end of a key that is held: what streams under it breaks off.
    @Test func disablingEndsTheKeyThatIsHeld() async throws {
        _ = try await put("one")
        _ = try await put("two")
        let account = try await fixture.service.account(named: "contoso1")
        let held = try await account.volume.scopeKey("one")
        let other = try await account.volume.scopeKey("two")
        _ = try await patch("one", ["state": "Disabled"])
        #expect(throws: KeyUnavailable.self) { try held.checkLease() }
        try other.checkLease()
        try await account.volume.accountKey().checkLease()
    }

    /// A key that a vault wraps and no record names keeps the identity that alone can unwrap it.
    @Test func aKeyWithoutARecordKeepsTheIdentity() async throws {
        let made = try await fixture.control(
            .patch, Fixture.id("contoso1"), ["identity": ["type": "SystemAssigned"]])
        let principal = try #require(made["identity"]?["principalId"]?.stringValue)
        fixture.vault.allow(objectID: principal)
        let account = try await fixture.service.account(named: "contoso1")
        let identity = try #require(fixture.directory.identity(of: Fixture.id("contoso1")))
        try await fixture.store.accountKeys.create(account.id, scope: "one")
        _ = try await fixture.store.accountKeys.useCustomerKey(
            account.id, scope: "one", fixture.vault.reference("cmk"), as: identity.caller)
        let none: JSONValue = ["identity": ["type": "None"]]
        #expect(await fixture.refusal(.patch, Fixture.id("contoso1"), none) == "400 ManagedIdentityInUse")
        // To make the scope takes its key back.
        _ = try await put("one")
        #expect(await fixture.refusal(.patch, Fixture.id("contoso1"), none) == "none")
    }

    @Test func lists() async throws {
        for name in ["beta", "alpha-1", "alpha-2"] { _ = try await put(name) }
        _ = try await patch("alpha-2", ["state": "Disabled"])
        #expect(try await names() == ["alpha-1", "alpha-2", "beta"])
        #expect(try await names(["$filter": "startswith(name, 'alpha')"]) == ["alpha-1", "alpha-2"])
        #expect(try await names(["$include": "Enabled"]) == ["alpha-1", "beta"])
        #expect(try await names(["$include": "Disabled"]) == ["alpha-2"])
        let first = try await fixture.control(.get, scopes, query: ["$maxpagesize": "2"])
        let next = try #require(first["nextLink"]?.stringValue)
        #expect(next.contains("encryptionScopes?api-version=2025-08-01&$skipToken=alpha-2&$maxpagesize=2"))
        #expect(try await names(["$maxpagesize": "2", "$skiptoken": "alpha-2"]) == ["beta"])
    }

    @Test(arguments: ["ab", "Upper", "dash-", "-dash", "two--dashes", "under_score", String(repeating: "a", count: 64)])
    func names(name: String) async throws {
        #expect(await refusal(.put, name) == "400 InvalidValuesForRequestParameters")
    }

    @Test func whatIsRefusedLeavesNoScope() async throws {
        let noKey: JSONValue = ["source": "Microsoft.KeyVault"]
        let noSource: JSONValue = ["keyVaultProperties": ["keyUri": .string(Self.keyURI)]]
        let odd: JSONValue = ["source": "Microsoft.KeyVault", "keyVaultProperties": ["keyUri": "https://v/secrets/s"]]
        #expect(await refusal(.put, "one", noKey) == "400 MissingKeyvaultProperties")
        #expect(await refusal(.put, "one", noSource) == "400 InvalidRequestPropertyValue")
        #expect(await refusal(.put, "one", odd) == "400 InvalidRequestPropertyValue")
        #expect(await refusal(.put, "one", ["state": "Gone"]).hasPrefix("400"))
        #expect(
            await refusal(.put, "one", ["requireInfrastructureEncryption": true]) == "400 FeatureNotSupported")
        #expect(await refusal(.put, "one", Self.customers) == "400 BadRequest", "no identity")
        #expect(await refusal(.patch, "one", ["state": "Disabled"]) == "404 ResourceNotFound")
        #expect(await refusal(.get, "one") == "404 ResourceNotFound")
        #expect(try await names() == [])
        #expect(try await !isAvailable("one"))
        let account = try await fixture.service.account(named: "contoso1")
        #expect(try await fixture.store.accountKeys.scopeCount(account.id) == 0, "no key is left either")
    }

    @Test func rolesAreAsked() async throws {
        _ = try await put("one")
        let reader = Caller(kind: .user, objectID: "77777777-7777-4777-8777-777777777777", tenantID: Fixture.tenant)
        let id = scopes.appending("one")
        #expect(await fixture.refusal(.get, id, as: reader) == "403 AuthorizationFailed")
        fixture.assign([(reader.objectID, BuiltInRoles.reader, Fixture.group)])
        #expect(await fixture.refusal(.get, id, as: reader) == "none")
        for method in [.put, .patch] as [ControlRequest.Method] {
            #expect(await fixture.refusal(method, id, [:], as: reader) == "403 AuthorizationFailed")
        }
    }

    @Test func customersKeys() async throws {
        let account = try await fixture.control(
            .patch, Fixture.id("contoso1"), ["identity": ["type": "SystemAssigned"]])
        let principal = try #require(account["identity"]?["principalId"]?.stringValue)
        #expect(await refusal(.put, "one", Self.customers).hasPrefix("403"), "the vault refuses")
        #expect(try await names() == [])
        fixture.vault.allow(objectID: principal)
        let made = try await put("one", Self.customers)
        let key = made["properties"]?["keyVaultProperties"]
        #expect(made["properties"]?["source"] == "Microsoft.KeyVault" && key?["keyUri"]?.stringValue == Self.keyURI)
        #expect(key?["currentVersionedKeyIdentifier"]?.stringValue == Self.keyURI + "/1")
        // The account's own key is another matter.
        let block = try await fixture.control(.get, Fixture.id("contoso1"))["properties"]?["encryption"]
        #expect(block?["keySource"] == "Microsoft.Storage")
        #expect(
            await fixture.refusal(.patch, Fixture.id("contoso1"), ["identity": ["type": "None"]])
                == "400 ManagedIdentityInUse", "the scope's key could never be unwrapped again")

        fixture.vault.addVersion("cmk")
        await fixture.store.accountKeys.settle()
        let rotated = try await fixture.control(.get, scopes.appending("one"))["properties"]?["keyVaultProperties"]
        #expect(rotated?["currentVersionedKeyIdentifier"]?.stringValue == Self.keyURI + "/2")
        let back = try await patch("one", ["source": "Microsoft.Storage"])
        #expect(back["properties"]?["source"] == "Microsoft.Storage")
        #expect(back["properties"]?["keyVaultProperties"] == nil)
        #expect(
            await fixture.refusal(.patch, Fixture.id("contoso1"), ["identity": ["type": "None"]]) == "none")
    }

    @Test func scopesGoWithTheirAccount() async throws {
        _ = try await put("one")
        let account = try await fixture.service.account(named: "contoso1")
        let key = try await account.volume.scopeKey("one")
        _ = try await fixture.control(.delete, Fixture.id("contoso1"))
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        await #expect(throws: SealedStoreError.self) { _ = try await account.volume.scopeKey("one") }
        try await fixture.create("contoso1")
        #expect(try await names() == [])
        let left = try await fixture.store.records(.storage, "accounts").keys(prefix: "scope/")
        #expect(left == [])
    }

    /// A key's URL is read as one key or refused, and what was read is written the same way.
    @Test func keyURLs() {
        let random = SeededRandomness(91)
        let parts = ["HTTPS:", "http:", "", "v:8443", "keys", "Keys", "secrets", "k", "1", "?a", "#", "é"]
        var readings = 0
        for _ in 0..<2_000 {
            var pieces = ["https:", "", "v.vault.azure.net", "keys", "k"] + random.pick([[], ["1"]])
            for _ in 0..<random.number(0..<3) { pieces[random.number(0..<pieces.count)] = random.pick(parts) }
            let text = pieces.joined(separator: "/")
            guard let reference = CustomerKeyReference(keyURI: text) else { continue }
            readings += 1
            #expect(text.lowercased().hasPrefix("https://") && !text.contains("?") && !text.contains("#"))
            #expect(reference.keyURI.lowercased() == text.lowercased())
            #expect(CustomerKeyReference(keyURI: reference.keyURI) == reference)
        }
        #expect(readings > 10)
        for uri in ["https://v/keys/k", "https://v:8443/keys/k/1"] {
            #expect(CustomerKeyReference(keyURI: uri)?.keyURI == uri)
        }
        #expect(CustomerKeyReference(keyURI: "https://v/keys/" + String(repeating: "k", count: 1_024)) == nil)
    }
}
