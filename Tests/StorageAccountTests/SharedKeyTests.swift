import CofferCore
import Crypto
import HTTPEdge
import NIOHTTP1
import TestSupport
import Testing

@testable import StorageAccount

/// Requests of real clients are let in; any change of what they signed is not.
struct SharedKeyTests {
    @Test(arguments: goldenRequests) func clientsAreRecognized(_ golden: GoldenRequest) async throws {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        let policy = StoredAccessPolicy(
            start: nil, expiry: Timestamp(iso8601: "2026-11-23T00:00:00Z"), permissions: "rl")
        let caller = try await fixture.authenticate(
            fixture.request(golden.method, golden.url, golden.headers),
            policies: Policies(known: ["music/readers": policy]))
        switch caller {
        case .accountKey: #expect(golden.permissions == nil)
        case .sharedAccess(let grant):
            let letters = try #require(golden.permissions.map { String($0) })
            #expect(grant.permissions == LetterSet(stringLiteral: letters))
        default: Issue.record("let in as \(caller)")
        }
    }

    @Test(arguments: goldenRequests.filter { $0.permissions == nil })
    func everySignedPartCounts(_ golden: GoldenRequest) async throws {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        func refused(_ method: HTTPMethod, _ url: String, _ headers: [(String, String)], _ what: String) async {
            let outcome = await fixture.outcome(fixture.request(method, url, headers))
            #expect(outcome == "403 AuthenticationFailed", "\(what)")
        }
        let (method, url, headers) = (golden.method, golden.url, golden.headers)
        await refused(method == .GET ? .PUT : .GET, url, headers, "another verb")
        await refused(method, url + (url.contains("?") ? "&" : "?") + "timeout=1", headers, "another parameter")
        await refused(method, url.replacing("windows.net/", with: "windows.net/x"), headers, "another path")
        await refused(method, url, headers + [("x-ms-meta-more", "1")], "another header")
        await refused(method, url, headers + [("Range", "bytes=0-1")], "a range")
        for index in headers.indices where headers[index].0 != "Authorization" {
            var changed = headers
            // Still a date, where it is one.
            changed[index].1 =
                headers[index].0 == "x-ms-date" ? "Sun, 22 Nov 2026 00:00:01 GMT" : headers[index].1 + "1"
            await refused(method, url, changed, headers[index].0)
            // An empty body signs like no body.
            guard headers[index] != ("Content-Length", "0") else { continue }
            changed = headers
            changed.remove(at: index)
            await refused(method, url, changed, "without \(headers[index].0)")
        }
        var other = headers
        other[other.count - 1].1 = other[other.count - 1].1.replacing("goldenaccount:", with: "otheraccount:")
        await refused(method, url, other, "another account")
        // The order in which headers come, and the case of their names, say nothing.
        let shuffled = headers.reversed().map { ($0.0.uppercased(), $0.0 == "Authorization" ? $0.1 : " \($0.1) ") }
        #expect(await fixture.outcome(fixture.request(method, url, shuffled)) == "accountKey")
    }

    /// The layouts of Microsoft's "Authorize with Shared Key", spelled out.
    @Test func layouts() throws {
        let headers: [(String, String)] = [
            ("Content-Type", "text/plain"), ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"), ("Date", "ignored"),
            ("x-ms-version", "2020-10-02"), ("Content-Length", "0"), ("X-Ms-Meta-M", "  v  "), ("If-Match", "\"e\""),
            ("Content-MD5", "md5"), ("Content-Encoding", "gzip"), ("Content-Language", "en"), ("Range", "bytes=0-1"),
            ("If-Modified-Since", "a"), ("If-None-Match", "b"), ("If-Unmodified-Since", "c"),
        ]
        let fixture = try Fixture()
        let request = fixture.request(
            .PUT, "https://acct.blob.core.windows.net/c/b%20c?restype=x&Comp=Y%20Z&a=2&a=1&comp=q&flag", headers)
        func text(_ scheme: SharedKeyString.Scheme, _ service: StorageService = .blob) -> String {
            let string = SharedKeyString(request: request, account: "acct", service: service)
            return String(
                decoding: string.bytes(scheme, order: .bytes, query: request.query), as: UTF8.self)
        }
        let canonical = "x-ms-date:Sun, 22 Nov 2026 00:00:00 GMT\nx-ms-meta-m:v\nx-ms-version:2020-10-02\n"
        #expect(
            text(.sharedKey)
                == "PUT\ngzip\nen\n\nmd5\ntext/plain\n\na\n\"e\"\nb\nc\nbytes=0-1\n" + canonical
                + "/acct/c/b%20c\na:1,2\ncomp:Y Z,q\nflag:\nrestype:x")
        #expect(text(.sharedKeyLite) == "PUT\nmd5\ntext/plain\n\n" + canonical + "/acct/c/b%20c?comp=Y Z")
        #expect(
            text(.sharedKey, .table) == "PUT\nmd5\ntext/plain\nSun, 22 Nov 2026 00:00:00 GMT\n/acct/c/b%20c?comp=Y Z")
        #expect(text(.sharedKeyLite, .table) == "Sun, 22 Nov 2026 00:00:00 GMT\n/acct/c/b%20c?comp=Y Z")
    }

    /// Clients differ in how they sort headers with hyphens; both orders are the same headers.
    @Test(arguments: SharedKeyString.HeaderOrder.allCases) func bothHeaderOrders(_ order: SharedKeyString.HeaderOrder)
        async throws
    {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        var headers: [(String, String)] = [
            ("x-ms-meta-ab", "1"), ("x-ms-meta-a-c", "2"), ("x-ms-meta-aa", "3"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"), ("x-ms-version", "2026-04-06"),
        ]
        let url = "https://goldenaccount.blob.core.windows.net/c/b"
        let unsigned = fixture.request(.PUT, url, headers)
        let bytes = SharedKeyString(request: unsigned, account: "goldenaccount", service: .blob)
            .bytes(.sharedKey, order: order, query: [])
        let signature = Signatures.sign(String(decoding: bytes, as: UTF8.self), with: SymmetricKey(data: Array(0..<64)))
        headers.append(("Authorization", "SharedKey goldenaccount:\(signature)"))
        #expect(await fixture.outcome(fixture.request(.PUT, url, headers)) == "accountKey")
    }

    @Test func datesOutsideAQuarterOfAnHourAreRefused() async throws {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        let golden = goldenRequests[0]
        let request = fixture.request(golden.method, golden.url, golden.headers)
        fixture.clock.advance(seconds: 900)
        #expect(await fixture.outcome(request) == "accountKey")
        fixture.clock.advance(seconds: 1)
        #expect(await fixture.outcome(request) == "403 AuthenticationFailed")
        fixture.clock.advance(seconds: -1_801)
        #expect(await fixture.outcome(request) == "accountKey")
        fixture.clock.advance(seconds: -1)
        #expect(await fixture.outcome(request) == "403 AuthenticationFailed")
    }

    @Test func credentialsOfAnotherShape() async throws {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        let url = "https://goldenaccount.blob.core.windows.net/c/b"
        for value in [
            "", "SharedKey", "SharedKey x", "SharedKey  a:b c", "SharedKeyX goldenaccount:AAAA", "Basic abc", "Bearer",
        ] {
            let outcome = await fixture.outcome(fixture.request(.GET, url, [("Authorization", value)]))
            #expect(outcome == "400 InvalidAuthenticationInfo", "\(value)")
        }
    }

    @Test func anAnswerNeverRepeatsACustomersKey() async throws {
        let fixture = try Fixture()
        try await fixture.createGoldenAccount()
        let headers = [
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"), ("x-ms-encryption-key", "c2VjcmV0"),
            ("Authorization", "SharedKey goldenaccount:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ]
        let request = fixture.request(.GET, "https://goldenaccount.blob.core.windows.net/c/b", headers)
        await #expect(throws: StorageError.self) { try await fixture.authenticate(request) }
        do throws(StorageError) {
            _ = try await fixture.authenticate(request)
        } catch {
            #expect(!"\(error)".contains("c2VjcmV0"))
        }
    }
}
