import AccessControl
import CofferCore
import Crypto
import HTTPEdge
import NIOHTTP1
import ResourceProviders
import TestSupport
import Testing

@testable import StorageAccount

/// Shared access signatures: what they cover, when they hold, and what they open.
struct SharedAccessTests {
    static let host = "https://goldenaccount.blob.core.windows.net"
    private let fixture: Fixture
    init() async throws {
        fixture = try Fixture()
        try await fixture.createGoldenAccount()
    }

    private func parameters(_ golden: GoldenRequest) -> (path: String, query: [(String, String)]) {
        let parts = golden.url.split(separator: "?", maxSplits: 1)
        let pairs = parts[1].split(separator: "&").map { pair -> (String, String) in
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (String(sides[0]), String(sides[1]))
        }
        return (String(parts[0]), pairs)
    }
    private func url(_ path: String, _ query: [(String, String)]) -> String {
        path + "?" + query.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    @Test(arguments: goldenRequests.filter { $0.permissions != nil })
    func everyParameterIsSigned(_ golden: GoldenRequest) async throws {
        let policy = StoredAccessPolicy(
            start: nil, expiry: Timestamp(iso8601: "2026-11-23T00:00:00Z"), permissions: "rl")
        let policies = Policies(known: ["music/readers": policy])
        let (path, query) = parameters(golden)
        // Proven, and so remembered, before the changes: what is remembered must cover none of them.
        let proven = await fixture.outcome(
            fixture.request(golden.method, golden.url, golden.headers), policies: policies)
        #expect(proven == "sharedAccess")
        let unsigned: Set = golden.name.contains("bound to headers") ? ["srh", "srq"] : ["restype", "comp", "timeout"]
        for index in query.indices where !unsigned.contains(query[index].0) {
            for change in ["", "x", query[index].1 + "0", query[index].1.lowercased() + "%20"]
            where change != query[index].1 {
                var changed = query
                changed[index].1 = change
                let outcome = await fixture.outcome(
                    fixture.request(.GET, url(path, changed), golden.headers), policies: policies)
                #expect(outcome.hasPrefix("403") || outcome.hasPrefix("400"), "\(query[index].0)=\(change): \(outcome)")
            }
            var changed = query
            changed.remove(at: index)
            var outcome = await fixture.outcome(
                fixture.request(.GET, url(path, changed), golden.headers), policies: policies)
            #expect(outcome != "sharedAccess", "without \(query[index].0)")
            outcome = await fixture.outcome(
                fixture.request(.GET, url(path, query + [query[index]]), golden.headers), policies: policies)
            if query[index].0 != "timeout" { #expect(outcome == "403 AuthenticationFailed", "\(query[index].0) twice") }
        }
        // Nothing can be added to what was signed.
        let present = Set(query.map(\.0))
        for name in SharedAccessParameters.Name.allCases.map(\.rawValue) where !present.contains(name) {
            guard name != "snapshot", name != "versionid" else { continue }
            let outcome = await fixture.outcome(
                fixture.request(.GET, url(path, query + [(name, "r")]), golden.headers), policies: policies)
            #expect(outcome == "403 AuthenticationFailed", "with \(name)")
        }
        // A signature for one blob opens no other; one for a container opens no other container.
        if !golden.name.hasPrefix("account") {
            let outcome = await fixture.outcome(
                fixture.request(.GET, url(path.replacing(".net/", with: ".net/x"), query), golden.headers),
                policies: policies)
            #expect(outcome == "403 AuthenticationFailed")
        }
    }

    /// Signs like a client of version 2022-11-02 with key1.
    private func blobSAS(
        _ fields: [String: String], path: String = "/blob/goldenaccount/music/a", key: [UInt8] = Array(0..<64)
    ) -> String {
        var fields = fields
        fields["sv"] = fields["sv"] ?? "2022-11-02"
        fields["sr"] = fields["sr"] ?? "b"
        let lines =
            [fields["sp"], fields["st"], fields["se"], path]
            + ["si", "sip", "spr", "sv", "sr", "", "ses", "rscc", "rscd", "rsce", "rscl", "rsct"].map { fields[$0] }
        let text = lines.map { $0 ?? "" }.joined(separator: "\n")
        fields["sig"] = Signatures.sign(text, with: SymmetricKey(data: key))
        return fields.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value.replacing("+", with: "%2B"))" }
            .joined(separator: "&")
    }
    private func outcome(
        _ fields: [String: String], policies: Policies = Policies(), scheme: Transport.Scheme = .https,
        peer: String = "203.0.113.7"
    ) async -> String {
        await fixture.outcome(
            fixture.request(.GET, "\(Self.host)/music/a?\(blobSAS(fields))", scheme: scheme, peer: peer),
            policies: policies)
    }

    @Test func timesAtTheirEdges() async throws {
        let fields = ["sp": "r", "st": "2026-11-22T00:00:00Z", "se": "2026-11-22T00:01:00Z"]
        #expect(await outcome(fields) == "sharedAccess")
        fixture.clock.advance(seconds: -1)
        #expect(await outcome(fields) == "403 AuthenticationFailed")
        fixture.clock.advance(seconds: 60)
        #expect(await outcome(fields) == "sharedAccess")
        fixture.clock.advance(seconds: 1)
        #expect(await outcome(fields) == "403 AuthenticationFailed")
        #expect(await outcome(["sp": "r", "se": "2026-11-23"]) == "sharedAccess")
        #expect(await outcome(["sp": "r", "se": "2026-11-22T23:59Z"]) == "sharedAccess")
        for se in ["", "tomorrow", "2026-13-01", "99999999999"] {
            #expect(await outcome(["sp": "r", "se": se]) == "403 AuthenticationFailed", "\(se)")
        }
    }

    @Test func addressesAndProtocols() async throws {
        let base = ["sp": "r", "se": "2026-11-23"]
        func with(_ more: [String: String]) -> [String: String] { base.merging(more) { $1 } }
        let range = with(["sip": "203.0.113.5-203.0.113.7"])
        #expect(await outcome(range, peer: "203.0.113.5") == "sharedAccess")
        #expect(await outcome(range, peer: "203.0.113.7") == "sharedAccess")
        #expect(await outcome(range, peer: "::ffff:203.0.113.6") == "sharedAccess")
        for peer in ["203.0.113.4", "203.0.113.8", "::1", "", "garbage"] {
            #expect(await outcome(range, peer: peer) == "403 AuthorizationSourceIPMismatch", "\(peer)")
        }
        #expect(await outcome(with(["sip": "all"])) == "403 AuthenticationFailed")
        try await fixture.patch("goldenaccount", ["supportsHttpsTrafficOnly": false])
        #expect(await outcome(with(["spr": "https"]), scheme: .http) == "403 AuthorizationProtocolMismatch")
        #expect(await outcome(with(["spr": "https,http"]), scheme: .http) == "sharedAccess")
        #expect(await outcome(base, scheme: .http) == "sharedAccess")
        #expect(await outcome(with(["spr": "http"]), scheme: .http) == "403 AuthenticationFailed")
    }

    @Test func storedAccessPoliciesComplete() async throws {
        let expiry = Timestamp(iso8601: "2026-11-23")
        var policies = Policies(known: ["music/p": StoredAccessPolicy(start: nil, expiry: expiry, permissions: "rw")])
        #expect(await outcome(["si": "p"], policies: policies) == "sharedAccess")
        #expect(await outcome(["si": "q"], policies: policies) == "403 AuthenticationFailed")
        #expect(await outcome(["si": "p", "sp": "r"], policies: policies) == "403 AuthenticationFailed")
        #expect(await outcome(["si": "p", "se": "2026-11-23"], policies: policies) == "403 AuthenticationFailed")
        policies.known["music/p"] = StoredAccessPolicy(start: nil, expiry: expiry, permissions: nil)
        #expect(await outcome(["si": "p", "sp": "r"], policies: policies) == "sharedAccess")
        #expect(await outcome(["si": "p"], policies: policies) == "403 AuthenticationFailed")
        policies.known["music/p"] = StoredAccessPolicy(
            start: Timestamp(iso8601: "2026-11-22T00:00:01Z"), expiry: expiry, permissions: "r")
        #expect(await outcome(["si": "p"], policies: policies) == "403 AuthenticationFailed")
    }

    @Test func renewingAKeyEndsWhatItSigned() async throws {
        let keys = try await fixture.keys("goldenaccount")
        let second = [UInt8](base64: keys[1])!
        let byFirst = fixture.request(.GET, "\(Self.host)/music/a?\(blobSAS(["sp": "r", "se": "2026-11-23"]))")
        let bySecond = fixture.request(
            .GET, "\(Self.host)/music/a?\(blobSAS(["sp": "r", "se": "2026-11-23"], key: second))")
        #expect(await fixture.outcome(byFirst) == "sharedAccess")
        #expect(await fixture.outcome(bySecond) == "sharedAccess")
        let renewed = try await fixture.control(
            .post, Fixture.id("goldenaccount").appending("regenerateKey"), ["keyName": "key1"])
        #expect(await fixture.outcome(byFirst) == "403 AuthenticationFailed")
        #expect(await fixture.outcome(bySecond) == "sharedAccess")
        #expect(renewed["keys"]?.arrayValue?.first?["value"]?.stringValue != keys[0])
        #expect(try await fixture.keys("goldenaccount")[1] == keys[1])
    }

    @Test func withoutSharedKeyAccessOnlyDelegationIsLeft() async throws {
        // Proven, and so remembered, before the change.
        for golden in goldenRequests {
            _ = await fixture.outcome(fixture.request(golden.method, golden.url, golden.headers))
        }
        try await fixture.patch("goldenaccount", ["allowSharedKeyAccess": false])
        for golden in goldenRequests {
            let outcome = await fixture.outcome(fixture.request(golden.method, golden.url, golden.headers))
            let expected =
                golden.name.hasPrefix("user delegation") ? "sharedAccess" : "403 KeyBasedAuthenticationNotPermitted"
            #expect(outcome == expected, "\(golden.name)")
        }
    }

    private struct NobodyStands: PrincipalStanding {
        func isInGoodStanding(_ objectID: String) async throws -> Bool { false }
    }

    @Test func whatADisabledPrincipalDelegatedEndsWithIt() async throws {
        func outcomes() async -> [String: String] {
            var outcomes: [String: String] = [:]
            for golden in goldenRequests where golden.permissions != nil && !golden.url.contains("si=") {
                outcomes[golden.name] = await fixture.outcome(
                    fixture.request(golden.method, golden.url, golden.headers))
            }
            return outcomes
        }
        // Proven, and so remembered, before the change.
        #expect(await outcomes().values.allSatisfy { $0 == "sharedAccess" })
        try await fixture.tokens.publish(jwks: Array(#"{"keys":[]}"#.utf8), issuers: [], standing: NobodyStands())
        for (name, outcome) in await outcomes() {
            let isDelegated = name.hasPrefix("user delegation")
            #expect(outcome == (isDelegated ? "403 AuthenticationFailed" : "sharedAccess"), "\(name)")
        }
    }

    @Test func accountSASNamesItsServices() async throws {
        let golden = goldenRequests.first { $0.name == "account SAS" }!
        let request = fixture.request(.GET, golden.url)
        #expect(await fixture.outcome(request, as: .queue) == "sharedAccess")
        #expect(await fixture.outcome(request, as: .table) == "403 AuthorizationServiceMismatch")
    }

    @Test func aPolicyOfTheAccountLimitsLives() async throws {
        try await fixture.patch(
            "goldenaccount", ["sasPolicy": ["sasExpirationPeriod": "1.00:00:00", "expirationAction": "Block"]])
        #expect(await outcome(["sp": "r", "st": "2026-11-22", "se": "2026-11-23"]) == "sharedAccess")
        #expect(
            await outcome(["sp": "r", "st": "2026-11-22", "se": "2026-11-23T00:00:01Z"]) == "403 AuthorizationFailure")
        #expect(await outcome(["sp": "r", "se": "2026-11-23"]) == "403 AuthorizationFailure")
    }

    @Test func anAuthorizationHeaderBesideASignatureIsRefused() async throws {
        let request = fixture.request(
            .GET, "\(Self.host)/music/a?\(blobSAS(["sp": "r", "se": "2026-11-23"]))",
            [("Authorization", "SharedKey a:b")])
        #expect(await fixture.outcome(request) == "400 InvalidAuthenticationInfo")
    }

    /// What Resource Manager signs, a data plane lets in.
    @Test func listedSignaturesWork() async throws {
        let account = Fixture.id("goldenaccount")
        let service = try await fixture.control(
            .post, account.appending("ListServiceSas"),
            [
                "canonicalizedResource": "/blob/goldenaccount/music/a", "signedResource": "b", "signedPermission": "r",
                "signedExpiry": "2026-11-22T11:32:48.8457197Z", "signedProtocol": "https", "rscc": "no-cache",
            ])
        let account1 = try await fixture.control(
            .post, account.appending("listAccountSas"),
            [
                "signedServices": "b", "signedResourceTypes": "sco", "signedPermission": "rl", "keyToSign": "key2",
                "signedStart": "2026-11-21T00:00:00Z", "signedExpiry": "2026-11-22T11:32:48Z",
            ])
        for token in [service["serviceSasToken"]?.stringValue, account1["accountSasToken"]?.stringValue] {
            #expect(
                await fixture.outcome(fixture.request(.GET, "\(Self.host)/music/a?\(try #require(token))"))
                    == "sharedAccess")
        }
    }

    /// Random and mutated queries and headers: an answer always comes, and it is never access.
    @Test func garbageIsRefused() async throws {
        let random = SeededRandomness(11)
        let alphabet = Array("abcdefsigvrptx=&%2B/:-0129ZT?;+\u{1}é".utf8)
        let golden = goldenRequests.filter { $0.permissions != nil }
        for round in 0..<900 {
            var target: [UInt8]
            if round.isMultiple(of: 3) {
                target = Array("/music/a?sig=".utf8)
                for _ in 0..<random.number(0..<200) { target.append(alphabet[random.number(0..<alphabet.count)]) }
            } else {
                target = Array(golden[random.number(0..<golden.count)].url.utf8.dropFirst(Self.host.utf8.count))
                // Only the token's part: the rest of a query is the operation's.
                guard let sig = String(decoding: target, as: UTF8.self).utf8.firstRange(of: "sv=".utf8) else {
                    continue
                }
                let start = String(decoding: target, as: UTF8.self).utf8.distance(
                    from: "".utf8.startIndex, to: sig.lowerBound)
                let position = random.number(start + 3..<target.count)
                let byte = alphabet[random.number(0..<alphabet.count)]
                guard target[position] != byte else { continue }
                target[position] = byte
            }
            let text = String(decoding: target, as: UTF8.self)
            guard text.utf8.first == 0x2f else { continue }
            let outcome = await fixture.outcome(fixture.request(.GET, Self.host + text))
            if outcome == "sharedAccess" {
                // Only another spelling of the same parameters may pass.
                #expect(round % 3 != 0 && text.utf8.contains(0x25), "\(text)")
            }
        }
    }
}
