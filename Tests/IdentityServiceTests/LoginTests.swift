import AccessControl
import CofferCore
import Foundation
import HTTPEdge
import IdentityService
import NIOHTTP1
import StorageEngine
import Testing

@Suite struct LoginTests {
    /// In the process as on the wire: the secret counts, of this tenant, as long as the principal may sign in.
    @Test func aSecretProvesItsServicePrincipal() async throws {
        let tenant = try await Tenant()
        let client = tenant.administrator.clientID
        let id = tenant.installation.tenantID
        func prove(_ secret: String, _ tenantID: String) async throws -> Caller {
            try await tenant.identity.servicePrincipal(
                applicationID: client, secret: RedactedString(secret), tenantID: tenantID)
        }
        let caller = try await prove(tenant.secret, id.uppercased())
        #expect(caller.applicationID == client && caller.kind == .servicePrincipal)
        for (secret, tenantID) in [("x", id), ("", id), (tenant.secret, "11111111-1111-1111-1111-111111111111")] {
            do {
                _ = try await prove(secret, tenantID)
                Issue.record("a wrong secret or tenant was taken")
            } catch { #expect(!"\(error)".contains(tenant.secret) && "\(error)".hasPrefix("AADSTS7000")) }
        }
    }

    @Test func signsInAndTheTokenIsVerified() async throws {
        let tenant = try await Tenant()
        let (status, body) = await tenant.signIn("https://management.coffer.localhost//.default")
        #expect(status == 200)
        #expect(body["token_type"] == "Bearer")
        #expect(body["expires_in"] == 3_599)
        let token = try #require(body["access_token"]?.stringValue)
        let claims = claims(token)
        #expect(claims["aud"] == "https://management.coffer.localhost/")
        #expect(claims["iss"] == .string("https://login.coffer.localhost/\(tenant.installation.tenantID)/"))
        #expect(claims["tid"]?.stringValue == tenant.installation.tenantID)
        #expect(claims["oid"]?.stringValue == tenant.administrator.objectID)
        #expect(claims["appid"]?.stringValue == tenant.administrator.clientID)
        #expect(claims["idtyp"] == "app")
        #expect(claims["ver"] == "1.0")
        let caller = try await tenant.verifier.verify(token, audiences: ["https://management.coffer.localhost"])
        #expect(caller.objectID == tenant.administrator.objectID)
        #expect(caller.applicationID == tenant.administrator.clientID)
        #expect(caller.kind == .servicePrincipal)
    }

    @Test func everyAudienceOfBothFamilies() async throws {
        let tenant = try await Tenant()
        let audiences = [
            "https://management.coffer.localhost",
            "https://management.azure.com/",
            "https://management.core.windows.net/",
            "https://vault.coffer.localhost",
            "https://vault.azure.net",
            "https://managedhsm.azure.net",
            "https://storage.azure.com",
            "https://appservice.coffer.localhost",
            "https://appservice.azure.com",
            "https://graph.microsoft.com/",
            "https://contoso.blob.core.windows.net",
            "https://contoso.queue.core.coffer.localhost",
        ]
        for audience in audiences {
            for family in tenant.names.families {
                let (status, body) = await tenant.signIn("\(audience)/.default", family: family)
                #expect(status == 200)
                #expect(claims(body["access_token"]?.stringValue ?? "")["aud"]?.stringValue == audience)
            }
        }
    }

    @Test func publicNamesHaveAzuresIssuer() async throws {
        let tenant = try await Tenant()
        let (_, body) = await tenant.signIn("https://management.azure.com//.default", family: .azurePublic)
        #expect(
            claims(body["access_token"]?.stringValue ?? "")["iss"]?.stringValue
                == "https://sts.windows.net/\(tenant.installation.tenantID)/")
    }

    private struct Refusal {
        let change: [String: String?]
        let status: Int
        let number: Int64
        let error: String
    }

    @Test func refusalsCarryEntrasNumbers() async throws {
        let tenant = try await Tenant()
        let good = [
            "grant_type": "client_credentials", "client_id": tenant.administrator.clientID,
            "client_secret": tenant.secret,
            "scope": "https://management.coffer.localhost//.default",
        ]
        let cases = [
            Refusal(change: ["client_secret": "wrong"], status: 401, number: 7_000_215, error: "invalid_client"),
            Refusal(change: ["client_secret": String?.none], status: 401, number: 7_000_216, error: "invalid_client"),
            Refusal(
                change: ["client_id": UUID().uuidString], status: 400, number: 700_016, error: "unauthorized_client"),
            Refusal(change: ["client_id": "x"], status: 400, number: 700_016, error: "unauthorized_client"),
            Refusal(change: ["client_id": String?.none], status: 400, number: 900_144, error: "invalid_request"),
            Refusal(change: ["grant_type": String?.none], status: 400, number: 900_144, error: "invalid_request"),
            Refusal(change: ["scope": String?.none], status: 400, number: 900_144, error: "invalid_request"),
            Refusal(change: ["grant_type": "password"], status: 400, number: 70_003, error: "unsupported_grant_type"),
            Refusal(
                change: ["scope": "https://management.coffer.localhost/"], status: 400, number: 1_002_012,
                error: "invalid_scope"),
            Refusal(
                change: ["scope": "https://example.com/.default"], status: 400, number: 500_011,
                error: "invalid_resource"),
            Refusal(
                change: ["scope": "https://management.coffer.localhost/x/.default"], status: 400, number: 500_011,
                error: "invalid_resource"),
        ]
        for refusal in cases {
            var form = good
            for (name, value) in refusal.change { form[name] = value }
            let (status, body) = await tenant.login(form)
            #expect(status == refusal.status, "\(refusal)")
            #expect(body["error_codes"] == [.integer(refusal.number)], "\(refusal)")
            #expect(body["error"]?.stringValue == refusal.error)
            #expect(body["error_description"]?.stringValue?.hasPrefix("AADSTS\(refusal.number): ") == true)
            #expect(body["access_token"] == nil)
        }
        let elsewhere = await tenant.login(good, tenant: UUID().uuidString)
        #expect(elsewhere.body["error_codes"] == [90_002])
        #expect(await tenant.login(good).status == 200)
    }

    @Test func v1EndpointTakesAResource() async throws {
        let tenant = try await Tenant()
        let (status, body) = await tenant.login(
            [
                "grant_type": "client_credentials", "client_id": tenant.administrator.clientID,
                "client_secret": tenant.secret,
                "resource": "https://vault.azure.net",
            ], path: "/oauth2/token")
        #expect(status == 200)
        #expect(body["resource"] == "https://vault.azure.net")
        #expect(body["expires_in"] == "3599")
        #expect(body["expires_on"]?.stringValue == "\(tenant.clock.now().unixSeconds + 3_600)")
    }

    @Test func basicCredentialsAreRead() async throws {
        let tenant = try await Tenant()
        let basic = Array("\(tenant.administrator.clientID):\(tenant.secret.replacing("~", with: "%7E"))".utf8).base64
        let (status, _) = await tenant.login(
            ["grant_type": "client_credentials", "scope": "https://vault.azure.net/.default"],
            headers: ["Authorization": "Basic \(basic)"])
        #expect(status == 200)
    }

    @Test func discoveryNamesTheFamilyAndTheKeysVerify() async throws {
        let tenant = try await Tenant()
        let login = LoginService(tenant.identity)
        let id = tenant.installation.tenantID
        for (family, host) in [
            (tenant.names.own, "login.coffer.localhost"), (.azurePublic, "login.microsoftonline.com"),
        ] {
            let (status, v2) = await answer(
                login.respond(
                    to: tenant.request(
                        .GET, "/\(id)/v2.0/.well-known/openid-configuration", endpoint: .login, family: family)))
            #expect(status == 200)
            #expect(v2["issuer"]?.stringValue == "https://\(host)/\(id)/v2.0")
            #expect(v2["token_endpoint"]?.stringValue == "https://\(host)/\(id)/oauth2/v2.0/token")
            #expect(v2["authorization_endpoint"]?.stringValue == "https://\(host)/\(id)/oauth2/v2.0/authorize")
            #expect(v2["jwks_uri"]?.stringValue == "https://\(host)/\(id)/discovery/v2.0/keys")
        }
        for path in [
            "/organizations/v2.0/.well-known/openid-configuration", "/common/.well-known/openid-configuration",
        ] {
            let (status, body) = await answer(login.respond(to: tenant.request(.GET, path, endpoint: .login)))
            #expect(status == 200)
            #expect(body["issuer"]?.stringValue?.contains("{tenantid}") == true)
        }
        let (_, jwks) = await answer(
            login.respond(to: tenant.request(.GET, "/\(id)/discovery/v2.0/keys", endpoint: .login)))
        #expect(jwks["keys"]?.arrayValue?.count == 1)
        #expect(jwks["keys"]?.arrayValue?.first?["d"] == nil)
        let (missing, body) = await answer(
            login.respond(
                to: tenant.request(
                    .GET, "/\(UUID().uuidString)/v2.0/.well-known/openid-configuration", endpoint: .login)))
        #expect(missing == 400)
        #expect(body["error_codes"] == [90_002])
        let (status, instance) = await answer(
            login.respond(to: tenant.request(.GET, "/common/discovery/instance?api-version=1.1", endpoint: .login)))
        #expect(status == 200)
        #expect(
            instance["tenant_discovery_endpoint"]?.stringValue?.hasSuffix("/v2.0/.well-known/openid-configuration")
                == true)
    }

    @Test func malformedBodiesAreRefused() async throws {
        let tenant = try await Tenant()
        let login = LoginService(tenant.identity)
        let path = "/\(tenant.installation.tenantID)/oauth2/v2.0/token"
        let bodies = [
            "", "&&&&", "grant_type", "grant_type=%", "grant_type=%zz&a=b", "grant_type=a&grant_type=b", "=&=&=",
            "\u{0}", "a=%ff",
        ]
        for body in bodies + [String(repeating: "a", count: 70_000)] {
            let (status, answer) = await answer(
                login.respond(
                    to: tenant.request(
                        .POST, path, endpoint: .login, headers: ["Content-Type": "application/x-www-form-urlencoded"],
                        body: body)))
            #expect(status == 400, "\(body.prefix(40))")
            #expect(answer["error"] != nil)
        }
        let (status, _) = await answer(
            login.respond(
                to: tenant.request(
                    .POST, path, endpoint: .login, headers: ["Content-Type": "application/json"], body: "{}")))
        #expect(status == 400)
        for path in ["/", "/x", "/%zz", "/\(tenant.installation.tenantID)/oauth2/v2.0/authorize"] {
            let (status, _) = await answer(login.respond(to: tenant.request(.GET, path, endpoint: .login)))
            #expect(status >= 400 && status < 500)
        }
    }
}

@Suite struct BootstrapTests {
    @Test func secondStartKeepsKeysAndSecretAndReturnsNoSecret() async throws {
        let tenant = try await Tenant()
        let token = try #require(
            await tenant.signIn("https://vault.azure.net/.default").body["access_token"]?.stringValue)
        let verifier = TokenVerifier(clock: tenant.clock)
        let again = try await tenant.restarted(verifier: verifier).bootstrap()
        #expect(again.secret == nil)
        #expect(again.clientID == tenant.administrator.clientID)
        #expect(again.objectID == tenant.administrator.objectID)
        _ = try await verifier.verify(token, audiences: ["https://vault.azure.net"])
    }

    @Test func aResetSecretReplacesTheOldOne() async throws {
        let tenant = try await Tenant()
        #expect(await tenant.signIn("https://vault.azure.net/.default").status == 200)
        let fresh = try await tenant.identity.resetAdministratorSecret()
        let secret = try #require(fresh.secret).reveal()
        #expect(secret.count >= 40 && secret != tenant.secret)
        #expect(await tenant.signIn("https://vault.azure.net/.default").body["error_codes"] == [7_000_215])
        let (status, _) = await tenant.login([
            "grant_type": "client_credentials", "client_id": fresh.clientID, "client_secret": secret,
            "scope": "https://vault.azure.net/.default",
        ])
        #expect(status == 200)
    }

    @Test func aRolledKeyKeepsTokensOfTheOneBefore() async throws {
        let tenant = try await Tenant()
        func token() async -> String {
            await tenant.signIn("https://vault.azure.net/.default").body["access_token"]?.stringValue ?? ""
        }
        let first = await token()
        try await tenant.identity.rollSigningKey()
        let second = await token()
        for token in [first, second] {
            _ = try await tenant.verifier.verify(token, audiences: ["https://vault.azure.net"])
        }
        try await tenant.identity.rollSigningKey()
        await #expect(throws: TokenRefusal.self) {
            try await tenant.verifier.verify(first, audiences: ["https://vault.azure.net"])
        }
        _ = try await tenant.verifier.verify(second, audiences: ["https://vault.azure.net"])
    }

    @Test func nothingOfTheSecretIsStoredInClear() async throws {
        let tenant = try await Tenant()
        let secret = Array(tenant.secret.utf8)
        for partition in try await tenant.engine.partitions(after: nil, limit: 100) {
            for row in try await tenant.engine.scan(partition, from: .init(""), upTo: nil, limit: 1_000) {
                #expect(!row.value.indices.contains { row.value[$0...].starts(with: secret) })
                #expect(!String(decoding: row.value, as: UTF8.self).contains("PRIVATE KEY"))
                #expect(!String(decoding: row.value, as: UTF8.self).contains("coffer-administrator"))
            }
        }
    }
}
