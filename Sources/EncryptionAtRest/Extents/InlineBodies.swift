/// The small bodies beside a sealed part, one after the other in the order of their references: version 1 | extent
/// ID 16 | plaintext length (32 bits, big endian) | the body as `InlineExtent` seals it (docs/format.md §8.2).
public struct InlineBodies: Sendable {
    private static let version: UInt8 = 1
    private static let headBytes = 21
    private var reader: FieldReader

    init(_ bytes: ArraySlice<UInt8>) { reader = FieldReader(bytes) }

    /// Whether each was taken: what is left belongs to no reference.
    public var isAtEnd: Bool { reader.isAtEnd }

    /// nil at the end and for bytes that are no body.
    mutating func next() -> ExtentReference? {
        guard let (id, length, sealed) = Self.next(&reader) else { return nil }
        return ExtentReference(inline: Array(sealed), extentID: Array(id), plaintextBytes: length)
    }

    private static func next(
        _ reader: inout FieldReader
    ) -> (id: ArraySlice<UInt8>, length: Int, sealed: ArraySlice<UInt8>)? {
        guard reader.integer(UInt8.self) == version, let id = reader.take(16),
            let length = reader.integer(UInt32.self), length <= InlineExtent.plaintextBytesLimit,
            let sealed = reader.take(Int(length) + InlineExtent.overheadBytes)
        else { return nil }
        return (id, Int(length), sealed)
    }

    /// Of all that are left, one after the other; nil when what is left is not all bodies.
    var extentIDs: [UInt8]? {
        var rest = reader
        var ids: [UInt8] = []
        while !rest.isAtEnd {
            guard let (id, _, _) = Self.next(&rest) else { return nil }
            ids.append(contentsOf: id)
        }
        return ids
    }

    /// Of those among `extents` that are small bodies.
    static func encode(_ extents: [ExtentReference]) -> ArraySlice<UInt8> {
        let bodies = extents.filter(\.isInline)
        guard !bodies.isEmpty else { return [] }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(bodies.reduce(0) { $0 + headBytes + $1.inlineCiphertext.count })
        for body in bodies {
            bytes.append(version)
            bytes.append(contentsOf: body.extentID)
            bytes.append(bigEndian: UInt32(body.plaintextBytes))
            bytes.append(contentsOf: body.inlineCiphertext)
        }
        return bytes[...]
    }
}
