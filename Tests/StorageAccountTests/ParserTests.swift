import CofferCore
import Crypto
import HTTPEdge
import NIOHTTP1
import TestSupport
import Testing

@testable import StorageAccount

/// What a shared key signs, whatever the request.
struct StringToSignTests {
    private typealias Pair = (name: String, value: String)
    /// All that count, each once; `Date` counts only where there is no `x-ms-date`.
    private static let headerNames = [
        "Content-Type", "Content-MD5", "Content-Encoding", "Content-Language", "Range", "If-Match", "If-None-Match",
        "If-Modified-Since", "If-Unmodified-Since", "x-ms-date", "x-ms-version", "x-ms-meta-a", "x-ms-meta-a-b",
        "x-ms-meta-ab", "x-ms-meta-a_b", "x-ms-blob-type",
    ]
    private static let parameterNames = ["comp", "restype", "timeout", "snapshot", "prefix", "blockid"]

    private func pairs(_ names: [String], _ random: SeededRandomness) -> [Pair] {
        names.filter { _ in random.number(0..<2) == 0 }.map { (name: $0, value: random.value()) }
    }
    private func bytes(
        _ scheme: SharedKeyString.Scheme, _ order: SharedKeyString.HeaderOrder, _ method: HTTPMethod, _ path: String,
        _ query: [Pair], _ headers: [Pair]
    ) -> [UInt8] {
        let text = query.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
        let request = Request(
            id: "r", method: method, rawPath: path, rawQuery: text,
            headers: HTTPHeaders(headers.map { ($0.name, $0.value) }),
            endpoint: .storage(account: "acct", service: .blob), names: Fixture.names,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"), body: .empty)
        return SharedKeyString(request: request, account: "acct", service: .blob)
            .bytes(scheme, order: order, query: request.query)
    }

    @Test(arguments: SharedKeyString.HeaderOrder.allCases)
    func orderSaysNothing(_ order: SharedKeyString.HeaderOrder) {
        let random = SeededRandomness(61)
        for _ in 0..<250 {
            let headers = pairs(Self.headerNames, random)
            // A name may come again: its values are sorted too.
            let query = pairs(Self.parameterNames + Self.parameterNames, random)
            let first = bytes(.sharedKey, order, .PUT, "/c/b", query, headers)
            // The case of a header's name and the white space around its value are not the client's to keep.
            let others = random.shuffled(headers).map { header in
                (name: random.pick([header.name, header.name.uppercased()]), value: " \(header.value)\t")
            }
            #expect(bytes(.sharedKey, order, .PUT, "/c/b", random.shuffled(query), others) == first)
            let lite = bytes(.sharedKeyLite, order, .PUT, "/c/b", [], headers)
            #expect(bytes(.sharedKeyLite, order, .PUT, "/c/b", [], others) == lite)
        }
    }

    @Test(arguments: SharedKeyString.HeaderOrder.allCases)
    func everyChangeShows(_ order: SharedKeyString.HeaderOrder) {
        let random = SeededRandomness(62)
        for _ in 0..<40 {
            let headers = pairs(Self.headerNames, random)
            let query = pairs(Self.parameterNames, random)
            let path = "/c/" + random.value()
            let first = bytes(.sharedKey, order, .PUT, path, query, headers)
            #expect(bytes(.sharedKey, order, .GET, path, query, headers) != first)
            #expect(bytes(.sharedKey, order, .PUT, path + "x", query, headers) != first)
            for index in headers.indices {
                var changed = headers
                changed[index].value += "x"
                #expect(bytes(.sharedKey, order, .PUT, path, query, changed) != first, "\(headers[index].name)")
                changed.remove(at: index)
                #expect(bytes(.sharedKey, order, .PUT, path, query, changed) != first, "\(headers[index].name)")
            }
            for index in query.indices {
                var changed = query
                changed[index].value += "x"
                #expect(bytes(.sharedKey, order, .PUT, path, changed, headers) != first, "\(query[index].name)")
                changed.remove(at: index)
                #expect(bytes(.sharedKey, order, .PUT, path, changed, headers) != first, "\(query[index].name)")
            }
            #expect(bytes(.sharedKey, order, .PUT, path, query + [(name: "more", value: "")], headers) != first)
        }
    }

    /// Signatures have one spelling: that of strict base64.
    @Test func signaturesHaveOneSpelling() {
        let random = SeededRandomness(63)
        for _ in 0..<2_000 {
            let text = random.number(0..<4) == 0 ? random.bytes(random.number(30..<35)).base64 : random.bytes(32).base64
            let given = random.number(0..<3) == 0 ? text : random.mutated(text, with: "AQgw+/-_= é")
            let expected = [UInt8](base64: given).flatMap { $0.count == 32 ? $0 : nil }
            #expect(Signatures.decoded(given) == expected, "\(given)")
        }
    }
}

/// Credentials that were changed on their way.
struct HostileCredentialTests {
    private static let host = "https://goldenaccount.blob.core.windows.net"
    private let fixture: Fixture
    init() async throws {
        fixture = try Fixture()
        try await fixture.createGoldenAccount()
    }

    @Test func aMutatedAuthorizationIsNoAuthorization() async throws {
        let random = SeededRandomness(71)
        let signed = goldenRequests.filter { $0.permissions == nil }
        for _ in 0..<300 {
            let golden = random.pick(signed)
            guard let index = golden.headers.firstIndex(where: { $0.0 == "Authorization" }) else { continue }
            var headers = golden.headers
            let before = headers[index].1
            headers[index].1 = random.mutated(before, with: "ADSgk0+/=: \té")
            let outcome = await fixture.outcome(fixture.request(golden.method, golden.url, headers))
            // Spaces behind the two words may be many.
            let after = headers[index].1
            let isSame = after.hasPrefix("SharedKey") && after.split(separator: " ") == before.split(separator: " ")
            #expect((outcome == "accountKey") == isSame, "\(headers[index].1): \(outcome)")
            if !isSame { #expect(outcome.hasPrefix("40"), "\(outcome)") }
        }
    }

    /// An operation reads the first header of a name: a second one with the value that was signed proves nothing.
    @Test func theHeaderThatCountsIsSigned() async throws {
        for golden in goldenRequests where golden.permissions == nil {
            for (name, value) in golden.headers where name != "Authorization" && name != "Content-Length" {
                let headers = [(name, value + "1")] + golden.headers
                let outcome = await fixture.outcome(fixture.request(golden.method, golden.url, headers))
                #expect(outcome != "accountKey", "\(golden.name): \(name) twice")
            }
        }
    }

    /// Signs like a client of version 2022-11-02 with key1.
    private func target(_ fields: [String: String]) -> String {
        var fields = fields.merging(["sv": "2022-11-02", "sr": "b"]) { $1 }
        let lines =
            [fields["sp"], fields["st"], fields["se"], "/blob/goldenaccount/music/a"]
            + ["si", "sip", "spr", "sv", "sr", "", "ses", "rscc", "rscd", "rsce", "rscl", "rsct"].map { fields[$0] }
        let text = lines.map { $0 ?? "" }.joined(separator: "\n")
        fields["sig"] = Signatures.sign(text, with: SymmetricKey(data: Array(0..<64)))
        let query = fields.map { "\($0.key)=\($0.value.replacing("+", with: "%2B"))" }.joined(separator: "&")
        return "\(Self.host)/music/a?\(query)"
    }

    @Test func aSignatureHoldsBetweenItsTimes() async throws {
        let random = SeededRandomness(72)
        let now = fixture.clock.now()
        func spelling() -> String {
            let time = now.adding(seconds: Int64(random.number(-120..<121)))
            let minute = String(time.iso8601.dropLast(4)) + "Z"
            let day = String(time.iso8601.prefix(10))
            return random.pick([
                time.iso8601, time.iso8601WithTicks, minute, day, random.mutated(time.iso8601, with: "0129-:.TZ"),
            ])
        }
        for _ in 0..<250 {
            let (start, expiry) = (spelling(), spelling())
            let outcome = await fixture.outcome(
                fixture.request(.GET, target(["sp": "r", "st": start, "se": expiry])))
            var isOpen = false
            if let from = Timestamp(iso8601: start), let until = Timestamp(iso8601: expiry) {
                isOpen = from <= now && now < until
            }
            #expect(outcome == (isOpen ? "sharedAccess" : "403 AuthenticationFailed"), "\(start) to \(expiry)")
        }
    }

    @Test func aSignatureHoldsForItsAddresses() async throws {
        let random = SeededRandomness(73)
        for _ in 0..<200 {
            let addresses = random.range()
            let peer = "10.0.0.\(random.number(0..<10))"
            let outcome = await fixture.outcome(
                fixture.request(.GET, target(["sp": "r", "se": "2026-11-23", "sip": addresses]), peer: peer))
            let expected =
                PlainRange(addresses).map { range in
                    range.contains(plainAddress(peer)!) ? "sharedAccess" : "403 AuthorizationSourceIPMismatch"
                } ?? "403 AuthenticationFailed"
            #expect(outcome == expected, "\(addresses) from \(peer)")
        }
    }

    @Test func queriesAreTokensOrRefused() {
        let random = SeededRandomness(74)
        let names = SharedAccessParameters.Name.allCases.map(\.rawValue) + ["comp", "SIG", "other"]
        for _ in 0..<1_500 {
            var query = (0..<random.number(0..<6)).map { _ in (name: random.pick(names), value: random.value()) }
            if random.number(0..<3) > 0 { query.append((name: "sig", value: "x")) }
            if random.number(0..<5) == 0 { query.append((name: "sp", value: "r\u{a}w")) }
            let isSigned = query.contains { $0.name == "sig" }
            let known = query.filter { SharedAccessParameters.Name(rawValue: $0.name) != nil }
            do throws(StorageError) {
                let parameters = try SharedAccessParameters(query)
                #expect((parameters != nil) == isSigned)
                guard let parameters else { continue }
                #expect(Set(known.map(\.name)).count == known.count, "a parameter twice")
                for (name, value) in known {
                    #expect(parameters[SharedAccessParameters.Name(rawValue: name)!] == value)
                }
                #expect(!known.contains { $0.value == "r\u{a}w" }, "a line feed moves signed fields")
            } catch {
                #expect(error.status == 403 && isSigned)
            }
        }
    }
}

/// Small texts of rules and signatures, against a plain reading of them.
struct SmallParserTests {
    @Test func addressesAgreeWithAPlainReading() {
        let random = SeededRandomness(81)
        for _ in 0..<4_000 {
            let text = random.range()
            let range = IPv4Range(text)
            let expected = PlainRange(text)
            #expect(range?.first == expected?.first && range?.last == expected?.last, "\(text)")
            guard let range, let expected else { continue }
            for _ in 0..<3 {
                let address = range.first &+ UInt32(truncatingIfNeeded: random.number(-2..<20))
                #expect(range.contains(address) == expected.contains(address), "\(text)")
            }
        }
    }

    @Test func periodsAgreeWithTheirSpelling() {
        let random = SeededRandomness(82)
        func two(_ number: Int) -> String { (number < 10 ? "0" : "") + String(number) }
        func spelling(_ seconds: Int) -> String {
            "\(seconds / 86_400).\(two(seconds / 3_600 % 24)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
        }
        let most = 36_501 * 86_400
        for _ in 0..<2_000 {
            let length = random.number(0..<random.pick([86_400, most]))
            #expect(seconds(ofPeriod: spelling(length)) == Int64(length))
            if length < 86_400 { #expect(seconds(ofPeriod: String(spelling(length).dropFirst(2))) == Int64(length)) }
            let text = random.mutated(spelling(length), with: "0129.:-+ é")
            guard let read = seconds(ofPeriod: text) else { continue }
            #expect(read >= 0 && read < Int64(most))
            #expect(seconds(ofPeriod: spelling(Int(read))) == read, "\(text)")
        }
        for text in ["", ".", ":", "::", "1.", "-1.00:00:00", "36501.00:00:00", "24:00:00", "00:60:00", "1:2"] {
            #expect(seconds(ofPeriod: text) == nil, "\(text)")
        }
    }

    @Test func lettersAreASet() {
        let random = SeededRandomness(83)
        for _ in 0..<2_000 {
            let text = String((0..<random.number(0..<5)).map { _ in random.pick(Array("rwdlA é")) })
            let isSet = Set(text).count == text.count && text.allSatisfy("rwdl".contains)
            let letters = LetterSet(text, of: "rwdl")
            #expect((letters != nil) == isSet, "\(text)")
            for letter in ["r", "w", "d", "l"] {
                guard let letters else { continue }
                #expect(letters.contains(LetterSet(stringLiteral: letter)) == text.contains(letter))
            }
        }
    }
}

/// `a.b.c.d` read part by part.
private func plainAddress(_ text: String) -> UInt32? {
    let isMapped = text.count > 7 && (text.hasPrefix("::ffff:") || text.hasPrefix("::FFFF:"))
    let parts = (isMapped ? String(text.dropFirst(7)) : text).split(separator: ".", omittingEmptySubsequences: false)
    let octets = parts.compactMap { UInt8($0) }
    guard parts.count == 4, octets.count == 4, zip(parts, octets).allSatisfy({ $0 == String($1) }) else { return nil }
    return octets.reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
}

private struct PlainRange {
    let first: UInt32
    let last: UInt32
    func contains(_ address: UInt32) -> Bool { first <= address && address <= last }

    init?(_ text: String) {
        let isRange = text.contains("-")
        let parts = text.split(separator: isRange ? "-" : "/", maxSplits: 1, omittingEmptySubsequences: false)
            .map { String($0) }
        guard let low = plainAddress(parts[0]) else { return nil }
        guard parts.count == 2 else {
            (first, last) = (low, low)
            return
        }
        if isRange {
            guard let high = plainAddress(parts[1]), low <= high else { return nil }
            (first, last) = (low, high)
        } else {
            guard !parts[1].isEmpty, parts[1].allSatisfy(\.isASCII), let bits = Int(parts[1]), (0...32).contains(bits)
            else { return nil }
            let size = UInt64(1) << UInt64(32 - bits)
            let start = UInt64(low) / size * size
            (first, last) = (UInt32(start), UInt32(start + size - 1))
        }
    }
}

extension SeededRandomness {
    fileprivate func shuffled<Element>(_ elements: [Element]) -> [Element] {
        var elements = elements
        for index in elements.indices { elements.swapAt(index, number(index..<elements.count)) }
        return elements
    }
    /// Nothing that separates in a query, a header or a string to sign.
    fileprivate func value() -> String { String((0...number(0..<6)).map { _ in pick(Array("abAB012-._~")) }) }
    /// One or two characters are others, gone, or put in.
    fileprivate func mutated(_ text: String, with noise: String) -> String {
        var characters = Array(text)
        for _ in 0...number(0..<2) {
            let place = number(0..<characters.count)
            switch number(0..<3) {
            case 0: characters[place] = pick(Array(noise))
            case 1: characters.remove(at: place)
            default: characters.insert(pick(Array(noise)), at: place)
            }
        }
        return String(characters)
    }
    /// Addresses, ranges and blocks around 10.0.0.5, some of them broken.
    fileprivate func range() -> String {
        func address() -> String { pick(["", "", "", "::ffff:"]) + "10.0.0.\(number(0..<12))" }
        let text = pick([address(), address() + "-" + address(), address() + "/\(number(0..<34))"])
        return number(0..<2) == 0 ? text : mutated(text, with: "0129./-:fF é")
    }
}
