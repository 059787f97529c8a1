internal import EncryptionAtRest

/// The content of a leaf is a manifest with gaps: whatever was never written, or was cleared, is zeros.
extension Manifest {
    /// `length` bytes, none of them written.
    static func zeros(_ length: UInt64) -> Manifest { Manifest(slices: length == 0 ? [] : [.zeros(Int(length))]) }

    /// Puts `slice` over the bytes from `start`, all of which the content already has.
    mutating func replace(from start: UInt64, with slice: Slice) {
        let end = start + UInt64(slice.length)
        var result: [Slice] = []
        result.reserveCapacity(slices.count + 2)
        var position: UInt64 = 0
        var isPlaced = false
        for old in slices {
            let next = position + UInt64(old.length)
            if position < start { Self.append(old.part(0..<Int(min(next, start) - position)), to: &result) }
            if next > start, !isPlaced {
                Self.append(slice, to: &result)
                isPlaced = true
            }
            if next > end { Self.append(old.part(Int(max(position, end) - position)..<old.length), to: &result) }
            position = next
        }
        slices = result
    }

    /// Neighbouring zeros become one slice, and so do neighbouring parts of one extent.
    private static func append(_ slice: Slice, to slices: inout [Slice]) {
        guard slice.length > 0 else { return }
        if let last = slices.last, last.extent?.extentID == slice.extent?.extentID,
            slice.extent == nil || last.offset + last.length == slice.offset
        {
            slices[slices.count - 1].length += slice.length
        } else {
            slices.append(slice)
        }
    }
}

extension Manifest.Slice {
    fileprivate func part(_ range: Range<Int>) -> Manifest.Slice {
        var part = self
        part.length = range.count
        if extent != nil { part.offset += range.lowerBound }
        return part
    }
}

/// How a content is cut, without where it lies: what Get Block List and Get Page Ranges tell. Those operations take no
/// customer-provided key, so a blob or a leaf under one keeps this under the account's key as well.
struct ContentLayout: Sendable, Equatable {
    struct Run: Sendable, Equatable {
        /// Empty for content that was not put as blocks.
        var blockID: String
        var length: UInt64
        var isZeros: Bool
    }
    var runs: [Run] = []

    init() {}
    init(_ manifest: Manifest) {
        for slice in manifest.slices {
            let run = Run(blockID: slice.blockID, length: UInt64(slice.length), isZeros: slice.extent == nil)
            if let last = runs.last, last.blockID.isEmpty, run.blockID.isEmpty, last.isZeros == run.isZeros {
                runs[runs.count - 1].length += run.length
            } else {
                runs.append(run)
            }
        }
    }

    var blocks: [Run] { runs.filter { !$0.blockID.isEmpty } }
    /// The written ranges that touch `range`, cut to it, in order.
    func pageRanges(in range: Range<UInt64>) -> [Range<UInt64>] {
        var ranges: [Range<UInt64>] = []
        var position: UInt64 = 0
        for run in runs {
            let written = (position..<position + run.length).clamped(to: range)
            if !run.isZeros, !written.isEmpty { ranges.append(written) }
            position += run.length
        }
        return ranges
    }

    func encode(into writer: inout RecordWriter) {
        writer.number(UInt64(runs.count))
        for run in runs {
            writer.string(run.blockID)
            writer.number(run.length)
            writer.flag(run.isZeros)
        }
    }
    init(from reader: inout RecordReader) throws(RecordError) {
        let count = try reader.int()
        guard count <= reader.remaining else { throw .malformed }
        runs.reserveCapacity(count)
        for _ in 0..<count {
            let run = Run(blockID: try reader.string(), length: try reader.number(), isZeros: try reader.flag())
            guard run.length <= BlobLimits.pageBlobBytes else { throw .malformed }
            runs.append(run)
        }
    }
}
