import CofferCore
import Foundation
import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService

/// A blob that changes while the body of what replaces it is still coming: the commit sees it as it is then.
@Suite struct ReplacementTests {
    private let lease = "01234567-89ab-4cde-8f01-23456789abcd"

    private func replace(
        _ blobs: Blobs, _ headers: [(String, String)] = [], _ meanwhile: @escaping @Sendable () async -> Void
    ) async -> Answer {
        await blobs.send(
            .PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")] + headers, body: Array("new".utf8), meanwhile: meanwhile)
    }

    private func lease(_ blobs: Blobs, _ action: String) async -> Int {
        let more =
            action == "acquire"
            ? [("x-ms-lease-duration", "-1"), ("x-ms-proposed-lease-id", lease)] : [("x-ms-lease-id", lease)]
        return await blobs.send(.PUT, "/ccc/a?comp=lease", [("x-ms-lease-action", action)] + more).status
    }

    private func content(_ blobs: Blobs, _ target: String = "/ccc/a") async -> String {
        String(decoding: await blobs.send(.GET, target).body, as: UTF8.self)
    }

    @Test func aLeaseTakenMeanwhileRefuses() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        let answer = await replace(blobs) { #expect(await lease(blobs, "acquire") == 201) }
        #expect(answer.status == 412)
        #expect(answer.headers.first(name: "x-ms-error-code") == "LeaseIdMissing")
        #expect(await content(blobs) == "old")
    }

    @Test func aLeaseReleasedMeanwhileRefuses() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        #expect(await lease(blobs, "acquire") == 201)
        let answer = await replace(blobs, [("x-ms-lease-id", lease)]) {
            #expect(await lease(blobs, "release") == 200)
        }
        #expect(answer.status == 412, "a lease that is gone is no lease to write under")
        #expect(await content(blobs) == "old")
    }

    @Test func aLeaseChangedMeanwhileIsKept() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        #expect(await lease(blobs, "acquire") == 201)
        let answer = await replace(blobs, [("x-ms-lease-id", lease)]) {
            #expect(await lease(blobs, "renew") == 200)
        }
        #expect(answer.status == 201)
        #expect(await blobs.send(.HEAD, "/ccc/a").headers.first(name: "x-ms-lease-state") == "leased")
    }

    @Test func aSnapshotTakenMeanwhileStays() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        let answer = await replace(blobs) {
            #expect(await blobs.send(.PUT, "/ccc/a?comp=snapshot").status == 201)
        }
        #expect(answer.status == 201)
        let refused = await blobs.send(.DELETE, "/ccc/a")
        #expect(refused.headers.first(name: "x-ms-error-code") == "SnapshotsPresent")
        #expect(await content(blobs) == "new")
    }

    @Test func blocksStagedMeanwhileGo() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        let answer = await replace(blobs) {
            #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=AAAA", body: [1]).status == 201)
        }
        #expect(answer.status == 201)
        let list = await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=all")
        #expect(!String(decoding: list.body, as: UTF8.self).contains("AAAA"))
    }

    @Test func aBlobMadeMeanwhileMeetsTheCondition() async throws {
        let blobs = try await Blobs.withContainer()
        let answer = await replace(blobs, [("If-None-Match", "*")]) {
            #expect(await blobs.put("a", "first").status == 201)
        }
        #expect(answer.status == 409)
        #expect(answer.headers.first(name: "x-ms-error-code") == "BlobAlreadyExists")
        #expect(await content(blobs) == "first")
    }

    @Test func tagsChangedMeanwhileMeetTheCondition() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old", [("x-ms-tags", "state=open")])
        let answer = await replace(blobs, [("x-ms-if-tags", "\"state\" = 'open'")]) {
            await blobs.put("a", "other", [("x-ms-tags", "state=shut")])
        }
        #expect(answer.status == 412)
        #expect(await content(blobs) == "other")
    }

    @Test func aBlobDeletedMeanwhileIsMadeAnew() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "old")
        let answer = await replace(blobs) { #expect(await blobs.send(.DELETE, "/ccc/a").status == 202) }
        #expect(answer.status == 201)
        #expect(await content(blobs) == "new")
    }

    /// Rows of many extents are not held for the time of an upload.
    @Test func aBlobOfManyBlocksIsReplaced() async throws {
        let blobs = try await Blobs.withContainer()
        var list = "<BlockList>"
        for number in 0..<70 {
            let id = Array(String(format: "%04d", number).utf8).base64
            let body = [UInt8](repeating: 1, count: 17_000)
            #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=\(id)", body: body).status == 201)
            list += "<Latest>\(id)</Latest>"
        }
        list += "</BlockList>"
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: Array(list.utf8)).status == 201)
        #expect(await blobs.send(.GET, "/ccc/a", [("x-ms-range", "bytes=17000-17001")]).body == [1, 1])
        #expect(await replace(blobs) {}.status == 201)
        #expect(await content(blobs) == "new")
    }
}

/// Where small bodies lie: a blob's only one in its row, one of many in an extent, or the row would grow with them.
@Suite struct SmallPartTests {
    @Test func partsDoNotLieInTheRow() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("whole", "small")
        #expect(try await blobs.extentCount == 0)

        #expect(await blobs.send(.PUT, "/ccc/log", [("x-ms-blob-type", "AppendBlob")]).status == 201)
        for _ in 0..<3 {
            #expect(await blobs.send(.PUT, "/ccc/log?comp=appendblock", body: Array("line\n".utf8)).status == 201)
        }
        #expect(try await blobs.extentCount == 3)
        #expect(String(decoding: await blobs.send(.GET, "/ccc/log").body, as: UTF8.self) == "line\nline\nline\n")

        #expect(await blobs.send(.PUT, "/ccc/list?comp=block&blockid=AAAA", body: [1]).status == 201)
        #expect(try await blobs.extentCount == 4)

        let disk = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "1024")]
        #expect(await blobs.send(.PUT, "/ccc/disk", disk).status == 201)
        let page = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")]
        let written = await blobs.send(.PUT, "/ccc/disk?comp=page", page, body: [UInt8](repeating: 7, count: 512))
        #expect(written.status == 201)
        #expect(try await blobs.extentCount == 5)
    }
}

/// What changes between a request's reading of it and its commit.
@Suite struct LostRaceTests {
    /// Too long for its row: it lies in an extent.
    private func long(_ letter: String) -> [UInt8] { Array(String(repeating: letter, count: 200_000).utf8) }

    /// After the row of `key` was read next, blob `a` gets other content.
    private func replaceAfterReading(_ key: [UInt8], _ blobs: Blobs) {
        let text = String(decoding: key, as: UTF8.self)
        let new = long("n")
        blobs.faults.interrupt(where: { $0.reads.contains { $0.hasSuffix(text) } }) { _ in
            let answer = await blobs.send(.PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")], body: new)
            #expect(answer.status == 201)
        }
    }

    @Test func aSnapshotOfABlobThatIsReplacedMeanwhileHoldsTheNewContent() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await blobs.send(.PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")], body: long("o"))
        replaceAfterReading(BlobKeys.base("a"), blobs)
        let answer = await blobs.send(.PUT, "/ccc/a?comp=snapshot")
        #expect(answer.status == 201)
        let snapshot = try #require(answer.headers.first(name: "x-ms-snapshot"))
        #expect(await blobs.send(.GET, "/ccc/a?snapshot=\(snapshot)").body == long("n"))
    }

    @Test func aCopyOfABlobThatIsReplacedMeanwhileHoldsTheNewContent() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await blobs.send(.PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")], body: long("o"))
        replaceAfterReading(BlobKeys.base("a"), blobs)
        let source = ("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")
        #expect(await blobs.send(.PUT, "/ccc/b", [source]).status == 202)
        #expect(await blobs.send(.GET, "/ccc/b").body == long("n"))
    }

    @Test func aBlockPutAnewWhileItsListIsCommittedIsTheNewOne() async throws {
        let blobs = try await Blobs.withContainer()
        let block = "/ccc/a?comp=block&blockid=AAAA"
        #expect(await blobs.send(.PUT, block, body: long("o")).status == 201)
        let new = long("n")
        let blocks = String(decoding: BlobKeys.blocks("a").from, as: UTF8.self)
        blobs.faults.interrupt(where: { $0.reads.count == 1 && $0.reads[0].hasSuffix(blocks) }) { _ in
            #expect(await blobs.send(.PUT, block, body: new).status == 201)
        }
        let list = "<BlockList><Latest>AAAA</Latest></BlockList>"
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: Array(list.utf8)).status == 201)
        #expect(await blobs.send(.GET, "/ccc/a").body == new)
    }
}
