import NIOHTTP1
import StorageAccount
import StorageAccount
import TestSupport
import Testing

@testable import BlobService

@Suite struct ConditionTests {
    @Test(arguments: [
        ("\"a\"='1'", true), ("a = '1'", true), ("a='2'", false), ("a<>'2'", true), ("b='x y' AND a='1'", true),
        ("a='2' OR b='x y'", true), ("a='2' OR (a='1' AND b<'x')", false), ("a>='1' AND a<'10'", true),
        ("none<>'1'", false),
    ])
    func tagExpressions(text: String, holds: Bool) throws {
        #expect(try TagCondition(text).holds(for: [("a", "1"), ("b", "x y")]) == holds)
    }
    @Test(arguments: [
        "", "a", "a=", "a='1", "a='1' AND", "(a='1'", "a='1')", "a='1' b='2'", "a ! '1'", "'1'='1'",
        String(repeating: "(", count: 2_000),
    ])
    func malformedTagExpressions(text: String) {
        #expect(throws: (any Error).self) { try TagCondition(text) }
    }
    @Test func randomTagExpressions() {
        let randomness = SeededRandomness(4)
        let parts = ["a", "'1'", "\"b\"", "=", "<>", "<", ">=", "(", ")", "AND", "or", " ", "'", "\"", "é"]
        for _ in 0..<5_000 {
            let text = (0..<randomness.number(0..<12)).map { _ in parts[randomness.number(0..<parts.count)] }.joined()
            _ = try? TagCondition(text).holds(for: [("a", "1")])
        }
    }

    @Test func tagsOfABlob() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "text", [("x-ms-tags", "state=open")])
        let open = [("x-ms-if-tags", "state='open'")]
        let closed = [("x-ms-if-tags", "state='closed'")]
        #expect(await blobs.send(.GET, "/ccc/a", open).status == 200)
        #expect(await blobs.send(.GET, "/ccc/a", closed).code == "ConditionNotMet")
        #expect(await blobs.send(.DELETE, "/ccc/a", closed).status == 412)
        // A snapshot's deletion asks the snapshot's tags, not the base blob's.
        let snapshot = await blobs.send(.PUT, "/ccc/a?comp=snapshot").header("x-ms-snapshot") ?? ""
        let tags = "<Tags><TagSet><Tag><Key>state</Key><Value>closed</Value></Tag></TagSet></Tags>"
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tags", body: Array(tags.utf8)).status == 204)
        #expect(await blobs.send(.DELETE, "/ccc/a?snapshot=\(snapshot)", closed).status == 412)
        #expect(await blobs.send(.DELETE, "/ccc/a?snapshot=\(snapshot)", open).status == 202)
        await blobs.put("a", "text", [("x-ms-tags", "state=open")])
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")]
        let refused = await blobs.send(.PUT, "/ccc/b", source + [("x-ms-source-if-tags", "state='closed'")])
        #expect(refused.code == "SourceConditionNotMet")
        #expect(await blobs.send(.PUT, "/ccc/b", source + [("x-ms-source-if-tags", "state='open'")]).status == 202)
        #expect(await blobs.put("a", "new", closed).status == 412)
        #expect(await blobs.put("fresh", "new", open).status == 412, "nothing there meets no condition")
        #expect(await blobs.send(.GET, "/ccc/a", [("x-ms-if-tags", "state=")]).code == "InvalidHeaderValue")
        #expect(await blobs.send(.GET, "/ccc?restype=container", open).code == "UnsupportedHeader")
        blobs.withGrant("r", .container("ccc"))
        #expect(await blobs.send(.GET, "/ccc/a", open).status == 403, "to ask for tags is to read them")
        blobs.withGrant("rt", .container("ccc"))
        #expect(await blobs.send(.GET, "/ccc/a", open).status == 200)
    }

    @Test func leaseHolderWritesOver() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "one")
        let id = "00000000-1111-2222-3333-444444444444"
        let lease = [
            ("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1"), ("x-ms-proposed-lease-id", id),
        ]
        #expect(await blobs.send(.PUT, "/ccc/a?comp=lease", lease).status == 201)
        let create = [("If-None-Match", "*")]
        #expect(await blobs.put("a", "two", create).code == "BlobAlreadyExists")
        #expect(await blobs.put("a", "two", create + [("x-ms-lease-id", id.replacing("4", with: "5"))]).status == 412)
        #expect(await blobs.put("a", "two", create + [("x-ms-lease-id", id)]).status == 201)
    }

    @Test func tierConditionsOfDelete() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "one", [("x-ms-access-tier", "Cool")])
        let before = "Mon, 01 Jan 2001 00:00:00 GMT"
        let after = "Fri, 01 Jan 2100 00:00:00 GMT"
        func delete(_ name: String, _ time: String) async -> Int {
            await blobs.send(.DELETE, "/ccc/a", [("x-ms-access-tier-if-" + name, time)]).status
        }
        #expect(await delete("modified-since", after) == 412)
        #expect(await delete("unmodified-since", before) == 412)
        #expect(await delete("modified-since", before) == 202)
    }

    @Test func blockListUnderOwnKey() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=MQ==", customerKey(), body: [1, 2]).status == 201)
        let list = Array("<BlockList><Latest>MQ==</Latest></BlockList>".utf8)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", customerKey(), body: list).status == 201)
        let told = await blobs.send(.GET, "/ccc/a?comp=blocklist")
        #expect(told.status == 200 && told.text.contains("<Name>MQ==</Name><Size>2</Size>"))
    }

    @Test func sourceWithoutAuthorization() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "text")
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")]
        #expect(await blobs.send(.PUT, "/ccc/b", source).status == 202, "Copy Blob asks as the request does")
        blobs.accounts.sourcesAreAnonymous()
        let refused = await blobs.send(.PUT, "/ccc/c", source + [("x-ms-blob-type", "BlockBlob")])
        #expect(refused.code == "CannotVerifyCopySource" && refused.status == 401)
        #expect(refused.header("x-ms-copy-source-status-code") == "401")
        #expect(refused.header("x-ms-copy-source-error-code") == "NoAuthenticationInformation")
        #expect(await blobs.send(.PUT, "/ccc/d", source + [("x-ms-requires-sync", "true")]).status == 401)
        #expect(await blobs.send(.PUT, "/ccc/e", source).status == 202)
    }
}
