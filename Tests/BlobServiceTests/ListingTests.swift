import CofferCore
import EncryptionAtRest
import NIOCore
import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService

@Suite struct ListingTests {
    /// Names from a small alphabet with delimiters in it, so that prefixes and folds meet often.
    private static func names(_ random: SeededRandomness, _ count: Int) -> Set<String> {
        let parts = ["a", "b", "/", "//", "-", "é", "a/", "z", "\u{10ffff}", "%", " "]
        var names: Set<String> = []
        while names.count < count {
            let name = (0...random.number(0..<5)).map { _ in parts[random.number(0..<parts.count)] }.joined()
            names.insert(name)
        }
        return names
    }
    private static func model(_ names: Set<String>, prefix: String, delimiter: String) -> [String] {
        let sorted = names.map { Array($0.utf8) }.sorted { $0.lexicographicallyPrecedes($1) }
        var lines: [String] = []
        for name in sorted where name.starts(with: prefix.utf8) {
            var line = "blob:" + String(decoding: name, as: UTF8.self)
            if !delimiter.isEmpty {
                let mark = Array(delimiter.utf8)
                let starts = (prefix.utf8.count..<max(prefix.utf8.count, name.count - mark.count + 1))
                if let start = starts.first(where: { name[$0..<$0 + mark.count].elementsEqual(mark) }) {
                    line = "prefix:" + String(decoding: name[..<(start + mark.count)], as: UTF8.self)
                }
            }
            if lines.last != line { lines.append(line) }
        }
        return lines
    }

    @Test(arguments: [1, 2, 3]) func pagesAgreeWithAModel(_ seed: UInt64) async throws {
        let random = SeededRandomness(seed)
        let blobs = try await Blobs.withContainer(seed: seed)
        let names = Self.names(random, 60)
        for name in names {
            #expect(await blobs.put(percentEncoded(name, keeping: "/"), "x").status == 201)
            // Snapshots must not show, count, or move a page's end.
            if random.number(0..<4) == 0 {
                _ = await blobs.send(.PUT, "/ccc/\(percentEncoded(name, keeping: "/"))?comp=snapshot")
            }
        }
        for _ in 0..<40 {
            let prefix = ["", "a", "a/", "b", "é", "/", "zz"][random.number(0..<7)]
            let delimiter = ["", "/", "//", "a", "-"][random.number(0..<5)]
            let size = random.number(1..<20)
            var lines: [String] = []
            var marker = ""
            var pages = 0
            repeat {
                let target =
                    "/ccc?restype=container&comp=list&maxresults=\(size)&prefix=\(percentEncoded(prefix, keeping: ""))"
                    + "&delimiter=\(percentEncoded(delimiter, keeping: ""))&marker=\(marker)"
                let page = try await blobs.send(.GET, target).xml()
                let items = page["Blobs"]?.children ?? []
                #expect(items.count <= size)
                lines += items.map { ($0.name == "Blob" ? "blob:" : "prefix:") + ($0["Name"]?.text ?? "") }
                marker = page["NextMarker"]?.text ?? ""
                if !marker.isEmpty { #expect(items.count == size, "a page that is not the last is full") }
                pages += 1
            } while !marker.isEmpty && pages < 200
            #expect(
                lines == Self.model(names, prefix: prefix, delimiter: delimiter),
                "prefix \(prefix), delimiter \(delimiter), \(size)")
        }
    }

    @Test func namesThatXMLCannotHold() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a%01b", "x")
        let answer = await blobs.send(.GET, "/ccc?restype=container&comp=list")
        #expect(answer.text.contains("<Name Encoded=\"true\">a%01b</Name>"))
    }

    @Test func markersOfOthersAreRefused() async throws {
        let blobs = try await Blobs.withContainer()
        for marker in ["x", "1!", "1!AAAA", "2!92!MDAw", "1!%00"] {
            #expect(await blobs.send(.GET, "/ccc?restype=container&comp=list&marker=\(marker)").status == 400)
        }
    }
}

@Suite struct ParserTests {
    @Test func mutatedXMLNeverCrashes() throws {
        let random = SeededRandomness(5)
        let seed = Array(
            "<?xml version=\"1.0\"?><BlockList><Latest>QQ==</Latest><!-- c --><Committed><![CDATA[QQ==]]></Committed></BlockList>"
                .utf8)
        for _ in 0..<3_000 {
            var bytes = seed
            for _ in 0...random.number(0..<6) {
                switch random.number(0..<3) {
                case 0 where !bytes.isEmpty: bytes[random.number(0..<bytes.count)] = UInt8(random.number(0..<256))
                case 1 where !bytes.isEmpty: bytes.remove(at: random.number(0..<bytes.count))
                default:
                    bytes.insert(
                        [0x3c, 0x3e, 0x26, 0x21, 0x00][random.number(0..<5)], at: random.number(0..<bytes.count + 1))
                }
            }
            if let root = try? readXML(ByteBuffer(bytes: bytes)) { _ = try? BlockListRequest(root) }
        }
    }

    @Test(arguments: [
        "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "", "text",
        "<a>", "<a/><b/>",
        "<a>&undefined;</a>", String(repeating: "<a>", count: 100) + String(repeating: "</a>", count: 100),
    ]) func refusedXML(_ text: String) {
        #expect(throws: (any Error).self) { try readXML(ByteBuffer(string: text)) }
    }

    @Test func xmlRoundTrip() throws {
        let random = SeededRandomness(6)
        for _ in 0..<300 {
            let text = String((0..<random.number(0..<20)).map { _ in "a<>&\"'é\n\t ]\u{1f600}".randomElement(random) })
            var xml = XMLDocumentWriter()
            xml.open("a", [("k", text)])
            xml.element("b", text)
            xml.close("a")
            #expect(try readXML(xml.finish())["b"]?.text == text)
        }
    }

    @Test func mutatedRecordsNeverCrash() throws {
        let random = SeededRandomness(7)
        var record = BlobRecord(etag: ETag(number: 77), at: Timestamp(unixSeconds: 5))
        record.content = ContentHeaders(type: "t", encoding: nil, language: "l", disposition: nil, cacheControl: "c")
        record.copy = CopyRecord(id: "i", source: "s", completed: Timestamp(unixSeconds: 9), bytes: 3)
        record.tier = .cold
        record.customerKeySHA256 = "hash"
        record.accountSealed = [1, 2, 3]
        let bytes = record.encoded()
        #expect(try BlobRecord(decoding: bytes).encoded() == bytes)
        for length in 0..<bytes.count {
            #expect(throws: RecordError.self) { try BlobRecord(decoding: Array(bytes[..<length])) }
        }
        var secrets = BlobSecrets()
        secrets.metadata = [("k", "v")]
        secrets.md5 = [1, 2]
        secrets.tags = [("t", "u")]
        let sealed = secrets.encoded(including: true)
        let none = SealedPart.none.inlineBodies
        #expect(try BlobSecrets(decoding: sealed, bodies: none).encoded(including: true) == sealed)
        for _ in 0..<5_000 {
            var broken = random.number(0..<2) == 0 ? bytes : sealed
            broken[random.number(0..<broken.count)] = UInt8(random.number(0..<256))
            _ = try? BlobRecord(decoding: broken)
            _ = try? BlobSecrets(decoding: broken, bodies: none)
            _ = try? BlockRecord(decoding: broken)
            _ = BlobKeys.parse(broken)
        }
    }

    @Test func rangesNeverTrap() {
        let random = SeededRandomness(8)
        for text in [
            "bytes=0-18446744073709551615", "bytes=18446744073709551615-", "bytes=99999999999999999999-", "bytes=5-4",
            "bytes=", "x",
        ] {
            _ = try? ByteRange(header: text)?.resolve(length: 10)
        }
        for _ in 0..<2_000 {
            let low = random.next() >> UInt64(random.number(0..<64))
            let high = random.next() >> UInt64(random.number(0..<64))
            let length = random.next() >> UInt64(random.number(0..<64))
            guard let range = ByteRange(header: "bytes=\(low)-\(high)") else {
                #expect(high < low)
                continue
            }
            let resolved = try? range.resolve(length: length)
            #expect((resolved == nil) == (low >= length))
            if let resolved {
                #expect(
                    resolved.lowerBound == low && resolved.upperBound == min(high &+ 1 == 0 ? length : high + 1, length)
                )
            }
        }
    }
}

extension String {
    fileprivate func randomElement(_ random: SeededRandomness) -> Character {
        self[index(startIndex, offsetBy: random.number(0..<count))]
    }
}
