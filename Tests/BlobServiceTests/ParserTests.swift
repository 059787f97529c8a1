import CofferCore
import HTTPEdge
import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService
@testable import EncryptionAtRest
@testable import StorageAccount

/// Rows that hold something: what is written is read again, a part of it is not, and what was tampered with stays
/// within its own bounds.
@Suite struct HostileRecordTests {
    // MARK: Manifests

    private static func encoded(_ manifest: Manifest) -> (bytes: [UInt8], bodies: ArraySlice<UInt8>) {
        var writer = RecordWriter()
        manifest.encode(into: &writer)
        return (writer.bytes, InlineBodies.encode(manifest.extents))
    }
    private static func manifest(_ bytes: [UInt8], _ bodies: ArraySlice<UInt8>) throws(RecordError) -> Manifest {
        var reader = RecordReader(bytes)
        let manifest = try Manifest(from: &reader, bodies: InlineBodies(bodies))
        try reader.finish()
        return manifest
    }

    @Test func manifestsReadWhatTheyWrite() throws {
        let random = SeededRandomness(21)
        for _ in 0..<60 {
            let manifest = random.manifest()
            let (bytes, bodies) = Self.encoded(manifest)
            #expect(try Self.manifest(bytes, bodies).slices == manifest.slices)
            for _ in 0..<8 {
                let part = Array(bytes[..<random.number(0..<bytes.count)])
                #expect(throws: RecordError.self) { try Self.manifest(part, bodies) }
            }
            // A body that no slice names.
            #expect(throws: RecordError.self) { try Self.manifest(bytes, bodies + [0]) }
        }
    }

    @Test func mutatedManifestsStayWithinTheirExtents() throws {
        let random = SeededRandomness(22)
        let seeds = (0..<20).map { _ in Self.encoded(random.manifest()) }
        var read = 0
        for _ in 0..<1_000 {
            let (bytes, bodies) = random.pick(seeds)
            guard let manifest = try? Self.manifest(random.withBytesReplaced(bytes), bodies) else { continue }
            read += 1
            let length = manifest.length
            #expect(length == manifest.slices.reduce(0) { $0 + UInt64($1.length) })
            let low = random.next() % (length + 1)
            let high = low + random.next() % (length - low + 1)
            let pieces = manifest.pieces(of: low..<high)
            #expect(pieces.reduce(0) { $0 + $1.range.count } == Int(high - low))
            for piece in pieces {
                #expect(piece.range.upperBound <= piece.extent?.plaintextBytes ?? .max)
            }
            let again = Self.encoded(manifest)
            #expect(try Self.manifest(again.bytes, again.bodies).slices == manifest.slices)
        }
        #expect(read > 100, "a changed key or location is still a manifest")
    }

    // MARK: Page maps

    /// Where each byte comes from; nil is a zero that nothing holds.
    private static func cells(_ manifest: Manifest) -> [Int?] {
        manifest.pieces(of: 0..<manifest.length).flatMap { piece -> [Int?] in
            piece.range.map { offset in piece.extent.map { Int($0.extentID[0]) * 1_000 + offset } }
        }
    }
    private static func runs(_ model: [Int?], _ window: Range<Int>) -> [Range<UInt64>] {
        var runs: [Range<UInt64>] = []
        for index in model.indices where model[index] != nil && window.contains(index) {
            if let last = runs.last, last.upperBound == UInt64(index) {
                runs[runs.count - 1] = last.lowerBound..<UInt64(index) + 1
            } else {
                runs.append(UInt64(index)..<UInt64(index) + 1)
            }
        }
        return runs
    }
    private static func change(
        _ manifest: inout Manifest, _ model: inout [Int?], _ random: SeededRandomness, _ step: Int
    ) {
        let start = random.number(0..<model.count)
        let length = random.number(1..<model.count - start + 1)
        let isClear = random.number(0..<3) == 0
        let extent = ExtentReference(
            location: [1], extentID: [UInt8(step)] + [UInt8](repeating: 0, count: 15), plaintextBytes: length,
            log2ChunkBytes: 14, wrappedKey: [])
        let written = Manifest.Slice(blockID: "", extent: extent, offset: 0, length: length)
        manifest.replace(from: UInt64(start), with: isClear ? .zeros(length) : written)
        for index in 0..<length { model[start + index] = isClear ? nil : step * 1_000 + index }
    }

    @Test func pagesAgreeWithAModel() {
        let random = SeededRandomness(23)
        for _ in 0..<40 {
            var model = [Int?](repeating: nil, count: random.number(1..<100))
            var manifest = Manifest.zeros(UInt64(model.count))
            for step in 1...12 {
                Self.change(&manifest, &model, random, step)
                #expect(Self.cells(manifest) == model)
                let low = random.number(0..<100)
                let window = low..<random.number(low..<101)
                let ranges = ContentLayout(manifest).pageRanges(
                    in: UInt64(window.lowerBound)..<UInt64(window.upperBound))
                #expect(ranges == Self.runs(model, window))
            }
        }
    }

    private static func layout(_ bytes: [UInt8]) throws(RecordError) -> ContentLayout {
        var reader = RecordReader(bytes)
        let layout = try ContentLayout(from: &reader)
        try reader.finish()
        return layout
    }
    private static func encoded(_ layout: ContentLayout) -> [UInt8] {
        var writer = RecordWriter()
        layout.encode(into: &writer)
        return writer.bytes
    }

    @Test func mutatedLayoutsTellRangesOfTheirOwn() throws {
        let random = SeededRandomness(24)
        for _ in 0..<60 {
            var layout = ContentLayout()
            layout.runs = (0..<random.number(0..<8)).map { _ in
                ContentLayout.Run(
                    blockID: random.text(["a", "é", "="], upTo: 3),
                    length: random.next() >> UInt64(random.number(21..<64)), isZeros: random.number(0..<2) == 0)
            }
            let bytes = Self.encoded(layout)
            #expect(try Self.layout(bytes) == layout)
            let part = Array(bytes[..<random.number(0..<bytes.count)])
            #expect(throws: RecordError.self) { try Self.layout(part) }
            for _ in 0..<15 {
                guard let other = try? Self.layout(random.withBytesReplaced(bytes)) else { continue }
                #expect(try Self.layout(Self.encoded(other)) == other)
                let written = other.runs.reduce(UInt64(0)) { $0 + ($1.isZeros ? 0 : $1.length) }
                let ranges = other.pageRanges(in: 0..<UInt64.max)
                #expect(ranges.reduce(UInt64(0)) { $0 + UInt64($1.count) } == written)
                for (range, next) in zip(ranges, ranges.dropFirst()) { #expect(range.upperBound <= next.lowerBound) }
            }
        }
    }

    // MARK: Leases, staged blocks

    private static func lease(_ bytes: [UInt8]) throws(RecordError) -> Lease {
        var reader = RecordReader(bytes)
        let lease = try Lease(from: &reader)
        try reader.finish()
        return lease
    }
    private static func encoded(_ lease: Lease) -> [UInt8] {
        var writer = RecordWriter()
        lease.encode(into: &writer)
        return writer.bytes
    }

    @Test func mutatedLeasesHaveOneState() throws {
        let random = SeededRandomness(25)
        for _ in 0..<150 {
            let (lease, now) = random.lease()
            let bytes = Self.encoded(lease)
            #expect(try Self.lease(bytes) == lease)
            for length in 0..<bytes.count {
                #expect(throws: RecordError.self) { try Self.lease(Array(bytes[..<length])) }
            }
            for _ in 0..<8 {
                guard let other = try? Self.lease(random.withBytesReplaced(bytes)) else { continue }
                #expect(try Self.lease(Self.encoded(other)) == other)
                let state = other.state(at: now)
                #expect((other.id == nil) == (state == .available))
                #expect(other.isActive(at: now) == (state == .leased || state == .breaking))
                #expect((other.durationKind(at: now) != nil) == (state == .leased))
                // What a write leaves of a lease that is over is nothing.
                var settled = other
                settled.settleAfterWrite(at: now)
                #expect(settled == (other.isActive(at: now) ? other : Lease()))
            }
        }
    }

    @Test func mutatedStagedBlocksCountOnAndBack() throws {
        let random = SeededRandomness(26)
        for _ in 0..<300 {
            let count = random.number(0..<2) * random.number(1..<100_001)
            let staged = StagedBlocks(count: count, idBytes: count == 0 ? 0 : random.number(1..<65))
            let bytes = staged.encoded()
            #expect(try StagedBlocks(decoding: bytes) == staged)
            for length in 0..<bytes.count {
                #expect(throws: RecordError.self) { try StagedBlocks(decoding: Array(bytes[..<length])) }
            }
            for _ in 0..<5 {
                guard let other = try? StagedBlocks(decoding: random.withBytesReplaced(bytes)) else { continue }
                #expect((other.count == 0) == (other.idBytes == 0) && other.idBytes <= 64)
                var more = other
                let added: Void? = accepted { () throws(StorageError) in
                    try more.add(idBytes: other.count == 0 ? 7 : Int(other.idBytes), isNew: true)
                }
                #expect((added != nil) == (other.count < 100_000))
                if added != nil { more.remove(1) }
                #expect(more == other)
                more.remove(.max)
                #expect(more == StagedBlocks() || other.count > UInt64(Int.max))
            }
        }
    }
}

/// Paths, queries and headers of a request: any text is a value or a refusal of the client's.
@Suite struct HostileRequestTests {
    private static func request(
        _ path: String = "/ccc/a", _ query: String = "", _ headers: [(String, String)] = []
    ) -> Request {
        Request(
            id: "r", method: .GET, rawPath: path, rawQuery: query, headers: HTTPHeaders(headers),
            endpoint: .storage(account: "acct", service: .blob), names: .coffer(domain: "coffer.test", port: nil),
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"), body: .empty)
    }
    private static func call(_ request: Request, _ account: StorageAccountView) -> BlobCall {
        BlobCall(
            request: request, parameters: QueryParameters(request), account: account, caller: .accountKey,
            now: Timestamp(unixSeconds: 1_790_000_000))
    }

    // MARK: Path and query

    @Test func escapesComeBack() {
        let random = SeededRandomness(31)
        for _ in 0..<2_000 {
            let text = random.unicode(upTo: 12)
            let decoded = percentDecoded(percentEncoded(text, keeping: random.pick(["", "/", "-_.~/"])))
            #expect(decoded.map { Array($0.utf8) } == Array(text.utf8))
            let noise = random.text(["%", "%4", "%41", "%c3%a9", "%C3", "%zz", "a", "é", "+"], upTo: 6)
            guard let value = percentDecoded(noise) else { continue }
            #expect(percentDecoded(percentEncoded(value, keeping: "")) == value)
        }
    }

    @Test func namesComeBackFromTheirPath() throws {
        let random = SeededRandomness(32)
        for _ in 0..<1_000 {
            let name = String(random.unicode(upTo: 20).unicodeScalars.filter { $0.value != 0 }) + "x"
            let path = "/ccc/" + percentEncoded(name, keeping: "/")
            guard case .blob("ccc", let found) = try BlobAddress(rawPath: path, isContainer: false) else {
                Issue.record("\(path) is no blob")
                continue
            }
            // As bytes: names that only look the same are two blobs.
            #expect(Array(found.utf8) == Array(name.utf8))
        }
    }

    /// The path that names the same thing, spelled plainly.
    private static func path(_ address: BlobAddress) -> String {
        switch address {
        case .account: "/"
        case .container(let name): "/" + name + "/"
        case .blob(let container, let name): "/\(container)/" + percentEncoded(name, keeping: "")
        }
    }

    /// The operation works on what the signature covers.
    @Test func pathsAreReadAsTheyAreSigned() throws {
        let random = SeededRandomness(33)
        let parts = ["/", "//", "%2F", "abc", "a", "-", "$root", "..", "%", "%00", "%41", "é", "\u{301}", "A", "0"]
        for _ in 0..<4_000 {
            let path = "/" + random.text(parts, upTo: 6)
            let isContainer = random.number(0..<2) == 0
            let address = accepted { () throws(StorageError) in
                try BlobAddress(rawPath: path, isContainer: isContainer)
            }
            guard let address else { continue }
            #expect(try BlobAddress(rawPath: Self.path(address), isContainer: isContainer) == address)
            let request = Self.request(path, isContainer ? "restype=container" : "")
            let signed = try SharedAccessResource(request, request.query)
            // Signatures of nothing are refused; a root container alone is signed as itself.
            guard !signed.container.isEmpty, signed.blob != nil || signed.container.first != "$" else { continue }
            switch address {
            case .account: Issue.record("\(path) is signed as \(signed.container)")
            case .container(let name): #expect(signed.container == name && signed.blob == nil, "\(path)")
            case .blob(let container, let name):
                #expect(signed.container == container && signed.blob == name, "\(path)")
            }
        }
    }

    @Test func parametersAreReadAsTheyAreSigned() {
        let random = SeededRandomness(34)
        let parts = [
            "comp", "COMP", "c%6fmp", "%43omp", "snapshot", "=", "&", "&&", "%", "%zz", "%26", "%3D", "a", "+", "é",
            "%C3%A9", "%FF", "?",
        ]
        for _ in 0..<4_000 {
            let request = Self.request("/ccc/a", random.text(parts, upTo: 9))
            let parameters = QueryParameters(request)
            for name in ["comp", "snapshot", "a"] {
                let signed = request.query.first { pair in
                    pair.name.utf8.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }.elementsEqual(name.utf8)
                }
                #expect(
                    parameters[name].map { Array($0.utf8) } == signed.map { Array($0.value.utf8) },
                    "\(name) of \(request.rawQuery)")
            }
        }
    }

    // MARK: Headers

    @Test func conditionsAreReadOrRefused() throws {
        let random = SeededRandomness(35)
        for _ in 0..<1_000 {
            let tags = (0..<random.number(1..<4)).map { _ in ETag(number: random.next()) }
            let spellings = tags.map { tag -> String in
                let space = random.text([" "], upTo: 2)
                return space + random.pick([tag.text, tag.quoted, "W/" + tag.quoted]) + space
            }
            let conditions = try Conditions(Self.request("/", "", [("If-Match", spellings.joined(separator: ","))]))
            #expect(tags.allSatisfy { conditions.ifMatch?.matches($0) == true })
            #expect(conditions.ifMatch?.matches(ETag(number: random.next())) == false)
            #expect(conditions.ifMatch?.matches(nil) == false)

            let noise = random.text(
                ["*", "\"", ",", "W/", "0x1", " ", "é", "Sun, 06 Nov 1994", "08:49:37 GMT"], upTo: 5)
            let names = ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "x-ms-lease-id"]
            let request = Self.request("/", "", names.map { ($0, noise) })
            _ = accepted { () throws(StorageError) in try Conditions(request) }
            let source = Self.request("/", "", names.map { ("x-ms-source-" + $0, noise) })
            let read = try Conditions(source, prefix: "x-ms-source-")
            #expect((read.ifMatch == .any) == (noise == "*") && read.leaseID == nil)
        }
    }

    @Test func leaseIdentifiersHaveOneSpelling() {
        let random = SeededRandomness(36)
        let digits = Set("0123456789abcdef")
        for _ in 0..<2_000 {
            let id = random.uuidString()
            let plain = random.number(0..<2) == 0 ? id : id.replacing("-", with: "")
            let (open, close) = random.pick([("", ""), ("{", "}"), ("(", ")")])
            let spelled = open + random.pick([plain, plain.uppercased()]) + close
            #expect(leaseIdentifier(spelled) == id, "\(spelled)")

            var broken = Array(spelled.unicodeScalars)
            broken[random.number(0..<broken.count)] = random.pick(["-", "g", "{", ")", " ", "\u{ff11}", "0", "F"])
            let text = String(String.UnicodeScalarView(broken))
            guard let canonical = leaseIdentifier(text) else { continue }
            #expect(leaseIdentifier(canonical) == canonical && canonical.utf8.count == 36)
            let kept = text.lowercased().filter { digits.contains($0) }
            #expect(canonical.replacing("-", with: "") == kept, "\(text)")
        }
    }

    @Test func metadataIsReadOrRefused() async throws {
        let random = SeededRandomness(37)
        let account = try await Blobs().accounts.account(named: "acct")
        for _ in 0..<1_000 {
            let headers = (0..<random.number(0..<4)).map { _ -> (String, String) in
                let name = random.text(["a", "A", "_", "1", "-", "é"], upTo: 3)
                let value = random.text(["v", ",", " ", "\t", "\u{7f}", "é"], upTo: 3)
                return (random.pick(["x-ms-meta-", "X-Ms-Meta-", "x-ms-met"]) + name, value)
            }
            let call = Self.call(Self.request("/", "", headers), account)
            guard let pairs = accepted({ () throws(StorageError) in try call.metadata() }) else { continue }
            #expect(Set(pairs.map { $0.0.lowercased() }).count == pairs.count)
            #expect(pairs.allSatisfy { $0.0.utf8.allSatisfy { $0 == 0x5f || $0 == 0x61 || $0 == 0x41 || $0 == 0x31 } })
            // What was read is metadata as it stands.
            let again = Self.call(Self.request("/", "", pairs.map { ("x-ms-meta-" + $0.0, $0.1) }), account)
            #expect(try again.metadata().map { [$0.0, $0.1] } == pairs.map { [$0.0, $0.1] })
        }
    }

    private static func header(_ tags: [(String, String)]) -> String {
        tags.map { percentEncoded($0.0, keeping: "") + "=" + percentEncoded($0.1, keeping: "") }
            .joined(separator: "&")
    }

    @Test func tagsAreReadOrRefused() async throws {
        let random = SeededRandomness(38)
        let account = try await Blobs().accounts.account(named: "acct")
        func tags(_ header: String) -> [(String, String)]? {
            let call = Self.call(Self.request("/", "", [("x-ms-tags", header)]), account)
            return accepted { () throws(StorageError) in try call.tagsHeader() }
        }
        let allowed = [" ", "+", "-", ".", "/", ":", "=", "_", "a", "Z", "0"]
        for _ in 0..<600 {
            let given = (0..<random.number(0..<11)).map { index -> (String, String) in
                ("k\(index)" + random.text(allowed, upTo: 5), random.text(allowed, upTo: 5))
            }
            #expect(tags(Self.header(given))?.map { [$0.0, $0.1] } == given.map { [$0.0, $0.1] })

            let noise = random.text(["a", "b=1", "=", "&", "%", "%20", "%3D", "%26", "+", "é", "%C3"], upTo: 7)
            guard let read = tags(noise) else { continue }
            #expect(read.allSatisfy { !$0.0.isEmpty } && Set(read.map(\.0)).count == read.count)
            #expect(tags(Self.header(read))?.map { [$0.0, $0.1] } == read.map { [$0.0, $0.1] }, "\(noise)")
        }
        #expect(tags((0..<11).map { "k\($0)=" }.joined(separator: "&")) == nil, "eleven are too many")
    }

    @Test func hashesAreReadOrRefused() async throws {
        let random = SeededRandomness(39)
        let account = try await Blobs().accounts.account(named: "acct")
        for _ in 0..<1_000 {
            let hash = random.bytes(random.number(14..<19))
            var text = Array(hash.base64.utf8)
            let isWhole = random.number(0..<3) == 0
            if !isWhole { text[random.number(0..<text.count)] = UInt8(random.number(0x20..<0x7f)) }
            let header = String(decoding: text, as: UTF8.self)
            let call = Self.call(Self.request("/", "", [("Content-MD5", header)]), account)
            let answer = accepted { () throws(StorageError) -> [UInt8]? in try call.md5Header("Content-MD5") }
            let read = answer.flatMap { $0 }
            if isWhole { #expect((read == hash) == (hash.count == 16)) }
            if let read { #expect(read.count == 16 && read.base64 == header) }
        }
    }

    // MARK: Lists

    @Test func markersAreReadOrRefused() throws {
        let random = SeededRandomness(40)
        for _ in 0..<2_000 {
            let prefix = random.text(["a", "b", "é"], upTo: 2)
            let range = BlobKeys.listing(prefix: prefix)
            let key = BlobKeys.base(prefix + random.text(["a", "/", "\u{10ffff}"], upTo: 3))
            let marker = ListMarker.encode(key)
            #expect(try ListMarker.decode(marker, within: range) == key)
            var text = Array(marker)
            text[random.number(0..<text.count)] = random.pick(["!", "1", "A", "_", "-", "+", "=", "é", "\u{301}"])
            let other = String(text)
            let read = accepted { () throws(StorageError) in try ListMarker.decode(other, within: range) }
            guard let read else { continue }
            #expect(read.starts(with: range.from) && read.lexicographicallyPrecedes(range.upTo))
            #expect([ListMarker.encode(read), ListMarker.encode(read) + "="].contains(other), "\(other)")
        }
    }

    @Test func listParametersAreReadOrRefused() async throws {
        let random = SeededRandomness(41)
        let account = try await Blobs().accounts.account(named: "acct")
        let noise = ["-", "+", "0", "1", "5000", "99999999999999999999", "x", "é", "%20", ",", "tags", "TAGS", "all"]
        for _ in 0..<2_000 {
            let query = ["prefix", "marker", "maxresults", "include"].map { "\($0)=" + random.text(noise, upTo: 3) }
            let call = Self.call(Self.request("/ccc", query.joined(separator: "&")), account)
            let parameters = accepted { () throws(StorageError) in
                try ListParameters(call, allowedIncludes: ["tags"])
            }
            guard let parameters else { continue }
            #expect((1...5_000).contains(parameters.maximum) && parameters.include.isSubset(of: ["tags"]))
            #expect(parameters.marker != "", "an empty marker is none")
        }
    }
}

/// Documents that are set and told again: a changed one is refused, or told as it was set.
@Suite struct HostileDocumentTests {
    /// Sends what was told once more, and expects the same told again.
    private static func setAndTell(
        _ blobs: Blobs, _ target: String, _ body: [UInt8], done: Int, refusals: ClosedRange<Int> = 400...400
    ) async {
        let answer = await blobs.send(.PUT, target, body: body)
        guard answer.status == done else {
            #expect(refusals.contains(answer.status), "\(answer.status): \(String(decoding: body, as: UTF8.self))")
            return
        }
        let told = await blobs.send(.GET, target)
        #expect(told.status == 200)
        #expect(await blobs.send(.PUT, target, body: told.body).status == done, "\(told.text)")
        #expect(await blobs.send(.GET, target).text == told.text)
    }
    private static let noise: [UInt8] = Array("<>/&;!-]0 Zz".utf8) + [0x00, 0x0d, 0xc3]

    @Test func accessPolicies() async throws {
        let random = SeededRandomness(51)
        let blobs = try await Blobs.withContainer()
        let document =
            "<SignedIdentifiers><SignedIdentifier><Id>one</Id><AccessPolicy><Start>2026-11-22T00:00:00.1234560Z</Start>"
            + "<Expiry>2027-01-01T00:00Z</Expiry><Permission>rwd</Permission></AccessPolicy></SignedIdentifier>"
            + "<SignedIdentifier><Id>&lt;two&gt;</Id></SignedIdentifier></SignedIdentifiers>"
        let target = "/ccc?restype=container&comp=acl"
        await Self.setAndTell(blobs, target, Array(document.utf8), done: 200)
        #expect(await blobs.send(.GET, target).text.contains("<Id>&lt;two&gt;</Id>"))
        for _ in 0..<250 {
            await Self.setAndTell(blobs, target, random.mutated(Array(document.utf8), with: Self.noise), done: 200)
        }
    }

    @Test func tags() async throws {
        let random = SeededRandomness(52)
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "x")
        let document =
            "<Tags><TagSet><Tag><Key>state</Key><Value>open</Value></Tag><Tag><Key>a b</Key><Value></Value></Tag>"
            + "</TagSet></Tags>"
        await Self.setAndTell(blobs, "/ccc/a?comp=tags", Array(document.utf8), done: 204)
        for _ in 0..<200 {
            let body = random.mutated(Array(document.utf8), with: Self.noise)
            await Self.setAndTell(blobs, "/ccc/a?comp=tags", body, done: 204)
        }
    }

    @Test func serviceProperties() async throws {
        let random = SeededRandomness(53)
        let blobs = try await Blobs()
        let document =
            "<StorageServiceProperties><DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy><Cors>"
            + "<CorsRule><AllowedOrigins>https://a.test,b</AllowedOrigins><AllowedMethods>GET,PUT</AllowedMethods>"
            + "<AllowedHeaders>x-ms-*</AllowedHeaders><ExposedHeaders>*</ExposedHeaders>"
            + "<MaxAgeInSeconds>200</MaxAgeInSeconds></CorsRule></Cors>"
            + "<DefaultServiceVersion>2020-02-10</DefaultServiceVersion></StorageServiceProperties>"
        let target = "/?restype=service&comp=properties"
        await Self.setAndTell(blobs, target, Array(document.utf8), done: 202)
        for _ in 0..<200 {
            let body = random.mutated(Array(document.utf8), with: Self.noise)
            await Self.setAndTell(blobs, target, body, done: 202, refusals: 400...409)
        }
    }

    /// A copy has its source's bytes, or is refused.
    @Test func copySources() async throws {
        let random = SeededRandomness(54)
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "source")
        let source = Array("https://acct.blob.core.coffer.test/ccc/a".utf8)
        let noise: [UInt8] = Array("/:?#%@.[]aA ".utf8)
        for _ in 0..<250 {
            let url = String(decoding: random.mutated(source, with: noise), as: UTF8.self)
            let answer = await blobs.send(.PUT, "/ccc/copy", [("x-ms-copy-source", url)])
            guard answer.status == 202 else {
                #expect((400..<500).contains(answer.status), "\(answer.status): \(url)")
                continue
            }
            #expect(await blobs.send(.GET, "/ccc/copy").text == "source", "\(url)")
            _ = await blobs.send(.DELETE, "/ccc/copy")
        }
    }
}

private func accepted<Value>(_ read: () throws(StorageError) -> Value) -> Value? {
    do throws(StorageError) {
        return try read()
    } catch {
        #expect((400..<500).contains(error.status), "\(error.code)")
        return nil
    }
}

extension SeededRandomness {
    /// Scalars of all lengths in UTF-8 alike.
    fileprivate func unicode(upTo count: Int) -> String {
        let scalars = (0..<number(0..<count + 1)).compactMap { _ in
            Unicode.Scalar(UInt32(truncatingIfNeeded: next() >> UInt64(number(43..<60))))
        }
        return String(String.UnicodeScalarView(scalars))
    }
    /// One to three bytes are others; the length stays, so that most of a record is read.
    func withBytesReplaced(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0...number(0..<3) { bytes[number(0..<bytes.count)] = UInt8(number(0..<256)) }
        return bytes
    }
    /// One to four bytes are replaced, gone or put in.
    fileprivate func mutated(_ bytes: [UInt8], with noise: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0...number(0..<4) {
            switch number(0..<3) {
            case 0: bytes[number(0..<bytes.count)] = pick(noise)
            case 1: bytes.remove(at: number(0..<bytes.count))
            default: bytes.insert(pick(noise), at: number(0..<bytes.count + 1))
            }
        }
        return bytes
    }

    fileprivate func extent() -> ExtentReference {
        if number(0..<3) == 0 {
            let length = number(0..<40)
            return ExtentReference(
                inline: bytes(length + InlineExtent.overheadBytes), extentID: bytes(16), plaintextBytes: length)
        }
        return ExtentReference(
            location: bytes(number(1..<65)), extentID: bytes(16),
            plaintextBytes: number(0..<(1 << pick([4, 20, 45])) + 1), log2ChunkBytes: pick([14, 16]),
            wrappedKey: bytes(WrappedExtentKey.byteCount))
    }
    fileprivate func manifest() -> Manifest {
        let extents = (0..<number(1..<4)).map { _ in extent() }
        return Manifest(
            slices: (0..<number(0..<7)).map { _ in
                if number(0..<4) == 0 { return .zeros(number(0..<1 << 20)) }
                let extent = pick(extents)
                let offset = number(0..<extent.plaintextBytes + 1)
                return Manifest.Slice(
                    blockID: text(["QQ==", "é"], upTo: 2), extent: extent, offset: offset,
                    length: number(0..<extent.plaintextBytes - offset + 1))
            })
    }
    /// A lease in any of its states, and a time at which it is.
    fileprivate func lease() -> (Lease, now: Timestamp) {
        var lease = Lease()
        var now = Timestamp(unixSeconds: Int64(number(0..<2_000_000_000)))
        for _ in 0..<number(0..<4) {
            switch number(0..<3) {
            case 0: _ = try? lease.acquire(id: uuidString(), durationSeconds: pick([nil, 15, 60]), at: now)
            case 1: _ = try? lease.breakLease(periodSeconds: pick([nil, 0, 60]), at: now)
            default: now = now.adding(seconds: Int64(number(0..<40)))
            }
        }
        return (lease, now)
    }
}
