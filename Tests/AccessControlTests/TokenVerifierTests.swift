import AccessControl
import CofferCore
import CryptoExtras
import Foundation
import JWTKit
import Synchronization
import Testing

final class TestClock: WallClock {
    private let time = Mutex(Timestamp(iso8601: "2026-11-22T03:00:00Z")!)
    func now() -> Timestamp { time.withLock { $0 } }
    func advance(seconds: Int64) { time.withLock { $0 = $0.adding(seconds: seconds) } }
}

private struct Claims: JWTPayload {
    var aud: String? = "https://vault.azure.net"
    var iss: String? = "https://issuer/t/"
    var exp: Int64?
    var nbf: Int64?
    var tid: String? = "t"
    var oid: String? = "AAAAAAAA-0000-4000-8000-000000000001"
    var appid: String? = "app"
    var xms_mirid: String?
    func verify(using algorithm: some JWTAlgorithm) throws {}
}

private struct Issuer {
    /// One key pair for the whole suite: making one takes a while.
    static let key = try! _RSA.Signing.PrivateKey(keySize: .bits2048)
    static let other = try! _RSA.Signing.PrivateKey(keySize: .bits2048)
    let clock = TestClock()
    let verifier: TokenVerifier

    init() async throws {
        verifier = TokenVerifier(clock: clock)
        try await verifier.publish(jwks: Self.jwks(Self.key, kid: "k1"), issuers: ["https://issuer/t/"])
    }
    static func jwks(_ key: _RSA.Signing.PrivateKey, kid: String, kty: String = "RSA") throws -> [UInt8] {
        let primitives = try key.publicKey.getKeyPrimitives()
        let value: JSONValue = [
            "keys": [
                [
                    "kty": .string(kty), "kid": .string(kid), "use": "sig", "alg": "RS256",
                    "n": .string(primitives.modulus.base64URL),
                    "e": .string(primitives.publicExponent.base64URL),
                ]
            ]
        ]
        return value.serialized()
    }
    var claims: Claims { Claims(exp: clock.now().unixSeconds + 3_600, nbf: clock.now().unixSeconds) }

    func sign(_ claims: Claims, with key: _RSA.Signing.PrivateKey = Issuer.key, kid: String = "k1") async throws
        -> String
    {
        let keys = await JWTKeyCollection().add(
            rsa: try Insecure.RSA.PrivateKey(backing: key), digestAlgorithm: .sha256, kid: JWKIdentifier(string: kid))
        return try await keys.sign(claims, kid: JWKIdentifier(string: kid))
    }
    func reason(_ token: String, audience: String = "https://vault.azure.net") async -> TokenRefusal.Reason? {
        do {
            _ = try await verifier.verify(token, audiences: [audience])
            return nil
        } catch {
            return error.reason
        }
    }
    /// A token with a header of our choosing and the signature of a genuine one.
    func forged(header: String, from token: String, signature: String? = nil) -> String {
        let parts = token.split(separator: ".")
        return "\(Array(header.utf8).base64URL).\(parts[1]).\(signature ?? String(parts[2]))"
    }
}

@Suite struct TokenVerifierTests {
    @Test func acceptsAGenuineToken() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        for audience in ["https://vault.azure.net", "https://vault.azure.net/", "HTTPS://VAULT.azure.net"] {
            #expect(await issuer.reason(token, audience: audience) == nil)
        }
        let caller = try await issuer.verifier.verify(token, audiences: ["https://vault.azure.net"])
        #expect(caller.objectID == "aaaaaaaa-0000-4000-8000-000000000001")
        #expect(caller.kind == .servicePrincipal)
        var managed = issuer.claims
        managed.xms_mirid = "/subscriptions/s"
        #expect(
            try await issuer.verifier.verify(try await issuer.sign(managed), audiences: ["https://vault.azure.net"])
                .kind == .managedIdentity)
    }

    @Test func refusesOtherAlgorithms() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        for header in [
            #"{"alg":"none","kid":"k1"}"#, #"{"alg":"None","kid":"k1"}"#, #"{"alg":"HS256","kid":"k1"}"#,
            #"{"alg":"RS512","kid":"k1"}"#,
            #"{"alg":"PS256","kid":"k1"}"#, #"{"alg":"ES256","kid":"k1"}"#,
            #"{"alg":"RS256","kid":"k1","crit":["exp"]}"#,
        ] {
            #expect(await issuer.reason(issuer.forged(header: header, from: token)) == .badSignature, "\(header)")
            #expect(await issuer.reason(issuer.forged(header: header, from: token, signature: "")) != nil, "\(header)")
        }
        // A MAC whose key is the public key, in each spelling an implementation might take it in.
        for secret in [Data(Issuer.key.publicKey.pemRepresentation.utf8), Issuer.key.publicKey.derRepresentation] {
            let keys = await JWTKeyCollection().add(hmac: HMACKey(from: secret), digestAlgorithm: .sha256, kid: "k1")
            #expect(await issuer.reason(try await keys.sign(issuer.claims, kid: "k1")) == .badSignature)
        }
    }

    @Test func refusesOtherKeys() async throws {
        let issuer = try await Issuer()
        #expect(await issuer.reason(try await issuer.sign(issuer.claims, kid: "k2")) == .badSignature)
        #expect(await issuer.reason(try await issuer.sign(issuer.claims, with: Issuer.other)) == .badSignature)
        let token = try await issuer.sign(issuer.claims)
        #expect(await issuer.reason(issuer.forged(header: #"{"alg":"RS256"}"#, from: token)) == .badSignature)
        let embedded = #"{"alg":"RS256","kid":"k2","jwk":{"kty":"RSA"},"jku":"https://evil/keys"}"#
        #expect(await issuer.reason(issuer.forged(header: embedded, from: token)) == .badSignature)
    }

    @Test func refusesTamperedTokens() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        #expect(await issuer.reason(token) == nil)
        var generator = SplitMix(state: 7)
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ {}\u{e9}".utf8)
        let original = token.split(separator: ".").compactMap { [UInt8](base64URL: $0) }
        for _ in 0..<400 {
            var bytes = Array(token.utf8)
            switch generator.next() % 3 {
            case 0:
                bytes[Int(generator.next() % UInt64(bytes.count))] =
                    alphabet[Int(generator.next() % UInt64(alphabet.count))]
            case 1: bytes.remove(at: Int(generator.next() % UInt64(bytes.count)))
            default:
                bytes.insert(
                    alphabet[Int(generator.next() % UInt64(alphabet.count))],
                    at: Int(generator.next() % UInt64(bytes.count)))
            }
            let mutated = String(decoding: bytes, as: UTF8.self)
            // The last character of a segment may carry unused bits: the same bytes are the same token.
            guard
                mutated.split(separator: ".", omittingEmptySubsequences: false).compactMap({ [UInt8](base64URL: $0) })
                    != original
            else { continue }
            #expect(await issuer.reason(mutated) != nil, "\(mutated)")
        }
        for text in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", String(repeating: "a", count: 20_000)] {
            #expect(await issuer.reason(text) == .malformed)
        }
    }

    @Test func checksTimeOnEveryUse() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        #expect(await issuer.reason(token) == nil)
        issuer.clock.advance(seconds: 3_599)
        #expect(await issuer.reason(token) == nil)
        issuer.clock.advance(seconds: 1)
        #expect(await issuer.reason(token) == .expired)
        var early = issuer.claims
        early.nbf = issuer.clock.now().unixSeconds + 301
        #expect(await issuer.reason(try await issuer.sign(early)) == .notYetValid)
        early.nbf = issuer.clock.now().unixSeconds + 299
        #expect(await issuer.reason(try await issuer.sign(early)) == nil)
    }

    @Test func checksAudienceOnEveryUse() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        #expect(await issuer.reason(token) == nil)
        for audience in ["https://vault.azure.net//", "https://vault.azure.ne", "https://storage.azure.com", "", "/"] {
            #expect(await issuer.reason(token, audience: audience) == .wrongAudience)
        }
    }

    @Test func refusesOtherIssuersAndMissingClaims() async throws {
        let issuer = try await Issuer()
        var wrong = issuer.claims
        wrong.iss = "https://issuer/other/"
        #expect(await issuer.reason(try await issuer.sign(wrong)) == .wrongIssuer)
        let changes: [(inout Claims) -> Void] = [
            { $0.aud = nil }, { $0.iss = nil }, { $0.exp = nil }, { $0.nbf = nil }, { $0.tid = nil }, { $0.oid = nil },
        ]
        for change in changes {
            var claims = issuer.claims
            change(&claims)
            #expect(await issuer.reason(try await issuer.sign(claims)) == .missingClaim)
        }
    }

    @Test func publishForgetsWhatWasVerified() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        #expect(await issuer.reason(token) == nil)
        try await issuer.verifier.publish(jwks: Issuer.jwks(Issuer.other, kid: "k1"), issuers: ["https://issuer/t/"])
        #expect(await issuer.reason(token) == .badSignature)
        #expect(await issuer.reason(try await issuer.sign(issuer.claims, with: Issuer.other)) == nil)
        await #expect(throws: (any Error).self) {
            try await issuer.verifier.publish(jwks: Issuer.jwks(Issuer.key, kid: "k", kty: "oct"), issuers: [])
        }
    }

    private struct Standing: PrincipalStanding {
        let answer: @Sendable () throws -> Bool
        func isInGoodStanding(_ objectID: String) async throws -> Bool { try answer() }
    }

    @Test func asksForThePrincipalsStandingOnceAndAfterEachChange() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        let state = Mutex((isGood: true, asked: 0))
        func publish(_ answer: @escaping @Sendable () throws -> Bool) async throws {
            try await issuer.verifier.publish(
                jwks: Issuer.jwks(Issuer.key, kid: "k1"), issuers: ["https://issuer/t/"],
                standing: Standing(answer: answer))
        }
        try await publish {
            state.withLock {
                $0.asked += 1
                return $0.isGood
            }
        }
        for _ in 0..<3 { #expect(await issuer.reason(token) == nil) }
        issuer.verifier.forget(principals: ["bbbbbbbb-0000-4000-8000-000000000002"])
        #expect(await issuer.reason(token) == nil)
        #expect(state.withLock { $0.asked } == 1)
        state.withLock { $0.isGood = false }
        issuer.verifier.forget(principals: ["aaaaaaaa-0000-4000-8000-000000000001"])
        for _ in 0..<2 { #expect(await issuer.reason(token) == .principalUnknown) }
        state.withLock { $0.isGood = true }
        #expect(await issuer.reason(token) == nil)
        // Only what proved itself is asked about.
        let asked = state.withLock { $0.asked }
        #expect(await issuer.reason(try await issuer.sign(issuer.claims, with: Issuer.other)) == .badSignature)
        #expect(state.withLock { $0.asked } == asked)
        try await publish { throw CancellationError() }
        #expect(await issuer.reason(token) == .unavailable)
    }

    @Test func anAnswerThatAChangeOvertookIsNotRemembered() async throws {
        let issuer = try await Issuer()
        let token = try await issuer.sign(issuer.claims)
        let isGood = Mutex(true)
        try await issuer.verifier.publish(
            jwks: Issuer.jwks(Issuer.key, kid: "k1"), issuers: ["https://issuer/t/"],
            standing: Standing { [verifier = issuer.verifier] in
                let before = isGood.withLock { $0 }
                isGood.withLock { $0 = false }
                verifier.forget(principals: ["aaaaaaaa-0000-4000-8000-000000000001"])
                return before
            })
        #expect(await issuer.reason(token) == nil)
        #expect(await issuer.reason(token) == .principalUnknown)
    }
}
