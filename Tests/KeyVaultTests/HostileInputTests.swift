import CofferCore
import NIOHTTP1
import Testing

@testable import KeyVault

/// Bytes from outside, random and mutated: the service answers every request, and never with 5xx.
@Suite struct HostileInputTests {
    /// xorshift64*: repeatable.
    struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state ^= state >> 12
            state ^= state << 25
            state ^= state >> 27
            return state &* 2_685_821_657_736_338_717
        }
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func anyBodyIsAnswered(seed: UInt64) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.POST, "/keys/k/create", ["kty": "RSA"])
        var generator = Generator(state: seed)
        let seeds = [
            #"{"kty":"EC","crv":"P-256","attributes":{"enabled":true,"nbf":1},"tags":{"a":"b"},"key_ops":["sign"]}"#,
            #"{"alg":"RSA-OAEP-256","value":"AAAA"}"#, #"{"alg":"RS256","digest":"AAAA","value":"AAAA"}"#,
            #"{"value":"secret","contentType":"x"}"#,
            #"{"key":{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ","p":"AQ","q":"AQ","dp":"AQ","dq":"AQ","qi":"AQ"}}"#,
            #"{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P90D"},"action":{"type":"Rotate"}}]}"#,
            #"{"lifetimeActions":[],"attributes":{"expiryTime":"P2Y"}}"#,
        ]
        let targets: [(HTTPMethod, String)] = [
            (.POST, "/keys/new/create"), (.PUT, "/keys/imp"), (.PATCH, "/keys/k"), (.POST, "/keys/k/wrapkey"),
            (.POST, "/keys/k/unwrapkey"),
            (.POST, "/keys/k/sign"), (.POST, "/keys/k/verify"), (.PUT, "/keys/k/rotationpolicy"),
            (.POST, "/keys/restore"),
            (.PUT, "/secrets/s"), (.POST, "/secrets/restore"), (.POST, "/rng"),
        ]
        for _ in 0..<20 {
            for (method, path) in targets {
                var bytes = Array(seeds.randomElement(using: &generator)!.utf8)
                for _ in 0..<Int.random(in: 0...4, using: &generator) where !bytes.isEmpty {
                    let place = Int.random(in: 0..<bytes.count, using: &generator)
                    switch Int.random(in: 0..<4, using: &generator) {
                    case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                    case 1: bytes.remove(at: place)
                    case 2: bytes.insert(contentsOf: Array("[{\"-1e99,".utf8).shuffled(using: &generator), at: place)
                    default: bytes.removeLast(bytes.count - max(1, place))
                    }
                }
                let answer = await vaults.send(method, path, as: vaults.owner, raw: bytes)
                #expect(
                    (200..<500).contains(answer.status), "\(method) \(path): \(String(decoding: bytes, as: UTF8.self))")
            }
        }
    }

    @Test func anyPathIsAnswered() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        var generator = Generator(state: 4)
        let parts = [
            "keys", "secrets", "deletedkeys", "versions", "%2F", "%00", "..", "", "%zz", "%C3%28", "restore", "k",
            "create", "é", "rng", "sign",
        ]
        for _ in 0..<200 {
            let path =
                "/"
                + (0..<Int.random(in: 0...5, using: &generator)).map { _ in parts.randomElement(using: &generator)! }
                .joined(separator: "/")
            for method in [HTTPMethod.GET, .POST, .PUT, .PATCH, .DELETE, .HEAD] {
                let answer = await vaults.send(method, path, as: vaults.owner)
                #expect((200..<502).contains(answer.status) && answer.status != 500, "\(method) \(path)")
            }
        }
    }

    @Test func periodsReadWhatTheyWrite() {
        var generator = Generator(state: 5)
        for _ in 0..<500 {
            let period = CalendarPeriod(
                years: .random(in: 0...9_999, using: &generator), months: .random(in: 0...9_999, using: &generator),
                days: .random(in: 0...9_999, using: &generator))
            #expect(CalendarPeriod(iso8601: period.iso8601) == period)
            var text = Array(period.iso8601)
            text[Int.random(in: 0..<text.count, using: &generator)] = "PYMDTW0189-x".randomElement(using: &generator)!
            if let other = CalendarPeriod(iso8601: String(text)) {
                #expect(CalendarPeriod(iso8601: other.iso8601) == other)
            }
        }
        let start = Timestamp(year: 2024, month: 1, day: 31)!
        #expect(CalendarPeriod(months: 1).added(to: start) == Timestamp(year: 2024, month: 2, day: 29)!)
        #expect(CalendarPeriod(years: 1, days: 1).added(to: start) == Timestamp(year: 2025, month: 2, day: 1)!)
        #expect(CalendarPeriod(days: 30).added(to: start, sign: -1) == Timestamp(year: 2024, month: 1, day: 1)!)
    }

    /// Neither a refusal's text nor its JSON repeats the secret that was sent.
    @Test func noErrorRepeatsASecret() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let secret = "c2VjcmV0LXZhbHVlLXRoYXQtbXVzdC1ub3QtbGVhaw"
        let bodies: [JSONValue] = [
            ["value": .string(secret), "tags": 7], ["value": .string(secret), "attributes": ["exp": "x"]],
            ["alg": "nope", "value": .string(secret)], ["alg": "RSA-OAEP", "value": .string(secret + "!")],
            ["key": ["kty": "RSA", "n": .string(secret), "d": .string(secret)]],
            ["kty": .string("x"), "value": .string(secret)],
        ]
        for body in bodies {
            for (method, path) in [
                (HTTPMethod.PUT, "/secrets/s"), (.POST, "/keys/k/decrypt"), (.PUT, "/keys/k"),
                (.POST, "/secrets/restore"),
            ] {
                let answer = await vaults.send(method, path, body, as: vaults.owner)
                guard answer.status >= 400 else { continue }
                #expect(!String(decoding: answer.body.serialized(), as: UTF8.self).contains(secret))
            }
        }
    }
}
