import CofferCore
import Crypto
import CryptoExtras
import Logging
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// Tokens as somebody else than the server makes them.
enum TokenMint {
    static let key = "0F75CA46E7EBDD39E4CA6B074D1F9A5972B849A55F91A248"
    /// 2026-03-01T12:00:00Z, when worlds begin.
    static let now: Int64 = 1_772_366_400
    static let scm = "https://MyApp.scm.azurewebsites.net"
    static let core = "https://appservice.core.azurewebsites.net"
    static let audience = "https://MyApp.azurewebsites.net/azurefunctions"

    static func claims(_ changes: [String: JSONValue?] = [:]) -> JSONValue {
        var claims: [String: JSONValue] = [
            "iss": .string(scm), "aud": .string(audience), "nbf": .integer(now), "exp": .integer(now + 300),
        ]
        for (name, value) in changes { claims[name] = value }
        return .object(claims)
    }
    static func web(
        _ claims: JSONValue = claims(), key: [UInt8] = [UInt8](hex: key)!,
        header: JSONValue = ["alg": "HS256", "typ": "JWT"]
    ) -> String {
        signed(header.serialized().base64URL + "." + claims.serialized().base64URL, key: key)
    }
    static func signed(_ text: String, key: [UInt8] = [UInt8](hex: key)!) -> String {
        let code = HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key))
        return text + "." + Array(code).base64URL
    }
    static func restricted(
        until seconds: Int64, key: [UInt8], text: String? = nil, iv: [UInt8] = Array(16..<32)
    ) throws -> String {
        let plain = Array((text ?? "exp=\(seconds * 10_000_000 + 621_355_968_000_000_000)").utf8)
        let material = SymmetricKey(data: key)
        let sealed = [UInt8](try AES._CBC.encrypt(plain, using: material, iv: AES._CBC.IV(ivBytes: iv)))
        let code = HMAC<SHA256>.authenticationCode(for: plain, using: material)
        return [iv, sealed, Array(SHA256.hash(data: key)), Array(code)].map(\.base64).joined(separator: ".")
    }
}

struct SiteTokenTests {
    private let platformKey = RedactedString(String(repeating: "ab", count: 32))
    private let now = Timestamp(unixSeconds: TokenMint.now)

    private func settings(_ values: [String: String]) -> ResolvedSettings {
        ResolvedSettings(values: values.mapValues { RedactedString($0) })
    }
    private func tokens(_ values: [String: String] = ["AzureWebEncryptionKey": TokenMint.key]) -> SiteTokens {
        SiteTokens(siteName: "myapp", keys: TokenKeys(settings: settings(values), platformKey: platformKey))
    }
    private func refusal(
        _ token: String, _ tokens: SiteTokens? = nil, after seconds: Int64 = 0
    ) -> SiteTokens.Refusal? {
        do throws(SiteTokens.Refusal) {
            _ = try (tokens ?? self.tokens()).access(RedactedString(token), now: now.adding(seconds: seconds))
            return nil
        } catch { return error }
    }

    /// Made with another program: under the key's bytes, and under its text.
    @Test(arguments: ["aYaji66iAxH7Z-NpSpEqCrJ_ZnBYVgQ3Pcf_HrGRYFo", "jRfO5d7Alv2Ja7g3qKbyJlAkl1nCvBT8NWf5SQKY0E8"])
    func knownTokensOpen(code: String) {
        let token =
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJuYmYiOjE3NzIzNjY0MDAsImV4cCI6MTc3MjM2NjcwMCwiaWF0IjoxNzcyMzY2NDAw"
            + "LCJpc3MiOiJodHRwczovL015QXBwLnNjbS5henVyZXdlYnNpdGVzLm5ldCIsImF1ZCI6Imh0dHBzOi8vTXlBcHAuYXp1cmV3ZWJzaXRlcy5"
            + "uZXQvYXp1cmVmdW5jdGlvbnMifQ." + code
        #expect(refusal(token) == nil)
        #expect(refusal(token, after: 300) == .expired)
        #expect(refusal(token, after: -300) == nil && refusal(token, after: -301) == .notYetValid)
        #expect(refusal(token, tokens([:])) == .badSignature)
    }

    @Test func whatIsIssuedOpensUntilItEnds() throws {
        for values in [[:], ["AzureWebEncryptionKey": TokenMint.key]] {
            let tokens = tokens(values)
            let token = try #require(tokens.issue(now: now))
            #expect(try tokens.access(token, now: now.adding(seconds: 299)) == .full)
            #expect(refusal(token.reveal(), tokens, after: 300) == .expired)
            // Of another site's key, and of another site.
            #expect(
                refusal(token.reveal(), self.tokens(["AzureWebEncryptionKey": TokenMint.key + "11"])) == .badSignature)
            let other = SiteTokens(siteName: "other", keys: tokens.keys)
            #expect(refusal(token.reveal(), other) == .wrongAudience)
            #expect("\(token)" == "<redacted>")
        }
    }

    @Test func everyClaimMustHold() {
        let table: [([String: JSONValue?], SiteTokens.Refusal?)] = [
            ([:], nil), (["nbf": nil], nil), (["aud": "HTTPS://MYAPP.azurewebsites.net"], nil),
            (["aud": ["https://x", .string(TokenMint.audience)]], nil),
            (["iss": "https://myapp.azurewebsites.net"], nil),
            (["exp": .number(Double(TokenMint.now) + 0.5)], .expired),
            (["exp": nil], .malformed), (["exp": "1900000000"], .malformed), (["exp": .null], .malformed),
            (["exp": .integer(TokenMint.now)], .expired), (["exp": .integer(.min)], .expired),
            (["nbf": .integer(TokenMint.now + 301)], .notYetValid), (["nbf": "soon"], .malformed),
            (["aud": nil], .wrongAudience), (["aud": []], .wrongAudience),
            (["aud": "https://other.azurewebsites.net"], .wrongAudience),
            (["aud": .string(TokenMint.audience + "/")], .wrongAudience),
            (["iss": nil], .wrongIssuer), (["iss": [.string(TokenMint.scm)]], .wrongIssuer),
            (["iss": "https://other.scm.azurewebsites.net"], .wrongIssuer),
        ]
        for (changes, expected) in table {
            #expect(refusal(TokenMint.web(TokenMint.claims(changes))) == expected, "\(changes)")
        }
    }

    @Test func theAlgorithmIsNeverTheTokens() {
        for header: JSONValue in [
            ["alg": "none"], ["alg": "HS512"], ["alg": "RS256"], ["alg": "hs256"], [:],
            ["alg": "HS256", "crit": ["b64"]],
        ] {
            #expect(refusal(TokenMint.web(header: header)) == .badSignature)
        }
        let parts = TokenMint.web().split(separator: ".")
        let unsigned = "\(parts[0]).\(parts[1])."
        for text in [unsigned, "..", "!A.."] {
            #expect(refusal(text) == (text.first == "!" ? .malformed : .badSignature))
        }
        for text in [
            "", ".", "...", "a.b.c", "\(parts[0]).\(parts[1])", TokenMint.web() + ".", TokenMint.web() + "=",
        ] {
            #expect(refusal(text) == .malformed, "\(text)")
        }
        #expect(refusal(TokenMint.web() + String(repeating: "A", count: 8_192)) == .malformed)
    }

    /// The platform administers; it calls no functions.
    @Test func theCoreOfAppServiceRunsNothing() throws {
        let token = RedactedString(TokenMint.web(TokenMint.claims(["iss": .string(TokenMint.core)])))
        #expect(try tokens().access(token, now: now) == .administration)
        let authorization = GateAuthorization(token: .administration)
        #expect(authorization.administers && !authorization.isMaster)
        for level in [AuthorizationLevel.user, .function, .system, .admin] { #expect(!authorization.opens(level)) }
        #expect(GateAuthorization(token: .full).opens(.admin))
    }

    @Test func keysOfSettings() throws {
        let bytes = Array(0..<32).map { UInt8($0) }
        for value in [bytes.hex, bytes.base64] {
            for name in ["WEBSITE_AUTH_ENCRYPTION_KEY", "CONTAINER_ENCRYPTION_KEY"] {
                let tokens = tokens([name: value])
                #expect(refusal(TokenMint.web(key: bytes), tokens) == nil)
                #expect(tokens.keys.restricted != nil)
            }
        }
        // Too short, or no key at all: nothing is signed, and nothing taken.
        for value in ["00", String(repeating: "0f", count: 15), ""] {
            let tokens = tokens(["AzureWebEncryptionKey": value])
            #expect(tokens.issue(now: now) == nil && tokens.keys.signing.isEmpty)
            #expect(refusal(TokenMint.web(key: Array(value.utf8) + [0]), tokens) == .badSignature)
        }
        #expect(tokens([:]).keys.restricted == nil)
    }

    /// Everybody knows the text of a reference that did not resolve.
    @Test func aReferenceIsNoKey() {
        let text = "@Microsoft.KeyVault(SecretUri=https://v.vault.coffer.localhost/secrets/key)"
        for name in ["AzureWebEncryptionKey", "WEBSITE_AUTH_ENCRYPTION_KEY"] {
            var settings = settings([name: text])
            settings.references.appSettings[name] = KeyVaultReferenceStatus(
                reference: text, status: .secretNotFound, vaultName: nil, secretName: nil, secretVersion: nil,
                activeVersion: nil, details: "")
            let keys = TokenKeys(settings: settings, platformKey: platformKey)
            #expect(keys.restricted == nil)
            let tokens = SiteTokens(siteName: "myapp", keys: keys)
            #expect(refusal(TokenMint.web(key: Array(text.utf8)), tokens) == .badSignature)
            // Which may be good once the reference resolves: a handler must not see it.
            #expect(tokens.mayVouch(for: RedactedString(TokenMint.web())))
            #expect(!tokens.mayVouch(for: RedactedString("no.token")))
            #expect(!self.tokens().mayVouch(for: RedactedString(TokenMint.web(key: Array(text.utf8)))))
        }
    }

    /// Made with another program.
    @Test func aKnownRestrictedTokenIsRead() throws {
        let key = SecretBytes(copying: Array(0..<32).map { UInt8($0) })
        let token =
            "EBESExQVFhcYGRobHB0eHw==.veXwIBefIbfBeb2/5iSa3mNLuz5QTCunPdhJ8f1uX7E="
            + ".Yw3NKWbEM2aRElRIu7JbT/QSpJxzLbLIq8G4WBvXEN0=.O5PPEres3h3uizSWY92JmsTopEQdOrW5+pA31WusfIk="
        #expect(RestrictedToken.end(of: RedactedString(token), under: key) == now.adding(seconds: 300))
        let other = SecretBytes(copying: [UInt8](repeating: 1, count: 32))
        #expect(RestrictedToken.end(of: RedactedString(token), under: other) == nil)
        // Without its code it proves nothing.
        let three = token.split(separator: ".").prefix(3).joined(separator: ".")
        #expect(RestrictedToken.end(of: RedactedString(three), under: key) == nil)
        for text in ["exp=", "exp=-1", "exp=1", "exp=9999999999999999999", "Exp=639079635000000000", "exp=1;exp=2", ""]
        {
            let bad = try TokenMint.restricted(until: 0, key: Array(0..<32).map { UInt8($0) }, text: text)
            #expect(RestrictedToken.end(of: RedactedString(bad), under: key) == nil, "\(text)")
        }
    }
}

/// Keeps every line, with its metadata.
private struct RecordedLog: LogHandler {
    static let lines = Mutex<[String]>([])
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }
    func log(event: LogEvent) { Self.lines.withLock { $0.append("\(event.message) \(event.metadata ?? [:])") } }
}

/// Tokens at the gate, from the request to the answer.
struct GateTokenTests {
    private func world(_ settings: [String: String] = [:], level: String = "function") async throws -> World {
        let world = try await World(
            settings: settings.merging(["WEBSITE_RUN_FROM_PACKAGE": World.package]) { a, _ in a })
        world.storage.put(World.package, Array(handlerPackage(level: level).build().readableBytesView))
        return world
    }
    private func bearer(_ token: String) -> HTTPHeaders { ["Authorization": "Bearer " + token] }
    private func status(_ world: World, _ path: String, _ headers: HTTPHeaders) async throws -> Int {
        try await world.send(world.get(path, headers: headers)).status
    }

    @Test func anIssuedTokenOpensTheAdminAPIUntilItEnds() async throws {
        let world = try await world()
        let token = try await world.runtime.issueToken(of: world.id).reveal()
        for headers: HTTPHeaders in [
            bearer(token), ["authorization": "bearer  " + token], ["x-ms-site-token": token],
            ["x-ms-site-token": token, "Authorization": "Bearer a.b.c"],
            ["Authorization": "Bearer " + token, "x-functions-key": "wrong"],
        ] {
            #expect(try await status(world, "/admin/host/status", headers) == 200)
        }
        // The platform's header stands before the other, even wrong; and a token is no key.
        for headers: HTTPHeaders in [
            ["x-ms-site-token": "a.b.c", "Authorization": "Bearer " + token], ["x-functions-key": token],
            ["Authorization": token], ["Authorization": "Basic " + token], ["x-ms-site-restricted-token": token],
        ] {
            #expect(try await status(world, "/admin/host/status", headers) == 401)
        }
        #expect(try await world.send(world.get("/admin/host/status?code=\(token)")).status == 401)
        #expect(try await status(world, "/runtime/webhooks/eventgrid", bearer(token)) == 404)
        world.clock.advance(seconds: 300)
        #expect(try await status(world, "/admin/host/status", bearer(token)) == 401)
    }

    @Test func aTokenDiesWithItsKey() async throws {
        let world = try await world(["AzureWebEncryptionKey": TokenMint.key])
        let (issued, made) = (try await world.runtime.issueToken(of: world.id).reveal(), TokenMint.web())
        for token in [issued, made] { #expect(try await status(world, "/admin/host/status", bearer(token)) == 200) }
        let other = RedactedString(String(repeating: "5a", count: 32))
        try await world.sites.update(world.id) { $0.secrets.appSettings["AzureWebEncryptionKey"] = other }
        for token in [issued, made] { #expect(try await status(world, "/admin/host/status", bearer(token)) == 401) }
        let next = try await world.runtime.issueToken(of: world.id).reveal()
        #expect(try await status(world, "/admin/host/status", bearer(next)) == 200)
        // A site made anew under the same name has keys of its own.
        try await world.sites.update(world.id) { $0.secrets.appSettings["AzureWebEncryptionKey"] = nil }
        let last = try await world.runtime.issueToken(of: world.id).reveal()
        let site = try #require(world.sites.site(world.id))
        #expect(try await status(world, "/admin/host/status", bearer(last)) == 200)
        #expect(try await world.sites.delete(world.id))
        try await world.sites.create(site)
        #expect(try await status(world, "/admin/host/status", bearer(last)) == 401)
    }

    /// The app goes on with what it was started with; who signs for its host does not.
    @Test func aTokenDiesWithItsSecretInAVault() async throws {
        let reference = "@Microsoft.KeyVault(SecretUri=https://vault1.vault.coffer.localhost/secrets/key)"
        let world = try await World(settings: ["AzureWebEncryptionKey": reference]) { $0.identity = testIdentity }
        world.vaults.put("key", TokenMint.key, version: "v1")
        world.vaults.allow(testIdentity)
        #expect(try await status(world, "/admin/host/status", bearer(TokenMint.web())) == 200)
        world.vaults.revokeAll()
        try await world.runtime.refreshKeyVaultReferences(of: world.id)
        #expect(try await status(world, "/admin/host/status", bearer(TokenMint.web())) == 401)
        world.vaults.allow(testIdentity)
        try await world.runtime.refreshKeyVaultReferences(of: world.id)
        #expect(try await status(world, "/admin/host/status", bearer(TokenMint.web())) == 200)
    }

    /// A refusal is told by its reason.
    @Test func noTokenIsLogged() async throws {
        let world = try await World(
            settings: ["AzureWebEncryptionKey": TokenMint.key], logger: Logger(label: "test") { _ in RecordedLog() })
        let tokens = [
            TokenMint.web(), TokenMint.web(TokenMint.claims(["exp": 1])),
            TokenMint.web(key: [UInt8](repeating: 1, count: 32)),
            "not.a.token-at-all",
        ]
        for token in tokens {
            for name in ["Authorization", "x-ms-site-token", "x-ms-site-restricted-token"] {
                let value = name == "Authorization" ? "Bearer " + token : token
                _ = try await status(world, "/admin/host/status", [name: value])
            }
        }
        let lines = RecordedLog.lines.withLock { $0 }
        for reason in ["expired", "badSignature", "malformed"] { #expect(lines.contains { $0.contains(reason) }) }
        for part in tokens.flatMap({ $0.split(separator: ".") }) where part.count > 3 {
            #expect(!lines.contains { $0.contains(part) })
        }
    }

    @Test func theStoreOfTheKeysIsNotAsked() async throws {
        let world = try await world()
        world.storage.refuse(World.secrets, with: 403)
        let token = try await world.runtime.issueToken(of: world.id).reveal()
        #expect(try await status(world, "/admin/host/status", bearer(token)) == 200)
        #expect(try await status(world, "/admin/host/status", ["x-functions-key": "any"]) == 503)
        #expect(try await status(world, "/admin/host/status", bearer("a.b.c")) == 401)
        var both = bearer("a.b.c")
        both.add(name: "x-functions-key", value: "any")
        #expect(try await status(world, "/admin/host/status", both) == 503)
    }

    @Test func restrictedTokensAdministerAndRunNothing() async throws {
        let key = Array(0..<32).map { UInt8($0) }
        let world = try await world(["WEBSITE_AUTH_ENCRYPTION_KEY": key.hex])
        let name = "x-ms-site-restricted-token"
        let token = try TokenMint.restricted(until: TokenMint.now + 60, key: key)
        #expect(try await status(world, "/admin/host/status", [name: token]) == 200)
        #expect(try await status(world, "/api/HttpTrigger1", [name: token]) == 401)
        let run = world.request(
            .POST, "/admin/functions/HttpTrigger1", headers: [name: token], body: #"{"input":""}"#)
        #expect(try await world.send(run).status == 403)
        world.clock.advance(seconds: 60)
        #expect(try await status(world, "/admin/host/status", [name: token]) == 401)
        let core = bearer(
            TokenMint.web(
                TokenMint.claims(["iss": .string(TokenMint.core)]), key: key))
        #expect(try await status(world, "/admin/host/status", core) == 200)
        #expect(try await status(world, "/api/HttpTrigger1", core) == 401)
        // Without a key of the app there are none.
        let plain = try await self.world()
        #expect(try await status(plain, "/admin/host/status", [name: token]) == 401)
    }

    @Test func anIsolatedAdminAPIIsForThePlatformAlone() async throws {
        let world = try await world(["FUNCTIONS_ADMIN_ISOLATION_ENABLED": "1"])
        var headers = bearer(try await world.runtime.issueToken(of: world.id).reveal())
        headers.add(name: "x-functions-key", value: try await world.runtime.hostKeys(of: world.id).masterKey.reveal())
        // Nobody outside is the platform, whatever he says.
        headers.add(name: "x-ms-platform-internal", value: "True")
        #expect(try await status(world, "/admin/host/status", headers) == 403)
        #expect(try await status(world, "/admin/vfs/", headers) == 401)
        #expect(try await status(world, "/admin/host/status", [:]) == 401)
        #expect(try await status(world, "/admin/host/ping", [:]) == 200)
        try await world.sites.update(world.id) {
            $0.secrets.appSettings["FUNCTIONS_ADMIN_ISOLATION_ENABLED"] = RedactedString(
                "@Microsoft.KeyVault(SecretUri=https://vault1.vault.coffer.localhost/secrets/flag)")
        }
        #expect(try await status(world, "/admin/host/status", headers) == 403)
        try await world.sites.update(world.id) {
            $0.secrets.appSettings["FUNCTIONS_ADMIN_ISOLATION_ENABLED"] = RedactedString("0")
        }
        #expect(try await status(world, "/admin/host/status", headers) == 200)
    }

    @Test(.enabled(if: canSandbox))
    func tokensRunFunctionsAndHandlersDoNotSeeThem() async throws {
        let world = try await world(
            [
                "AzureWebEncryptionKey": TokenMint.key,
                "WEBSITE_AUTH_ENCRYPTION_KEY": String(repeating: "7e", count: 32),
            ],
            level: "admin")
        defer { Task { await world.runtime.shutdown() } }
        #expect(
            try await status(world, "/api/HttpTrigger1", bearer(TokenMint.web(TokenMint.claims(["exp": 1])))) == 401)
        var headers = bearer(TokenMint.web())
        headers.add(name: "x-ms-site-restricted-token", value: "r")
        headers.add(name: "x-ms-platform-internal", value: "True")
        var answer = try await world.send(world.get("/api/HttpTrigger1", headers: headers))
        #expect(answer.status == 200)
        #expect(!answer.body.lowercased().contains("x-ms-site") && !answer.body.contains("x-ms-platform-internal"))
        #expect(!answer.body.contains("Bearer") && !answer.body.contains("ENCRYPTION_KEY"))
        answer = try await world.send(world.get("/api/HttpTrigger1", headers: ["x-ms-site-token": TokenMint.web()]))
        #expect(answer.status == 200 && !answer.body.contains("x-ms-site-token"))
        // Nor one that opened nothing here, and may elsewhere: it has ended, and a key came with it.
        headers = bearer(TokenMint.web(TokenMint.claims(["exp": 1])))
        headers.add(name: "x-functions-key", value: try await world.runtime.hostKeys(of: world.id).masterKey.reveal())
        answer = try await world.send(world.get("/api/HttpTrigger1", headers: headers))
        #expect(answer.status == 200 && !answer.body.contains("Bearer"))
        // What is not for the host is for the handler.
        headers = bearer("a.b.c")
        headers.add(name: "x-functions-key", value: try await world.runtime.hostKeys(of: world.id).masterKey.reveal())
        answer = try await world.send(world.get("/api/HttpTrigger1", headers: headers))
        #expect(answer.status == 200 && answer.body.contains("Bearer a.b.c"))
    }
}
