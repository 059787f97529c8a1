internal import StorageEngine

/// What a location of this engine says.
enum ExtentPlace: Hashable, Sendable {
    /// A record in a segment: where its header begins, and how many bytes it holds.
    case record(segment: UInt64, offset: Int, byteCount: Int)
    /// A file of its own.
    case file(UInt64)

    /// `1 | segment (8) | offset (8) | count (8)` or `2 | file (8)`, big endian: bytes order as the list does.
    var location: ExtentLocation {
        switch self {
        case .record(let segment, let offset, let byteCount):
            ExtentLocation([1] + Self.bytes(segment) + Self.bytes(UInt64(offset)) + Self.bytes(UInt64(byteCount)))
        case .file(let number):
            ExtentLocation([2] + Self.bytes(number))
        }
    }

    /// Throws `.notFound` for bytes that this engine never gave out.
    init(_ location: ExtentLocation) throws(StorageEngineError) {
        let bytes = location.bytes
        switch (bytes.first, bytes.count) {
        case (1, 25):
            let offset = Self.number(bytes[9..<17]), byteCount = Self.number(bytes[17..<25])
            guard offset < 1 << 40, byteCount < 1 << 40 else { throw Self.unknown }
            self = .record(segment: Self.number(bytes[1..<9]), offset: Int(offset), byteCount: Int(byteCount))
        case (2, 9):
            self = .file(Self.number(bytes[1..<9]))
        default:
            throw Self.unknown
        }
    }

    static let unknown = StorageEngineError(
        .notFound, "There is no such extent; it was deleted, or is of another data directory.")

    private static func bytes(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
}

/// Sixteen hexadecimal digits, so that names order as numbers do.
func hexadecimal(_ number: UInt64, digits: Int = 16) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}
