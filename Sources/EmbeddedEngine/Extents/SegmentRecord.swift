internal import Glibc

/// The header before each extent in a segment: 64 bytes, at a multiple of 64.
///
///     0 magic "CSR1" | 4 open count | 8 segment | 16 offset | 24 byte count
///     32 CRC-32C of the bytes | 36 CRC-32C of 0..<36 | 40 state
///
/// The checksums find what a crash left unfinished; against forgery the extents are sealed by the layer above.
struct SegmentRecord: Equatable {
    static let headerBytes = 64
    static let alignment = 64
    /// Where the state byte lies: the only byte that ever changes.
    static let stateOffset = 40
    enum State: UInt8 {
        case live = 0
        case dead = 0xdd
        /// A crash came while it was written, or its bytes have changed since: not listed, but not thrown away either.
        case unfinished = 0xee
    }
    private static let magic: UInt32 = 0x4353_5231

    var openCount: UInt32
    var segment: UInt64
    var offset: Int
    var byteCount: Int
    var checksum: UInt32
    var state = State.live

    var dataOffset: Int { offset + Self.headerBytes }
    /// Where the next record begins.
    var end: Int { Self.end(offset: offset, byteCount: byteCount) }
    static func end(offset: Int, byteCount: Int) -> Int {
        (offset + headerBytes + byteCount + alignment - 1) / alignment * alignment
    }

    func write(to out: UnsafeMutableRawBufferPointer) {
        memset(out.baseAddress!, 0, Self.headerBytes)
        out.storeBytes(of: Self.magic.bigEndian, as: UInt32.self)
        out.storeBytes(of: openCount.bigEndian, toByteOffset: 4, as: UInt32.self)
        out.storeBytes(of: segment.bigEndian, toByteOffset: 8, as: UInt64.self)
        out.storeBytes(of: UInt64(offset).bigEndian, toByteOffset: 16, as: UInt64.self)
        out.storeBytes(of: UInt64(byteCount).bigEndian, toByteOffset: 24, as: UInt64.self)
        out.storeBytes(of: checksum.bigEndian, toByteOffset: 32, as: UInt32.self)
        let sum = Checksum.of(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(out)[0..<36]))
        out.storeBytes(of: sum.bigEndian, toByteOffset: 36, as: UInt32.self)
        out.storeBytes(of: state.rawValue, toByteOffset: Self.stateOffset, as: UInt8.self)
    }

    /// nil when the bytes are not the header of a record at `offset` of `segment`.
    init?(_ bytes: UnsafeRawBufferPointer, segment: UInt64, offset: Int) {
        guard bytes.count >= Self.headerBytes,
            UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)) == Self.magic,
            UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 36, as: UInt32.self))
                == Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[0..<36])),
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) == segment,
            UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)) == UInt64(offset)
        else { return nil }
        let byteCount = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
        guard byteCount < 1 << 40 else { return nil }
        self.init(
            openCount: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)), segment: segment,
            offset: offset,
            byteCount: Int(byteCount),
            checksum: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 32, as: UInt32.self)),
            state: State(rawValue: bytes[Self.stateOffset]) ?? .unfinished)
    }

    init(openCount: UInt32, segment: UInt64, offset: Int, byteCount: Int, checksum: UInt32, state: State = .live) {
        self.openCount = openCount
        self.segment = segment
        self.offset = offset
        self.byteCount = byteCount
        self.checksum = checksum
        self.state = state
    }

    /// Reads the header at `offset`; nil when there is none.
    static func read(_ file: Int32, segment: UInt64, offset: Int) -> SegmentRecord? {
        var failure: Int32 = 0
        return read(file, segment: segment, offset: offset, failure: &failure)
    }

    /// As above; `failure` is the errno when the disk did not give the bytes.
    static func read(_ file: Int32, segment: UInt64, offset: Int, failure: inout Int32) -> SegmentRecord? {
        withUnsafeTemporaryAllocation(byteCount: headerBytes, alignment: 8) { buffer in
            let count = Disk.read(file, into: buffer, at: offset)
            if count < 0 { failure = Int32(-count) }
            guard count == headerBytes else { return nil }
            return SegmentRecord(UnsafeRawBufferPointer(buffer), segment: segment, offset: offset)
        }
    }
}
