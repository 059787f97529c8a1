internal import CofferCore
internal import HTTPEdge
internal import StorageAccount

/// What a request's path names: the account itself, a container, or a blob.
enum BlobAddress: Sendable, Equatable {
    case account
    case container(String)
    case blob(container: String, name: String)

    /// Reads a raw path. A path of one segment is a container when the query says so (`restype=container`), else a blob
    /// of `$root` ("Working with the root container"). Throws 400 for malformed escapes and names outside the rules.
    init(rawPath: String, isContainer: Bool) throws(StorageError) {
        let path = rawPath.drop { $0 == "/" }
        guard !path.isEmpty else {
            self = .account
            return
        }
        guard let decoded = percentDecoded(path) else {
            throw StorageError(400, "InvalidUri", "The path of the URL has a malformed escape or is not UTF-8.")
        }
        guard let slash = decoded.utf8.firstIndex(of: 0x2f) else {
            self =
                isContainer
                ? .container(try Self.containerName(decoded))
                : .blob(container: "$root", name: try Self.blobName(decoded))
            return
        }
        let container = try Self.containerName(String(decoded[..<slash]))
        let name = String(decoded[decoded.utf8.index(after: slash)...])
        self = name.isEmpty ? .container(container) : .blob(container: container, name: try Self.blobName(name))
    }

    /// "Naming and Referencing Containers, Blobs, and Metadata": 3 to 63 of a–z, 0–9 and single hyphens inside;
    /// `$root`, `$logs`, `$web`.
    static func containerName(_ name: String) throws(StorageError) -> String {
        if name == "$root" || name == "$logs" || name == "$web" || name == "$blobchangefeed" { return name }
        let bytes = Array(name.utf8)
        guard (3...63).contains(bytes.count) else {
            throw StorageError(400, "OutOfRangeInput", "One of the request inputs is out of range.")
        }
        var previous: UInt8 = 0x2d
        for byte in bytes {
            let isHyphen = byte == 0x2d
            guard isHyphen || (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte),
                !(isHyphen && previous == 0x2d)
            else {
                throw StorageError(
                    400, "InvalidResourceName", "The specified resource name contains invalid characters.")
            }
            previous = byte
        }
        guard previous != 0x2d else {
            throw StorageError(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
        }
        return name
    }

    /// 1 to 1,024 characters (UTF-16 units, as Azure counts). NUL is refused: it separates a name from what follows in
    /// a row key.
    static func blobName(_ name: String) throws(StorageError) -> String {
        guard name.utf16.count <= 1_024, !name.utf8.contains(0) else {
            throw StorageError(400, "InvalidUri", "The requested URI does not represent any resource on the server.")
        }
        return name
    }
}

/// The query's parameters; the first of a name counts, names are compared without regard to ASCII case.
///
/// They are looked for when asked: a signed URL carries many, of which an operation reads few.
struct QueryParameters: Sendable {
    private let rawQuery: String
    init(_ request: Request) { rawQuery = request.rawQuery }

    /// `name` is in lower case. A malformed escape stays as sent.
    subscript(name: String) -> String? {
        var query = rawQuery
        var name = name
        return query.withUTF8 { bytes in name.withUTF8 { Self.value(of: $0, in: bytes) } }
    }

    private static func value(of name: UnsafeBufferPointer<UInt8>, in bytes: UnsafeBufferPointer<UInt8>) -> String? {
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: 0x26) ?? bytes.count
            let equals = bytes[start..<end].firstIndex(of: 0x3d) ?? end
            if isName(name, bytes[start..<equals]) {
                return decoded(bytes[min(equals + 1, end)..<end])
            }
            start = end + 1
        }
        return nil
    }

    private static func isName(_ name: UnsafeBufferPointer<UInt8>, _ part: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        part.contains(0x25) ? isSame(decoded(part).utf8, name) : isSame(part, name)
    }
    private static func isSame(_ part: some Collection<UInt8>, _ name: UnsafeBufferPointer<UInt8>) -> Bool {
        part.count == name.count
            && zip(part, name).allSatisfy { $0 == $1 || (0x41...0x5a).contains($0) && $0 | 0x20 == $1 }
    }

    private static func decoded(_ part: Slice<UnsafeBufferPointer<UInt8>>) -> String {
        let text = String(decoding: part, as: UTF8.self)
        return percentDecoded(text) ?? text
    }
}
