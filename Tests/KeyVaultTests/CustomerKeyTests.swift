import AccessControl
import CofferCore
import EncryptionAtRest
import NIOHTTP1
import ResourceProviders
import Synchronization
import Testing

@testable import KeyVault

@Suite struct CustomerKeyTests {
    private let identity = TestVaults.caller(5, kind: .managedIdentity)
    private func reference(_ version: String? = nil, uri: String = "https://vault1.vault.coffer.localhost/")
        -> CustomerKeyReference
    {
        CustomerKeyReference(vaultURI: uri, keyName: "cmk", keyVersion: version)
    }
    private func prepared(purgeProtection: Bool = true) async throws -> TestVaults {
        let vaults = try await TestVaults()
        let policy = TestVaults.policy(identity, keys: ["get", "wrapKey", "unwrapKey"])
        try await vaults.makeVault(policies: [policy], purgeProtection: purgeProtection)
        #expect(await vaults.owned(.POST, "/keys/cmk/create", ["kty": "RSA"]).status == 200)
        return vaults
    }
    private func code(_ operation: () async throws -> Void) async -> KeyUnavailable.Code? {
        do {
            try await operation()
            return nil
        } catch {
            return (error as? KeyUnavailable)?.code
        }
    }

    @Test(arguments: [
        "https://vault1.vault.coffer.localhost/", "https://VAULT1.vault.azure.net",
        "https://vault1.vault.coffer.localhost:8443/",
    ])
    func wrapsByAnyNameAndUnwrapsTheVersionThatWrapped(uri: String) async throws {
        let vaults = try await prepared()
        let key = SystemRandomness().secret(32)
        let wrapped = try await vaults.service.wrapKey(key, with: reference(uri: uri), as: identity)
        #expect(wrapped.ciphertext.count == 256)
        let before = try await vaults.service.currentKeyIdentifier(of: reference(uri: uri), as: identity)
        #expect(wrapped.keyIdentifier == before)
        _ = await vaults.owned(.POST, "/keys/cmk/rotate")
        #expect(try await vaults.service.currentKeyIdentifier(of: reference(uri: uri), as: identity) != before)
        let back = try await vaults.service.unwrapKey(wrapped, as: identity)
        #expect(back.withUnsafeBytes { Array($0) } == key.withUnsafeBytes { Array($0) })
    }

    private final class Standing: PrincipalStanding {
        let refused = Mutex<Set<String>>([])
        func isInGoodStanding(_ objectID: String) async throws -> Bool { !refused.withLock { $0.contains(objectID) } }
    }

    @Test func anIdentityThatIsDisabledOpensNothingAndTheChangeIsAnnounced() async throws {
        let vaults = try await prepared()
        let standing = Standing()
        try await vaults.tokens.publish(jwks: TestTokens.jwks, issuers: [TestTokens.issuer], standing: standing)
        let wrapped = try await vaults.service.wrapKey(SystemRandomness().secret(32), with: reference(), as: identity)
        let announced = Mutex(0)
        vaults.service.onChange { _ in announced.withLock { $0 += 1 } }
        for isRefused in [true, false, true] {
            standing.refused.withLock { $0 = isRefused ? [identity.objectID] : [] }
            vaults.tokens.forget(principals: [identity.objectID])
            let expected: KeyUnavailable.Code? = isRefused ? .accessDenied : nil
            #expect(await code { _ = try await vaults.service.unwrapKey(wrapped, as: identity) } == expected)
            #expect(
                await code { _ = try await vaults.service.currentKeyIdentifier(of: reference(), as: identity) }
                    == expected)
            #expect(
                await code {
                    _ = try await vaults.service.wrapKey(
                        SystemRandomness().secret(32), with: reference(), as: identity)
                } == expected)
        }
        #expect(announced.withLock { $0 } == 3)
    }

    @Test func everyCutLinkEndsAccessAtOnceAndIsAnnouncedBefore() async throws {
        let vaults = try await prepared()
        let heard = Mutex<[String?]>([])
        vaults.service.onChange { name in heard.withLock { $0.append(name) } }
        let wrapped = try await vaults.service.wrapKey(SystemRandomness().secret(32), with: reference(), as: identity)
        func unwrap() async -> KeyUnavailable.Code? {
            await code { _ = try await vaults.service.unwrapKey(wrapped, as: identity) }
        }
        func heardSince() -> [String?] {
            heard.withLock { list in
                defer { list = [] }
                return list
            }
        }
        #expect(await unwrap() == nil)
        // The key's version is disabled.
        _ = await vaults.owned(.PATCH, "/keys/cmk", ["attributes": ["enabled": false]])
        #expect(heardSince() == ["vault1"])
        #expect(await unwrap() == .keyNotFound)
        _ = await vaults.owned(.PATCH, "/keys/cmk", ["attributes": ["enabled": true]])
        #expect(await unwrap() == nil)
        // The key is deleted.
        _ = await vaults.owned(.DELETE, "/keys/cmk")
        #expect(heardSince() == ["vault1", "vault1"])
        #expect(await unwrap() == .keyNotFound)
        _ = await vaults.owned(.POST, "/deletedkeys/cmk/recover")
        #expect(await unwrap() == nil)
        // The policy is removed.
        let id = TestVaults.vaultID("vault1")
        let policy: JSONValue = [
            "properties": ["accessPolicies": [TestVaults.policy(identity, keys: ["get", "wrapKey", "unwrapKey"])]]
        ]
        _ = heardSince()
        _ = try await vaults.control(.put, ResourceID("\(id)/accessPolicies/remove"), policy)
        #expect(heardSince() == ["vault1"])
        #expect(await unwrap() == .accessDenied)
        _ = try await vaults.control(.put, ResourceID("\(id)/accessPolicies/add"), policy)
        #expect(await unwrap() == nil)
        // The vault is deleted.
        _ = heardSince()
        _ = try await vaults.control(.delete, id)
        #expect(heardSince() == ["vault1"])
        #expect(await unwrap() == .vaultNotFound)
        var recover = TestVaults.body()
        recover["properties"]?["createMode"] = "recover"
        _ = try await vaults.control(.put, id, recover)
        #expect(await unwrap() == nil)
        // Roles.
        _ = heardSince()
        vaults.assign(TestVaults.caller(9), role: "Reader", at: .root)
        #expect(heardSince() == [nil])
    }

    @Test func rolesGrantAndEndAccess() async throws {
        let vaults = try await prepared()
        _ = try await vaults.control(
            .patch, TestVaults.vaultID("vault1"), ["properties": ["enableRbacAuthorization": true]])
        let key = SystemRandomness().secret(32)
        #expect(
            await code { _ = try await vaults.service.wrapKey(key, with: reference(), as: identity) } == .accessDenied)
        vaults.assign(identity, role: "Key Vault Crypto Service Encryption User", at: TestVaults.vaultID("vault1"))
        let wrapped = try await vaults.service.wrapKey(key, with: reference(), as: identity)
        _ = try await vaults.service.unwrapKey(wrapped, as: identity)
        vaults.removeRoles(of: identity)
        #expect(await code { _ = try await vaults.service.unwrapKey(wrapped, as: identity) } == .accessDenied)
    }

    @Test func anUnversionedReferenceTakesTheNewestVersionThatMayWrap() async throws {
        let vaults = try await prepared()
        let first = try await vaults.service.currentKeyIdentifier(of: reference(), as: identity)
        _ = await vaults.owned(.POST, "/keys/cmk/rotate")
        _ = await vaults.owned(.PATCH, "/keys/cmk", ["attributes": ["enabled": false]])
        #expect(try await vaults.service.currentKeyIdentifier(of: reference(), as: identity) == first)
        let version = String(first.split(separator: "/").last!)
        _ = await vaults.owned(
            .PATCH, "/keys/cmk/\(version)", ["attributes": ["exp": .integer(vaults.clock.now().unixSeconds)]])
        #expect(
            await code { _ = try await vaults.service.currentKeyIdentifier(of: reference(), as: identity) }
                == .keyNotFound)
        #expect(
            await code { _ = try await vaults.service.currentKeyIdentifier(of: reference(version), as: identity) }
                == .keyNotFound)
    }

    @Test func anExpiredVersionStillUnwraps() async throws {
        let vaults = try await prepared()
        let wrapped = try await vaults.service.wrapKey(SystemRandomness().secret(32), with: reference(), as: identity)
        _ = await vaults.owned(.PATCH, "/keys/cmk", ["attributes": ["exp": 1]])
        _ = try await vaults.service.unwrapKey(wrapped, as: identity)
    }

    @Test func whatCannotBeFoundSaysWhat() async throws {
        let vaults = try await prepared()
        let key = SystemRandomness().secret(32)
        for uri in ["https://nobody.vault.azure.net/", "https://example.com/", "", "vault1"] {
            #expect(
                await code { _ = try await vaults.service.wrapKey(key, with: reference(uri: uri), as: identity) }
                    == .vaultNotFound)
        }
        let absent = CustomerKeyReference(
            vaultURI: "https://vault1.vault.azure.net/", keyName: "absent", keyVersion: nil)
        #expect(await code { _ = try await vaults.service.wrapKey(key, with: absent, as: identity) } == .keyNotFound)
        let wrapped = CustomerWrappedKey(
            keyIdentifier: "https://vault1.vault.azure.net/keys/cmk/\(String(repeating: "0", count: 32))",
            ciphertext: [1])
        #expect(await code { _ = try await vaults.service.unwrapKey(wrapped, as: identity) } == .keyNotFound)
        #expect(
            await code { _ = try await vaults.service.wrapKey(key, with: reference(), as: TestVaults.caller(8)) }
                == .accessDenied)
    }

    @Test func eligibilityNamesWhatIsMissing() async throws {
        let vaults = try await prepared(purgeProtection: false)
        func refusal(_ reference: CustomerKeyReference, _ caller: Caller) async -> String? {
            do throws(ControlError) {
                try await vaults.service.customerKeyEligibility(reference, as: caller)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(await refusal(reference(), identity) == "KeyVaultPolicyError")
        _ = try await vaults.control(
            .patch, TestVaults.vaultID("vault1"), ["properties": ["enablePurgeProtection": true]])
        #expect(await refusal(reference(), identity) == nil)
        #expect(await refusal(reference(), TestVaults.caller(8)) == "KeyVaultAuthenticationFailure")
        #expect(await refusal(reference(uri: "https://nobody.vault.azure.net"), identity) == "KeyVaultVaultNotFound")
        _ = await vaults.owned(.POST, "/keys/ec/create", ["kty": "EC"])
        let curve = CustomerKeyReference(vaultURI: "https://vault1.vault.azure.net/", keyName: "ec", keyVersion: nil)
        #expect(await refusal(curve, identity) != nil)
        _ = await vaults.owned(.PATCH, "/keys/cmk", ["attributes": ["exp": 1]])
        #expect(await refusal(reference(), identity) == "KeyVaultAuthenticationFailure")
    }

    /// The account's key through the vault, as EncryptionAtRest uses it.
    @Test func anAccountFollowsRotationAndEndsWithThePolicy() async throws {
        let vaults = try await prepared()
        let keys = vaults.service.store.accountKeys
        keys.attach(vaults.service)
        let account = AccountID(bytes: SystemRandomness().bytes(16))
        try await keys.create(account)
        let before = try await keys.useCustomerKey(account, reference(), as: identity)
        _ = await vaults.owned(.POST, "/keys/cmk/rotate")
        let after = try await keys.followRotation(account)
        #expect(before != after)
        _ = try await keys.usePlatformKey(account)
    }
}
