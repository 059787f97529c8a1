import CofferCore
import Crypto
import Foundation
import NIOCore
import StorageEngine
import Testing

@testable import EmbeddedEngine

/// Gives out 0, 1, 2 … so that a sealed page is the same every time.
private struct CountingRandomness: Randomness {
    func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        for index in buffer.indices { buffer[index] = UInt8(truncatingIfNeeded: index) }
    }
}

@Suite struct PageSealerTests {
    private static let key = SecretBytes(copying: [UInt8](repeating: 0x42, count: 32))
    private static let databaseID = [UInt8](repeating: 0x17, count: 16)
    private static let pageBytes = 4096
    private static let bodyBytes = pageBytes - PageSealer.reservedBytes
    private static let plain = plain(pageBytes)
    private static func plain(_ count: Int) -> [UInt8] {
        (0..<count).map { $0 < count - PageSealer.reservedBytes ? UInt8(truncatingIfNeeded: $0 * 7) : 0 }
    }

    private func sealer(
        databaseID: [UInt8] = databaseID, key: SecretBytes = key, randomness: any Randomness = SystemRandomness(),
        pageBytes: Int = pageBytes, pagesPerEpoch: UInt64 = PageSealer.pagesPerEpoch
    ) -> PageSealer {
        PageSealer(
            pageKey: key, databaseID: databaseID, pageBytes: pageBytes, randomness: randomness,
            pagesPerEpoch: pagesPerEpoch)
    }

    private func seal(_ sealer: PageSealer, _ kind: PageKind = .database, _ position: UInt64 = 5) -> [UInt8] {
        var sealed = [UInt8](repeating: 0, count: sealer.pageBytes)
        let done = Self.plain(sealer.pageBytes).withUnsafeBytes { plain in
            sealed.withUnsafeMutableBytes {
                sealer.seal(plain.baseAddress!, into: $0.baseAddress!, kind: kind, position: position)
            }
        }
        #expect(done)
        return sealed
    }

    private func open(_ sealer: PageSealer, _ page: [UInt8], _ kind: PageKind = .database, _ position: UInt64 = 5)
        -> [UInt8]?
    {
        var page = page
        let isAuthentic = page.withUnsafeMutableBytes { sealer.open($0.baseAddress!, kind: kind, position: position) }
        if !isAuthentic { #expect(page.allSatisfy { $0 == 0 }, "bytes that are not authentic must not be seen") }
        return isAuthentic ? page : nil
    }

    private struct Vectors: Decodable {
        struct Format: Decodable {
            let format: UInt32
            let pageBytes: Int
            let page, keyCheck: String
        }
        struct LogHeader: Decodable {
            let offset: UInt64
            let plaintext, masked: String
        }
        let formats: [Format]
        let logHeader: LogHeader
    }

    /// docs/format.md §10 and §13: what another implementation made of the same description.
    @Test func agreesWithTheFormat() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Vectors/pages.json")
        let vectors = try JSONDecoder().decode(Vectors.self, from: Data(contentsOf: file))
        #expect(vectors.formats.map(\.format) == EngineFormat.allCases.map(\.rawValue))
        for vector in vectors.formats {
            let format = try #require(EngineFormat(rawValue: vector.format))
            #expect(format.pageBytes == vector.pageBytes)
            let page = seal(sealer(randomness: CountingRandomness(), pageBytes: vector.pageBytes))
            #expect(hexadecimal(SHA256.hash(data: page)) == vector.page)
            let check = PageSealer.keyCheck(pageKey: Self.key, databaseID: Self.databaseID, format: format)
            #expect(hexadecimal(check) == vector.keyCheck)
        }
        var header = (0..<16).map { UInt8($0) }
        #expect(hexadecimal(header) == vectors.logHeader.plaintext)
        let sealer = sealer()
        header.withUnsafeMutableBytes {
            sealer.maskLogHeader($0.baseAddress!, frameOffset: vectors.logHeader.offset)
        }
        #expect(hexadecimal(header) == vectors.logHeader.masked)
        header.withUnsafeMutableBytes {
            sealer.unmaskLogHeader($0.baseAddress!, frameOffset: vectors.logHeader.offset)
        }
        #expect(hexadecimal(header) == vectors.logHeader.plaintext)
    }

    private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String(UInt16($0) | 0x100, radix: 16).dropFirst() }.joined()
    }

    @Test func opensWhatItSealed() {
        let one = sealer()
        #expect(open(one, seal(one)) == Self.plain)
        #expect(open(sealer(), seal(one)) == Self.plain, "a later start")
        #expect(seal(one) != seal(one), "no nonce twice")
    }

    @Test func refusesWhatBelongsElsewhere() {
        let one = sealer()
        let page = seal(one)
        #expect(open(one, page, .database, 6) == nil)
        #expect(open(one, page, .log, 5) == nil)
        #expect(open(sealer(databaseID: [UInt8](repeating: 0x18, count: 16)), page) == nil)
        #expect(open(sealer(key: SecretBytes(copying: [UInt8](repeating: 0x43, count: 32))), page) == nil)
        for index in stride(from: 0, to: Self.pageBytes, by: 61) + Array(Self.bodyBytes..<Self.pageBytes) {
            var changed = page
            changed[index] ^= 0x80
            #expect(open(one, changed) == nil, "byte \(index)")
        }
    }

    @Test func epochsEnd() {
        let one = sealer(pagesPerEpoch: 3)
        let pages = (0..<10).map { _ in seal(one) }
        #expect(Set(pages.map { $0[Self.bodyBytes..<Self.bodyBytes + 16] }).count == 4)
        #expect(
            Set(pages.map { $0[Self.bodyBytes..<Self.bodyBytes + 24] }).count == 10,
            "epoch and counter together are unique")
        for page in pages { #expect(open(one, page) == Self.plain) }
    }

    /// SQLite's sum covers these bytes, which come back as zeros.
    @Test func refusesUsedReservedBytes() {
        var page = Self.plain
        page[Self.pageBytes - 1] = 1
        var sealed = page
        let done = page.withUnsafeBytes { page in
            sealed.withUnsafeMutableBytes {
                sealer().seal(page.baseAddress!, into: $0.baseAddress!, kind: .log, position: 0)
            }
        }
        #expect(!done)
    }
}

@Suite struct ExtentFormatTests {
    @Test func placesComeBack() throws {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            let place: ExtentPlace =
                Bool.random()
                ? .file(random.next())
                : .record(segment: random.next(), offset: Int(random.next() >> 24), byteCount: Int(random.next() >> 24))
            #expect(try ExtentPlace(place.location) == place)
            var bytes = place.location.bytes
            bytes[Int(random.next() % UInt64(bytes.count))] ^= UInt8(1 << (random.next() % 8))
            // Another place or none; never a crash, and never the same.
            if let other = try? ExtentPlace(ExtentLocation(bytes)) { #expect(other != place) }
        }
    }

    @Test func recordsComeBack() throws {
        var random = SystemRandomNumberGenerator()
        var bytes = [UInt8](repeating: 0, count: SegmentRecord.headerBytes)
        for _ in 0..<500 {
            let record = SegmentRecord(
                openCount: UInt32.random(in: 0...UInt32.max, using: &random), segment: random.next(),
                offset: Int(random.next() >> 8), byteCount: Int(random.next() >> 24),
                checksum: .random(in: 0...UInt32.max, using: &random))
            bytes.withUnsafeMutableBytes { record.write(to: $0) }
            let read = { bytes.withUnsafeBytes { SegmentRecord($0, segment: record.segment, offset: record.offset) } }
            #expect(read() == record)
            let before = bytes
            bytes[Int(random.next() % 40)] ^= UInt8(1 << (random.next() % 8))
            #expect(read() == nil, "a changed header")
            bytes = before
            #expect(
                bytes.withUnsafeBytes { SegmentRecord($0, segment: record.segment, offset: record.offset &+ 64) } == nil
            )
        }
    }

    /// Whatever a segment holds, the engine opens, lists what is whole, and writes on.
    @Test func damagedSegmentsDoNotStopTheEngine() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        var written: [ExtentLocation] = []
        for round in 0..<8 { written.append(try await extent(engine, UInt8(round), 500 * (round + 1))) }
        engine.close()
        let segments = try FileManager.default.contentsOfDirectory(atPath: directory.path + "/extents/segments")
        #expect(segments.count == 1)
        let file = "extents/segments/\(segments[0])"
        let whole = directory.bytes(file)
        var random = SystemRandomNumberGenerator()
        for round in 0..<60 {
            var damaged = whole
            switch round % 3 {
            case 0: damaged.removeLast(Int(random.next() % UInt64(whole.count)))
            case 1:
                for _ in 0..<20 {
                    damaged[Int(random.next() % UInt64(whole.count))] = UInt8(truncatingIfNeeded: random.next())
                }
            default: damaged.replaceSubrange(0..<Int(random.next() % 2000), with: whole[0..<Int(random.next() % 2000)])
            }
            directory.write(damaged, to: file)
            let engine = try directory.open()
            for listing in try await engine.list(after: nil, limit: 100) {
                let bytes = try await engine.read(listing.location, range: 0..<listing.byteCount)
                let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self)!
                #expect(bytes == .init(repeating: first, count: listing.byteCount))
            }
            for location in written { _ = try? await engine.read(location, range: 0..<500) }
            let fresh = try await extent(engine, 99, 100)
            #expect(try await engine.read(fresh, range: 0..<100) == .init(repeating: 99, count: 100))
            for location in written { _ = try? await engine.delete(location) }
            engine.close()
            for name in try FileManager.default.contentsOfDirectory(atPath: directory.path + "/extents/segments") {
                try FileManager.default.removeItem(atPath: directory.path + "/extents/segments/\(name)")
            }
        }
    }

    @Test(arguments: EngineFormat.allCases) func identityComesBack(format: EngineFormat) throws {
        let identity = EngineIdentity(format: format, databaseID: Array(0..<16), keyCheck: Array(16..<48))
        #expect(identity.bytes.count == 68)
        #expect(try EngineIdentity(identity.bytes, path: "/x") == identity)
    }

    /// The check value of RFC 3720 and of every table of CRCs, in pieces of every size.
    @Test func checksum() {
        let bytes = Array("123456789".utf8)
        for cut in 0...9 {
            var sum = Checksum()
            bytes[..<cut].withUnsafeBytes { sum.update($0) }
            bytes[cut...].withUnsafeBytes { sum.update($0) }
            #expect(sum.value == 0xe306_9283)
        }
    }
}
