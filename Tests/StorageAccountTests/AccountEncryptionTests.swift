import CofferCore
import EncryptionAtRest
import ResourceProviders
import Synchronization
import TestSupport
import Testing

@testable import StorageAccount

/// Customer-managed keys over Resource Manager: seed articles "Configure customer-managed keys", as az sends them.
struct AccountEncryptionTests {
    private static let vaultURI = "https://cmk.vault.coffer.localhost:8443/"
    private let fixture: Fixture
    private let principal: String

    init() async throws {
        fixture = try Fixture()
        try await fixture.create("contoso1")
        let account = try await fixture.control(
            .patch, Fixture.id("contoso1"), ["identity": ["type": "SystemAssigned"]])
        principal = account["identity"]?["principalId"]?.stringValue ?? ""
        fixture.vault.addVersion("cmk", announcing: false)
    }

    private func customerKey(_ name: String = "cmk", version: String? = nil) -> JSONValue {
        var key: JSONValue = ["keyname": .string(name), "keyvaulturi": .string(Self.vaultURI)]
        key["keyversion"] = version.map { .string($0) }
        return [
            "encryption": ["keySource": "Microsoft.Keyvault", "services": ["blob": [:]], "keyvaultproperties": key]
        ]
    }
    private static let platformKey: JSONValue = [
        "encryption": ["keySource": "Microsoft.Storage", "services": ["blob": [:]]]
    ]

    private func encryption() async throws -> JSONValue {
        try #require(try await fixture.control(.get, Fixture.id("contoso1"))["properties"]?["encryption"])
    }
    private func refusal(_ properties: JSONValue) async -> String {
        await fixture.refusal(.patch, Fixture.id("contoso1"), ["properties": properties])
    }

    @Test func takingRotatingAndReturningTheKey() async throws {
        fixture.vault.allow(objectID: principal)
        try await fixture.patch("contoso1", customerKey())
        var block = try await encryption()
        #expect(block["keySource"] == "Microsoft.Keyvault")
        #expect(block["keyvaultproperties"]?["keyname"] == "cmk" && block["keyvaultproperties"]?["keyversion"] == nil)
        #expect(block["keyvaultproperties"]?["keyvaulturi"]?.stringValue == Self.vaultURI)
        #expect(
            block["keyvaultproperties"]?["currentVersionedKeyIdentifier"]?.stringValue == Self.vaultURI + "keys/cmk/1")
        #expect(block["keyvaultproperties"]?["lastKeyRotationTimestamp"] == "2026-11-22T00:00:00.0000000Z")

        // An update of something else repeats the block, and follows the rotation.
        fixture.vault.addVersion("cmk", announcing: false)
        try await fixture.patch("contoso1", ["encryption": block, "allowBlobPublicAccess": true])
        #expect(
            try await encryption()["keyvaultproperties"]?["currentVersionedKeyIdentifier"]?.stringValue
                == Self.vaultURI + "keys/cmk/2")

        try await fixture.patch("contoso1", customerKey(version: "1"))
        block = try await encryption()
        #expect(block["keyvaultproperties"]?["keyversion"] == "1")
        #expect(
            block["keyvaultproperties"]?["currentVersionedKeyIdentifier"]?.stringValue == Self.vaultURI + "keys/cmk/1")
        // No version, or an empty one, means: follow.
        try await fixture.patch("contoso1", customerKey(version: ""))
        #expect(try await encryption()["keyvaultproperties"]?["keyversion"] == nil)

        try await fixture.patch("contoso1", Self.platformKey)
        block = try await encryption()
        #expect(block["keySource"] == "Microsoft.Storage" && block["keyvaultproperties"] == nil)
        fixture.vault.refuse(objectID: principal)
        _ = try await fixture.service.account(named: "contoso1").volume.accountKey()
    }

    @Test func whatAzureRefuses() async throws {
        #expect(await refusal(customerKey()) == "403 KeyVaultAuthenticationFailure")
        #expect(await refusal(["encryption": ["keySource": "Microsoft.Keyvault"]]) == "400 MissingKeyvaultProperties")
        fixture.vault.allow(objectID: principal)
        #expect(await refusal(customerKey("other")) == "400 KeyVaultEncryptionKeyNotFound")
        fixture.eligibility.isRecoverable.withLock { $0 = false }
        #expect(await refusal(customerKey()) == "400 KeyVaultPolicyError")
        #expect(try await encryption()["keySource"] == "Microsoft.Storage")
        try await fixture.create("contoso2")
        #expect(
            await fixture.refusal(.patch, Fixture.id("contoso2"), ["properties": customerKey()]) == "400 BadRequest")
        let sourceless: JSONValue = ["keyname": "cmk", "keyvaulturi": .string(Self.vaultURI)]
        #expect(
            await refusal(["encryption": ["keyvaultproperties": sourceless]]) == "400 InvalidRequestPropertyValue")
        let creation = Fixture.plainAccount.merged(
            with: ["properties": ["encryption": ["keyvaultproperties": sourceless, "keySource": .null]]])
        #expect(await fixture.refusal(.put, Fixture.id("contoso3"), creation) == "400 InvalidRequestPropertyValue")
        let none: JSONValue = ["encryption": ["services": ["blob": ["enabled": false]]]]
        #expect(await refusal(none) == "400 InvalidRequestPropertyValue")
    }

    /// The identity that the request wants too could not be given access yet.
    @Test func aRefusedChangeLeavesNoIdentityBehind() async throws {
        try await fixture.create("contoso2")
        let both = JSONValue.object(["identity": ["type": "SystemAssigned"], "properties": customerKey()])
        #expect(await fixture.refusal(.patch, Fixture.id("contoso2"), both) == "403 KeyVaultAuthenticationFailure")
        #expect(fixture.directory.identity(of: Fixture.id("contoso2")) == nil)
        #expect(await refusal(customerKey()) == "403 KeyVaultAuthenticationFailure")
        #expect(fixture.directory.identity(of: Fixture.id("contoso1"))?.principalID == principal)
    }

    /// Taking access away darkens the data, not the account: it can still be read, tagged, and given access again.
    @Test func revocation() async throws {
        fixture.vault.allow(objectID: principal)
        try await fixture.patch("contoso1", customerKey())
        let volume = try await fixture.service.account(named: "contoso1").volume
        let key = try await volume.accountKey()
        fixture.vault.refuse(objectID: principal)
        #expect(throws: KeyUnavailable.self) { try key.checkLease() }
        await #expect(throws: (any Error).self) { try await volume.accountKey() }
        let block = try await encryption()
        #expect(block["keySource"] == "Microsoft.Keyvault")
        let tagged = try await fixture.control(
            .patch, Fixture.id("contoso1"), ["tags": ["still": "here"], "properties": ["encryption": block]])
        #expect(tagged["tags"] == ["still": "here"])
        #expect(await refusal(Self.platformKey) == "403 KeyVaultAuthenticationFailure")
        #expect(try await encryption()["keySource"] == "Microsoft.Keyvault")
        fixture.vault.allow(objectID: principal)
        _ = try await volume.accountKey()
        try await fixture.patch("contoso1", Self.platformKey)
    }

    @Test func theIdentityStaysWhileItsKeyIsInForce() async throws {
        fixture.vault.allow(objectID: principal)
        try await fixture.patch("contoso1", customerKey())
        let without: JSONValue = ["identity": ["type": "None"]]
        #expect(await fixture.refusal(.patch, Fixture.id("contoso1"), without) == "400 ManagedIdentityInUse")
        let both = without.merged(with: ["properties": Self.platformKey])
        let account = try await fixture.control(.patch, Fixture.id("contoso1"), both)
        #expect(account["identity"] == nil)
        #expect(fixture.directory.identity(of: Fixture.id("contoso1")) == nil)
    }

    @Test func deletionNeedsNoKey() async throws {
        fixture.vault.allow(objectID: principal)
        try await fixture.patch("contoso1", customerKey())
        fixture.vault.refuse(objectID: principal)
        #expect(try await fixture.control(.delete, Fixture.id("contoso1"))["status"] == 200)
    }
}
