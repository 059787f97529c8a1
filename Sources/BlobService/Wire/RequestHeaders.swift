internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

/// Limits of the Blob service, from "Scalability and performance targets for Blob storage"; bytes unless the name says
/// otherwise.
enum BlobLimits {
    static let putBlobBytes = 5_000 << 20
    static let putBlockBytes = 4_000 << 20
    static let appendBlockBytes = 100 << 20
    static let pageBlobBytes: UInt64 = 8 << 40
    static let putPageBytes = 4 << 20
    static let pageBytes: UInt64 = 512
    static let committedBlocks = 50_000
    static let uncommittedBlocks = 100_000
    static let metadataBytes = 8 << 10
    static let blockIDBytes = 64
    static let tags = 10
    static let xmlBodyBytes = 1 << 20
    static let blockListBodyBytes = 16 << 20
    static let listPage = 5_000
    static let storedAccessPolicies = 5
    static let rangeHashBytes: UInt64 = 4 << 20
    /// Uncommitted blocks live a week ("Put Block").
    static let uncommittedBlockSeconds: Int64 = 7 * 86_400
}

/// Metadata within the rules: names are C# identifiers ("Setting and retrieving properties and metadata"), values
/// ASCII; 8 KiB in all. Values of one name are joined. Throws 400.
func checkedMetadata(_ given: [(String, String)]) throws(StorageError) -> [(String, String)] {
    var pairs: [(String, String)] = []
    var total = 0
    for (name, value) in given {
        guard !name.isEmpty else {
            throw StorageError(400, "EmptyMetadataKey", "The key for one of the metadata key-value pairs is empty.")
        }
        guard isIdentifier(name), value.utf8.allSatisfy({ (0x20...0x7e).contains($0) || $0 == 9 }) else {
            throw StorageError(
                400, "InvalidMetadata",
                "The specified metadata is invalid. It includes characters that are not permitted.")
        }
        total += name.utf8.count + value.utf8.count
        if let twin = pairs.firstIndex(where: { $0.0.lowercased() == name.lowercased() }) {
            pairs[twin].1 += "," + value
        } else {
            pairs.append((name, value))
        }
    }
    guard total <= BlobLimits.metadataBytes else {
        throw StorageError(
            400, "MetadataTooLarge", "The size of the specified metadata exceeds the maximum size permitted.")
    }
    return pairs
}

extension BlobCall {
    func header(_ name: String) -> String? { request.header(name) }

    /// A header that holds a whole number; nil when it is not sent. Throws 400 for anything else.
    func number(_ name: String) throws(StorageError) -> UInt64? {
        guard let text = header(name) else { return nil }
        guard let value = UInt64(text) else { throw .invalidHeader(name, text) }
        return value
    }

    /// `x-ms-meta-*`, in the order sent.
    func metadata() throws(StorageError) -> [(String, String)] {
        var given: [(String, String)] = []
        for (name, value) in request.headers where name.utf8.count >= 10 && name.lowercased().hasPrefix("x-ms-meta-") {
            given.append((String(name.dropFirst(10)), value))
        }
        return try checkedMetadata(given)
    }

    /// The `x-ms-blob-*` content headers; `fallbacks` also takes the standard ones, as Put Blob does.
    func contentHeaders(fallbacks: Bool) -> ContentHeaders {
        func value(_ name: String) -> String? {
            if let value = header("x-ms-blob-" + name) { return value.isEmpty ? nil : value }
            guard fallbacks, let value = header(name), !value.isEmpty else { return nil }
            return value
        }
        return ContentHeaders(
            type: value("content-type"), encoding: value("content-encoding"), language: value("content-language"),
            disposition: header("x-ms-blob-content-disposition"), cacheControl: value("cache-control"))
    }

    /// A base64 MD5 header; throws 400 when it is not 16 bytes.
    func md5Header(_ name: String) throws(StorageError) -> [UInt8]? {
        guard let text = header(name), !text.isEmpty else { return nil }
        guard let bytes = [UInt8](base64: text), bytes.count == 16 else { throw .invalidMD5 }
        return bytes
    }

    /// `x-ms-access-tier`; throws for tiers that are not offered.
    func accessTier() throws(StorageError) -> AccessTier? {
        guard let text = header("x-ms-access-tier"), !text.isEmpty else { return nil }
        return try parseTier(text)
    }
    func parseTier(_ text: String) throws(StorageError) -> AccessTier {
        if let tier = [AccessTier.hot, .cool, .cold].first(where: { $0.rawValue.lowercased() == text.lowercased() }) {
            return tier
        }
        if text.lowercased() == "archive" { throw .notImplemented("the Archive access tier") }
        throw .invalidHeader("x-ms-access-tier", text)
    }

    /// Immutability, legal hold and expiry headers promise a protection that is not there.
    func refuseUnsupportedWriteHeaders() throws(StorageError) {
        for name in [
            "x-ms-immutability-policy-until-date", "x-ms-legal-hold", "x-ms-expiry-time", "x-ms-structured-body",
        ]
        where request.headers.contains(name: name) {
            if name == "x-ms-legal-hold", header(name)?.lowercased() == "false" { continue }
            throw .unsupportedHeader(name)
        }
    }

    /// `x-ms-tags`: URL-encoded pairs, at most ten ("Set Blob Tags").
    func tagsHeader() throws(StorageError) -> [(String, String)] {
        guard let text = header("x-ms-tags"), !text.isEmpty else { return [] }
        var pairs: [(String, String)] = []
        for part in text.split(separator: "&") {
            let sides = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard sides.count == 2, let name = formDecoded(sides[0]), let value = formDecoded(sides[1]) else {
                throw .invalidHeader("x-ms-tags", text)
            }
            pairs.append((name, value))
        }
        try validateTags(pairs)
        return pairs
    }
}

private func formDecoded(_ text: Substring) -> String? {
    percentDecoded(String(text.map { $0 == "+" ? " " : $0 }))
}

/// "Set Blob Tags": 1 to 128 characters of name, up to 256 of value, letters, digits and ` +-./:=_`.
func validateTags(_ tags: [(String, String)]) throws(StorageError) {
    func isAllowed(_ text: String) -> Bool {
        text.utf8.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0)
                || " +-./:=_".utf8.contains($0)
        }
    }
    let isValid =
        tags.count <= BlobLimits.tags && Set(tags.map(\.0)).count == tags.count
        && tags.allSatisfy { (1...128).contains($0.0.count) && $0.1.count <= 256 && isAllowed($0.0) && isAllowed($0.1) }
    guard isValid else {
        throw StorageError(
            400, "InvalidTag",
            "The tags specified are invalid. It contains characters that are not permitted, or too many tags.")
    }
}

/// Letters, digits and underscores, not beginning with a digit.
private func isIdentifier(_ name: String) -> Bool {
    guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
    return name.utf8.allSatisfy {
        (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0) || $0 == 0x5f
    }
}
