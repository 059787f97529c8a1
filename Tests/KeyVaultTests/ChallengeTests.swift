import CofferCore
import NIOHTTP1
import Testing

@testable import KeyVault

@Suite struct ChallengeTests {
    @Test(arguments: [TestVaults.names.own, .azurePublic, .coffer(domain: "x.test", port: 8443)])
    func requestWithoutTokenIsChallengedInItsOwnNames(names: NameFamily) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let answer = await vaults.send(.POST, "/keys/!!bad!!/create", as: nil, names: names, query: "")
        #expect(answer.status == 401)
        #expect(answer.code == "Unauthorized")
        #expect(answer.message == "AKV10000: Request is missing a Bearer or PoP token.")
        let expected =
            "Bearer authorization=\"\(names.url(of: .login))/\(TestVaults.tenant)\", "
            + "resource=\"https://\(names.vaultSuffix)\""
        #expect(answer.headers["WWW-Authenticate"] == [expected])
        #expect(answer.headers["x-ms-request-id"] == ["request-1"])
        #expect(answer.headers["x-ms-client-request-id"] == ["client-1"])
        #expect(answer.headers["Strict-Transport-Security"] == ["max-age=31536000;includeSubDomains"])
        #expect(answer.headers["Cache-Control"] == ["no-cache"])
        #expect(answer.headers.contains(name: "x-ms-keyvault-region"))
        #expect(answer.headers.contains(name: "x-ms-keyvault-service-version"))
    }

    @Test func wrongAudienceExpiredAndForeignTokensAreChallenged() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let now = vaults.clock.now()
        let cases = [
            (TestTokens.token(for: vaults.owner, audience: "https://storage.azure.com", now: now), "AKV10022"),
            (
                TestTokens.token(
                    for: vaults.owner, audience: "https://vault.azure.net", now: now.adding(seconds: -7_200)),
                "AKV10046"
            ),
            (
                TestTokens.token(
                    for: vaults.owner, audience: "https://vault.azure.net", now: now,
                    issuer: "https://sts.windows.net/x/"),
                "AKV10032"
            ),
            ("not.a.token", "AKV10"),
        ]
        for (token, code) in cases {
            let answer = await vaults.send(.GET, "/keys", as: nil, token: token)
            #expect(answer.status == 401)
            #expect(answer.message?.hasPrefix(code) == true, "\(answer.message ?? "")")
            #expect(answer.headers.contains(name: "WWW-Authenticate"))
            #expect(answer.message?.contains(token) == false)
        }
    }

    @Test func eitherFamilysAudienceIsAccepted() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        for audience in [
            "https://vault.azure.net", "https://vault.coffer.localhost/", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
        ] {
            let token = TestTokens.token(for: vaults.owner, audience: audience, now: vaults.clock.now())
            #expect(await vaults.send(.GET, "/keys", as: nil, token: token).status == 200)
        }
    }

    @Test func unknownVaultSaysSo() async throws {
        let vaults = try await TestVaults()
        let answer = await vaults.send(.GET, "/secrets", as: vaults.owner, vault: "nobody")
        #expect(answer.status == 404)
        #expect(answer.code == "VaultNotFound")
        #expect(answer.message?.contains("az keyvault create") == true)
    }

    @Test func apiVersionIsNeededAndMayBeNewer() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        func status(_ query: String) async -> Int {
            await vaults.send(.GET, "/keys", as: vaults.owner, query: query).status
        }
        #expect(await status("") == 400)
        #expect(await status("api-version=banana") == 400)
        for known in ["2016-10-01", "7.0", "7.4", "7.6-preview.2", "2025-07-01", "2031-01-01-preview", "9.9"] {
            #expect(await status("api-version=\(known)") == 200, "\(known)")
        }
    }

    @Test func unsupportedOperationsSaySo() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        #expect(await vaults.owned(.GET, "/certificates").status == 501)
        #expect(await vaults.owned(.GET, "/storage").status == 501)
        #expect(await vaults.owned(.POST, "/keys/k/release", [:]).status == 501)
        #expect(await vaults.owned(.GET, "/nothing").status == 404)
    }
}
