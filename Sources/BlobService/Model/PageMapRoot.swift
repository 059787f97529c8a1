internal import StorageAccount

/// What bounds the work of a request on a page map, and the size of its rows.
struct PageMapLimits: Sendable {
    /// Rows looked at in one go.
    var windowRows = 64
    /// A leaf of more extents is written anew as one: its row stays small, however it is written.
    var extentsPerLeaf = 64
    /// So is one that holds extents of more bytes: of a write of 4 MiB a leaf may need a single page.
    var bytesHeldPerLeaf = 16 << 20
}

/// A page blob's map of pages lies in rows of its own, leaves, each of 1 MiB of the blob's address space; this is what
/// the row of a base blob or snapshot says of it. Who has such a root holds the map.
///
/// A leaf's row is named by map, index and the epoch it was first written in. A holder sees of each leaf the newest row
/// of its epoch or before. So a snapshot copies the root and moves the base blob to the next epoch; what is written
/// then goes to new rows, and the snapshot's stay as they are.
struct PageMapRoot: Sendable, Equatable {
    /// Leaves that were emptied all at once: what their rows of `epoch` and before say is not so for this holder.
    struct Hole: Sendable, Equatable {
        var leaves: Range<Int>
        var epoch: UInt32

        func hides(_ leaf: Int, _ epoch: UInt32) -> Bool { epoch <= self.epoch && leaves.contains(leaf) }
    }

    /// Drawn when the map is made, so that no row of another map is ever taken for one of this.
    let id: [UInt8]
    /// What the base blob writes now is of this epoch, and what a snapshot sees is of it or before.
    private(set) var epoch: UInt32 = 1
    /// Rows of this epoch and before may be a snapshot's, too; a base blob copies them instead of changing them.
    private(set) var frozen: UInt32 = 0
    private(set) var holes: [Hole] = []

    static let idBytes = 16
    static let leafBytes = 1 << 20
    static let leafCount = Int(BlobLimits.pageBlobBytes) / leafBytes
    static let holesLimit = 1_000

    init(id: [UInt8]) {
        precondition(id.count == Self.idBytes)
        self.id = id
    }

    /// The leaves that `range` touches.
    static func leaves(touching range: Range<UInt64>) -> Range<Int> {
        Int(range.lowerBound) / leafBytes..<(Int(range.upperBound) + leafBytes - 1) / leafBytes
    }
    /// The leaves that lie in `range` as a whole; none when there is no such leaf.
    static func leaves(within range: Range<UInt64>) -> Range<Int> {
        let first = (Int(range.lowerBound) + leafBytes - 1) / leafBytes
        return first..<max(first, Int(range.upperBound) / leafBytes)
    }
    static func range(of leaf: Int) -> Range<UInt64> {
        UInt64(leaf * leafBytes)..<UInt64((leaf + 1) * leafBytes)
    }

    /// Whether this holder takes no notice of a row.
    func hides(_ leaf: Int, _ epoch: UInt32) -> Bool {
        holes.contains { $0.hides(leaf, epoch) }
    }

    /// Which holes keep a row out of this holder's sight, by position.
    func holes(over leaf: Int, _ epoch: UInt32) -> [Int] {
        holes.indices.filter { holes[$0].hides(leaf, epoch) }
    }

    /// What stands in rows now stays as it is: later writes go to new ones. Throws 503 behind the last epoch, after
    /// four thousand million snapshots.
    mutating func freeze() throws(StorageError) {
        guard epoch < .max else { throw .serverBusy }
        frozen = epoch
        epoch += 1
    }

    /// Empties `leaves` without a look at them; their rows are for the collector. Throws 503 when that has fallen too
    /// far behind.
    mutating func empty(_ leaves: Range<Int>) throws(StorageError) {
        try freeze()
        holes.removeAll { leaves.contains($0.leaves.lowerBound) && $0.leaves.upperBound <= leaves.upperBound }
        guard holes.count < Self.holesLimit else { throw .serverBusy }
        holes.append(Hole(leaves: leaves, epoch: frozen))
    }

    /// The collector has found nobody else who holds rows of before `newest`; true when that is news.
    mutating func thaw(to newest: UInt32) -> Bool {
        guard newest < frozen else { return false }
        frozen = newest
        return true
    }
    /// The collector has found that these hide nothing any more.
    mutating func close(_ closed: [Hole]) { holes.removeAll(where: closed.contains) }

    func encode(into writer: inout RecordWriter) {
        writer.byteString(id)
        writer.number(UInt64(epoch))
        writer.number(UInt64(frozen))
        writer.number(UInt64(holes.count))
        for hole in holes {
            writer.number(UInt64(hole.leaves.lowerBound))
            writer.number(UInt64(hole.leaves.count))
            writer.number(UInt64(hole.epoch))
        }
    }
    init(from reader: inout RecordReader) throws(RecordError) {
        id = try reader.byteString()
        guard id.count == Self.idBytes else { throw .malformed }
        epoch = try Self.epoch(from: &reader)
        frozen = try Self.epoch(from: &reader)
        let count = try reader.int()
        guard frozen < epoch, count <= Self.holesLimit else { throw .malformed }
        for _ in 0..<count {
            let start = try reader.int()
            let length = try reader.int()
            let epoch = try Self.epoch(from: &reader)
            guard start < Self.leafCount, length > 0, length <= Self.leafCount - start, epoch < self.epoch else {
                throw .malformed
            }
            holes.append(Hole(leaves: start..<start + length, epoch: epoch))
        }
    }
    private static func epoch(from reader: inout RecordReader) throws(RecordError) -> UInt32 {
        guard let epoch = UInt32(exactly: try reader.number()) else { throw .malformed }
        return epoch
    }
}
