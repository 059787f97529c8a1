internal import CofferCore

/// An extent as the manifest of a blob names it: where, how long, and its wrapped key. For use inside a sealed part
/// only.
///
/// A body of up to 16 KiB has no extent: its ciphertext comes with the reference (`isInline`) and lies beside the
/// sealed part, which makes a small Put one commit.
public struct ExtentReference: Sendable, Hashable {
    /// The engine's name of the extent, up to 64 bytes; empty for an inline body.
    public let location: [UInt8]
    /// 16 random bytes.
    public let extentID: [UInt8]
    public let plaintextBytes: Int
    /// 14 or 16; 0 for an inline body.
    public let log2ChunkBytes: UInt8
    /// The data encryption key under the account's or the customer's key; empty for an inline body.
    public let wrappedKey: [UInt8]
    /// The sealed body itself; empty for an extent.
    public let inlineCiphertext: [UInt8]

    public var isInline: Bool { location.isEmpty }

    private static let version: UInt8 = 1
    private enum Form {
        static let extent: UInt8 = 1
        /// A body inside its reference: read, no longer written.
        static let inside: UInt8 = 2
        static let beside: UInt8 = 3
    }

    init(location: [UInt8], extentID: [UInt8], plaintextBytes: Int, log2ChunkBytes: UInt8, wrappedKey: [UInt8]) {
        self.location = location
        self.extentID = extentID
        self.plaintextBytes = plaintextBytes
        self.log2ChunkBytes = log2ChunkBytes
        self.wrappedKey = wrappedKey
        inlineCiphertext = []
    }
    /// Names an extent only to release it (`AccountVolume.commit`): a row that must be deleted without a customer's key
    /// keeps no more of its extents than their locations. `location` must not be empty.
    public init(releasing location: [UInt8]) {
        self.init(location: location, extentID: [], plaintextBytes: 0, log2ChunkBytes: 0, wrappedKey: [])
    }
    init(inline ciphertext: [UInt8], extentID: [UInt8], plaintextBytes: Int) {
        location = []
        self.extentID = extentID
        self.plaintextBytes = plaintextBytes
        log2ChunkBytes = 0
        wrappedKey = []
        inlineCiphertext = ciphertext
    }

    /// docs/format.md §8. A small body is not in it: `SealedPart` puts it beside.
    public var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(32 + location.count + wrappedKey.count)
        bytes.append(Self.version)
        bytes.append(isInline ? Form.beside : Form.extent)
        bytes.append(contentsOf: extentID)
        bytes.append(bigEndian: UInt64(plaintextBytes))
        if !isInline {
            bytes.append(log2ChunkBytes)
            bytes.append(UInt8(location.count))
            bytes.append(contentsOf: location)
            bytes.append(contentsOf: wrappedKey)
        }
        return bytes
    }

    /// An extent's reference; nil for anything else.
    init?(extent bytes: ArraySlice<UInt8>) {
        var none = InlineBodies([])
        self.init(encoded: bytes, &none)
        guard !isInline else { return nil }
    }

    /// nil for anything that `encoded` does not write, now or in earlier versions. `bodies` are those beside the part
    /// that holds the reference; a small body is taken from them.
    public init?(encoded bytes: ArraySlice<UInt8>, _ bodies: inout InlineBodies) {
        var reader = FieldReader(bytes)
        guard reader.integer(UInt8.self) == Self.version, let form = reader.integer(UInt8.self),
            let id = reader.take(16),
            let length = reader.integer(UInt64.self), length <= UInt64(ExtentFormat.plaintextBytesLimit)
        else { return nil }
        switch form {
        case Form.extent:
            guard let k = reader.integer(UInt8.self), ExtentFormat.log2ChunkBytesAllowed.contains(k),
                let count = reader.integer(UInt8.self), (1...64).contains(count),
                let location = reader.take(Int(count)),
                let wrapped = reader.take(WrappedExtentKey.byteCount), reader.isAtEnd
            else { return nil }
            self.init(
                location: Array(location), extentID: Array(id), plaintextBytes: Int(length), log2ChunkBytes: k,
                wrappedKey: Array(wrapped))
        case Form.beside:
            guard reader.isAtEnd, let body = bodies.next(), body.extentID.elementsEqual(id),
                body.plaintextBytes == Int(length)
            else { return nil }
            self = body
        case Form.inside:
            guard length <= UInt64(InlineExtent.plaintextBytesLimit),
                reader.rest.count == Int(length) + InlineExtent.overheadBytes
            else { return nil }
            self.init(inline: Array(reader.rest), extentID: Array(id), plaintextBytes: Int(length))
        default: return nil
        }
    }
}
