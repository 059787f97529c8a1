import AccessControl
import CofferCore
import Foundation
import HTTPEdge
import IdentityService
import NIOHTTP1
import ResourceProviders
import Testing

@Suite struct GraphTests {
    @Test func meIsRefusedForServicePrincipals() async throws {
        let tenant = try await Tenant()
        let (status, body) = await tenant.graph(.GET, "/v1.0/me", token: await tenant.graphToken())
        #expect(status == 400)
        #expect(body["error"]?["code"] == "BadRequest")
    }

    @Test func findsServicePrincipalsAsTheCommandLineAsks() async throws {
        let tenant = try await Tenant()
        let token = await tenant.graphToken()
        let id = tenant.administrator.clientID
        let filters = [
            "servicePrincipalNames/any(c:c%20eq%20'\(id)')", "appId eq '\(id)'",
            "displayName%20eq%20'coffer-administrator'",
            "startswith(displayName,'coffer')", "servicePrincipalNames/any(c:startswith(c,'\(id.prefix(8))'))",
        ]
        for filter in filters {
            let (status, body) = await tenant.graph(
                .GET, "/v1.0/servicePrincipals?$filter=\(filter.replacing(" ", with: "%20"))", token: token)
            #expect(status == 200)
            #expect(body["value"]?.arrayValue?.first?["id"]?.stringValue == tenant.administrator.objectID, "\(filter)")
        }
        let none = await tenant.graph(.GET, "/v1.0/servicePrincipals?$filter=appId%20eq%20'nobody'", token: token)
        #expect(none.body["value"] == [])
        let unknown = await tenant.graph(.GET, "/v1.0/servicePrincipals?$filter=colour%20eq%20'red'", token: token)
        #expect(unknown.status == 400)
        let byIDs = await tenant.graph(
            .POST, "/v1.0/directoryObjects/getByIds", token: token,
            [
                "ids": [.string(tenant.administrator.objectID), "00000000-0000-0000-0000-000000000000"],
                "types": ["user", "group", "servicePrincipal"],
            ])
        #expect(byIDs.body["value"]?.arrayValue?.count == 1)
        #expect(byIDs.body["value"]?.arrayValue?.first?["@odata.type"] == "#microsoft.graph.servicePrincipal")
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals(appId='\(id)')", token: token).status == 200)
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals/\(UUID().uuidString)", token: token).status == 404)
    }

    @Test func aTokenForAnotherResourceIsRefused() async throws {
        let tenant = try await Tenant()
        let token = await tenant.signIn("https://vault.azure.net/.default").body["access_token"]?.stringValue ?? ""
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals", token: token).status == 401)
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals", token: "").status == 401)
    }

    /// What `az ad sp create-for-rbac` does, and that the new principal can sign in but not write.
    @Test func makesAServicePrincipalThatSignsIn() async throws {
        let tenant = try await Tenant()
        let token = await tenant.graphToken()
        let application = await tenant.graph(.POST, "/v1.0/applications", token: token, ["displayName": "ci"])
        #expect(application.status == 201)
        let appID = try #require(application.body["appId"]?.stringValue)
        let principal = await tenant.graph(.POST, "/v1.0/servicePrincipals", token: token, ["appId": .string(appID)])
        #expect(principal.status == 201)
        #expect(
            await tenant.graph(.POST, "/v1.0/servicePrincipals", token: token, ["appId": .string(appID)]).status == 409)
        let path = "/v1.0/applications/\(application.body["id"]?.stringValue ?? "")"
        let password = await tenant.graph(
            .POST, "\(path)/addPassword", token: token,
            ["passwordCredential": ["displayName": "rbac", "endDateTime": "2027-11-22T03:00:00Z"]])
        let secret = try #require(password.body["secretText"]?.stringValue)
        let shown = await tenant.graph(.GET, path, token: token)
        #expect(shown.body["passwordCredentials"]?.arrayValue?.first?["secretText"] == .null)
        let form = [
            "grant_type": "client_credentials", "client_id": appID, "client_secret": secret,
            "scope": "https://graph.microsoft.com/.default",
        ]
        let own = try #require(await tenant.login(form).body["access_token"]?.stringValue)
        #expect(await tenant.graph(.GET, "/v1.0/servicePrincipals", token: own).status == 200)
        #expect(await tenant.graph(.POST, "/v1.0/applications", token: own, ["displayName": "more"]).status == 403)
        #expect(await tenant.graph(.POST, "\(path)/addPassword", token: own, [:]).status == 403)

        tenant.clock.advance(seconds: 366 * 86_400)
        #expect(await tenant.login(form).body["error_codes"] == [7_000_222])
        let later = await tenant.graphToken()
        let keyID = password.body["keyId"] ?? .null
        #expect(await tenant.graph(.POST, "\(path)/removePassword", token: later, ["keyId": keyID]).status == 204)
        #expect(await tenant.login(form).body["error_codes"] == [7_000_215])
        #expect(await tenant.graph(.DELETE, path, token: later).status == 204)
        #expect(await tenant.login(form).body["error_codes"] == [700_016])
    }

    @Test func aDisabledPrincipalCannotSignIn() async throws {
        let tenant = try await Tenant()
        let token = await tenant.graphToken()
        let path = "/v1.0/servicePrincipals/\(tenant.administrator.objectID)"
        #expect(await tenant.graph(.PATCH, path, token: token, ["accountEnabled": false]).status == 204)
        #expect(await tenant.signIn("https://vault.azure.net/.default").body["error_codes"] == [7_000_112])
    }

    @Test func anApplicationCannotPassForAnAzureResource() async throws {
        let tenant = try await Tenant()
        let token = await tenant.graphToken()
        for uri in [
            "https://vault.azure.net", "https://management.coffer.localhost/", "https://storage.azure.com", "noscheme",
        ] {
            let (status, _) = await tenant.graph(
                .POST, "/v1.0/applications", token: token, ["displayName": "x", "identifierUris": [.string(uri)]])
            #expect(status == 400, "\(uri)")
        }
        let (status, _) = await tenant.graph(
            .POST, "/v1.0/applications", token: token,
            ["displayName": "x", "identifierUris": ["api://contoso/orders"], "api": ["requestedAccessTokenVersion": 2]])
        #expect(status == 201)
        let issued = await tenant.signIn("api://contoso/orders/.default")
        let token2 = claims(issued.body["access_token"]?.stringValue ?? "")
        #expect(token2["aud"] == "api://contoso/orders")
        #expect(token2["ver"] == "2.0")
        #expect(token2["azp"]?.stringValue == tenant.administrator.clientID)
        #expect(token2["iss"]?.stringValue?.hasSuffix("/v2.0") == true)
    }
}

@Suite struct ManagedIdentityTests {
    private let site = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/app")

    @Test func oneIdentityPerResourceUntilItIsRemoved() async throws {
        let tenant = try await Tenant()
        let first = try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app")
        let upper = ResourceID("/SUBSCRIPTIONS/s/resourcegroups/RG/providers/microsoft.web/sites/APP")
        #expect(try await tenant.identity.systemAssignedIdentity(of: upper, displayName: "app") == first)
        let issued = try await tenant.identity.issueToken(for: first, audience: "https://vault.azure.net")
        let caller = try await tenant.verifier.verify(issued.token.reveal(), audiences: ["https://vault.azure.net"])
        #expect(caller == first.caller)
        #expect(try await tenant.identity.principal(first.principalID)?.principalType == "ServicePrincipal")
        try await tenant.identity.removeSystemAssignedIdentity(of: site)
        try await tenant.identity.removeSystemAssignedIdentity(of: site)
        #expect(try await tenant.identity.principal(first.principalID) == nil)
        await #expect(throws: (any Error).self) {
            try await tenant.identity.issueToken(for: first, audience: "https://vault.azure.net")
        }
        #expect(
            try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app").principalID
                != first.principalID)
    }

    @Test func concurrentCallersGetTheSameIdentity() async throws {
        let tenant = try await Tenant()
        let all = try await withThrowingTaskGroup(of: ManagedIdentity.self) { group in
            for _ in 0..<16 {
                group.addTask { try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app") }
            }
            return try await group.reduce(into: Set<String>()) { $0.insert($1.principalID) }
        }
        #expect(all.count == 1)
    }

    @Test func theEndpointAnswersOnlyItsHeader() async throws {
        let tenant = try await Tenant()
        let identity = try await tenant.identity.systemAssignedIdentity(of: site, displayName: "app")
        let endpoint = IdentityEndpoint(identities: tenant.identity, randomness: SystemRandomness())
        let header = endpoint.register(identity)
        func ask(_ query: String, _ header: String?) async -> (status: Int, body: JSONValue) {
            let headers: HTTPHeaders = header.map { ["X-IDENTITY-HEADER": $0] } ?? [:]
            return await answer(
                endpoint.respond(to: tenant.request(.GET, "/msi/token?\(query)", endpoint: .local, headers: headers)))
        }
        let good = "api-version=2019-08-01&resource=https://vault.azure.net"
        let (status, body) = await ask(good, header.reveal())
        #expect(status == 200)
        #expect(body["expires_on"]?.stringValue.flatMap { Int64($0) } == tenant.clock.now().unixSeconds + 3_600)
        #expect(claims(body["access_token"]?.stringValue ?? "")["oid"]?.stringValue == identity.principalID)
        #expect(claims(body["access_token"]?.stringValue ?? "")["xms_mirid"]?.stringValue == site.description)
        #expect(await ask(good, nil).status == 401)
        #expect(await ask(good, "00").status == 401)
        #expect(await ask("api-version=2019-08-01", header.reveal()).status == 400)
        #expect(await ask("resource=https://vault.azure.net", header.reveal()).status == 400)
        #expect(await ask("api-version=2019-08-01&resource=https://example.com", header.reveal()).status == 400)
        #expect(await ask("\(good)&client_id=\(UUID().uuidString)", header.reveal()).status == 400)
        #expect(await ask("\(good)&client_id=\(identity.clientID)", header.reveal()).status == 200)
        endpoint.revoke(header)
        #expect(await ask(good, header.reveal()).status == 401)
    }
}
