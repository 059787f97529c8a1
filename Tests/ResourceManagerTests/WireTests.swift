import CofferCore
import Foundation
import IdentityService
import IdentityService
import NIOHTTP1
import ResourceProviders
import ResourceProviders
import TestSupport
import Testing

@Suite struct WireTests {
    @Test func metadataFollowsTheFamilyOfNames() async throws {
        let plane = try await ControlPlane()
        let none: HTTPHeaders = ["Authorization": ""]
        let own = await plane.send(.GET, "/metadata/endpoints", version: "2022-09-01", headers: none).body
        #expect(own["name"] == "Coffer")
        #expect(own["authentication"]?["loginEndpoint"] == "https://login.coffer.localhost")
        #expect(own["authentication"]?["audiences"]?.arrayValue?.first == "https://management.coffer.localhost/")
        #expect(own["resourceManager"] == "https://management.coffer.localhost/")
        #expect(
            own["suffixes"] == [
                "storage": "core.coffer.localhost", "keyVaultDns": "vault.coffer.localhost",
                "mhsmDns": "managedhsm.coffer.localhost",
            ])
        #expect(own["appServiceResourceId"] == "https://appservice.coffer.localhost")
        let azure = await plane.send(.GET, "/metadata/endpoints", version: "2022-09-01", family: .azurePublic).body
        #expect(azure["name"] == "AzureCloud")
        #expect(azure["authentication"]?["loginEndpoint"] == "https://login.microsoftonline.com")
        #expect(azure["suffixes"]?["storage"] == "core.windows.net")
        #expect(azure["appServiceResourceId"] == "https://appservice.azure.com")
        #expect(await plane.send(.GET, "/metadata/clouds", version: nil).body.arrayValue?.count == 1)
        #expect(
            await plane.send(.GET, "/metadata/endpoints", version: "2015-01-01").body["authentication"]?["audiences"]
                != nil)
        #expect(await plane.send(.GET, "/metadata/endpoints", version: nil).code == "MissingApiVersionParameter")
    }

    @Test func missingAndWrongTokensAreChallenged() async throws {
        let plane = try await ControlPlane()
        let missing = await plane.send(.GET, "/subscriptions", headers: ["Authorization": ""])
        #expect(missing.status == 401 && missing.code == "AuthenticationFailed")
        #expect(
            missing.headers.first(name: "WWW-Authenticate")?.hasPrefix(
                "Bearer authorization_uri=\"https://login.coffer.localhost/\(plane.installation.tenantID)\"") == true)
        #expect(await plane.send(.GET, "/subscriptions", token: "nonsense").code == "InvalidAuthenticationToken")
        #expect(
            await plane.send(.GET, "/subscriptions", token: String(plane.token.dropLast(4)) + "AAAA").code
                == "InvalidAuthenticationToken")
        let identity = try await plane.identity.systemAssignedIdentity(of: ResourceID("/x/y"), displayName: "x")
        let vault = try await plane.identity.issueToken(for: identity, audience: "https://vault.azure.net").token
            .reveal()
        #expect(await plane.send(.GET, "/subscriptions", token: vault).code == "InvalidAuthenticationTokenAudience")
        plane.clock.advance(seconds: 3_601)
        #expect(await plane.send(.GET, "/subscriptions").code == "ExpiredAuthenticationToken")
    }

    @Test func subscriptionsShowToWhoeverHasARole() async throws {
        let plane = try await ControlPlane()
        let listed = await plane.send(.GET, "/subscriptions", version: "2022-12-01")
        #expect(listed.values.first?["subscriptionId"]?.stringValue == ControlPlane.subscription)
        #expect(listed.values.first?["state"] == "Enabled")
        #expect(listed.values.first?["id"]?.stringValue == plane.root)
        let stranger = try await plane.principal("stranger")
        #expect(await plane.send(.GET, "/subscriptions", token: stranger.token).values.isEmpty)
        #expect(await plane.send(.GET, plane.root, token: stranger.token).status == 403)
        #expect(await plane.send(.GET, "\(plane.root)/locations", token: stranger.token).status == 403)
        _ = await plane.makeGroup()
        await plane.assign(Role.reader, to: stranger.id, at: plane.group("rg"))
        #expect(await plane.send(.GET, "/subscriptions", token: stranger.token).values.count == 1)
        #expect(
            await plane.send(.GET, "/tenants").values.first?["tenantId"]?.stringValue == plane.installation.tenantID)
        #expect(
            await plane.send(.GET, "/subscriptions/\(UUID().uuidString)/resourcegroups").code == "SubscriptionNotFound")
        #expect(await plane.send(.GET, "/subscriptions/x/resourcegroups").code == "InvalidSubscriptionId")
    }

    @Test func locationsAndProvidersAreListed() async throws {
        let plane = try await ControlPlane()
        let locations = await plane.send(.GET, "\(plane.root)/locations").values
        #expect(locations.count > 40)
        let eastus = try #require(locations.first { $0["name"] == "eastus" })
        #expect(eastus["displayName"] == "East US" && eastus["regionalDisplayName"] == "(US) East US")
        #expect(Set(locations.compactMap { $0["name"]?.stringValue }).count == locations.count)
        let providers = await plane.send(.GET, "\(plane.root)/providers").values.compactMap {
            $0["namespace"]?.stringValue
        }
        #expect(providers == ["Contoso.Widgets", "Microsoft.Authorization", "Microsoft.Resources"])
        let one = await plane.send(.GET, "\(plane.root)/providers/contoso.widgets").body
        #expect(one["registrationState"] == "Registered")
        #expect(one["resourceTypes"]?.arrayValue?.first?["apiVersions"] == ["2024-01-01"])
        #expect(await plane.send(.POST, "\(plane.root)/providers/Contoso.Widgets/register").status == 200)
        #expect(await plane.send(.POST, "\(plane.root)/providers/Contoso.Widgets/unregister").status == 409)
        #expect(await plane.send(.GET, "\(plane.root)/providers/Contoso.Nothing").code == "InvalidResourceNamespace")
        #expect(
            await plane.send(.GET, "\(plane.root)/providers/Contoso.Nothing/things").code == "InvalidResourceNamespace")
    }

    @Test func pathsFoldCaseAndDoubleSlashes() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        #expect(await plane.send(.PUT, plane.widget("w"), [:]).status == 200)
        let odd = "//SUBSCRIPTIONS/\(ControlPlane.subscription)//resourcegroups/RG/PROVIDERS/contoso.widgets//widgets/W"
        #expect(await plane.send(.GET, odd).status == 200)
        #expect(await plane.send(.GET, plane.widget("nope")).code == "ResourceNotFound")
        #expect(await plane.send(.GET, "\(plane.root)/resourceGroups/rg/%zz").status == 400)
        #expect(await plane.send(.GET, "/nowhere").status == 404)
        for name in ["rg%2Fproviders", "rg%00", "rg%5C..", String(repeating: "a", count: 3_000)] {
            #expect(await plane.send(.GET, plane.group(name)).code == "InvalidRequestUri", "\(name.prefix(20))")
        }
    }

    @Test func anyWellFormedVersionIsAccepted() async throws {
        let plane = try await ControlPlane()
        for version in ["2024-11-01", "2099-01-01", "2022-05-01-preview", "2026-02-01-beta.1"] {
            #expect(await plane.send(.GET, "/subscriptions", version: version).status == 200)
        }
        for version in ["2024", "latest", "2024-13-01", "2024-11-01-", "2024-11-01x", "2024-11-01-a%20b"] {
            #expect(await plane.send(.GET, "/subscriptions", version: version).code == "InvalidApiVersionParameter")
        }
    }

    @Test func everyAnswerCarriesItsIdentifiers() async throws {
        let plane = try await ControlPlane()
        let correlation = UUID().uuidString.lowercased()
        let answer = await plane.send(
            .GET, "/subscriptions", version: nil, headers: ["x-ms-correlation-request-id": correlation])
        #expect(answer.code == "MissingApiVersionParameter")
        #expect(answer.headers.first(name: "x-ms-request-id") != nil)
        #expect(answer.headers.first(name: "x-ms-correlation-request-id") == correlation)
        #expect(answer.headers.first(name: "Cache-Control") == "no-cache")
        #expect(answer.headers.first(name: "x-ms-ratelimit-remaining-subscription-reads") == "11999")
        let evil = await plane.send(.GET, "/subscriptions", headers: ["x-ms-correlation-request-id": "not a guid"])
        #expect(evil.headers.first(name: "x-ms-correlation-request-id") != "not a guid")
    }

    @Test func resourcesAreFilteredAndOnlyThoseOneMayRead() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.makeGroup("other")
        _ = await plane.send(.PUT, plane.widget("one"), ["tags": ["env": "prod", "team": "a"]])
        _ = await plane.send(.PUT, plane.widget("two"), ["tags": ["env": "dev", "team": "prod"]])
        _ = await plane.send(.PUT, plane.widget("three", in: "other"), [:])
        func list(_ filter: String, token: String? = nil) async -> [String] {
            let path = "\(plane.root)/resources" + (filter.isEmpty ? "" : "?$filter=\(filter)")
            return await plane.send(.GET, path, token: token, version: "2015-11-01").values.compactMap {
                $0["name"]?.stringValue
            }
        }
        #expect(await list("") == ["three", "one", "two"])
        #expect(await list("resourceType eq 'contoso.widgets/WIDGETS' and name eq 'One'") == ["one"])
        #expect(await list("tagName eq 'env' and tagValue eq 'prod'") == ["one"])
        #expect(await list("resourceGroup eq 'other'") == ["three"])
        #expect(await list("substringof('hre', name) or name eq 'two'") == ["three", "two"])
        #expect(await list("not (resourceGroup eq 'rg')") == ["three"])
        #expect(
            await plane.send(.GET, "\(plane.root)/resources?$filter=colour eq 'red'").code
                == "InvalidFilterInQueryString")
        #expect(await plane.send(.GET, "\(plane.root)/resources?$filter=name eq").code == "InvalidFilterInQueryString")
        #expect(await plane.send(.GET, "\(plane.group("rg"))/resources").values.count == 2)
        let reader = try await plane.principal("reader")
        await plane.assign(Role.reader, to: reader.id, at: plane.widget("two"))
        #expect(await list("", token: reader.token) == ["two"])
        #expect(await plane.send(.GET, "\(plane.root)/resourcegroups", token: reader.token).values.isEmpty)
        // Whether a group exists is not told to who may not read it.
        #expect(await plane.send(.GET, plane.group("nope"), token: reader.token).status == 403)
        #expect(await plane.send(.GET, plane.widget("w", in: "nope"), token: reader.token).status == 403)
    }

    @Test func tagsOfGroupsAndResources() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("w"), ["tags": ["a": "1"]])
        for scope in [plane.group("rg"), plane.widget("w")] {
            let path = "\(scope)/providers/Microsoft.Resources/tags/default"
            #expect(await plane.send(.PUT, path, ["properties": ["tags": ["a": "1", "b": "2"]]]).status == 200)
            let merged = await plane.send(.PATCH, path, ["operation": "Merge", "properties": ["tags": ["b": "3"]]])
            #expect(merged.body["properties"]?["tags"] == ["a": "1", "b": "3"])
            let less = await plane.send(.PATCH, path, ["operation": "Delete", "properties": ["tags": ["a": "1"]]])
            #expect(less.body["properties"]?["tags"] == ["b": "3"])
            #expect(await plane.send(.GET, path).body["properties"]?["tags"] == ["b": "3"])
        }
        let path = "\(plane.group("rg"))/providers/Microsoft.Resources/deployments/d"
        #expect(await plane.send(.PUT, path, ["properties": [:]]).status == 501)
        // Refused for what it asks, not for how its template is written.
        #expect(await plane.send(.PUT, path, raw: "{ /* a comment */ }").status == 501)
    }
}
