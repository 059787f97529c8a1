internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

/// What a client's block list names: where to look for each block, in the order of the new content.
struct BlockListRequest: Sendable, Equatable {
    enum Source: String, Sendable { case committed = "Committed", uncommitted = "Uncommitted", latest = "Latest" }
    var entries: [(source: Source, id: String)]

    static func == (left: BlockListRequest, right: BlockListRequest) -> Bool {
        left.entries.elementsEqual(right.entries) { $0.source == $1.source && $0.id == $1.id }
    }

    /// Throws 400 `InvalidXmlDocument` for another document, `InvalidXmlNodeValue` for an identifier that is not
    /// base64, and 409 for too many blocks.
    init(_ root: XMLNode) throws(StorageError) {
        guard root.name == "BlockList" else { throw .invalidXML }
        guard root.children.count <= BlobLimits.committedBlocks else { throw .blockCountExceedsLimit }
        entries = []
        entries.reserveCapacity(root.children.count)
        for child in root.children {
            guard let source = Source(rawValue: child.name) else { throw .invalidXML }
            let id = child.text.trimmedOfXMLSpace
            guard let bytes = [UInt8](base64: id), (1...BlobLimits.blockIDBytes).contains(bytes.count) else {
                throw .invalidBlockList
            }
            entries.append((source, id))
        }
    }
}

extension String {
    fileprivate var trimmedOfXMLSpace: String {
        var text = self[...]
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}

extension BlobService {
    private struct StagedBlock {
        let record: BlockRecord
        let row: VolumeRow
        let idBytes: [UInt8]
    }

    /// Put Block List: makes a blob of blocks, in the order named. Blocks that stay uncommitted go.
    func putBlockList(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        let tier = try call.accessTier()
        var secrets = BlobSecrets()
        secrets.metadata = try call.metadata()
        secrets.tags = try call.tagsHeader()
        secrets.md5 = try call.md5Header("x-ms-blob-content-md5")
        let body = try await call.request.body.collect(upTo: BlobLimits.blockListBodyBytes)
        var hash = BodyHash(md5: call.request.headers.contains(name: "Content-MD5"), crc64: true)
        hash.update(body)
        try hash.check(
            md5: try call.md5Header("Content-MD5"),
            crc64: call.header("x-ms-content-crc64").flatMap { [UInt8](base64: $0) })
        let request = try BlockListRequest(try readXML(body))
        let content = call.contentHeaders(fallbacks: false)

        let key = try await dataKey(call, encryption)
        let fixed = secrets
        let record = try await replaceBlob(
            call, container, name, replacing: .unread, conditions: conditions, under: key
        ) { existing in
            if let existing, existing.record.type != .block { throw StorageError.invalidBlobType }
            var secrets = fixed
            secrets.manifest = try await assemble(request, existing, call, container, name, encryption, key)
            var record = BlobRecord(etag: ETag(number: 0), at: call.now)
            record.created = existing?.record.created ?? call.now
            record.length = secrets.manifest.length
            record.content = content
            record.tier = tier ?? existing?.record.tier
            if tier != nil { record.tierChanged = call.now }
            return (record, secrets)
        }
        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        if let crc64 = hash.crc64 { response.headers.add(name: "x-ms-content-crc64", value: crc64.base64) }
        response.headers.addWriteEncryption(record)
        return response
    }

    private func assemble(
        _ request: BlockListRequest, _ existing: BlobRow?, _ call: BlobCall, _ container: ContainerHandle,
        _ name: String,
        _ encryption: RequestedEncryption, _ key: DataKey
    ) async throws -> Manifest {
        var committed: [[UInt8]: [Manifest.Slice]] = [:]
        let staged = Dictionary(
            try await stagedBlocks(call, container, name).map { ($0.idBytes, $0) },
            uniquingKeysWith: { _, last in last })
        // The committed content is opened, and must answer to the request's key, only where a block of it is named.
        let namesCommitted = request.entries.contains { source, id in
            source == .committed || (source == .latest && staged[[UInt8](base64: id) ?? []] == nil)
        }
        if let existing, namesCommitted {
            try encryption.check(existing.record)
            for slice in try await open(existing, call, container, under: key).manifest.slices
            where !slice.blockID.isEmpty {
                committed[[UInt8](base64: slice.blockID) ?? []] = [slice]
            }
        }
        var slices: [Manifest.Slice] = []
        slices.reserveCapacity(request.entries.count)
        for (source, id) in request.entries {
            let idBytes = [UInt8](base64: id) ?? []
            if source != .committed, let block = staged[idBytes] {
                try encryption.check(
                    customerKeySHA256: block.record.customerKeySHA256, scope: block.record.encryptionScope)
                let plain = try await call.volume.open(
                    block.row.sealed, at: block.row.key, in: container.partition, under: key)
                guard !plain.isEmpty else { continue }
                let extent = try BlockRecord.decodeExtent(plain, bodies: block.row.sealed.inlineBodies)
                slices.append(Manifest.Slice(blockID: id, extent: extent, offset: 0, length: extent.plaintextBytes))
            } else if source != .uncommitted, let block = committed[idBytes] {
                slices += block
            } else {
                throw StorageError.invalidBlockList
            }
        }
        return Manifest(slices: slices)
    }

    /// The uncommitted blocks of a name that are not older than a week.
    private func stagedBlocks(_ call: BlobCall, _ container: ContainerHandle, _ name: String) async throws
        -> [StagedBlock]
    {
        let range = BlobKeys.blocks(name)
        let limit = call.now.adding(seconds: -BlobLimits.uncommittedBlockSeconds)
        var blocks: [StagedBlock] = []
        for row in try await call.volume.scan(container.partition, from: range.from, upTo: range.upTo, limit: .max) {
            let record = try BlockRecord(decoding: row.visible)
            guard record.uploaded >= limit else { continue }
            blocks.append(StagedBlock(record: record, row: row, idBytes: Array(BlobKeys.blockID(of: row.key))))
        }
        return blocks
    }

    /// Get Block List: committed blocks in the order of the content, uncommitted ones in the order of their
    /// identifiers.
    func getBlockList(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .readBlob)
        let conditions = try Conditions(call.request)
        let snapshot = try snapshotParameter(call)
        let type = call.parameters["blocklisttype"]?.lowercased() ?? "committed"
        guard ["committed", "uncommitted", "all"].contains(type) else {
            throw StorageError.invalidQuery("blocklisttype", type)
        }
        guard let row = try await blobRow(call, container, name, snapshot: snapshot) else {
            throw StorageError.blobNotFound
        }
        guard row.record.type == .block else { throw StorageError.invalidBlobType }
        if row.record.isUncommitted, type == "committed" { throw StorageError.blobNotFound }
        if snapshot == nil { try conditions.checkLeaseForRead(row.record.lease, of: .blob, at: call.now) }

        var xml = XMLDocumentWriter()
        xml.open("BlockList")
        if type != "uncommitted" {
            xml.open("CommittedBlocks")
            if !row.record.isUncommitted {
                for block in try await layout(of: row, call, container).blocks {
                    write(block.blockID, block.length, to: &xml)
                }
            }
            xml.close("CommittedBlocks")
        }
        if type != "committed" {
            xml.open("UncommittedBlocks")
            if snapshot == nil {
                for block in try await stagedBlocks(call, container, name) {
                    write(block.record.id, block.record.length, to: &xml)
                }
            }
            xml.close("UncommittedBlocks")
        }
        xml.close("BlockList")
        var response = Response.xml(.ok, xml)
        if !row.record.isUncommitted {
            response.headers.add(etag: row.record.etag, modified: row.record.modified)
        }
        response.headers.add(name: "x-ms-blob-content-length", value: String(row.record.length))
        return response
    }

    private func write(_ id: String, _ length: UInt64, to xml: inout XMLDocumentWriter) {
        xml.open("Block")
        xml.element("Name", id)
        xml.element("Size", String(length))
        xml.close("Block")
    }
}
