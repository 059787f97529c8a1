import CofferCore
import EncryptionAtRest
import HTTPEdge
import NIOCore
import NIOHTTP1
import StorageAccount
import Synchronization
import TestSupport
import Testing

@testable import BlobService

/// A page blob `p` and what a test does to it.
struct PageBlob {
    var blobs: Blobs
    var key: [(String, String)] = []

    func create(_ length: Int, name: String = "p") async -> Answer {
        await blobs.send(
            .PUT, "/ccc/\(name)",
            [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", String(length))] + key)
    }
    func write(_ start: Int, _ bytes: [UInt8], _ headers: [(String, String)] = []) async -> Answer {
        await blobs.send(
            .PUT, "/ccc/p?comp=page",
            [("x-ms-page-write", "update"), ("x-ms-range", "bytes=\(start)-\(start + bytes.count - 1)")] + key
                + headers,
            body: bytes)
    }
    func clear(_ range: Range<Int>) async -> Answer {
        await blobs.send(
            .PUT, "/ccc/p?comp=page",
            [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)")] + key)
    }
    func resize(_ length: Int) async -> Answer {
        await blobs.send(.PUT, "/ccc/p?comp=properties", [("x-ms-blob-content-length", String(length))] + key)
    }
    func snapshot() async -> String {
        await blobs.send(.PUT, "/ccc/p?comp=snapshot", key).header("x-ms-snapshot") ?? ""
    }
    func read(_ range: Range<Int>? = nil, _ query: String = "") async -> Answer {
        let ranges = range.map { [("x-ms-range", "bytes=\($0.lowerBound)-\($0.upperBound - 1)")] } ?? []
        return await blobs.send(.GET, "/ccc/p" + query, ranges + key)
    }
    /// All of them, by as many requests as it takes.
    func ranges(_ query: String = "", maximum: Int = 3) async throws -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        var marker = ""
        repeat {
            let target = "/ccc/p?comp=pagelist&maxresults=\(maximum)\(query)&marker=\(marker)"
            let xml = try await blobs.send(.GET, target).xml()
            for range in xml.all("PageRange") {
                let start = try #require(Int(range["Start"]?.text ?? ""))
                ranges.append(start..<(try #require(Int(range["End"]?.text ?? ""))) + 1)
            }
            marker = xml["NextMarker"]?.text ?? ""
        } while !marker.isEmpty
        return ranges
    }
    /// What a request that is answered in pieces does, pieces not yet asked for.
    func opened(_ query: String = "") async -> Response {
        let parts = query.dropFirst()
        let request = Request(
            id: "00000000-0000-4000-8000-000000000000", method: .GET, rawPath: "/ccc/p", rawQuery: String(parts),
            headers: HTTPHeaders([("x-ms-version", "2025-11-05")] + key),
            endpoint: .storage(account: "acct", service: .blob), names: .coffer(domain: "coffer.test", port: nil),
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"), body: .empty)
        return await blobs.service.respond(to: request)
    }
    /// nil when the answer breaks off.
    func rest(of response: Response) async -> [UInt8]? {
        guard case .stream(_, let write) = response.body else { return nil }
        let collector = PartCollector()
        do { try await write(collector) } catch { return nil }
        return collector.bytes.withLock { $0 }
    }
    func collect() async throws {
        try await blobs.service.collectReleasedPages(keptSeconds: 0)
        _ = try await blobs.store.sweep(keptSeconds: 0)
    }
}

private final class PartCollector: ResponseBodyWriter {
    let bytes = Mutex<[UInt8]>([])
    func write(_ part: ByteBuffer) async throws { bytes.withLock { $0.append(contentsOf: part.readableBytesView) } }
}

private let leaf = PageMapRoot.leafBytes
private func page(_ byte: UInt8, count: Int = 1) -> [UInt8] { [UInt8](repeating: byte, count: 512 * count) }

/// Random operations against plain arrays, with a map whose limits are so small that every road is taken.
@Suite struct PageMapModelTests {
    /// A page's value stands for its 512 bytes; nil was never written or was cleared.
    private struct Model {
        var pages: [UInt8?]
        var snapshots: [(time: String, pages: [UInt8?])] = []

        func bytes(_ range: Range<Int>, of pages: [UInt8?]) -> [UInt8] {
            range.flatMap { [UInt8](repeating: pages[$0] ?? 0, count: 512) }
        }
        func runs(_ pages: [UInt8?]) -> [Range<Int>] {
            var runs: [Range<Int>] = []
            for index in pages.indices where pages[index] != nil {
                if let last = runs.last, last.upperBound == index * 512 {
                    runs[runs.count - 1] = last.lowerBound..<(index + 1) * 512
                } else {
                    runs.append(index * 512..<(index + 1) * 512)
                }
            }
            return runs
        }
    }
    private static let limits = PageMapLimits(windowRows: 3, extentsPerLeaf: 4, bytesHeldPerLeaf: 1 << 20)
    private static let pagesLimit = 7 * leaf / 512

    private static func range(_ random: SeededRandomness, upTo count: Int, atMost: Int) -> Range<Int> {
        // Close to where leaves meet, as often as not.
        var start = random.number(0..<count)
        if random.number(0..<2) == 0 { start = min(count - 1, max(0, start / 2_048 * 2_048 - random.number(0..<3))) }
        return start..<min(count, start + random.number(1..<atMost))
    }

    private func step(_ blob: PageBlob, _ model: inout Model, _ random: SeededRandomness) async throws {
        let count = model.pages.count
        switch random.number(0..<20) {
        case 0..<9:
            let range = Self.range(random, upTo: count, atMost: random.number(0..<4) == 0 ? 3_000 : 6)
            let value = UInt8(random.number(1..<256))
            #expect(await blob.write(range.lowerBound * 512, page(value, count: range.count)).status == 201)
            for index in range { model.pages[index] = value }
        case 9..<13:
            let range = Self.range(random, upTo: count, atMost: random.number(0..<3) == 0 ? count + 1 : 6)
            #expect(await blob.clear(range.lowerBound * 512..<range.upperBound * 512).status == 201)
            for index in range { model.pages[index] = nil }
        case 13:
            let length = random.number(1..<Self.pagesLimit)
            #expect(await blob.resize(length * 512).status == 200)
            let more = [UInt8?](repeating: nil, count: max(0, length - count))
            model.pages = Array(model.pages.prefix(length)) + more
        case 14, 15:
            model.snapshots.append((await blob.snapshot(), model.pages))
        case 16 where !model.snapshots.isEmpty:
            let gone = model.snapshots.remove(at: random.number(0..<model.snapshots.count))
            #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(gone.time)").status == 202)
        case 17: try await replace(blob, &model, random)
        default: try await blob.collect()
        }
    }

    /// The blob anew, as a snapshot or itself was, or empty.
    private func replace(_ blob: PageBlob, _ model: inout Model, _ random: SeededRandomness) async throws {
        guard random.number(0..<3) > 0, blob.key.isEmpty else {
            let length = random.number(1..<Self.pagesLimit)
            #expect(await blob.create(length * 512).status == 201)
            model.pages = [UInt8?](repeating: nil, count: length)
            return
        }
        let choice = random.number(0..<model.snapshots.count + 1)
        let from = choice == model.snapshots.count ? nil : model.snapshots[choice]
        let source = "https://acct.blob.core.coffer.test/ccc/p" + (from.map { "?snapshot=\($0.time)" } ?? "")
        #expect(await blob.blobs.send(.PUT, "/ccc/p", [("x-ms-copy-source", source)]).status == 202)
        if let from { model.pages = from.pages }
    }

    private func check(_ blob: PageBlob, _ pages: [UInt8?], _ model: Model, snapshot: String? = nil) async throws {
        let whole = await blob.read(nil, snapshot.map { "?snapshot=\($0)" } ?? "")
        #expect(whole.status == 200)
        try #require(whole.body.count == 512 * pages.count)
        let isSame = whole.body.withUnsafeBytes { bytes in
            pages.indices.allSatisfy { bytes[512 * $0] == pages[$0] ?? 0 && bytes[512 * $0 + 511] == pages[$0] ?? 0 }
        }
        #expect(isSame)
        let ranges = try await blob.ranges(snapshot.map { "&snapshot=\($0)" } ?? "", maximum: 40)
        #expect(ranges == model.runs(pages))
    }

    @Test(arguments: 1...5, [false, true]) func randomOperations(seed: UInt64, underCustomerKey: Bool) async throws {
        var blob = PageBlob(
            blobs: try await Blobs(seed: seed, pageMapLimits: Self.limits), key: underCustomerKey ? customerKey() : [])
        #expect(await blob.blobs.send(.PUT, "/ccc?restype=container").status == 201)
        let random = SeededRandomness(seed &* 77)
        var model = Model(pages: [UInt8?](repeating: nil, count: 5 * leaf / 512))
        #expect(await blob.create(5 * leaf).status == 201)
        for number in 1...120 {
            try await step(blob, &model, random)
            let range = Self.range(random, upTo: model.pages.count, atMost: 40)
            let read = await blob.read(range.lowerBound * 512..<range.upperBound * 512)
            let isSame = read.body == model.bytes(range, of: model.pages)
            #expect(isSame, "step \(number)")
            guard number % 20 == 0 else { continue }
            blob.blobs = try await Blobs(
                seed: seed &+ UInt64(number) << 32, after: blob.blobs, pageMapLimits: Self.limits)
            try await check(blob, model.pages, model)
            for snapshot in model.snapshots {
                try await check(blob, snapshot.pages, model, snapshot: snapshot.time)
            }
        }
        #expect(try await blob.blobs.store.verify().isSound)
        try await nothingStays(blob)
    }

    private func nothingStays(_ blob: PageBlob) async throws {
        #expect(await blob.blobs.send(.DELETE, "/ccc/p", [("x-ms-delete-snapshots", "include")]).status == 202)
        let account = try await blob.blobs.accounts.account(named: "acct")
        try await blob.blobs.service.collectGarbage(in: account, pagesKeptSeconds: 0)
        _ = try await blob.blobs.store.sweep(keptSeconds: 0)
        #expect(try await blob.blobs.rows("ccc") == 0)
        #expect(try await blob.blobs.extentCount == 0)
    }
}

@Suite struct PageMapTests {
    private static func made(
        _ length: Int, key: [(String, String)] = [], limits: PageMapLimits = PageMapLimits()
    ) async throws -> PageBlob {
        let blob = PageBlob(blobs: try await Blobs(pageMapLimits: limits), key: key)
        #expect(await blob.blobs.send(.PUT, "/ccc?restype=container").status == 201)
        #expect(await blob.create(length).status == 201)
        return blob
    }
    private static func rows(_ blob: PageBlob) async throws -> [VolumeRow] {
        let (volume, partition) = try await blob.blobs.volume("ccc")
        return try await volume.scan(partition, from: [0x01], upTo: nil, limit: .max)
    }
    private static func size(_ row: VolumeRow) -> Int { row.visible.count + row.sealed.byteCount }

    /// Whatever is written to a blob of 8 TiB: no row grows beyond what a leaf of 64 extents takes, and the blob's own
    /// row does not grow at all.
    @Test(arguments: [false, true]) func rowsStaySmall(underCustomerKey: Bool) async throws {
        let blob = try await Self.made(8 << 40, key: underCustomerKey ? customerKey() : [])
        let random = SeededRandomness(3)
        #expect(await blob.write(0, page(1)).status == 201)
        let before = try #require(try await Self.rows(blob).first { BlobKeys.parse($0.key) != nil })
        var places: [Int: UInt8] = [:]
        for number in 0..<400 {
            // Half of them in one leaf.
            let leafNumber = number % 2 == 0 ? 4_711 : random.number(1..<PageMapRoot.leafCount)
            let start = leafNumber * leaf + random.number(0..<2_048) * 512
            places[start] = UInt8(number % 255 + 1)
            #expect(await blob.write(start, page(UInt8(number % 255 + 1))).status == 201)
        }
        for (start, value) in places { #expect(await blob.read(start..<start + 512).body == page(value)) }
        #expect(try await blob.ranges(maximum: 50).count > 200)
        let rows = try await Self.rows(blob)
        let after = try #require(rows.first { BlobKeys.parse($0.key) != nil })
        #expect(Self.size(after) <= Self.size(before) + 2)
        #expect((rows.map(Self.size).max() ?? 0) < 32 << 10)
        let crowded = try #require(rows.first { PageKeys.parseLeaf($0.key)?.index == 4_711 })
        #expect(try PageLeafRecord(decoding: crowded.visible).releasable.count <= 64)
    }

    /// What later writes cover in most parts is not held for a page of it.
    @Test func aLeafHoldsNoMoreThanItNeeds() async throws {
        let blob = try await Self.made(8 * leaf)
        for number in 0..<12 {
            #expect(await blob.write(number * 512, page(UInt8(number + 1), count: 8_192)).status == 201)
        }
        try await blob.collect()
        #expect(try await blob.blobs.extentCount <= 6)
        for number in 0..<12 {
            #expect(await blob.read(number * 512..<number * 512 + 512).body == page(UInt8(number + 1)))
        }
    }

    @Test func aSnapshotIsOneRow() async throws {
        let blob = try await Self.made(100 * leaf)
        for index in 0..<70 { #expect(await blob.write(index * leaf, page(1)).status == 201) }
        let rows = try await blob.blobs.rows("ccc")
        let snapshot = await blob.snapshot()
        #expect(try await blob.blobs.rows("ccc") == rows + 1)
        #expect(await blob.write(0, page(2)).status == 201)
        #expect(try await blob.blobs.rows("ccc") == rows + 2, "the leaf that was written, and no other")
        #expect(await blob.read(0..<512, "?snapshot=\(snapshot)").body == page(1))
        #expect(await blob.read(0..<512).body == page(2))

        #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(snapshot)").status == 202)
        try await blob.collect()
        #expect(try await blob.blobs.rows("ccc") == rows)
        #expect(await blob.write(leaf, page(3)).status == 201)
        #expect(try await blob.blobs.rows("ccc") == rows, "nobody else holds the leaf any more")
    }

    /// More leaves than a commit should look at are emptied by the blob's row alone.
    @Test func aLargeClearIsOneCommit() async throws {
        let blob = try await Self.made(200 * leaf)
        for index in 0..<90 { #expect(await blob.write(index * leaf + 512, page(7, count: 2)).status == 201) }
        let snapshot = await blob.snapshot()
        let rows = try await blob.blobs.rows("ccc")
        blob.blobs.faults.heal()
        #expect(await blob.clear(1_024..<150 * leaf).status == 201)
        #expect(blob.blobs.faults.commits == 1)
        #expect(try await blob.blobs.rows("ccc") == rows + 2, "the leaf at the start, and work for the collector")
        #expect(try await blob.ranges() == [512..<1_024])
        #expect(await blob.write(80 * leaf, page(9)).status == 201)
        try await blob.collect()
        #expect(try await blob.ranges() == [512..<1_024, 80 * leaf..<80 * leaf + 512])
        #expect(try await blob.ranges("&snapshot=\(snapshot)").count == 90)

        #expect(await blob.resize(512).status == 200)
        #expect(await blob.resize(200 * leaf).status == 200)
        #expect(try await blob.ranges() == [])
        #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(snapshot)").status == 202)
        try await blob.collect()
        let left = try await Self.rows(blob)
        let base = try #require(left.first { BlobKeys.parse($0.key) != nil })
        #expect(try BlobRecord(decoding: base.visible).pages?.holes == [], "there is nothing left for it to hide")
        #expect(left.count <= 3)
    }

    @Test func writersTakeTurns() async throws {
        let blob = try await Self.made(4 * leaf)
        await withTaskGroup(of: Int.self) { group in
            for number in 0..<40 {
                group.addTask { await blob.write(number * 40 * 512, page(UInt8(number + 1))).status }
            }
            for await status in group { #expect(status == 201) }
        }
        for number in 0..<40 {
            #expect(await blob.read(number * 40 * 512..<number * 40 * 512 + 512).body == page(UInt8(number + 1)))
        }
    }

    private final class Shared: Sendable {
        let kept = Mutex<[String: [UInt8]]>([:])
        let isDone = Mutex(false)
    }
    private static func write(_ writer: Int, _ blob: PageBlob) async {
        for number in 1...40 {
            let start = (number % 5) * leaf + writer * 4_096
            #expect(await blob.write(start, page(UInt8(number))).status == 201)
        }
    }
    private static func takeSnapshots(_ blob: PageBlob, _ random: SeededRandomness, _ shared: Shared) async {
        for _ in 0..<20 {
            let time = await blob.snapshot()
            let body = await blob.read(0..<5 * leaf, "?snapshot=\(time)").body
            shared.kept.withLock { $0[time] = body }
            if random.number(0..<3) > 0 {
                let times = shared.kept.withLock { $0.keys.sorted() }
                let gone = times[random.number(0..<times.count)]
                shared.kept.withLock { $0[gone] = nil }
                #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(gone)").status == 202)
            }
            if random.number(0..<4) == 0 { #expect(await blob.clear(5 * leaf..<6 * leaf).status == 201) }
        }
    }

    /// Writers, snapshots that come and go, and the collector, all at once: what was answered is there, and what a
    /// snapshot showed first it shows at the end.
    @Test(arguments: 1...4) func theCollectorWorksBesideRequests(seed: Int) async throws {
        let blob = try await Self.made(6 * leaf, limits: Self.small)
        let shared = Shared()
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                while !shared.isDone.withLock({ $0 }) {
                    try await blob.collect()
                    await Task.yield()
                }
                return false
            }
            for writer in 0..<3 {
                group.addTask {
                    await Self.write(writer, blob)
                    return true
                }
            }
            group.addTask {
                await Self.takeSnapshots(blob, SeededRandomness(UInt64(seed)), shared)
                return true
            }
            var running = 4
            while let isWorker = try await group.next() {
                if isWorker { running -= 1 }
                if running == 0 { shared.isDone.withLock { $0 = true } }
            }
        }
        try await blob.collect()
        for writer in 0..<3 {
            for last in 36...40 {
                let start = (last % 5) * leaf + writer * 4_096
                #expect(await blob.read(start..<start + 512).body == page(UInt8(last)))
            }
        }
        for (time, body) in shared.kept.withLock({ $0 }) {
            let isSame = await blob.read(0..<5 * leaf, "?snapshot=\(time)").body == body
            #expect(isSame)
        }
        #expect(await blob.blobs.send(.DELETE, "/ccc/p", [("x-ms-delete-snapshots", "include")]).status == 202)
        try await blob.collect()
        #expect(try await blob.blobs.rows("ccc") == 0)
        #expect(try await blob.blobs.extentCount == 0)
    }

    /// Snapshots that are taken while the collector works, and writes that cover what they hold.
    @Test func theCollectorSparesWhatItHasNotSeen() async throws {
        let blob = try await Self.made(leaf, limits: Self.small)
        #expect(await blob.write(0, page(1)).status == 201)
        let first = await blob.snapshot()
        _ = await blob.snapshot()
        #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(first)").status == 202)
        let times = Mutex<[String]>([])
        // The collector looks for releases of this map after it has looked for the holders.
        blob.blobs.faults.interrupt(where: { $0.reads.contains { $0.hasPrefix("dr") && $0.utf8.count > 4 } }) { _ in
            for value in 2...3 as ClosedRange<UInt8> {
                let time = await blob.snapshot()
                times.withLock { $0.append(time) }
                #expect(await blob.write(0, page(value)).status == 201)
            }
        }
        try await blob.collect()
        let taken = times.withLock { $0 }
        try #require(taken.count == 2)
        #expect(await blob.read(0..<512, "?snapshot=\(taken[0])").body == page(1))
        #expect(await blob.read(0..<512, "?snapshot=\(taken[1])").body == page(2))
        #expect(await blob.read(0..<512).body == page(3))
    }

    /// A copy may take longer than releases are kept, and its blob may then have snapshots and writes at once.
    @Test func theCollectorSparesAMapThatIsBeingMade() async throws {
        let blob = try await Self.made(2 * leaf, limits: Self.small)
        #expect(await blob.write(0, page(1)).status == 201)
        let blobs = blob.blobs
        blobs.faults.interrupt(where: { $0.writes.contains { $0.hasPrefix("dbq") } }) { _ in
            // The copy's last commit is to come.
            blobs.clock.advance(seconds: 400)
            blobs.faults.interrupt(where: { $0.reads.contains { $0.hasPrefix("dr") && $0.utf8.count > 4 } }) { _ in
                Issue.record("The collector looks for holders of a map that may have others a moment later.")
            }
            do { try await blobs.service.collectReleasedPages() } catch { Issue.record(error) }
        }
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/p")]
        #expect(await blobs.send(.PUT, "/ccc/q", source).status == 202)
        #expect(await blobs.send(.GET, "/ccc/q", [("x-ms-range", "bytes=0-511")]).body == page(1))
    }

    // MARK: Readers

    private static let small = PageMapLimits(windowRows: 3, extentsPerLeaf: 4, bytesHeldPerLeaf: 1 << 20)
    private static func ofTenLeaves() async throws -> PageBlob {
        let blob = try await made(10 * leaf, limits: small)
        for index in 0..<10 { #expect(await blob.write(index * leaf, page(UInt8(index + 1))).status == 201) }
        return blob
    }

    @Test func aDownloadIsOneStateOfTheBlob() async throws {
        let blob = try await Self.ofTenLeaves()
        let whole = await blob.read().body
        let early = await blob.opened()
        #expect(await blob.write(leaf, page(99)).status == 201)
        #expect(await blob.rest(of: early) == whole, "its extents were found before the write")
        let late = await blob.opened()
        #expect(await blob.write(9 * leaf, page(99)).status == 201)
        #expect(await blob.rest(of: late) == nil, "better none than a mixture")
        let cleared = await blob.opened()
        #expect(await blob.clear(0..<10 * leaf).status == 201)
        #expect(await blob.rest(of: cleared)?.count == 10 * leaf, "what is emptied at once stays for who reads it")
    }

    @Test(arguments: ["delete", "replace", "snapshot"]) func aDownloadOutlivesItsBlob(how: String) async throws {
        let blob = try await Self.ofTenLeaves()
        let whole = await blob.read().body
        let snapshot = how == "snapshot" ? "?snapshot=\(await blob.snapshot())" : ""
        let open = await blob.opened(snapshot)
        switch how {
        case "replace": #expect(await blob.create(leaf).status == 201)
        default: #expect(await blob.blobs.send(.DELETE, "/ccc/p" + snapshot).status == 202)
        }
        if how == "snapshot" { #expect(await blob.write(9 * leaf, page(99)).status == 201) }
        try await blob.collect()
        try await blob.collect()
        let read = await blob.rest(of: open)
        #expect(read == whole)
        _ = consume open
        try await blob.collect()
        try await blob.collect()
        let expected = how == "snapshot" ? 11 : how == "replace" ? 1 : 0
        #expect(try await blob.blobs.rows("ccc") == expected)
    }

    @Test func aDeletedContainerIsNoZeros() async throws {
        let blob = try await Self.ofTenLeaves()
        let open = await blob.opened()
        #expect(await blob.blobs.send(.DELETE, "/ccc?restype=container").status == 202)
        #expect(await blob.rest(of: open) == nil)
        #expect(try await blob.blobs.extentCount == 10)
        _ = try await blob.blobs.store.sweep(keptSeconds: 0)
        #expect(try await blob.blobs.extentCount == 0)
    }

    /// A write between a small read's look at the blob and that at its pages: the read begins again.
    @Test func aSmallReadBeginsAgain() async throws {
        let blob = try await Self.ofTenLeaves()
        blob.blobs.faults.interrupt(where: { $0.reads.contains { $0.hasPrefix("dbp") } }) { _ in
            #expect(await blob.write(0, page(50)).status == 201)
        }
        #expect(await blob.read(0..<512).body == page(50))
    }

    /// Releases are kept for who may still be reading; the clock decides.
    @Test func whatIsReleasedStaysAWhile() async throws {
        let blob = try await Self.ofTenLeaves()
        #expect(await blob.blobs.send(.DELETE, "/ccc/p").status == 202)
        try await blob.blobs.service.collectReleasedPages()
        #expect(try await blob.blobs.rows("ccc") == 11)
        blob.blobs.clock.advance(seconds: 301)
        try await blob.blobs.service.collectReleasedPages()
        #expect(try await blob.blobs.rows("ccc") == 0)
    }

    /// What was emptied before a snapshot is nobody's: the snapshot has the hole, too.
    @Test func whatASnapshotDoesNotSeeIsNotKeptForIt() async throws {
        let blob = try await Self.ofTenLeaves()
        #expect(await blob.clear(0..<10 * leaf).status == 201)
        let snapshot = await blob.snapshot()
        #expect(await blob.write(leaf, page(50)).status == 201)
        try await blob.collect()
        #expect(try await blob.blobs.rows("ccc") == 3, "the blob, its snapshot, and the leaf written since")
        #expect(await blob.read(0..<512, "?snapshot=\(snapshot)").body == page(0))
        #expect(await blob.read(leaf..<leaf + 512, "?snapshot=\(snapshot)").body == page(0))
        #expect(await blob.read(leaf..<leaf + 512).body == page(50))
    }

    /// Between its look for holders and its commit, the collector finds the blob written to again and again.
    @Test func aBusyBlobIsCollectedAllTheSame() async throws {
        let blob = try await Self.ofTenLeaves()
        let snapshot = await blob.snapshot()
        for index in 0..<10 { #expect(await blob.write(index * leaf, page(60)).status == 201) }
        #expect(await blob.blobs.send(.DELETE, "/ccc/p?snapshot=\(snapshot)").status == 202)
        blob.blobs.faults.interrupt(where: { $0.reads.contains { $0.hasPrefix("dbp") } }) { _ in
            #expect(await blob.write(0, page(61)).status == 201)
        }
        try await blob.collect()
        try await blob.collect()
        #expect(try await blob.blobs.rows("ccc") == 11)
        #expect(await blob.read(0..<1).body.first == 61)
    }

    // MARK: Crashes

    /// Each operation fails at each of its commits, before or after it: what stands is the state before or after, the
    /// answer says which, and a new start leaves nothing behind.
    @Test(arguments: 0..<6, [FaultyEngine.Fault.before, .after]) func aCrashAtAnyCommit(
        operation: Int, fault: FaultyEngine.Fault
    ) async throws {
        let (whole, _) = try await Self.forCrash(operation)
        #expect(await Self.perform(operation, whole) < 300)
        let expected = try await Self.state(whole)
        for commit in 0..<8 {
            let (blob, snapshot) = try await Self.forCrash(operation)
            let before = try await Self.state(blob)
            blob.blobs.faults.fail(at: commit, fault)
            let status = await Self.perform(operation, blob)
            let isReached = blob.blobs.faults.commits > commit
            blob.blobs.faults.heal()
            let again = PageBlob(
                blobs: try await Blobs(seed: UInt64(commit + 100), after: blob.blobs, pageMapLimits: Self.small))
            let after = try await Self.state(again)
            #expect(after == before || after == expected)
            if status < 300 { #expect(after == expected) }
            if fault == .before, isReached, status >= 400 { #expect(after == before) }
            #expect(await again.read(leaf..<leaf + 512, "?snapshot=\(snapshot)").body == page(2))
            let account = try await again.blobs.accounts.account(named: "acct")
            try await again.blobs.service.collectGarbage(in: account, pagesKeptSeconds: 0)
            #expect(try await Self.state(again) == after)
            _ = await again.blobs.send(.DELETE, "/ccc/q")
            #expect(await again.blobs.send(.DELETE, "/ccc/p?snapshot=\(snapshot)").status == 202)
            _ = await again.blobs.send(.DELETE, "/ccc/p", [("x-ms-delete-snapshots", "include")])
            try await again.blobs.service.collectGarbage(in: account, pagesKeptSeconds: 0)
            _ = try await again.blobs.store.sweep(keptSeconds: 0)
            #expect(try await again.blobs.rows("ccc") == 0)
            #expect(try await again.blobs.extentCount == 0)
            if !isReached { return }
        }
    }

    private static func forCrash(_ operation: Int) async throws -> (PageBlob, snapshot: String) {
        let blob = try await ofTenLeaves()
        let snapshot = await blob.snapshot()
        #expect(await blob.write(leaf, page(77)).status == 201)
        if operation == 5 { #expect(await blob.clear(leaf..<10 * leaf).status == 201) }
        return (blob, snapshot)
    }

    /// Length, written ranges, and of each leaf the first byte and the one before the next.
    private static func state(_ blob: PageBlob) async throws -> [Int] {
        let length =
            Int(await blob.blobs.send(.GET, "/ccc/p?comp=pagelist").header("x-ms-blob-content-length") ?? "") ?? 0
        var state = [length] + (try await blob.ranges(maximum: 100).flatMap { [$0.lowerBound, $0.upperBound] })
        for start in stride(from: 0, to: length, by: leaf) {
            for place in [start, start + leaf - 512] where place < length {
                state.append(Int(await blob.read(place..<place + 1).body.first ?? 0))
            }
        }
        return state
    }

    private static func perform(_ operation: Int, _ blob: PageBlob) async -> Int {
        switch operation {
        case 0: return await blob.write(leaf - 512, page(88, count: 2)).status
        case 1: return await blob.clear(512..<9 * leaf).status
        case 2: return await blob.resize(leaf).status
        case 3:
            let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/p")]
            return await blob.blobs.send(.PUT, "/ccc/q", source).status
        case 4: return await blob.create(512).status
        default:
            do { try await blob.collect() } catch { return 500 }
            return 200
        }
    }

    // MARK: Records

    private static func read(_ bytes: [UInt8]) throws(RecordError) -> PageMapRoot {
        var reader = RecordReader(bytes)
        let root = try PageMapRoot(from: &reader)
        try reader.finish()
        return root
    }

    @Test func rootsAreReadAsTheyWereWritten() throws {
        let random = SeededRandomness(5)
        for _ in 0..<50 {
            var root = PageMapRoot(id: random.bytes(16))
            for _ in 0..<random.number(0..<6) {
                let start = random.number(0..<PageMapRoot.leafCount)
                try root.empty(start..<random.number(start + 1..<PageMapRoot.leafCount + 1))
                if random.number(0..<2) == 0 { try root.freeze() }
            }
            var writer = RecordWriter()
            root.encode(into: &writer)
            #expect(try Self.read(writer.bytes) == root)
            let part = Array(writer.bytes[..<random.number(0..<writer.bytes.count)])
            #expect(throws: RecordError.self) { try Self.read(part) }
            for _ in 0..<20 {
                guard let other = try? Self.read(random.withBytesReplaced(writer.bytes)) else { continue }
                var again = RecordWriter()
                other.encode(into: &again)
                #expect(try Self.read(again.bytes) == other)
            }
        }
    }

    @Test func thereIsAnEndToHoles() throws {
        var root = PageMapRoot(id: [UInt8](repeating: 1, count: 16))
        for index in 0..<PageMapRoot.holesLimit { try root.empty(2 * index..<2 * index + 1) }
        let full = root
        #expect(throws: StorageError.self) {
            var root = full
            try root.empty(1..<2)
        }
        try root.empty(0..<10_000)
        #expect(root.holes.count == 1)
    }

    /// A page blob's row of before maps lay in leaves is refused, not read as an empty blob.
    @Test func aRowWithoutAMapIsMalformed() throws {
        var record = BlobRecord(etag: ETag(number: 1), at: Timestamp(unixSeconds: 1))
        record.type = .page
        record.pages = PageMapRoot(id: [UInt8](repeating: 1, count: 16))
        let bytes = record.encoded()
        #expect(try BlobRecord(decoding: bytes).pages == record.pages)
        #expect(throws: RecordError.self) { try BlobRecord(decoding: Array(bytes.dropLast(20))) }
    }
}
