internal import CofferCore
internal import EncryptionAtRest

enum BlobType: UInt8, Sendable {
    case block = 0
    case append = 1
    case page = 2
    var wireName: String {
        switch self {
        case .block: "BlockBlob"
        case .append: "AppendBlob"
        case .page: "PageBlob"
        }
    }
}

enum AccessTier: String, Sendable { case hot = "Hot", cool = "Cool", cold = "Cold" }

/// The headers a blob keeps and answers with.
struct ContentHeaders: Sendable, Equatable {
    var type: String?
    var encoding: String?
    var language: String?
    var disposition: String?
    var cacheControl: String?
}

/// The last copy that wrote a blob.
struct CopyRecord: Sendable, Equatable {
    var id: String
    var source: String
    var completed: Timestamp
    var bytes: UInt64
}

/// What lists, leases and deletes may read of a blob (or snapshot) without a key: the row's visible part.
///
/// `releasable` holds where the blob's extents lie, without their keys, so that a delete can give the space back when
/// the keys are gone.
struct BlobRecord: Sendable {
    /// Blocks were put under this name but never committed: only block operations and lists that ask for it see such a
    /// row.
    var isUncommitted = false
    /// Uncommitted blocks may lie beside this base blob; whatever replaces the blob removes them.
    var hasStagedBlocks = false
    var type = BlobType.block
    var length: UInt64 = 0
    var etag: ETag
    var created: Timestamp
    var modified: Timestamp
    var content = ContentHeaders()
    var lease = Lease()
    var tier: AccessTier?
    var tierChanged: Timestamp?
    /// base64 of the SHA-256 of the customer-provided key the sealed part and the extents answer to.
    var customerKeySHA256: String?
    /// The encryption scope whose key the row answers to; nil: the account's key, or a customer-provided one.
    var encryptionScope: String?
    /// How many snapshots stand beside this base blob.
    var snapshotCount: UInt64 = 0
    /// Blocks of an append blob.
    var blockCount: UInt64 = 0
    /// Of a page blob.
    var sequenceNumber: UInt64 = 0
    /// The map of a page blob's content; nil for the other types, whose content is in their manifest.
    var pages: PageMapRoot?
    var isAppendSealed = false
    var tagCount: UInt64 = 0
    var copy: CopyRecord?
    var releasable: [ExtentReference] = []
    /// MD5, tags and layout of a blob under a customer-provided key, sealed under the account's: operations that carry
    /// no such key change them.
    var accountSealed: [UInt8] = []

    /// Version 1 of a page blob had its map in the sealed part; none is left that was ever released.
    private static let version: UInt8 = 1
    private static let pagesVersion: UInt8 = 2

    init(etag: ETag, at now: Timestamp) {
        self.etag = etag
        created = now
        modified = now
    }

    func encoded() -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(type == .page ? Self.pagesVersion : Self.version)
        writer.byte(
            (isUncommitted ? 1 : 0) | (isAppendSealed ? 2 : 0) | (hasStagedBlocks ? 4 : 0)
                | (encryptionScope == nil ? 0 : 8))
        writer.byte(type.rawValue)
        writer.number(length)
        writer.number(etag.number)
        writer.timestamp(created)
        writer.timestamp(modified)
        for value in [content.type, content.encoding, content.language, content.disposition, content.cacheControl] {
            writer.optional(value)
        }
        lease.encode(into: &writer)
        writer.optional(tier?.rawValue)
        writer.optional(tierChanged) { $0.timestamp($1) }
        writer.optional(customerKeySHA256)
        writer.number(snapshotCount)
        writer.number(blockCount)
        writer.number(tagCount)
        writer.optional(copy) { writer, copy in
            writer.string(copy.id)
            writer.string(copy.source)
            writer.timestamp(copy.completed)
            writer.number(copy.bytes)
        }
        writer.number(UInt64(releasable.count))
        for extent in releasable {
            writer.byteString(extent.location)
        }
        writer.byteString(accountSealed)
        if type == .page { encodePages(into: &writer) }
        if let encryptionScope { writer.string(encryptionScope) }
        return writer.bytes
    }

    init(decoding bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        let version = try reader.byte()
        let flags = try reader.byte()
        guard flags < 16, let type = BlobType(rawValue: try reader.byte()),
            version == (type == .page ? Self.pagesVersion : Self.version)
        else { throw .malformed }
        isUncommitted = flags & 1 != 0
        isAppendSealed = flags & 2 != 0
        hasStagedBlocks = flags & 4 != 0
        self.type = type
        length = try reader.number()
        etag = ETag(number: try reader.number())
        created = try reader.timestamp()
        modified = try reader.timestamp()
        content.type = try reader.optionalString()
        content.encoding = try reader.optionalString()
        content.language = try reader.optionalString()
        content.disposition = try reader.optionalString()
        content.cacheControl = try reader.optionalString()
        lease = try Lease(from: &reader)
        if let name = try reader.optionalString() {
            guard let known = AccessTier(rawValue: name) else { throw .malformed }
            tier = known
        }
        if try reader.flag() { tierChanged = try reader.timestamp() }
        customerKeySHA256 = try reader.optionalString()
        snapshotCount = try reader.number()
        blockCount = try reader.number()
        tagCount = try reader.number()
        if try reader.flag() {
            copy = CopyRecord(
                id: try reader.string(), source: try reader.string(), completed: try reader.timestamp(),
                bytes: try reader.number())
        }
        let count = try reader.int()
        guard count <= reader.remaining else { throw .malformed }
        releasable.reserveCapacity(count)
        for _ in 0..<count { releasable.append(ExtentReference(releasing: try reader.byteString())) }
        accountSealed = try reader.byteString()
        if type == .page { try decodePages(&reader) }
        if flags & 8 != 0 { encryptionScope = try reader.string() }
        try reader.finish()
    }

    private func encodePages(into writer: inout RecordWriter) {
        guard let pages else { preconditionFailure("a page blob has a map of its pages") }
        writer.number(sequenceNumber)
        pages.encode(into: &writer)
    }
    private mutating func decodePages(_ reader: inout RecordReader) throws(RecordError) {
        sequenceNumber = try reader.number()
        pages = try PageMapRoot(from: &reader)
    }
}

extension ExtentReference {
    /// What a row's visible part keeps of an extent it holds: enough to release it, without its key. nil for a body
    /// that comes with its reference.
    var withoutKey: ExtentReference? { isInline ? nil : ExtentReference(releasing: location) }
}

/// What needs a key: the row's sealed part.
struct BlobSecrets: Sendable {
    var metadata: [(String, String)] = []
    var manifest = Manifest.empty
    var md5: [UInt8]?
    var tags: [(String, String)] = []
    /// Kept in the account's part of a blob under a customer-provided key; empty everywhere else, where the manifest
    /// tells it.
    var layout = ContentLayout()

    private static let version: UInt8 = 1

    /// Metadata and manifest; with `including` also MD5 and tags.
    func encoded(including accountPart: Bool) -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(Self.version)
        writer.pairs(metadata)
        manifest.encode(into: &writer)
        writer.flag(accountPart)
        if accountPart { encodeAccountPart(into: &writer) }
        return writer.bytes
    }
    func encodedAccountPart() -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(Self.version)
        encodeAccountPart(into: &writer)
        layout.encode(into: &writer)
        return writer.bytes
    }
    private func encodeAccountPart(into writer: inout RecordWriter) {
        writer.optional(md5) { $0.byteString($1) }
        writer.pairs(tags)
    }

    init() {}
    /// `bodies` are those beside the part.
    init(decoding bytes: [UInt8], bodies: InlineBodies) throws(RecordError) {
        var reader = RecordReader(bytes)
        guard try reader.byte() == Self.version else { throw .malformed }
        metadata = try reader.pairs()
        manifest = try Manifest(from: &reader, bodies: bodies)
        if try reader.flag() { try decodeAccountPart(&reader) }
        try reader.finish()
    }
    mutating func decodeAccountPart(_ bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        guard try reader.byte() == Self.version else { throw .malformed }
        try decodeAccountPart(&reader)
        layout = try ContentLayout(from: &reader)
        try reader.finish()
    }
    private mutating func decodeAccountPart(_ reader: inout RecordReader) throws(RecordError) {
        md5 = try reader.flag() ? try reader.byteString() : nil
        tags = try reader.pairs()
    }
}

/// An uncommitted block: its size and key in the clear, its extent sealed.
struct BlockRecord: Sendable {
    var id: String
    var length: UInt64
    var uploaded: Timestamp
    var customerKeySHA256: String?
    var encryptionScope: String?
    var releasable: [ExtentReference]

    /// Version 2 adds the encryption scope, for blocks that have one.
    private static let versions: ClosedRange<UInt8> = 1...2

    func encoded() -> [UInt8] {
        var writer = RecordWriter()
        writer.byte(encryptionScope == nil ? 1 : 2)
        writer.string(id)
        writer.number(length)
        writer.timestamp(uploaded)
        writer.optional(customerKeySHA256)
        writer.number(UInt64(releasable.count))
        for extent in releasable {
            writer.byteString(extent.location)
        }
        if let encryptionScope { writer.string(encryptionScope) }
        return writer.bytes
    }
    init(
        id: String, length: UInt64, uploaded: Timestamp, customerKeySHA256: String?, encryptionScope: String?,
        releasable: [ExtentReference]
    ) {
        self.id = id
        self.length = length
        self.uploaded = uploaded
        self.customerKeySHA256 = customerKeySHA256
        self.encryptionScope = encryptionScope
        self.releasable = releasable
    }
    init(decoding bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        let version = try reader.byte()
        guard Self.versions.contains(version) else { throw .malformed }
        id = try reader.string()
        length = try reader.number()
        uploaded = try reader.timestamp()
        customerKeySHA256 = try reader.optionalString()
        let count = try reader.int()
        guard count <= reader.remaining else { throw .malformed }
        releasable = []
        for _ in 0..<count { releasable.append(ExtentReference(releasing: try reader.byteString())) }
        if version > 1 { encryptionScope = try reader.string() }
        try reader.finish()
    }
    static func encodeExtent(_ extent: ExtentReference) -> [UInt8] {
        var writer = RecordWriter()
        extent.encode(into: &writer)
        return writer.bytes
    }
    static func decodeExtent(_ bytes: [UInt8], bodies: InlineBodies) throws(RecordError) -> ExtentReference {
        var reader = RecordReader(bytes)
        var bodies = bodies
        let extent = try ExtentReference(from: &reader, &bodies)
        guard bodies.isAtEnd else { throw .malformed }
        try reader.finish()
        return extent
    }
}
