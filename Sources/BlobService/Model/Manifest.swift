internal import EncryptionAtRest

/// A blob's content: byte ranges, in order and without gaps, each a slice of an immutable extent, or zeros that nothing
/// holds (page blobs only). Sealed with the blob's key.
struct Manifest: Sendable {
    struct Slice: Sendable, Hashable {
        /// The block this slice was committed as, in the spelling of the client; empty for content that was not put as
        /// blocks.
        var blockID: String
        /// nil: zeros, the pages of a page blob that were never written or were cleared.
        var extent: ExtentReference?
        var offset: Int
        var length: Int

        static func zeros(_ length: Int) -> Slice { Slice(blockID: "", extent: nil, offset: 0, length: length) }
    }
    /// Bytes to read: of an extent, or as many zeros as the range is long.
    typealias Piece = (extent: ExtentReference?, range: Range<Int>)
    var slices: [Slice]

    static let empty = Manifest(slices: [])
    init(slices: [Slice]) { self.slices = slices }
    /// One extent as a whole.
    init(_ extent: ExtentReference) {
        slices =
            extent.plaintextBytes == 0
            ? [] : [Slice(blockID: "", extent: extent, offset: 0, length: extent.plaintextBytes)]
    }

    var length: UInt64 { slices.reduce(0) { $0 + UInt64($1.length) } }

    /// The parts of extents that hold `range`, in order.
    func pieces(of range: Range<UInt64>) -> [Piece] {
        var pieces: [Piece] = []
        var start: UInt64 = 0
        for slice in slices {
            let end = start + UInt64(slice.length)
            if end > range.lowerBound, start < range.upperBound {
                let low = Int(max(range.lowerBound, start) - start) + slice.offset
                let high = Int(min(range.upperBound, end) - start) + slice.offset
                if low < high { pieces.append((slice.extent, low..<high)) }
            }
            if end >= range.upperBound { break }
            start = end
        }
        return pieces
    }

    /// Every extent once, in order of first use.
    var extents: [ExtentReference] {
        var seen: Set<[UInt8]> = []
        return slices.compactMap { slice in
            slice.extent.flatMap { seen.insert($0.extentID).inserted ? $0 : nil }
        }
    }

    func encode(into writer: inout RecordWriter) {
        let extents = self.extents
        var index: [[UInt8]: Int] = [:]
        writer.number(UInt64(extents.count))
        for (position, extent) in extents.enumerated() {
            index[extent.extentID] = position
            extent.encode(into: &writer)
        }
        writer.number(UInt64(slices.count))
        for slice in slices {
            writer.string(slice.blockID)
            // 0 stands for zeros, so extents count from 1.
            writer.number(slice.extent.flatMap { index[$0.extentID] }.map { UInt64($0) + 1 } ?? 0)
            writer.number(UInt64(slice.offset))
            writer.number(UInt64(slice.length))
        }
    }

    /// `bodies` are those beside the part that holds the manifest; all of them belong to it.
    init(from reader: inout RecordReader, bodies: InlineBodies) throws(RecordError) {
        var bodies = bodies
        let extentCount = try reader.int()
        guard extentCount <= reader.remaining else { throw .malformed }
        var extents: [ExtentReference] = []
        extents.reserveCapacity(extentCount)
        for _ in 0..<extentCount { extents.append(try ExtentReference(from: &reader, &bodies)) }
        guard bodies.isAtEnd else { throw .malformed }
        let count = try reader.int()
        guard count <= reader.remaining else { throw .malformed }
        slices = []
        slices.reserveCapacity(count)
        for _ in 0..<count {
            let blockID = try reader.string()
            let index = try reader.int()
            let offset = try reader.int()
            let length = try reader.int()
            guard index > 0 else {
                guard offset == 0, UInt64(length) <= BlobLimits.pageBlobBytes else { throw .malformed }
                slices.append(.zeros(length))
                continue
            }
            guard index <= extents.count, offset <= extents[index - 1].plaintextBytes,
                length <= extents[index - 1].plaintextBytes - offset
            else {
                throw .malformed
            }
            slices.append(Slice(blockID: blockID, extent: extents[index - 1], offset: offset, length: length))
        }
    }
}

extension ExtentReference {
    func encode(into writer: inout RecordWriter) { writer.byteString(encoded) }
    init(from reader: inout RecordReader, _ bodies: inout InlineBodies) throws(RecordError) {
        guard let reference = ExtentReference(encoded: try reader.byteString()[...], &bodies) else { throw .malformed }
        self = reference
    }
}
