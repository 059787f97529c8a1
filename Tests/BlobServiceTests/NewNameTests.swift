import CofferCore
import NIOHTTP1
import StorageAccount
import Synchronization
import TestSupport
import Testing

@testable import BlobService

/// Where new names are likely, a small blob is put without a look for what stands there; the answers are the same.
@Suite struct NewNameTests {
    private let isNew = [("If-None-Match", "*")]

    /// A container with blob `a`, and so many new names after it that the next is presumed to be one.
    private func presuming(_ headers: [(String, String)] = []) async throws -> Blobs {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old", headers)
        try await presume(blobs)
        return blobs
    }

    private func presume(_ blobs: Blobs, _ prefix: String = "new") async throws {
        for number in 0..<8 { #expect(await blobs.put("\(prefix)\(number)", "").status == 201) }
        try #require(blobs.service.newNames.areLikely)
    }

    private func content(_ blobs: Blobs, _ target: String = "/ccc/a") async -> String {
        String(decoding: await blobs.send(.GET, target).body, as: UTF8.self)
    }

    /// How often the row of `name` is read while `body` runs.
    private func reads(of name: String, _ blobs: Blobs, _ body: () async -> Void) async -> Int {
        let row = String(decoding: BlobKeys.base(name), as: UTF8.self)
        let count = Mutex(0)
        // Never due: it only counts.
        blobs.faults.interrupt(
            where: { call in
                if call.reads.contains(where: { $0.hasSuffix(row) }) { count.withLock { $0 += 1 } }
                return false
            }, happens: { _ in })
        await body()
        return count.withLock { $0 }
    }

    @Test func aNewNameIsNotLookedFor() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await reads(of: "x", blobs) { await blobs.put("x", "1") } == 1)
        try await presume(blobs)
        #expect(await reads(of: "y", blobs) { await blobs.put("y", "2", isNew) } == 0)
        #expect(await content(blobs, "/ccc/y") == "2")
    }

    @Test func aKnownNameIsReplacedAndEndsTheGuessing() async throws {
        let blobs = try await presuming()
        #expect(await blobs.put("a", "new").status == 201)
        #expect(await content(blobs) == "new")
        #expect(!blobs.service.newNames.areLikely)
        #expect(await reads(of: "y", blobs) { await blobs.put("y", "") } == 1)
    }

    @Test func aKnownNameIsNotMadeAnew() async throws {
        let blobs = try await presuming()
        let answer = await blobs.put("a", "new", isNew)
        #expect(answer.status == 409)
        #expect(answer.headers.first(name: "x-ms-error-code") == "BlobAlreadyExists")
        #expect(await content(blobs) == "old")
    }

    @Test func aLeaseIsKept() async throws {
        let blobs = try await presuming()
        let lease = [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1")]
        #expect(await blobs.send(.PUT, "/ccc/a?comp=lease", lease).status == 201)
        let answer = await blobs.put("a", "new")
        #expect(answer.status == 412)
        #expect(answer.headers.first(name: "x-ms-error-code") == "LeaseIdMissing")
        #expect(await content(blobs) == "old")
    }

    @Test func whoMayOnlyCreateDoesNotOverwrite() async throws {
        let blobs = try await presuming()
        blobs.withGrant("rc", .container("ccc"))
        let answer = await blobs.put("a", "new")
        #expect(answer.status == 403)
        #expect(answer.headers.first(name: "x-ms-error-code") == "UnauthorizedBlobOverwrite")
        #expect(await content(blobs) == "old")
        try await presume(blobs, "more")
        #expect(await blobs.put("y", "new").status == 201)
    }

    /// What nothing can meet where there is no blob is asked of the blob that is there.
    @Test func conditionsOfABlobAreAskedOfIt() async throws {
        let blobs = try await presuming([("x-ms-tags", "state=open")])
        let etag = try #require(await blobs.send(.HEAD, "/ccc/a").headers.first(name: "ETag"))
        for headers in [[("If-Match", "\"0x1\"")], [("x-ms-if-tags", "\"state\" = 'shut'")]] {
            #expect(await blobs.put("a", "new", headers).status == 412)
        }
        #expect(await blobs.put("a", "one", [("x-ms-if-tags", "\"state\" = 'open'")]).status == 201)
        #expect(await blobs.put("a", "two", [("If-Match", etag)]).status == 412)
        #expect(await content(blobs) == "one")
        #expect(await blobs.put("y", "new", [("If-Match", etag)]).status == 412)
    }

    @Test func aTimeIsAskedOfABlobThatIsThere() async throws {
        let blobs = try await presuming()
        let answer = await blobs.put("a", "new", [("If-Unmodified-Since", "Mon, 01 Jan 2001 00:00:00 GMT")])
        #expect(answer.status == 412)
        #expect(await content(blobs) == "old")
    }

    @Test func snapshotsStayAndBlocksGo() async throws {
        let blobs = try await presuming()
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=AAAA", body: [1]).status == 201)
        let taken = await blobs.send(.PUT, "/ccc/a?comp=snapshot")
        let snapshot = try #require(taken.headers.first(name: "x-ms-snapshot"))
        #expect(await blobs.put("a", "new").status == 201)
        #expect(await content(blobs, "/ccc/a?snapshot=\(snapshot)") == "old")
        let list = await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=all")
        #expect(!String(decoding: list.body, as: UTF8.self).contains("AAAA"))
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 409)
    }

    /// Their bodies would be wasted where they are refused.
    @Test func largeBodiesAreNotTakenOnAGuess() async throws {
        let blobs = try await presuming()
        let large = [UInt8](repeating: 7, count: NewNames.bodyBytes + 1)
        let reads = await reads(of: "y", blobs) {
            #expect(await blobs.send(.PUT, "/ccc/y", [("x-ms-blob-type", "BlockBlob")], body: large).status == 201)
        }
        #expect(reads == 1)
    }
}
