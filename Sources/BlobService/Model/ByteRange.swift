internal import StorageAccount

/// A range of bytes a reader asked for ("Specifying the range header for Blob service operations").
enum ByteRange: Sendable, Equatable {
    case bounded(UInt64, UInt64)
    case from(UInt64)

    /// Reads `bytes=a-b` and `bytes=a-`. Anything else, a suffix range (`bytes=-n`) included, is nil: Azure then
    /// answers with the whole blob for `Range`, and this service does for both headers.
    init?(header: String) {
        guard header.hasPrefix("bytes=") else { return nil }
        let parts = header.dropFirst(6).split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let start = Self.decimal(parts[0]) else { return nil }
        if parts[1].isEmpty {
            self = .from(start)
        } else {
            guard let end = Self.decimal(parts[1]), end >= start else { return nil }
            self = .bounded(start, end)
        }
    }

    private static func decimal(_ text: Substring) -> UInt64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt64(text)
    }

    /// The bytes of a blob of `length` bytes. Throws 416 `InvalidRange` when it begins at or behind the end.
    func resolve(length: UInt64) throws(StorageError) -> Range<UInt64> {
        let start =
            switch self {
            case .bounded(let start, _), .from(let start): start
            }
        guard start < length else {
            var error = StorageError(
                416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
            error.headers = [("Content-Range", "bytes */\(length)")]
            throw error
        }
        switch self {
        case .bounded(_, let last): return start..<min(last == .max ? last : last + 1, length)
        case .from: return start..<length
        }
    }
}
