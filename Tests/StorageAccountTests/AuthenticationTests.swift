import AccessControl
import CofferCore
import Crypto
import EncryptionAtRest
import HTTPEdge
import NIOHTTP1
import ResourceProviders
import TestSupport
import Testing

@testable import StorageAccount

/// Tokens, roles, user delegation, nobody, and who may connect at all.
struct AuthenticationTests {
    static let url = "https://contoso1.blob.core.coffer.localhost/music/a"
    static let principal = "11111111-1111-4111-8111-111111111111"
    private let fixture: Fixture
    init() async throws {
        fixture = try Fixture()
        try await fixture.create("contoso1")
    }

    private func bearer(_ token: String, url: String = Self.url, version: String = "2020-10-02") -> [(String, String)] {
        [("Authorization", "Bearer \(token)"), ("x-ms-version", version)]
    }

    @Test func tokensOfBothFamiliesAreTaken() async throws {
        let audiences = [
            "https://storage.azure.com", "https://storage.azure.com/", "https://contoso1.blob.core.windows.net",
            "https://contoso1.blob.core.coffer.localhost:8443/",
        ]
        for audience in audiences {
            let token = try await fixture.token(for: Self.principal, audience: audience)
            let caller = try await fixture.authenticate(fixture.request(.GET, Self.url, bearer(token)))
            guard case .principal(let principal) = caller else { throw StorageError(0, "", "\(caller)") }
            #expect(principal.objectID == Self.principal)
        }
        for audience in [
            "https://vault.azure.net", "https://other.blob.core.windows.net", "https://contoso1.queue.core.windows.net",
        ] {
            let token = try await fixture.token(for: Self.principal, audience: audience)
            #expect(
                await fixture.outcome(fixture.request(.GET, Self.url, bearer(token))) == "401 InvalidAuthenticationInfo"
            )
        }
    }

    @Test func tokensThatDoNotCount() async throws {
        let token = try await fixture.token(for: Self.principal)
        #expect(
            await fixture.outcome(fixture.request(.GET, Self.url, bearer(token, version: "2016-05-31")))
                == "403 AuthenticationFailed")
        #expect(
            await fixture.outcome(fixture.request(.GET, Self.url, bearer(token + "x")))
                == "401 InvalidAuthenticationInfo")
        let foreign = try await fixture.token(for: Self.principal, tenant: "66666666-6666-4666-8666-666666666666")
        #expect(
            await fixture.outcome(fixture.request(.GET, Self.url, bearer(foreign))) == "401 InvalidAuthenticationInfo")
        fixture.clock.advance(seconds: 3_600)
        #expect(
            await fixture.outcome(fixture.request(.GET, Self.url, bearer(token))) == "401 InvalidAuthenticationInfo")
        try await fixture.patch("contoso1", ["supportsHttpsTrafficOnly": false])
        let plain = fixture.request(.GET, Self.url, bearer(token), scheme: .http)
        #expect(await fixture.outcome(plain) == "403 AuthenticationFailed")
    }

    @Test func nobodyIsChallenged() async throws {
        let request = fixture.request(.GET, Self.url)
        do throws(StorageError) {
            _ = try await fixture.authenticate(request)
            Issue.record("let in")
        } catch {
            #expect(error.status == 401 && error.code == "NoAuthenticationInformation")
            #expect(
                error.headers.first?.1
                    == "Bearer authorization_uri=https://login.coffer.localhost:8443/\(Fixture.tenant)/oauth2/authorize "
                    + "resource_id=https://storage.azure.com")
        }
        try await fixture.patch("contoso1", ["allowBlobPublicAccess": true])
        #expect(await fixture.outcome(request) == "anonymous")
        #expect(await fixture.outcome(request, as: .queue) == "401 NoAuthenticationInformation")
    }

    @Test func roles() async throws {
        let account = try await fixture.service.account(named: "contoso1")
        let caller = Caller(kind: .user, objectID: Self.principal, tenantID: Fixture.tenant)
        let blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
        let read = Action.data("\(blobs)/read")
        let write = Action.data("\(blobs)/write")
        func may(_ action: Action, _ container: String?) -> Bool {
            do throws(StorageError) {
                try fixture.service.requireRole(caller, action, account: account, container: container)
                return true
            } catch {
                #expect(error.status == 403 && error.code == "AuthorizationPermissionMismatch")
                return false
            }
        }
        let reader = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
        let contributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
        #expect(!may(read, "music"))
        fixture.assign([(Self.principal, reader, Fixture.id("contoso1"))])
        #expect(may(read, "music") && may(read, nil) && !may(write, "music"))
        let container = Fixture.id("contoso1").appending("blobServices", "default", "containers", "music")
        fixture.assign([(Self.principal, contributor, container)])
        #expect(may(write, "music") && !may(write, "films") && !may(read, nil))
        // The owner of the subscription owns the account, not what is in it.
        fixture.assign([(Self.principal, BuiltInRoles.owner, Fixture.group)])
        #expect(!may(read, "music"))
        fixture.assign([(Self.principal, contributor, Fixture.id("contoso2"))])
        #expect(!may(read, "music"))
    }

    // MARK: User delegation

    private func delegation(
        _ caller: StorageCaller, expiry: String = "2026-11-25T00:00:00Z"
    ) async throws(StorageError) -> UserDelegationKey {
        try await fixture.service.userDelegationKey(
            start: nil, expiry: expiry, delegatedTenantID: nil, version: "2022-11-02", as: caller,
            account: fixture.service.account(named: "contoso1"))
    }
    private func signature(_ key: UserDelegationKey, se: String = "2026-11-23") throws -> String {
        let terms = [
            key.signedObjectID, key.signedTenantID, key.signedStart, key.signedExpiry, "b", key.signedVersion, "", "",
            "", "", "",
            "2022-11-02", "b", "", "", "", "", "", "", "",
        ]
        let text = (["r", "", se, "/blob/contoso1/music/a"] + terms).joined(separator: "\n")
        let bytes = try #require([UInt8](base64: key.value.reveal()))
        let sig = Signatures.sign(text, with: SymmetricKey(data: bytes)).replacing("+", with: "%2B")
        return
            "sv=2022-11-02&sr=b&sp=r&se=\(se)&skoid=\(key.signedObjectID)&sktid=\(key.signedTenantID)&skt=\(key.signedStart)"
            + "&ske=\(key.signedExpiry)&sks=b&skv=2022-11-02&sig=\(sig)"
    }

    @Test func aDelegatedKeySignsForItsHolder() async throws {
        let principal = Caller(kind: .user, objectID: Self.principal, tenantID: Fixture.tenant)
        await #expect(throws: StorageError.self) { try await delegation(.principal(principal)) }
        fixture.assign([(Self.principal, "db58b8e5-c6ad-4a2a-8342-4190687cbf4a", Fixture.id("contoso1"))])
        let key = try await delegation(.principal(principal))
        let request = fixture.request(.GET, Self.url + "?" + (try signature(key)))
        guard case .sharedAccess(let grant) = try await fixture.authenticate(request) else { return }
        #expect(grant.delegatingPrincipal == principal)
        #expect(grant.scope == .blob(container: "music", blob: "a"))
        // Beyond the key's own end the signature is dead, whatever it says of itself.
        let long = fixture.request(.GET, Self.url + "?" + (try signature(key, se: "2027-01-01")))
        #expect(await fixture.outcome(long) == "sharedAccess")
        fixture.clock.advance(seconds: 3 * 86_400)
        #expect(await fixture.outcome(long) == "403 AuthenticationFailed")
        fixture.clock.advance(seconds: -3 * 86_400)
        _ = try await fixture.control(.post, Fixture.id("contoso1").appending("revokeUserDelegationKeys"))
        #expect(await fixture.outcome(request) == "403 AuthenticationFailed")
    }

    @Test func whoCannotDelegate() async throws {
        let principal = StorageCaller.principal(fixture.owner)
        await #expect(throws: StorageError.self) { try await delegation(.accountKey) }
        await #expect(throws: StorageError.self) { try await delegation(principal, expiry: "2026-11-29T00:00:01Z") }
        await #expect(throws: StorageError.self) { try await delegation(principal, expiry: "2026-11-21T00:00:00Z") }
        await #expect(throws: StorageError.self) { try await delegation(principal, expiry: "soon") }
        _ = try await delegation(principal, expiry: "2026-11-29T00:00:00Z")
    }

    // MARK: Connection

    @Test func networkRules() async throws {
        try await fixture.patch(
            "contoso1",
            [
                "allowBlobPublicAccess": true,
                "networkAcls": [
                    "defaultAction": "Deny", "ipRules": [["value": "198.51.100.0/24"], ["value": "203.0.113.9"]],
                ],
            ])
        func from(_ peer: String) async -> String { await fixture.outcome(fixture.request(.GET, Self.url, peer: peer)) }
        #expect(await from("198.51.100.200") == "anonymous")
        #expect(await from("203.0.113.9") == "anonymous")
        for peer in ["203.0.113.8", "198.51.101.0", "::1", ""] {
            #expect(await from(peer) == "403 AuthorizationFailure")
        }
        try await fixture.patch("contoso1", ["networkAcls": ["defaultAction": "Allow"]])
        #expect(await from("203.0.113.8") == "anonymous")
        try await fixture.patch("contoso1", ["publicNetworkAccess": "Disabled"])
        #expect(await from("203.0.113.9") == "403 AuthorizationFailure")
    }

    @Test func transportRules() async throws {
        try await fixture.patch("contoso1", ["allowBlobPublicAccess": true, "minimumTlsVersion": "TLS1_3"])
        #expect(await fixture.outcome(fixture.request(.GET, Self.url, tls: .v1_2)) == "400 TlsVersionNotPermitted")
        #expect(await fixture.outcome(fixture.request(.GET, Self.url, tls: .v1_3)) == "anonymous")
        #expect(await fixture.outcome(fixture.request(.GET, Self.url, scheme: .http)) == "400 AccountRequiresHttps")
        try await fixture.patch("contoso1", ["supportsHttpsTrafficOnly": false])
        #expect(await fixture.outcome(fixture.request(.GET, Self.url, scheme: .http)) == "anonymous")
    }

    @Test func theSecondaryEndpointIsForReading() async throws {
        let url = "https://contoso1-secondary.blob.core.coffer.localhost/music/a"
        #expect(await fixture.outcome(fixture.request(.GET, url)) == "404 ResourceNotFound")
        _ = try await fixture.control(
            .patch, Fixture.id("contoso1"),
            ["sku": ["name": "Standard_RAGRS"], "properties": ["allowBlobPublicAccess": true]])
        #expect(await fixture.outcome(fixture.request(.GET, url)) == "anonymous")
        #expect(await fixture.outcome(fixture.request(.PUT, url)) == "403 InsufficientAccountPermissions")
    }

    @Test func addressRanges() {
        #expect(IPv4Range("10.0.0.0/8")?.contains(IPv4Range.address("10.255.255.255")!) == true)
        #expect(IPv4Range("10.0.0.0/8")?.contains(IPv4Range.address("11.0.0.0")!) == false)
        #expect(IPv4Range("0.0.0.0/0")?.contains(.max) == true)
        for text in [
            "", ".", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1..2.3", "1.2.3.4/33", "1.2.3.4/",
            "1.2.3.4-1.2.3.3",
            "1.2.3.4-", "::1", "a.b.c.d", "1.2.3.4 ",
        ] {
            #expect(IPv4Range(text) == nil, "\(text)")
        }
    }

    @Test func signaturesDecodeStrictly() {
        let random = SeededRandomness(5)
        for _ in 0..<200 {
            let bytes = random.bytes(32)
            #expect(Signatures.decoded(bytes.base64) == bytes)
        }
        let good = [UInt8](repeating: 0, count: 32).base64
        for text in [
            "", "AA==", good + "A", String(good.dropLast()), good.dropLast(2) + "B=", good.dropLast() + "A",
            " " + good.dropFirst(),
        ] {
            #expect(Signatures.decoded(text) == nil, "\(text)")
        }
    }
}
