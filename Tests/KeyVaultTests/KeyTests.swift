import CofferCore
import Crypto
import Foundation
import NIOCore
import NIOHTTP1
import Testing
import _CryptoExtras

@testable import KeyVault

@Suite struct KeyTests {
    private func created(_ vaults: TestVaults, _ body: JSONValue = ["kty": "RSA"], name: String = "cmk") async throws
        -> JSONValue
    {
        let answer = await vaults.owned(.POST, "/keys/\(name)/create", body)
        #expect(answer.status == 200, "\(answer.message ?? "")")
        return answer.body
    }
    private func version(_ bundle: JSONValue) -> String {
        String(bundle["key"]?["kid"]?.stringValue?.split(separator: "/").last ?? "")
    }

    @Test func createAnswersAKeyBundle() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault(purgeProtection: true)
        let bundle = try await created(vaults, ["kty": "RSA", "attributes": ["enabled": true], "tags": ["a": "b"]])
        let key = try #require(bundle["key"])
        let kid = try #require(key["kid"]?.stringValue)
        #expect(kid.wholeMatch(of: /https:\/\/vault1\.vault\.coffer\.localhost\/keys\/cmk\/[0-9a-f]{32}/) != nil)
        #expect(key["kty"] == "RSA")
        #expect(key["key_ops"] == ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"])
        #expect(key["e"] == "AQAB")
        let modulus = try #require([UInt8](base64URL: key["n"]?.stringValue ?? ""))
        #expect(modulus.count == 256 && modulus[0] >= 0x80)
        #expect(key["d"] == nil && key["p"] == nil)
        let attributes = try #require(bundle["attributes"])
        #expect(attributes["enabled"] == true)
        #expect(attributes["created"] == .integer(vaults.clock.now().unixSeconds))
        #expect(attributes["recoveryLevel"] == "Recoverable")
        #expect(attributes["recoverableDays"] == 90)
        #expect(bundle["tags"] == ["a": "b"])
    }

    @Test func badCreationsAreRefused() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let bodies: [JSONValue] = [
            [:], ["kty": "RSA", "key_size": 1024], ["kty": "RSA-HSM"], ["kty": "oct"], ["kty": "EC", "crv": "P-111"],
            ["kty": "RSA", "key_ops": ["fly"]], ["kty": "EC", "key_ops": ["wrapKey"]],
            ["kty": "RSA", "attributes": ["exportable": true]],
            ["kty": "RSA", "attributes": ["exp": "soon"]], ["kty": 7],
        ]
        for body in bodies {
            let answer = await vaults.owned(.POST, "/keys/k/create", body)
            #expect(answer.status == 400 && answer.code == "BadParameter", "\(body)")
        }
        #expect(await vaults.owned(.POST, "/keys/bad_name/create", ["kty": "RSA"]).status == 400)
    }

    @Test func versionsAreListedOldestFirstAndTheEmptySegmentIsTheNewest() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let curve: JSONValue = ["kty": "EC", "crv": "P-256"]
        var made = [version(try await created(vaults, curve))]
        for _ in 0..<3 { made.append(version((await vaults.owned(.POST, "/keys/cmk/rotate")).body)) }
        let list = (await vaults.owned(.GET, "/keys/cmk/versions")).body["value"]?.arrayValue ?? []
        #expect(list.map { String($0["kid"]?.stringValue?.split(separator: "/").last ?? "") } == made)
        for path in ["/keys/cmk", "/keys/cmk/", "/keys/CMK//", "/keys/cmk/\(made[3])"] {
            #expect(version((await vaults.owned(.GET, path)).body) == made[3])
        }
        #expect(version((await vaults.owned(.GET, "/keys/cmk/\(made[1])")).body) == made[1])
        let missing = await vaults.owned(.GET, "/keys/cmk/00000000000000000000000000000000")
        #expect(missing.status == 404 && missing.code == "KeyNotFound")
        let keys = (await vaults.owned(.GET, "/keys")).body["value"]?.arrayValue ?? []
        #expect(keys.map { $0["kid"]?.stringValue } == ["https://vault1.vault.coffer.localhost/keys/cmk"])
    }

    @Test(arguments: [2048, 3072])
    func wrapAndUnwrapAreInverse(bits: Int64) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let bundle = try await created(vaults, ["kty": "RSA", "key_size": .integer(bits)])
        let secret = SystemRandomness().bytes(32)
        for algorithm in ["RSA-OAEP-256", "RSA-OAEP", "RSA1_5"] {
            for (close, open) in [("wrapkey", "unwrapKey"), ("encrypt", "decrypt")] {
                let body: JSONValue = ["alg": .string(algorithm), "value": .string(secret.base64URL)]
                let wrapped = await vaults.owned(.POST, "/keys/cmk//\(close)", body)
                #expect(wrapped.status == 200)
                #expect(wrapped.body["kid"] == bundle["key"]?["kid"])
                let opening: JSONValue = ["alg": .string(algorithm), "value": wrapped.body["value"] ?? .null]
                let back = await vaults.owned(.POST, "/keys/cmk/\(version(bundle))/\(open)", opening)
                #expect(back.body["value"]?.stringValue == secret.base64URL)
            }
        }
    }

    /// An independent implementation (BoringSSL through swift-crypto) wraps with the public part; the vault unwraps.
    /// And it verifies signatures.
    @Test func publicPartAndSignaturesSatisfyAnotherLibrary() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let bundle = try await created(vaults)
        let modulus = try #require([UInt8](base64URL: bundle["key"]?["n"]?.stringValue ?? ""))
        let publicKey = try _RSA.Encryption.PublicKey(n: modulus, e: [1, 0, 1])
        let secret = SystemRandomness().bytes(32)
        let wrapped = try publicKey.encrypt(secret, padding: .PKCS1_OAEP_SHA256)
        let back = await vaults.owned(
            .POST, "/keys/cmk/unwrapkey", ["alg": "RSA-OAEP-256", "value": .string([UInt8](wrapped).base64URL)])
        #expect(back.body["value"]?.stringValue == secret.base64URL)

        let verifier = try _RSA.Signing.PublicKey(n: modulus, e: [1, 0, 1])
        let digest = SHA384.hash(data: Array("hello".utf8))
        for (algorithm, padding) in [("RS384", _RSA.Signing.Padding.insecurePKCS1v1_5), ("PS384", .PSS)] {
            let value = JSONValue.string(Array(digest).base64URL)
            let signed = await vaults.owned(.POST, "/keys/cmk/sign", ["alg": .string(algorithm), "value": value])
            let bytes = try #require([UInt8](base64URL: signed.body["value"]?.stringValue ?? ""))
            #expect(verifier.isValidSignature(.init(rawRepresentation: bytes), for: digest, padding: padding))
            let verified = await vaults.owned(
                .POST, "/keys/cmk/verify",
                ["alg": .string(algorithm), "digest": value, "value": .string(bytes.base64URL)])
            #expect(verified.body == ["value": true])
            let flipped = [bytes[0] ^ 1] + bytes.dropFirst()
            let refused = await vaults.owned(
                .POST, "/keys/cmk/verify",
                ["alg": .string(algorithm), "digest": value, "value": .string(flipped.base64URL)])
            #expect(refused.body == ["value": false])
        }
        let short = await vaults.owned(.POST, "/keys/cmk/sign", ["alg": "RS256", "value": "AAAA"])
        #expect(short.status == 400)
        let mismatch = await vaults.owned(
            .POST, "/keys/cmk/sign", ["alg": "ES256", "value": .string([UInt8](repeating: 1, count: 32).base64URL)])
        #expect(mismatch.status == 400)
    }

    @Test func ellipticCurveSignaturesSatisfyAnotherLibrary() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        func coordinates(_ bundle: JSONValue) throws -> [UInt8] {
            let x = try #require([UInt8](base64URL: bundle["key"]?["x"]?.stringValue ?? ""))
            let y = try #require([UInt8](base64URL: bundle["key"]?["y"]?.stringValue ?? ""))
            return [4] + x + y
        }
        func signature(_ name: String, _ algorithm: String, _ digest: [UInt8]) async throws -> [UInt8] {
            let signed = await vaults.owned(
                .POST, "/keys/\(name)/sign", ["alg": .string(algorithm), "value": .string(digest.base64URL)])
            return try #require([UInt8](base64URL: signed.body["value"]?.stringValue ?? ""))
        }
        let message = Array("hello".utf8)
        let p256 = try P256.Signing.PublicKey(
            x963Representation: coordinates(try await created(vaults, ["kty": "EC"], name: "a")))
        let first = try await signature("a", "ES256", Array(SHA256.hash(data: message)))
        #expect(p256.isValidSignature(try .init(rawRepresentation: first), for: SHA256.hash(data: message)))
        let p384 = try P384.Signing.PublicKey(
            x963Representation: coordinates(try await created(vaults, ["kty": "EC", "crv": "P-384"], name: "b")))
        let second = try await signature("b", "ES384", Array(SHA384.hash(data: message)))
        #expect(p384.isValidSignature(try .init(rawRepresentation: second), for: SHA384.hash(data: message)))
        let p521 = try P521.Signing.PublicKey(
            x963Representation: coordinates(try await created(vaults, ["kty": "EC", "crv": "P-521"], name: "c")))
        let third = try await signature("c", "ES512", Array(SHA512.hash(data: message)))
        #expect(p521.isValidSignature(try .init(rawRepresentation: third), for: SHA512.hash(data: message)))
        _ = try await created(vaults, ["kty": "EC", "crv": "P-256K"], name: "d")
        let fourth = try await signature("d", "ES256K", Array(SHA256.hash(data: message)))
        let verified = await vaults.owned(
            .POST, "/keys/d/verify",
            [
                "alg": "ES256K", "digest": .string(Array(SHA256.hash(data: message)).base64URL),
                "value": .string(fourth.base64URL),
            ])
        #expect(verified.body == ["value": true])
        #expect(await vaults.owned(.POST, "/keys/a/wrapkey", ["alg": "RSA-OAEP", "value": "AAAA"]).status == 403)
    }

    @Test func importedKeysWorkAndBrokenOnesAreRefused() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let key = P256.Signing.PrivateKey()
        let point = [UInt8](key.publicKey.x963Representation)
        var jwk: [String: JSONValue] = [
            "kty": "EC", "crv": "P-256", "x": .string(point[1..<33].base64URL), "y": .string(point[33...].base64URL),
            "d": .string([UInt8](key.rawRepresentation).base64URL),
        ]
        let imported = await vaults.owned(.PUT, "/keys/imp", ["key": .object(jwk)])
        #expect(imported.status == 200, "\(imported.message ?? "")")
        let digest = SHA256.hash(data: Array("x".utf8))
        let signed = await vaults.owned(
            .POST, "/keys/imp/sign", ["alg": "ES256", "value": .string(Array(digest).base64URL)])
        let raw = try #require([UInt8](base64URL: signed.body["value"]?.stringValue ?? ""))
        #expect(key.publicKey.isValidSignature(try .init(rawRepresentation: raw), for: digest))
        jwk["d"] = .string([UInt8](P256.Signing.PrivateKey().rawRepresentation).base64URL)
        let broken = await vaults.owned(.PUT, "/keys/imp", ["key": .object(jwk)])
        #expect(broken.status == 400)
        #expect(broken.message?.contains(jwk["d"]?.stringValue ?? "?") == false)
    }

    /// RSA parts as OpenSSL wrote them (`openssl genrsa 2048`); the ciphertext is `openssl pkeyutl -encrypt -pkeyopt
    /// rsa_padding_mode:oaep
    /// -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256`.
    @Test func anRSAKeyOfOpenSSLOpensWhatOpenSSLWrapped() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let imported = await vaults.owned(.PUT, "/keys/imp", ["key": .object(OpenSSLVector.jwk)])
        #expect(imported.status == 200, "\(imported.message ?? "")")
        let opened = await vaults.owned(
            .POST, "/keys/imp/unwrapkey", ["alg": "RSA-OAEP-256", "value": .string(OpenSSLVector.ciphertext)])
        #expect(opened.body["value"]?.stringValue == Array(OpenSSLVector.plaintext.utf8).base64URL)
    }

    @Test func attributesAndOperationsAreEnforced() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = try await created(vaults)
        let value: JSONValue = ["alg": "RSA-OAEP-256", "value": "AAAA"]
        let wrapped: JSONValue = [
            "alg": "RSA-OAEP-256",
            "value": (await vaults.owned(.POST, "/keys/cmk/wrapkey", value)).body["value"] ?? .null,
        ]
        func inner(_ operation: String, _ body: JSONValue) async -> String? {
            (await vaults.owned(.POST, "/keys/cmk/\(operation)", body)).innerCode
        }
        #expect(
            (await vaults.owned(.PATCH, "/keys/cmk/", ["attributes": ["enabled": false]])).body["attributes"]?[
                "enabled"] == false)
        #expect(await inner("wrapkey", value) == "KeyDisabled")
        #expect(await inner("unwrapkey", wrapped) == "KeyDisabled")
        #expect((await vaults.owned(.GET, "/keys/cmk")).status == 200)
        let now = vaults.clock.now().unixSeconds
        _ = await vaults.owned(.PATCH, "/keys/cmk/", ["attributes": ["enabled": true, "exp": .integer(now + 100)]])
        #expect(await inner("wrapkey", value) == nil)
        vaults.clock.advance(seconds: 100)
        #expect(await inner("wrapkey", value) == "KeyExpired")
        #expect(await inner("unwrapkey", wrapped) == nil)
        _ = await vaults.owned(
            .PATCH, "/keys/cmk/", ["attributes": ["nbf": .integer(now + 1_000), "exp": .integer(now + 2_000)]])
        #expect(await inner("wrapkey", value) == "KeyNotYetValid")
        _ = await vaults.owned(.PATCH, "/keys/cmk/", ["key_ops": ["wrapKey"], "attributes": ["nbf": 1]])
        #expect(await inner("unwrapkey", wrapped) == "KeyOperationForbidden")
        #expect(await inner("wrapkey", value) == nil)
    }

    @Test func damagedCiphertextAndLongPlaintextAreRefusedAlike() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = try await created(vaults)
        for bytes in [
            [], [UInt8](repeating: 1, count: 255), SystemRandomness().bytes(256), [UInt8](repeating: 0xff, count: 256),
        ] {
            let answer = await vaults.owned(
                .POST, "/keys/cmk/unwrapkey", ["alg": "RSA-OAEP-256", "value": .string(bytes.base64URL)])
            #expect(answer.status == 400 && answer.code == "BadParameter")
        }
        let long = await vaults.owned(
            .POST, "/keys/cmk/wrapkey",
            ["alg": "RSA-OAEP-256", "value": .string([UInt8](repeating: 1, count: 300).base64URL)])
        #expect(long.status == 400)
        #expect(await vaults.owned(.POST, "/keys/cmk/wrapkey", ["alg": "A256KW", "value": "AAAA"]).status == 400)
    }

    @Test func bodiesOfOperationsAreReadStrictly() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = try await created(vaults)
        for (body, message) in [
            ("", "Property value is required."), ("{}", "Property value is required."),
            ("[]", "The request body is not a JSON object."), ("\"alg\"", "The request body is not a JSON object."),
            ("{", "The request body is not a JSON object."),
            (#"{"alg":"RSA-OAEP","value":7}"#, "Property value has invalid value"),
            (#"{"alg":["RSA-OAEP"],"value":"AAAA"}"#, "Property alg has invalid value"),
            (#"{"alg":"RSA-OAEP","value":"A=A="}"#, "Property value has invalid value"),
            (#"{"alg":null,"value":"AAAA"}"#, "Property alg is required."),
        ] {
            let answer = await vaults.send(.POST, "/keys/cmk/wrapkey", as: vaults.owner, raw: Array(body.utf8))
            #expect(answer.status == 400 && answer.code == "BadParameter", "\(body)")
            #expect(answer.body["error"]?["message"]?.stringValue == message, "\(body)")
        }
        let more = #" { "aad" : {"x":[1]}, "value" : "AAAA", "alg" : "RSA\u002dOAEP" } "#
        #expect(await vaults.send(.POST, "/keys/cmk/wrapkey", as: vaults.owner, raw: Array(more.utf8)).status == 200)
    }

    @Test(arguments: ["", "https://v.vault.coffer.localhost/keys/k/0a", "a\"b\\c", "\u{0}\n\u{1f}", "é\u{2028}😀"])
    func writtenStringsAreJSON(text: String) throws {
        var buffer = ByteBuffer()
        buffer.writeJSONString(text)
        #expect(try JSONValue(parsing: buffer.readableBytesView) == .string(text))
        #expect(Array(buffer.readableBytesView) == JSONValue.string(text).serialized())
    }

    @Test func rotationPolicyIsKeptAndCarriedOut() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let first = version(try await created(vaults, ["kty": "EC"]))
        let initial = await vaults.owned(.GET, "/keys/cmk/rotationpolicy")
        #expect(initial.body["lifetimeActions"]?.arrayValue?.count == 1)
        let policy: JSONValue = [
            "lifetimeActions": [["trigger": ["timeAfterCreate": "P90D"], "action": ["type": "rotate"]]],
            "attributes": ["expiryTime": "P1Y"],
        ]
        let set = await vaults.owned(.PUT, "/keys/cmk/rotationpolicy", policy)
        #expect(set.status == 200, "\(set.message ?? "")")
        #expect(set.body["lifetimeActions"]?.arrayValue?.first?["action"]?["type"] == "Rotate")
        #expect(set.body["attributes"]?["expiryTime"] == "P1Y")
        #expect(set.body["id"] == "https://vault1.vault.coffer.localhost/keys/cmk/rotationpolicy")
        await vaults.service.performDueWork()
        #expect(version((await vaults.owned(.GET, "/keys/cmk")).body) == first)
        vaults.clock.advance(days: 91)
        await vaults.service.performDueWork()
        let rotated = (await vaults.owned(.GET, "/keys/cmk")).body
        #expect(version(rotated) != first)
        #expect(rotated["attributes"]?["exp"] != nil)
        for bad: JSONValue in [
            ["lifetimeActions": [["trigger": ["timeAfterCreate": "P1D"], "action": ["type": "Rotate"]]]],
            ["lifetimeActions": [["trigger": ["timeBeforeExpiry": "P30D"], "action": ["type": "Rotate"]]]],
            ["lifetimeActions": [["trigger": ["timeAfterCreate": "soon"], "action": ["type": "Rotate"]]]],
            ["attributes": ["expiryTime": "P3D"]],
        ] {
            #expect(await vaults.owned(.PUT, "/keys/cmk/rotationpolicy", bad).status == 400)
        }
    }

    @Test func pagesFollowEachOther() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let names = (0..<7).map { "k\($0)" }
        for name in names { _ = try await created(vaults, ["kty": "EC"], name: name) }
        var seen: [String] = []
        var query = "api-version=7.4&maxresults=3"
        while true {
            let page = await vaults.send(.GET, "/keys", as: vaults.owner, query: query)
            let items = page.body["value"]?.arrayValue ?? []
            #expect(items.count <= 3)
            seen += items.compactMap { $0["kid"]?.stringValue?.split(separator: "/").last.map(String.init) }
            guard let link = page.body["nextLink"]?.stringValue else { break }
            #expect(link.hasPrefix("https://vault1.vault.coffer.localhost/keys?"))
            query = String(link.split(separator: "?")[1])
        }
        #expect(seen == names)
        #expect(
            await vaults.send(.GET, "/keys", as: vaults.owner, query: "api-version=7.4&maxresults=26").status == 400)
        #expect(
            await vaults.send(.GET, "/keys", as: vaults.owner, query: "api-version=7.4&$skiptoken=%%%").status == 400)
    }

    @Test func randomBytesHaveTheLengthAskedFor() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let answer = await vaults.owned(.POST, "/rng", ["count": 16])
        #expect([UInt8](base64URL: answer.body["value"]?.stringValue ?? "")?.count == 16)
        #expect(await vaults.owned(.POST, "/rng", ["count": 129]).status == 400)
    }
}
