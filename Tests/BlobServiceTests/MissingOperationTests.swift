import NIOHTTP1
import Testing

@testable import BlobService

/// What the Blob service API has and this server does not answers the API's own error, with the same code in header
/// and body, and leaves what is stored as it was.
@Suite struct MissingOperationTests {
    struct Sent: Sendable, CustomTestStringConvertible {
        let method: HTTPMethod
        let target: String
        var headers: [(String, String)] = []
        var body = ""
        let status: Int
        var testDescription: String { "\(method) \(target)" }
    }

    private static let notImplemented = [
        Sent(method: .GET, target: "/?comp=blobs&where=a%3D%27b%27", status: 501),
        Sent(method: .GET, target: "/ccc?restype=container&comp=blobs&where=a%3D%27b%27", status: 501),
        Sent(
            method: .PUT, target: "/ddd?restype=container&comp=rename",
            headers: [("x-ms-source-container-name", "ccc")], status: 501),
        Sent(method: .POST, target: "/?comp=batch", body: "--batch--", status: 501),
        Sent(method: .POST, target: "/ccc?restype=container&comp=batch", body: "--batch--", status: 501),
        Sent(
            method: .PUT, target: "/ccc/a?comp=expiry",
            headers: [("x-ms-expiry-option", "RelativeToNow"), ("x-ms-expiry-time", "1000")], status: 501),
        Sent(
            method: .POST, target: "/ccc/a?comp=query",
            body: "<QueryRequest><QueryType>SQL</QueryType><Expression>SELECT * FROM BlobStorage</Expression>"
                + "</QueryRequest>", status: 501),
        Sent(
            method: .PUT, target: "/ccc/b?comp=incrementalcopy",
            headers: [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")], status: 501),
        Sent(method: .PUT, target: "/ccc/a?comp=tier", headers: [("x-ms-access-tier", "Archive")], status: 501),
    ]
    private static let notEnabled = [
        Sent(
            method: .PUT, target: "/ddd?restype=container&comp=undelete",
            headers: [("x-ms-deleted-container-name", "ccc"), ("x-ms-deleted-container-version", "1")], status: 409),
        Sent(method: .PUT, target: "/ccc/a?comp=undelete", status: 409),
        Sent(
            method: .PUT, target: "/ccc/a?comp=immutabilityPolicies",
            headers: [("x-ms-immutability-policy-until-date", "Fri, 01 Jan 2100 00:00:00 GMT")], status: 409),
        Sent(method: .DELETE, target: "/ccc/a?comp=immutabilityPolicies", status: 409),
        Sent(
            method: .PUT, target: "/ccc/a?comp=legalhold", headers: [("x-ms-legal-hold", "true")], status: 409),
        Sent(method: .GET, target: "/ccc/a?versionid=2026-01-01T00:00:00.0000000Z", status: 409),
    ]

    @Test(arguments: notImplemented + notEnabled)
    func answersTheErrorOfTheAPI(request: Sent) async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "kept")
        let answer = await blobs.send(
            request.method, request.target, request.headers, body: Array(request.body.utf8))
        #expect(answer.status == request.status)
        #expect(answer.code == (request.status == 501 ? "NotImplemented" : "FeatureNotEnabledForAccount"))
        #expect(try answer.xml()["Code"]?.text == answer.code)
        #expect(await blobs.send(.GET, "/ccc/a").text == "kept")
        #expect(await blobs.send(.GET, "/ddd?restype=container").status == 404)
    }
}
