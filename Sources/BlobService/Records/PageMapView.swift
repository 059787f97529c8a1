internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import Synchronization

/// The pages a reader has not come to yet were written meanwhile: what it would read is no state the blob ever had.
struct ContentChanged: Error {}

/// A page blob's map as one holder sees it, read piece by piece.
struct PageMapView: Sendable {
    /// A row of a leaf, the one that counts.
    struct Leaf: Sendable {
        let index: Int
        let epoch: UInt32
        let key: [UInt8]
        let record: PageLeafRecord
        let sealed: SealedPart
    }

    let volume: AccountVolume
    let partition: VolumePartition
    let root: PageMapRoot
    /// The entity tag's number that was read with the root; a leaf written later ends the walk with `ContentChanged`.
    /// nil: every leaf is taken as it is found.
    let stamp: UInt64?
    let limits: PageMapLimits
    /// Keeps the collector from what this view may still look at.
    let pin: PageMapPins.Pin

    /// The first leaves of `leaves` that hold something or did, and what of `leaves` is still to be looked at. A leaf
    /// that is in neither is zeros. Of what was found, one state of the blob, where there is a stamp.
    ///
    /// As many rows are asked for as leaves are wanted: what lies behind the rows of earlier epochs is sought anew, so
    /// that a leaf costs the same whatever the number of snapshots.
    func window(_ leaves: Range<Int>) async throws -> (found: [Leaf], rest: Range<Int>) {
        var found: [Leaf] = []
        var position = leaves.lowerBound
        var looked = 0
        while position < leaves.upperBound, looked < limits.windowRows {
            let limit = min(limits.windowRows - looked, leaves.count)
            let rows = try await volume.scan(
                partition, from: PageKeys.leaf(root.id, position, root.epoch),
                upTo: PageKeys.end(root.id, leaves.upperBound), limit: limit)
            looked += rows.count
            for row in rows {
                guard let (index, epoch) = PageKeys.parseLeaf(row.key) else { throw RecordError.malformed }
                // Older than what was taken of this leaf, or newer than what this holder sees.
                guard index >= position else { continue }
                position = index
                guard epoch <= root.epoch else { continue }
                position += 1
                guard !root.hides(index, epoch) else { continue }
                let record = try PageLeafRecord(decoding: row.visible)
                if let stamp, record.stamp > stamp { throw ContentChanged() }
                found.append(Leaf(index: index, epoch: epoch, key: row.key, record: record, sealed: row.sealed))
            }
            if rows.count < limit { position = leaves.upperBound }
        }
        return (found, position..<leaves.upperBound)
    }

    func content(of leaf: Leaf, under key: DataKey) async throws -> Manifest {
        let plain = try await volume.open(leaf.sealed, at: leaf.key, in: partition, under: key)
        return try PageLeafRecord.decodeContent(plain, bodies: leaf.sealed.inlineBodies)
    }

    /// Which pages of a leaf were written. `accountKey` is the account's, whatever key the content answers to.
    func layout(of leaf: Leaf, under accountKey: DataKey) async throws -> ContentLayout {
        guard !leaf.record.accountSealed.isEmpty else {
            return ContentLayout(try await content(of: leaf, under: accountKey))
        }
        let part = SealedPart(leaf.record.accountSealed)
        return try PageLeafRecord.decodeLayout(
            try await volume.open(part, at: leaf.key, in: partition, under: accountKey))
    }

    /// What a walk found is what was there only as long as the container was: its deletion takes rows away under a
    /// reader, who would take them for zeros.
    func confirmContainer() async throws {
        guard try await volume.get(partition, [BlobKeys.container])[0] != nil else { throw ContentChanged() }
    }

    /// The pieces that hold `range` as far as one window goes, and what of it is left.
    func pieces(
        of range: Range<UInt64>, under key: DataKey
    ) async throws -> (pieces: [Manifest.Piece], rest: Range<UInt64>) {
        guard range.count <= Self.bytesLookedUpInPlace else {
            return try await awayFromEventLoop { try await eachPiece(of: range, under: key) }
        }
        return try await eachPiece(of: range, under: key)
    }
    /// Leaves of many extents take some tens of microseconds each to open.
    private static let bytesLookedUpInPlace = 8 * PageMapRoot.leafBytes

    private func eachPiece(
        of range: Range<UInt64>, under key: DataKey
    ) async throws -> (pieces: [Manifest.Piece], rest: Range<UInt64>) {
        let (leaves, rest) = try await window(PageMapRoot.leaves(touching: range))
        try await confirmContainer()
        let end = rest.isEmpty ? range.upperBound : PageMapRoot.range(of: rest.lowerBound).lowerBound
        var pieces: [Manifest.Piece] = []
        var position = range.lowerBound
        for leaf in leaves {
            let whole = PageMapRoot.range(of: leaf.index)
            let part = whole.clamped(to: range)
            if position < part.lowerBound { pieces.append((nil, 0..<Int(part.lowerBound - position))) }
            let content = try await content(of: leaf, under: key)
            pieces += content.pieces(of: part.lowerBound - whole.lowerBound..<part.upperBound - whole.lowerBound)
            position = part.upperBound
        }
        if position < end { pieces.append((nil, 0..<Int(end - position))) }
        return (pieces, max(end, range.lowerBound)..<range.upperBound)
    }
}

/// A blob's content under its key, whatever its type, read piece by piece.
struct ContentReader: Sendable {
    /// Pieces to read now, and the range behind them.
    struct Segment: Sendable {
        let pieces: [Manifest.Piece]
        let rest: Range<UInt64>
    }

    let volume: AccountVolume
    let key: DataKey
    /// Empty for a page blob.
    let manifest: Manifest
    let pages: PageMapView?

    /// What `range` begins with. Of a page blob all of it is of one time; behind it, each segment that follows is the
    /// same state, or is refused with `ContentChanged`.
    func segment(of range: Range<UInt64>) async throws -> Segment {
        guard let pages else {
            return Segment(pieces: manifest.pieces(of: range), rest: range.upperBound..<range.upperBound)
        }
        let (pieces, rest) = try await pages.pieces(of: range, under: key)
        return Segment(pieces: pieces, rest: rest)
    }

    func read(_ first: Segment, _ consume: @Sendable (ByteBuffer) async throws -> Void) async throws {
        var segment = first
        while true {
            try await volume.read(segment.pieces, under: key, consume)
            guard !segment.rest.isEmpty else { return }
            segment = try await self.segment(of: segment.rest)
        }
    }
    func read(_ range: Range<UInt64>, _ consume: @Sendable (ByteBuffer) async throws -> Void) async throws {
        try await read(try await segment(of: range), consume)
    }
}

/// Maps that this process looks at or makes, so that the collector leaves them alone. A server has a data folder to
/// itself: nobody else reads its rows.
final class PageMapPins: Sendable {
    fileprivate struct Place: Hashable {
        let map: [UInt8]
        let epoch: UInt32
        /// Its blob has no row yet.
        let isBeingMade: Bool
    }
    private let counts = Mutex<[Place: Int]>([:])

    /// Holds as long as it lives.
    final class Pin: Sendable {
        private let pins: PageMapPins
        private let place: Place
        fileprivate init(_ pins: PageMapPins, _ place: Place) {
            self.pins = pins
            self.place = place
            pins.counts.withLock { $0[place, default: 0] += 1 }
        }
        deinit {
            pins.counts.withLock { counts in
                let left = counts[place, default: 0] - 1
                counts[place] = left > 0 ? left : nil
            }
        }
    }

    func pin(_ root: PageMapRoot, isBeingMade: Bool = false) -> Pin {
        Pin(self, Place(map: root.id, epoch: root.epoch, isBeingMade: isBeingMade))
    }
    func isBeingMade(_ map: [UInt8]) -> Bool {
        counts.withLock { counts in counts.keys.contains { $0.map == map && $0.isBeingMade } }
    }
    func epochs(of map: [UInt8]) -> [UInt32] {
        counts.withLock { counts in counts.keys.filter { $0.map == map }.map(\.epoch) }
    }
}

extension BlobService {
    /// The map a page blob's row holds; nil for a blob of another type.
    func pageMap(
        of row: BlobRow, _ volume: AccountVolume, _ partition: VolumePartition, takesLaterWrites: Bool = false
    ) -> PageMapView? {
        guard let root = row.record.pages else { return nil }
        return PageMapView(
            volume: volume, partition: partition, root: root,
            stamp: takesLaterWrites ? nil : row.record.etag.number, limits: pageMapLimits, pin: pageMapPins.pin(root))
    }

    func content(
        of row: BlobRow, _ secrets: BlobSecrets, _ call: BlobCall, _ container: ContainerHandle, under key: DataKey
    ) -> ContentReader {
        ContentReader(
            volume: call.volume, key: key, manifest: secrets.manifest,
            pages: pageMap(of: row, call.volume, container.partition))
    }
}
