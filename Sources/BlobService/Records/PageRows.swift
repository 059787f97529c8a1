internal import CofferCore
internal import EncryptionAtRest

/// Row keys of page maps inside a container's partition.
enum PageKeys {
    private static let leafMark: UInt8 = 0x6d
    private static let releaseMark: UInt8 = 0x72
    typealias Bounds = (from: [UInt8], upTo: [UInt8])

    /// By leaf, and of one leaf the newest first: what an epoch sees of a leaf is the first row from its own on.
    static func leaf(_ map: [UInt8], _ index: Int, _ epoch: UInt32) -> [UInt8] {
        key(leafMark, map, [UInt32(index), ~epoch])
    }
    static func leaves(_ map: [UInt8]) -> Bounds { bounds([leafMark] + map) }
    /// Up to the first row of the leaf `end`.
    static func end(_ map: [UInt8], _ end: Int) -> [UInt8] { key(leafMark, map, [UInt32(end)]) }
    /// nil for a key of another kind.
    static func parseLeaf(_ key: [UInt8]) -> (index: Int, epoch: UInt32)? {
        guard isLeaf(key), key.count == 1 + PageMapRoot.idBytes + 8 else { return nil }
        return (Int(number(key[17..<21])), ~number(key[21..<25]))
    }
    static func isLeaf(_ key: [UInt8]) -> Bool { key.first == leafMark }

    /// That somebody ceased to hold a map at an epoch.
    static func release(_ map: [UInt8], _ epoch: UInt32) -> [UInt8] { key(releaseMark, map, [epoch]) }
    static func releases(_ map: [UInt8]) -> Bounds { bounds([releaseMark] + map) }
    static let allReleases: Bounds = ([releaseMark], [releaseMark + 1])
    static func isRelease(_ key: [UInt8]) -> Bool { key.first == releaseMark }
    static func parseRelease(_ key: [UInt8]) -> (map: [UInt8], epoch: UInt32)? {
        guard isRelease(key), key.count == 1 + PageMapRoot.idBytes + 4 else { return nil }
        return (Array(key[1..<17]), number(key[17..<21]))
    }

    private static func bounds(_ prefix: [UInt8]) -> Bounds { (prefix, BlobKeys.successor(of: prefix)) }
    private static func key(_ mark: UInt8, _ map: [UInt8], _ numbers: [UInt32]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(1 + map.count + 4 * numbers.count)
        bytes.append(mark)
        bytes.append(contentsOf: map)
        for number in numbers { withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) } }
        return bytes
    }
    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reduce(0) { $0 << 8 | UInt32($1) } }
}

/// The visible part of a leaf's row. The sealed part is the leaf's content, a manifest of 1 MiB under the blob's key.
struct PageLeafRecord: Sendable, Equatable {
    /// The entity tag's number of the write that made the leaf what it is; 0 in a copy. A reader who began before knows
    /// by it that the blob has gone on.
    var stamp: UInt64
    /// Where the leaf's extents lie, as `BlobRecord.releasable`.
    var releasable: [ExtentReference]
    /// The leaf's layout under the account's key, where a customer-provided key seals the content.
    var accountSealed: [UInt8] = []

    private static let version: UInt8 = 1

    func encoded() -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(Self.version)
        writer.number(stamp)
        writer.number(UInt64(releasable.count))
        for extent in releasable { writer.byteString(extent.location) }
        writer.byteString(accountSealed)
        return writer.bytes
    }
    init(stamp: UInt64, releasable: [ExtentReference]) {
        self.stamp = stamp
        self.releasable = releasable
    }
    init(decoding bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        guard try reader.byte() == Self.version else { throw .malformed }
        stamp = try reader.number()
        let count = try reader.int()
        guard count <= reader.remaining else { throw .malformed }
        releasable = []
        releasable.reserveCapacity(count)
        for _ in 0..<count {
            let location = try reader.byteString()
            guard !location.isEmpty else { throw .malformed }
            releasable.append(ExtentReference(releasing: location))
        }
        accountSealed = try reader.byteString()
        try reader.finish()
    }

    static func encode(_ content: Manifest) -> [UInt8] {
        var writer = RecordWriter(reserving: 512)
        writer.byte(version)
        content.encode(into: &writer)
        return writer.bytes
    }
    static func decodeContent(_ bytes: [UInt8], bodies: InlineBodies) throws(RecordError) -> Manifest {
        var reader = RecordReader(bytes)
        guard try reader.byte() == version else { throw .malformed }
        let content = try Manifest(from: &reader, bodies: bodies)
        try reader.finish()
        guard content.slices.allSatisfy({ $0.length <= PageMapRoot.leafBytes }),
            content.length == UInt64(PageMapRoot.leafBytes)
        else { throw .malformed }
        return content
    }
    static func encode(_ layout: ContentLayout) -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(version)
        layout.encode(into: &writer)
        return writer.bytes
    }
    static func decodeLayout(_ bytes: [UInt8]) throws(RecordError) -> ContentLayout {
        var reader = RecordReader(bytes)
        guard try reader.byte() == version else { throw .malformed }
        let layout = try ContentLayout(from: &reader)
        try reader.finish()
        return layout
    }
}

/// That a holder of a map is gone, and since when: work for the collector. `name` is the blob's, where the others who
/// hold the map are found.
struct PageReleaseRecord: Sendable, Equatable {
    var releasedAt: Timestamp
    var name: String

    private static let version: UInt8 = 1

    func encoded() -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(Self.version)
        writer.timestamp(releasedAt)
        writer.string(name)
        return writer.bytes
    }
    init(releasedAt: Timestamp, name: String) {
        self.releasedAt = releasedAt
        self.name = name
    }
    init(decoding bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        guard try reader.byte() == Self.version else { throw .malformed }
        releasedAt = try reader.timestamp()
        name = try reader.string()
        try reader.finish()
    }
}
