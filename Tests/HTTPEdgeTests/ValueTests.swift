import CofferCore
import Foundation
import NIOCore
import NIOHTTP1
import SwiftASN1
import Testing
import X509

@testable import HTTPEdge

@Suite struct CertificateAuthorityTests {
    private let clock = FixedClock(time: Timestamp(year: 2026, month: 11, day: 22)!)

    @Test func comesBackFromItsKeyAndCertificate() throws {
        let first = try CertificateAuthority.generate(clock: clock, randomness: SystemRandomness())
        let again = try CertificateAuthority(
            privateKeyDER: first.privateKeyDER, certificatePEM: first.certificatePEM, clock: clock,
            randomness: SystemRandomness())
        #expect(again.certificatePEM == first.certificatePEM)
        #expect(first.certificatePEM.hasPrefix("-----BEGIN CERTIFICATE-----\n"))
        let other = try CertificateAuthority.generate(clock: clock, randomness: SystemRandomness())
        #expect(throws: CertificateAuthority.Failure.mismatch) {
            try CertificateAuthority(
                privateKeyDER: other.privateKeyDER, certificatePEM: first.certificatePEM, clock: clock,
                randomness: SystemRandomness())
        }
        #expect(throws: CertificateAuthority.Failure.unreadable) {
            try CertificateAuthority(
                privateKeyDER: SecretBytes(copying: [1, 2, 3]), certificatePEM: first.certificatePEM, clock: clock,
                randomness: SystemRandomness())
        }
    }

    @Test func aLeafIsForItsHostAndServersOnly() throws {
        let authority = try CertificateAuthority.generate(clock: clock, randomness: SystemRandomness())
        let host = "a-rather-long-account-name-of-a-domain.blob.core.coffer.example.com"
        let issued = try authority.issue(host: host, now: clock.now())
        let leaf = try Certificate(derEncoded: issued.certificateDER)
        let root = try Certificate(pemEncoded: authority.certificatePEM)
        #expect(root.publicKey.isValidSignature(leaf.signature, for: leaf))
        #expect(leaf.issuer == root.subject && leaf.serialNumber != root.serialNumber)
        #expect(try leaf.extensions.subjectAlternativeNames == SubjectAlternativeNames([.dnsName(host)]))
        #expect(try leaf.extensions.keyUsage == KeyUsage(digitalSignature: true))
        #expect(try leaf.extensions.extendedKeyUsage == ExtendedKeyUsage([.serverAuth]))
        #expect(try leaf.extensions.basicConstraints == .notCertificateAuthority)
        #expect(
            try leaf.extensions.authorityKeyIdentifier?.keyIdentifier
                == root.extensions.subjectKeyIdentifier?.keyIdentifier)
        #expect(leaf.notValidAfter.timeIntervalSince(leaf.notValidBefore) == 90 * 86_400)
        #expect(try root.extensions.keyUsage == KeyUsage(keyCertSign: true, cRLSign: true))
    }

    @Test func leavesAreKeptBoundedAndRenewed() throws {
        let authority = try CertificateAuthority.generate(clock: clock, randomness: SystemRandomness())
        #expect(try authority.leaf(forHost: "a.test").certificate == authority.leaf(forHost: "a.test").certificate)
        let leaf = try authority.leaf(forHost: "a.test")
        var cache = LeafCache(capacity: 8)
        for index in 0..<8 { cache.insert(leaf, for: "\(index)") }
        #expect(cache.leaf(for: "0", at: clock.now()) != nil)
        for index in 8..<100 {
            cache.insert(leaf, for: "\(index)")
            _ = cache.leaf(for: "0", at: clock.now())
        }
        #expect(
            cache.count <= 8 && cache.leaf(for: "0", at: clock.now()) != nil
                && cache.leaf(for: "5", at: clock.now()) == nil)
        #expect(cache.leaf(for: "0", at: clock.now().adding(seconds: 61 * 86_400)) == nil)
    }
}

@Suite struct TargetTests {
    @Test func targetsSplitWithoutDecoding() {
        #expect(RequestTarget("/a%2Fb/c?x=1?y") == RequestTarget(authority: nil, path: "/a%2Fb/c", query: "x=1?y"))
        #expect(RequestTarget("/") == RequestTarget(authority: nil, path: "/", query: ""))
        #expect(RequestTarget("HTTP://Host:80/p?q") == RequestTarget(authority: "Host:80", path: "/p", query: "q"))
        #expect(RequestTarget("http://host?q") == RequestTarget(authority: "host", path: "/", query: "q"))
        #expect(RequestTarget("http://host") == RequestTarget(authority: "host", path: "/", query: ""))
        for bad in ["", "*", "a", "http://", "http:///x", "ftp://host/", "?x"] { #expect(RequestTarget(bad) == nil) }
    }

    @Test func authoritiesAreReadStrictly() {
        #expect(Authority("Host.Example:8443").map { [$0.host, "\($0.port!)"] } == ["host.example", "8443"])
        #expect(
            Authority("[::1]:80")?.host == "[::1]" && Authority("host.")?.host == "host"
                && Authority("host:")?.port == nil)
        for bad in [
            "", ":80", "a b", "a:b", "a:1:2", "a:65536", "user@host", "[::1", "[zz]", "a/b", "ä", ".", "[::1]x",
            "host:123456",
        ] {
            #expect(Authority(bad) == nil, "\(bad)")
        }
    }

    @Test func randomTextNeverStopsTheParsers() {
        var identifiers = RequestIdentifiers(randomness: SystemRandomness())
        let alphabet = Array("htp:/?#[]@.-%aZ09 \r\n\0ä,".unicodeScalars)
        for _ in 0..<3_000 {
            let noise = Array((identifiers.next() + identifiers.next()).utf8)
            let text = String(
                String.UnicodeScalarView(
                    noise.prefix(Int(noise[0]) % 60).map { alphabet[Int($0 &* 37) % alphabet.count] }))
            if let target = RequestTarget(text) { #expect(target.path.hasPrefix("/")) }
            if let authority = Authority(text) {
                #expect(Authority(authority.host) == Authority(authority.host.uppercased()))
            }
            _ = ConnectRequest.parse(ByteBuffer(string: "CONNECT " + text), maximumBytes: 40)
            if let address = IPAddress(text) { #expect(IPAddress(address.description) == address) }
            if let network = IPNetwork(text) { #expect(IPNetwork(network.description) == network) }
        }
    }
}

extension RequestTarget {
    fileprivate init(authority: String?, path: String, query: String) {
        let base = authority.map { "http://" + $0 } ?? ""
        self.init(base + path + (query.isEmpty ? "" : "?" + query))!
    }
}

@Suite struct IPNetworkTests {
    @Test(arguments: [
        ("10.0.0.0/8", "10.255.0.1", true), ("10.0.0.0/8", "11.0.0.0", false), ("10.1.2.3/8", "10.0.0.0", true),
        ("0.0.0.0/0", "255.255.255.255", true), ("0.0.0.0/0", "::1", false), ("1.2.3.4", "1.2.3.4", true),
        ("1.2.3.4/32", "1.2.3.5", false),
        ("1.2.3.4-1.2.3.9", "1.2.3.9", true), ("1.2.3.4 - 1.2.3.9", "1.2.3.10", false),
        ("1.2.3.4", "::ffff:1.2.3.4", true),
        ("2001:db8::/32", "2001:db8:ffff::1", true), ("2001:db8::/32", "2001:db9::", false), ("::/0", "ffff::", true),
        ("::1", "::1", true),
        ("fe80::-fe80::ff", "fe80::80", true), ("::/0", "1.2.3.4", false), ("10.0.0.0/8", "rubbish", false),
        ("128.0.0.0/1", "127.255.255.255", false),
    ])
    func contains(network: String, address: String, expected: Bool) throws {
        #expect(try #require(IPNetwork(network)).contains(address) == expected)
    }

    @Test(arguments: [
        "", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/8/8",
        "::/129", "1.2.3.9-1.2.3.4",
        "1.2.3.4-::1", "1.2.3.4-", "-", "fe80::1%eth0", "::ffff:1.2.3.4/96", "1.2.3.4\0", " 1.2.3.4", "localhost",
    ])
    func refuses(text: String) { #expect(IPNetwork(text) == nil) }

    @Test func addressesPrintAndSort() {
        #expect(IPAddress("2001:DB8:0:0::1")?.description == "2001:db8::1")
        #expect(
            IPAddress("127.8.8.8")!.isLoopback && IPAddress("::1")!.isLoopback && !IPAddress("128.0.0.1")!.isLoopback)
        #expect(IPAddress("255.0.0.0")! < IPAddress("::1")! && IPAddress("9.0.0.0")! < IPAddress("10.0.0.0")!)
    }
}

@Suite struct RefusalTests {
    @Test func theBodyIsJSONWhateverTheText() throws {
        let text = "a \"quote\", a \\, a\nline, \u{1}\u{1f} and ä"
        guard case .bytes(let body) = Refusal(.badRequest, "Code", text).response(requestID: "id").body else {
            Issue.record("no body")
            return
        }
        let value = try JSONValue(parsing: body.readableBytesView)
        #expect(value == ["error": ["code": "Code", "message": .string(text)]])
    }
}

@Suite struct RequestIdentifierTests {
    @Test func areDistinctVersion4UUIDs() {
        var identifiers = RequestIdentifiers(randomness: SystemRandomness())
        var seen = Set<String>()
        for _ in 0..<10_000 {
            let id = identifiers.next()
            let characters = Array(id)
            #expect(
                characters.count == 36 && characters[14] == "4" && "89ab".contains(characters[19])
                    && characters[8] == "-")
            seen.insert(id)
        }
        #expect(seen.count == 10_000)
    }
}

@Suite struct LineBudgetTests {
    @Test func aFloodLeavesAFewLinesAndTheirNumber() {
        var budget = LineBudget(linesPerMinute: 2)
        let start = Timestamp(year: 2026, month: 11, day: 22)!
        #expect((0..<5).map { budget.take(at: start.adding(seconds: $0)) } == [0, 0, nil, nil, nil])
        #expect(budget.take(at: start.adding(seconds: 60)) == 3)
        #expect(budget.take(at: start.adding(seconds: 119)) == 0)
        #expect(budget.take(at: start.adding(seconds: 119)) == nil)
        // A clock that was set back silences nothing.
        #expect(budget.take(at: start.adding(seconds: -600)) == 1)
    }
}
