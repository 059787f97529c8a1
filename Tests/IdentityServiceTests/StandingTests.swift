import AccessControl
import CofferCore
import IdentityService
import NIOHTTP1
import ResourceProviders
import Testing

/// Tokens of principals that are no more, or must not act for now.
@Suite struct StandingTests {
    private static let audience = "https://vault.azure.net"

    /// Makes an application with a principal and a secret; its principal's path in Graph, and a token of its own.
    private func client(of tenant: Tenant, as administrator: String) async throws -> (
        application: String, principal: String, token: String
    ) {
        let made = await tenant.graph(.POST, "/v1.0/applications", token: administrator, ["displayName": "ci"]).body
        let appID = try #require(made["appId"]?.stringValue)
        let application = "/v1.0/applications/\(try #require(made["id"]?.stringValue))"
        let principal = await tenant.graph(
            .POST, "/v1.0/servicePrincipals", token: administrator, ["appId": .string(appID)]
        ).body["id"]
        let password = await tenant.graph(.POST, "\(application)/addPassword", token: administrator, [:]).body
        let signedIn = await tenant.login([
            "grant_type": "client_credentials", "client_id": appID,
            "client_secret": try #require(password["secretText"]?.stringValue), "scope": "\(Self.audience)/.default",
        ])
        return (
            application, "/v1.0/servicePrincipals/\(try #require(principal?.stringValue))",
            try #require(signedIn.body["access_token"]?.stringValue)
        )
    }

    private func refusal(_ token: String, _ verifier: TokenVerifier) async -> TokenRefusal.Reason? {
        do {
            _ = try await verifier.verify(token, audiences: [Self.audience])
            return nil
        } catch {
            return error.reason
        }
    }

    @Test func aDisabledPrincipalsTokenIsRefusedAtOnceAndWorksAgainOnceItIsEnabled() async throws {
        let tenant = try await Tenant()
        let administrator = await tenant.graphToken()
        let (_, principal, token) = try await client(of: tenant, as: administrator)
        for _ in 0..<2 {
            for _ in 0..<2 { #expect(await refusal(token, tenant.verifier) == nil) }
            #expect(
                await tenant.graph(.PATCH, principal, token: administrator, ["accountEnabled": false]).status == 204)
            for _ in 0..<2 { #expect(await refusal(token, tenant.verifier) == .principalUnknown) }
            #expect(await tenant.graph(.PATCH, principal, token: administrator, ["accountEnabled": true]).status == 204)
        }
        #expect(await refusal(token, tenant.verifier) == nil)
    }

    @Test(arguments: [true, false])
    func aDeletedPrincipalsTokenIsRefusedAtOnceAndAfterARestart(withItsApplication: Bool) async throws {
        let tenant = try await Tenant()
        let administrator = await tenant.graphToken()
        let (application, principal, token) = try await client(of: tenant, as: administrator)
        #expect(await refusal(token, tenant.verifier) == nil)
        let path = withItsApplication ? application : principal
        #expect(await tenant.graph(.DELETE, path, token: administrator).status == 204)
        #expect(await refusal(token, tenant.verifier) == .principalUnknown)
        let verifier = TokenVerifier(clock: tenant.clock)
        _ = try await tenant.restarted(verifier: verifier).bootstrap()
        #expect(await refusal(token, verifier) == .principalUnknown)
        // The others are not touched.
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals", token: administrator).status == 200)
    }

    @Test func aRemovedIdentitysTokenIsRefusedAtOnce() async throws {
        let tenant = try await Tenant()
        let site = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/app")
        let identity = try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app")
        let token = try await tenant.identity.issueToken(for: identity, audience: Self.audience).token.reveal()
        #expect(await refusal(token, tenant.verifier) == nil)
        try await tenant.identity.removeSystemAssignedIdentity(of: site)
        #expect(await refusal(token, tenant.verifier) == .principalUnknown)
        // Another identity of the same resource does not bring the token back.
        _ = try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app")
        #expect(await refusal(token, tenant.verifier) == .principalUnknown)
    }
}
