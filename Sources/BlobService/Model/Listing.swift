internal import CofferCore
internal import EncryptionAtRest
internal import StorageAccount

/// Where a list goes on: the key of the first item not yet told, behind a version mark. Opaque to clients, and checked
/// when it comes back.
enum ListMarker {
    private static let mark = "1!"
    static func encode(_ key: [UInt8]) -> String { mark + key.base64URL }
    /// Throws 400 for a marker that no list of this range made.
    static func decode(_ text: String, within range: (from: [UInt8], upTo: [UInt8])) throws(StorageError) -> [UInt8] {
        guard text.hasPrefix(mark), let key = [UInt8](base64URL: text.dropFirst(mark.count)),
            !key.lexicographicallyPrecedes(range.from), key.lexicographicallyPrecedes(range.upTo)
        else { throw .invalidQuery("marker", text) }
        return key
    }
}

/// `prefix`, `marker`, `maxresults` and `include` of a list.
struct ListParameters: Sendable {
    let prefix: String
    let marker: String?
    let maximum: Int
    /// What the client asked for, if it did: the answer repeats it.
    let requestedMaximum: String?
    let include: Set<String>

    init(_ call: BlobCall, allowedIncludes: Set<String>) throws(StorageError) {
        prefix = call.parameters["prefix"] ?? ""
        marker = call.parameters["marker"].flatMap { $0.isEmpty ? nil : $0 }
        requestedMaximum = call.parameters["maxresults"]
        if let text = requestedMaximum {
            guard let value = Int(text), value > 0 else { throw .outOfRange("maxresults", text) }
            maximum = min(value, BlobLimits.listPage)
        } else {
            maximum = BlobLimits.listPage
        }
        include = Set((call.parameters["include"] ?? "").split(separator: ",").map { $0.lowercased() })
        if let unknown = include.subtracting(allowedIncludes).first { throw .invalidQuery("include", unknown) }
    }
}

/// One line of a blob list.
enum ListedItem: Sendable {
    case blob(name: String, snapshot: String?, row: BlobRow)
    case prefix(String)
}

/// One page of a container's blobs, in the order of their keys.
struct BlobPage: Sendable {
    var items: [ListedItem] = []
    /// The key the next page begins at; nil on the last page.
    var next: [UInt8]?
}

/// Walks a container's rows: skips what was not asked for, folds names at the delimiter, and jumps over what a prefix
/// covers.
struct BlobWalk {
    let prefix: String
    let delimiter: String?
    let includeSnapshots: Bool
    let includeUncommitted: Bool

    /// `scan` reads rows of `from..<upTo` in order, at most `limit`.
    func page(
        from start: [UInt8], maximum: Int,
        scan: (_ from: [UInt8], _ upTo: [UInt8], _ limit: Int) async throws -> [VolumeRow]
    ) async throws -> BlobPage {
        let end = BlobKeys.listing(prefix: prefix).upTo
        var page = BlobPage()
        var from = start
        while from.lexicographicallyPrecedes(end) {
            let limit = min(1_000, maximum - page.items.count + 1)
            let rows = try await scan(from, end, limit)
            var jump: [UInt8]?
            for row in rows {
                guard let (name, snapshot) = BlobKeys.parse(row.key), includeSnapshots || snapshot == nil else {
                    continue
                }
                let blob = try BlobRow(row)
                if blob.record.isUncommitted, !includeUncommitted { continue }
                guard page.items.count < maximum else {
                    page.next = row.key
                    return page
                }
                if let folded = fold(name) {
                    page.items.append(.prefix(folded))
                    jump = BlobKeys.listing(prefix: folded).upTo
                    break
                }
                page.items.append(.blob(name: name, snapshot: snapshot, row: blob))
            }
            if let jump {
                from = jump
            } else if rows.count < limit {
                break
            } else {
                from = rows[rows.count - 1].key + [0]
            }
        }
        return page
    }

    /// The part of `name` up to and with the first delimiter behind the prefix; nil when there is none.
    private func fold(_ name: String) -> String? {
        guard let delimiter, !delimiter.isEmpty else { return nil }
        let bytes = Array(name.utf8)
        let mark = Array(delimiter.utf8)
        var index = prefix.utf8.count
        while index + mark.count <= bytes.count {
            if bytes[index..<index + mark.count].elementsEqual(mark) {
                return String(decoding: bytes[..<(index + mark.count)], as: UTF8.self)
            }
            index += 1
        }
        return nil
    }
}
