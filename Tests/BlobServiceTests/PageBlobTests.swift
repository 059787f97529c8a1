import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService
@testable import EncryptionAtRest

@Suite struct PageBlobTests {
    private static func create(_ blobs: Blobs, _ length: Int, _ headers: [(String, String)] = []) async -> Answer {
        await blobs.send(
            .PUT, "/ccc/p",
            [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", String(length))] + headers)
    }
    private static func write(
        _ blobs: Blobs, _ start: Int, _ bytes: [UInt8], _ headers: [(String, String)] = []
    ) async -> Answer {
        await blobs.send(
            .PUT, "/ccc/p?comp=page",
            [("x-ms-page-write", "update"), ("x-ms-range", "bytes=\(start)-\(start + bytes.count - 1)")] + headers,
            body: bytes)
    }
    private static func ranges(_ blobs: Blobs, _ query: String = "") async throws -> [String] {
        let answer = await blobs.send(.GET, "/ccc/p?comp=pagelist" + query)
        #expect(answer.status == 200)
        return try answer.xml().all("PageRange").map { "\($0["Start"]?.text ?? "")-\($0["End"]?.text ?? "")" }
    }

    @Test func writesClearsAndResizes() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 4_096).status == 201)
        #expect(await blobs.send(.GET, "/ccc/p").body == [UInt8](repeating: 0, count: 4_096))
        let written = await Self.write(blobs, 512, [UInt8](repeating: 7, count: 1_536))
        #expect(written.status == 201 && written.header("x-ms-blob-sequence-number") == "0")
        let cleared = await blobs.send(
            .PUT, "/ccc/p?comp=page", [("x-ms-page-write", "clear"), ("Range", "bytes=1024-1535")])
        #expect(cleared.status == 201)
        let whole = await blobs.send(.GET, "/ccc/p")
        #expect(whole.header("x-ms-blob-type") == "PageBlob")
        var expected = [UInt8](repeating: 0, count: 4_096)
        for index in (512..<1_024).map({ $0 }) + (1_536..<2_048).map({ $0 }) { expected[index] = 7 }
        #expect(whole.body == expected)
        #expect(try await Self.ranges(blobs) == ["512-1023", "1536-2047"])
        #expect(try await Self.ranges(blobs, "&maxresults=1") == ["512-1023"])
        #expect(try await Self.ranges(blobs, "&maxresults=1&marker=1536") == ["1536-2047"])

        let smaller = await blobs.send(.PUT, "/ccc/p?comp=properties", [("x-ms-blob-content-length", "1024")])
        #expect(smaller.status == 200)
        let larger = await blobs.send(.PUT, "/ccc/p?comp=properties", [("x-ms-blob-content-length", "2048")])
        #expect(larger.status == 200)
        let zeros = [UInt8](repeating: 0, count: 1_024)
        #expect(await blobs.send(.GET, "/ccc/p").body == Array(expected[..<1_024]) + zeros)
        #expect(try await Self.ranges(blobs) == ["512-1023"])
    }

    @Test func refusesWhatIsNoWholePage() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 1_000).code == "InvalidHeaderValue")
        #expect(await Self.create(blobs, 1_024).status == 201)
        #expect(await Self.write(blobs, 100, [UInt8](repeating: 1, count: 512)).code == "InvalidPageRange")
        #expect(await Self.write(blobs, 1_024, [UInt8](repeating: 1, count: 512)).code == "InvalidPageRange")
        let short = await blobs.send(
            .PUT, "/ccc/p?comp=page", [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")], body: [1, 2])
        #expect(short.code == "InvalidHeaderValue")
        await blobs.put("block", "x")
        let other = await blobs.send(
            .PUT, "/ccc/block?comp=page", [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=0-511")])
        #expect(other.code == "InvalidBlobType")
        #expect(await blobs.send(.GET, "/ccc/block?comp=pagelist").code == "InvalidBlobType")
    }

    @Test func sequenceNumbers() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 512, [("x-ms-blob-sequence-number", "5")]).status == 201)
        let page = [UInt8](repeating: 1, count: 512)
        let late = await Self.write(blobs, 0, page, [("x-ms-if-sequence-number-lt", "5")])
        #expect(late.status == 412 && late.code == "SequenceNumberConditionNotMet")
        #expect(await Self.write(blobs, 0, page, [("x-ms-if-sequence-number-eq", "5")]).status == 201)
        func change(_ headers: [(String, String)]) async -> Answer {
            await blobs.send(.PUT, "/ccc/p?comp=properties", headers)
        }
        #expect(
            await change([("x-ms-sequence-number-action", "increment")]).header("x-ms-blob-sequence-number") == "6")
        let maximum = await change([("x-ms-sequence-number-action", "max"), ("x-ms-blob-sequence-number", "3")])
        #expect(maximum.header("x-ms-blob-sequence-number") == "6")
        let update = await change([("x-ms-sequence-number-action", "update"), ("x-ms-blob-sequence-number", "3")])
        #expect(update.header("x-ms-blob-sequence-number") == "3")
        #expect(await change([("x-ms-sequence-number-action", "update")]).code == "MissingRequiredHeader")
        #expect(await blobs.send(.HEAD, "/ccc/p").header("x-ms-blob-sequence-number") == "3")
    }

    @Test func ownKeysAndSnapshots() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 262_144 * 4, customerKey()).status == 201)
        let page = [UInt8](repeating: 3, count: 512)
        #expect(await Self.write(blobs, 512, page).code == "BlobUsesCustomerSpecifiedEncryption")
        #expect(await Self.write(blobs, 512, page, customerKey()).status == 201)
        #expect(try await Self.ranges(blobs) == ["512-1023"], "the ranges need no customer's key")
        let snapshot = await blobs.send(.PUT, "/ccc/p?comp=snapshot", customerKey())
        let clear = [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=512-1023")]
        #expect(await blobs.send(.PUT, "/ccc/p?comp=page", clear + customerKey()).status == 201)
        #expect(try await Self.ranges(blobs) == [])
        let old = await blobs.send(.GET, "/ccc/p?snapshot=\(snapshot.header("x-ms-snapshot") ?? "")", customerKey())
        #expect(Array(old.body[512..<1_024]) == page && old.body.count == 1_048_576)
        #expect(old.body.reduce(0) { $0 + Int($1) } == 3 * 512)
    }

    /// Extents that no page and no snapshot needs any more are given back.
    @Test func overwrittenExtentsGo() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 1 << 20).status == 201)
        let before = try await blobs.extentCount
        for byte in 1...5 {
            #expect(await Self.write(blobs, 0, [UInt8](repeating: UInt8(byte), count: 256 << 10)).status == 201)
        }
        _ = try await blobs.store.sweep(keptSeconds: 0)
        #expect(try await blobs.extentCount == before + 1)
        #expect(await blobs.send(.DELETE, "/ccc/p").status == 202)
        try await blobs.service.collectReleasedPages(keptSeconds: 0)
        _ = try await blobs.store.sweep(keptSeconds: 0)
        #expect(try await blobs.extentCount == before)
        #expect(try await blobs.rows("ccc") == 0)
    }

    @Test func copies() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await Self.create(blobs, 2_048).status == 201)
        #expect(await Self.write(blobs, 1_024, [UInt8](repeating: 9, count: 512)).status == 201)
        #expect(await blobs.send(.PUT, "/ddd?restype=container").status == 201)
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/p")]
        #expect(await blobs.send(.PUT, "/ddd/q", source).status == 202)
        #expect(await blobs.send(.GET, "/ddd/q").body == (await blobs.send(.GET, "/ccc/p")).body)
        let list = await blobs.send(.GET, "/ddd/q?comp=pagelist")
        #expect(list.text.contains("<Start>1024</Start><End>1535</End>"))
    }

    /// Random writes and clears against a plain array.
    @Test(arguments: 1...8) func mapAgainstArray(seed: Int) throws {
        let randomness = SeededRandomness(UInt64(seed))
        var bytes = [UInt8](repeating: 0, count: 64)
        var manifest = Manifest.zeros(64)
        for _ in 0..<200 {
            let start = randomness.number(0..<max(bytes.count, 1))
            let count = randomness.number(0..<bytes.count - start + 1)
            switch randomness.number(0..<2) {
            case 0:
                manifest.replace(from: UInt64(start), with: .zeros(count))
                for index in start..<start + count { bytes[index] = 0 }
            default:
                // The extent's identifier tells which bytes it stands for.
                let value = UInt8(randomness.number(1..<256))
                let extent = ExtentReference(inline: [], extentID: [value], plaintextBytes: count)
                let slice = Manifest.Slice(blockID: "", extent: extent, offset: 0, length: count)
                manifest.replace(from: UInt64(start), with: slice)
                for index in start..<start + count { bytes[index] = value }
            }
            var read: [UInt8] = []
            for piece in manifest.pieces(of: 0..<manifest.length) {
                read += [UInt8](repeating: piece.extent?.extentID.first ?? 0, count: piece.range.count)
            }
            #expect(read == bytes)
            let layout = ContentLayout(manifest)
            let written = Set(layout.pageRanges(in: 0..<manifest.length).flatMap { Array($0) }.map(Int.init))
            #expect(written == Set(bytes.indices.filter { bytes[$0] != 0 }))
        }
    }
}
