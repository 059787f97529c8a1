import CofferCore
import EncryptionAtRest
import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService

@Suite struct BlockListTests {
    private func list(_ entries: [(String, String)]) -> [UInt8] {
        Array(("<BlockList>" + entries.map { "<\($0.0)>\($0.1)</\($0.0)>" }.joined() + "</BlockList>").utf8)
    }
    private func id(_ number: Int) -> String { Array("b\(number)".utf8).base64 }
    private func stage(_ blobs: Blobs, _ number: Int, _ text: String, _ headers: [(String, String)] = []) async
        -> Answer
    {
        await blobs.send(.PUT, "/ccc/a?comp=block&blockid=\(id(number))", headers, body: Array(text.utf8))
    }

    @Test func blocksBecomeABlob() async throws {
        let blobs = try await Blobs.withContainer()
        for number in 1...3 {
            let answer = await stage(blobs, number, "block\(number),")
            #expect(answer.status == 201 && answer.header("x-ms-content-crc64") != nil)
        }
        #expect(await blobs.send(.GET, "/ccc/a").code == "BlobNotFound")
        let plain = try await blobs.send(.GET, "/ccc?restype=container&comp=list").xml()
        #expect(plain["Blobs"]?.children.isEmpty == true)
        let uncommitted = try await blobs.send(.GET, "/ccc?restype=container&comp=list&include=uncommittedblobs").xml()
        #expect(uncommitted["Blobs"]?.children.map { $0["Name"]?.text } == ["a"])
        let before = try await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=all").xml()
        #expect(before["UncommittedBlocks"]?.children.map { $0["Size"]?.text } == ["7", "7", "7"])

        let commit = await blobs.send(
            .PUT, "/ccc/a?comp=blocklist", [("x-ms-blob-content-type", "text/plain"), ("x-ms-meta-k", "v")],
            body: list([("Latest", id(2)), ("Uncommitted", id(1)), ("Latest", id(2))]))
        #expect(commit.status == 201)
        let get = await blobs.send(.GET, "/ccc/a")
        #expect(
            get.text == "block2,block1,block2," && get.header("Content-Type") == "text/plain"
                && get.header("x-ms-meta-k") == "v")
        let after = try await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=all").xml()
        #expect(after["CommittedBlocks"]?.children.map { $0["Name"]?.text } == [id(2), id(1), id(2)])
        #expect(after["UncommittedBlocks"]?.children.isEmpty == true, "what was not named is gone")

        _ = await stage(blobs, 1, "newer1,")
        _ = await stage(blobs, 4, "block4,")
        #expect(await blobs.send(.GET, "/ccc/a").text == "block2,block1,block2,")
        let mixed = await blobs.send(
            .PUT, "/ccc/a?comp=blocklist",
            body: list([("Committed", id(1)), ("Latest", id(1)), ("Latest", id(4)), ("Committed", id(2))]))
        #expect(mixed.status == 201)
        #expect(await blobs.send(.GET, "/ccc/a").text == "block1,newer1,block4,block2,")
        #expect(await blobs.send(.GET, "/ccc/a", [("Range", "bytes=5-15")]).text == "1,newer1,bl")
    }

    @Test func refusals() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await stage(blobs, 1, "x")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Latest", id(2))])).code == "InvalidBlockList")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Committed", id(1))])).code
                == "InvalidBlockList")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Newest", id(1))])).code
                == "InvalidXmlDocument")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: Array("<BlockList>".utf8)).code
                == "InvalidXmlDocument")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=***", body: [1]).code == "InvalidQueryParameterValue")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block", body: [1]).code == "MissingRequiredQueryParameter")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=block&blockid=\(Array("longer".utf8).base64)", body: [1]).code
                == "InvalidBlobOrBlock")
        let many = list((0...50_000).map { _ in ("Latest", id(1)) })
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: many).code == "BlockCountExceedsLimit")
        #expect(await blobs.send(.GET, "/ccc/a?comp=blocklist").code == "BlobNotFound")
        #expect(await blobs.send(.DELETE, "/ccc/a").code == "BlobNotFound")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([])).status == 201)
        #expect(await blobs.send(.GET, "/ccc/a").body.isEmpty)
    }

    @Test func putBlobDropsStagedBlocks() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await stage(blobs, 1, "x")
        await blobs.put("a", "whole")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Latest", id(1))])).code == "InvalidBlockList")
    }

    @Test func stagedBlocksLiveAWeek() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await stage(blobs, 1, String(repeating: "x", count: 40_000))
        blobs.clock.advance(seconds: 7 * 86_400 + 1)
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Latest", id(1))])).code == "InvalidBlockList")
        let listed = try await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=uncommitted").xml()
        #expect(listed["UncommittedBlocks"]?.children.isEmpty == true)
        try await blobs.service.collectGarbage(in: blobs.accounts.account(named: "acct"))
        #expect(await blobs.send(.GET, "/ccc/a?comp=blocklist&blocklisttype=uncommitted").code == "BlobNotFound")
        #expect(try await blobs.rows("ccc") == 0)
    }

    @Test func whatStaysIsCounted() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "committed")
        for number in 1...3 { _ = await stage(blobs, number, "old") }
        blobs.clock.advance(seconds: 4 * 86_400)
        for number in 3...4 { _ = await stage(blobs, number, "new") }
        #expect(try await staged(blobs)?.count == 4)
        blobs.clock.advance(seconds: 4 * 86_400)
        try await blobs.service.collectGarbage(in: blobs.accounts.account(named: "acct"))
        #expect(try await staged(blobs) == StagedBlocks(count: 2, idBytes: 2))
        blobs.clock.advance(seconds: 4 * 86_400)
        try await blobs.service.collectGarbage(in: blobs.accounts.account(named: "acct"))
        #expect(try await staged(blobs) == nil)
        #expect(await blobs.send(.GET, "/ccc/a").text == "committed")
    }

    @Test func namesThatOnlyLookTheSameAreCountedApart() async throws {
        let blobs = try await Blobs.withContainer()
        let (composed, decomposed) = ("\u{e9}", "e\u{301}")
        func stage(_ name: String, _ number: Int) async {
            let path = "/ccc/\(percentEncoded(name, keeping: ""))?comp=block&blockid=\(id(number))"
            #expect(await blobs.send(.PUT, path, body: [1]).status == 201)
        }
        for number in 1...3 { await stage(decomposed, number) }
        for number in 1...2 { await stage(composed, number) }
        blobs.clock.advance(seconds: 4 * 86_400)
        for number in 3...4 { await stage(composed, number) }
        blobs.clock.advance(seconds: 4 * 86_400)
        try await blobs.service.collectGarbage(in: blobs.accounts.account(named: "acct"))
        #expect(try await staged(blobs, composed) == StagedBlocks(count: 2, idBytes: 2))
        #expect(try await staged(blobs, decomposed) == nil)
    }

    /// What is written of the blocks of a name.
    private func staged(_ blobs: Blobs, _ name: String = "a") async throws -> StagedBlocks? {
        let (volume, partition) = try await blobs.volume("ccc")
        return try await volume.get(partition, [BlobKeys.stagedBlocks(name)])[0].map {
            try StagedBlocks(decoding: $0.visible)
        }
    }

    @Test func aBlobHasSoManyUncommittedBlocks() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await stage(blobs, 1, "one")
        // As if the others were there.
        let (volume, partition) = try await blobs.volume("ccc")
        _ = try await volume.commit(
            partition, checks: [],
            writes: [
                .put(
                    BlobKeys.stagedBlocks("a"), visible: StagedBlocks(count: 99_999, idBytes: 2).encoded(),
                    sealed: .none)
            ])
        #expect(await stage(blobs, 2, "two").status == 201)
        let extents = try await blobs.extentCount
        let refused = await stage(blobs, 3, String(repeating: "x", count: 40_000))
        #expect(refused.status == 409 && refused.code == "BlockCountExceedsLimit")
        #expect(refused.text.contains("uncommitted block count") && refused.text.contains("100,000"))
        #expect(try await blobs.extentCount == extents)
        // One that is there may be put again, and another blob has its own limit.
        #expect(await stage(blobs, 2, "two!").status == 201)
        #expect(await blobs.send(.PUT, "/ccc/b?comp=block&blockid=\(id(3))", body: [1]).status == 201)
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Latest", id(1)), ("Latest", id(2))])).status
                == 201)
        #expect(await blobs.send(.GET, "/ccc/a").text == "onetwo!")
        #expect(await stage(blobs, 3, "three").status == 201)
        #expect(try await staged(blobs) == StagedBlocks(count: 1, idBytes: 2))
    }

    @Test func blocksOfAnOlderStoreAreCounted() async throws {
        let blobs = try await Blobs.withContainer()
        for number in 1...3 { _ = await stage(blobs, number, "x") }
        let (volume, partition) = try await blobs.volume("ccc")
        _ = try await volume.commit(partition, checks: [], writes: [.delete(BlobKeys.stagedBlocks("a"))])
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=block&blockid=\(Array("longer".utf8).base64)", body: [1]).code
                == "InvalidBlobOrBlock")
        #expect(await stage(blobs, 4, "x").status == 201)
        #expect(try await staged(blobs)?.count == 4)
        _ = try await volume.commit(partition, checks: [], writes: [.delete(BlobKeys.stagedBlocks("a"))])
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list((1...4).map { ("Latest", id($0)) })).status
                == 201)
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 202)
        #expect(try await blobs.rows("ccc") == 0)
    }

    @Test func sourceRanges() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("source", "0123456789")
        func stage(_ range: String?) async -> Answer {
            await blobs.send(
                .PUT, "/ccc/a?comp=block&blockid=\(id(1))",
                [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/source")]
                    + (range.map { [("x-ms-source-range", $0)] } ?? []))
        }
        for (range, text) in [(nil, "0123456789"), ("bytes=2-4", "234"), ("bytes=7-", "789"), ("bytes=8-20", "89")] {
            #expect(await stage(range).status == 201)
            #expect(
                await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list([("Latest", id(1))])).status == 201)
            #expect(await blobs.send(.GET, "/ccc/a").text == text)
        }
        // Never the whole source where a part was meant.
        for range in ["bytes=4", "bytes=4-2", "bytes=-3", "2-4", "nonsense"] {
            let answer = await stage(range)
            #expect(answer.status == 400 && answer.code == "InvalidHeaderValue", "\(range)")
        }
        #expect(await stage("bytes=10-11").code == "InvalidRange")
    }

    @Test func parallelBlocks() async throws {
        let blobs = try await Blobs.withContainer()
        await withTaskGroup(of: Int.self) { group in
            for number in 10..<50 { group.addTask { await stage(blobs, number, "\(number)").status } }
            for await status in group { #expect(status == 201) }
        }
        #expect(try await staged(blobs) == StagedBlocks(count: 40, idBytes: 3))
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list((10..<50).map { ("Latest", id($0)) })).status
                == 201)
        #expect(await blobs.send(.GET, "/ccc/a").text == (10..<50).map(String.init).joined())
    }
}
