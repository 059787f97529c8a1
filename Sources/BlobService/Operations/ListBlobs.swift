internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    private static let blobIncludes: Set<String> = [
        "snapshots", "metadata", "uncommittedblobs", "copy", "deleted", "tags", "versions", "immutabilitypolicy",
        "legalhold",
        "deletedwithversions", "permissions",
    ]

    /// List Blobs, flat or by delimiter. Without `include=metadata` or `tags` it needs no key: with the customer's key
    /// gone it goes on, and only the Content-MD5 of blobs is left out.
    ///
    /// Order: UTF-8 bytes of the name; a blob's snapshots, oldest first, come before it.
    func listBlobs(_ call: BlobCall, _ containerName: String) async throws -> Response {
        let container = try await enter(call, containerName, .listBlobs)
        let parameters = try ListParameters(call, allowedIncludes: Self.blobIncludes)
        for unsupported in ["versions", "deletedwithversions"] where parameters.include.contains(unsupported) {
            throw StorageError.featureNotEnabled("Blob versioning")
        }
        if parameters.include.contains("permissions") {
            throw StorageError.featureNotEnabled("A hierarchical namespace")
        }
        let delimiter = call.parameters["delimiter"].flatMap { $0.isEmpty ? nil : $0 }
        if delimiter != nil, parameters.include.contains("snapshots") {
            throw StorageError.invalidQuery(
                "include", "snapshots", reason: "Snapshots are listed without a delimiter only.")
        }
        let range = BlobKeys.listing(prefix: parameters.prefix)
        let start =
            try parameters.marker.map { text throws(StorageError) in try ListMarker.decode(text, within: range) }
            ?? range.from
        let walk = BlobWalk(
            prefix: parameters.prefix, delimiter: delimiter, includeSnapshots: parameters.include.contains("snapshots"),
            includeUncommitted: parameters.include.contains("uncommittedblobs"))
        let page = try await walk.page(from: start, maximum: parameters.maximum) { from, upTo, limit in
            try await call.volume.scan(container.partition, from: from, upTo: upTo, limit: limit)
        }
        let keys = try await listingKeys(call, parameters, page)

        var xml = XMLDocumentWriter()
        xml.open(
            "EnumerationResults",
            [
                ("ServiceEndpoint", call.request.names.url(of: call.request.endpoint) + "/"),
                ("ContainerName", container.name),
            ])
        xml.element("Prefix", ifPresent: call.parameters["prefix"])
        xml.element("Marker", ifPresent: call.parameters["marker"])
        xml.element("MaxResults", ifPresent: parameters.requestedMaximum)
        xml.element("Delimiter", ifPresent: delimiter)
        xml.open("Blobs")
        for item in page.items {
            switch item {
            case .prefix(let name):
                xml.open("BlobPrefix")
                xml.name("Name", name)
                xml.close("BlobPrefix")
            case .blob(let name, let snapshot, let row):
                try await write(name, snapshot, row, to: &xml, call, container, parameters, keys)
            }
        }
        xml.close("Blobs")
        xml.element("NextMarker", page.next.map(ListMarker.encode) ?? "")
        xml.close("EnumerationResults")
        return .xml(.ok, xml)
    }

    /// The keys a page can use: the account's under nil, and each scope's that its blobs name.
    private typealias ListingKeys = [String?: DataKey]

    /// Asked-for metadata needs the account's key (403 when it is gone); a Content-MD5 alone does not. A scope's key
    /// that cannot be had takes away what lies under it, not the list.
    private func listingKeys(
        _ call: BlobCall, _ parameters: ListParameters, _ page: BlobPage
    ) async throws -> ListingKeys {
        guard !page.items.isEmpty else { return [:] }
        var keys: ListingKeys = [:]
        let needsAccountKey = !parameters.include.isDisjoint(with: ["metadata", "tags"])
        do {
            keys[nil] = try await call.volume.accountKey()
        } catch let error as KeyUnavailable {
            if needsAccountKey { throw error }
        }
        var asked: Set<String> = []
        for case .blob(_, _, let row) in page.items {
            guard let scope = row.record.encryptionScope, asked.insert(scope).inserted else { continue }
            do {
                keys[scope] = try await keptKey(call, scope: scope)
            } catch let error where error is KeyUnavailable || wireError(error).status == 409 {
                continue
            }
        }
        return keys
    }

    private func write(
        _ name: String, _ snapshot: String?, _ row: BlobRow, to xml: inout XMLDocumentWriter, _ call: BlobCall,
        _ container: ContainerHandle, _ parameters: ListParameters, _ keys: ListingKeys
    ) async throws {
        let record = row.record
        var key = keys[record.encryptionScope]
        var secrets: BlobSecrets?
        if let found = key, record.customerKeySHA256 == nil {
            do {
                secrets = try await open(row, call, container, under: found)
            } catch is KeyUnavailable where record.encryptionScope != nil {
                // The scope went since its key was taken.
                key = nil
            }
        }
        if let key, !record.accountSealed.isEmpty {
            var part = BlobSecrets()
            try part.decodeAccountPart(
                try await call.volume.open(
                    SealedPart(record.accountSealed), at: row.key, in: container.partition, under: key))
            secrets = part
        }
        xml.open("Blob")
        xml.name("Name", name)
        xml.element("Snapshot", ifPresent: snapshot)
        writeProperties(record, isSnapshot: snapshot != nil, md5: secrets?.md5, to: &xml, call, parameters)
        if parameters.include.contains("metadata") {
            if record.customerKeySHA256 != nil || key == nil {
                xml.empty("Metadata", [("Encrypted", "true")])
            } else {
                xml.open("Metadata")
                for (name, value) in secrets?.metadata ?? [] { xml.element(named: name, value) }
                xml.close("Metadata")
            }
        }
        if parameters.include.contains("tags"), let tags = secrets?.tags, !tags.isEmpty { writeTags(tags, to: &xml) }
        xml.empty("OrMetadata")
        xml.close("Blob")
    }

    private func writeProperties(
        _ record: BlobRecord, isSnapshot: Bool, md5: [UInt8]?, to xml: inout XMLDocumentWriter, _ call: BlobCall,
        _ parameters: ListParameters
    ) {
        xml.open("Properties")
        xml.element("Creation-Time", record.created.rfc1123)
        xml.element("Last-Modified", record.modified.rfc1123)
        xml.element("Etag", record.etag.text)
        xml.element("Content-Length", String(record.length))
        xml.element("Content-Type", record.isUncommitted ? "" : record.content.type ?? "application/octet-stream")
        xml.element("Content-Encoding", record.content.encoding ?? "")
        xml.element("Content-Language", record.content.language ?? "")
        xml.empty("Content-CRC64")
        xml.element("Content-MD5", md5?.base64 ?? "")
        xml.element("Cache-Control", record.content.cacheControl ?? "")
        xml.element("Content-Disposition", record.content.disposition ?? "")
        if record.type == .page { xml.element("x-ms-blob-sequence-number", String(record.sequenceNumber)) }
        xml.element("BlobType", record.type.wireName)
        if record.type == .block, !record.isUncommitted {
            xml.element("AccessTier", (record.tier ?? .hot).rawValue)
            if record.tier == nil { xml.element("AccessTierInferred", "true") }
            xml.element("AccessTierChangeTime", ifPresent: record.tierChanged?.rfc1123)
        }
        if record.isAppendSealed { xml.element("Sealed", "true") }
        if !isSnapshot {
            xml.element("LeaseStatus", record.lease.isActive(at: call.now) ? "locked" : "unlocked")
            xml.element("LeaseState", record.lease.state(at: call.now).rawValue)
            xml.element("LeaseDuration", ifPresent: record.lease.durationKind(at: call.now))
        }
        if parameters.include.contains("copy"), let copy = record.copy {
            xml.element("CopyId", copy.id)
            xml.element("CopySource", copy.source)
            xml.element("CopyStatus", "success")
            xml.element("CopyProgress", "\(copy.bytes)/\(copy.bytes)")
            xml.element("CopyCompletionTime", copy.completed.rfc1123)
        }
        xml.element("ServerEncrypted", "true")
        xml.element("CustomerProvidedKeySha256", ifPresent: record.customerKeySHA256)
        xml.element("EncryptionScope", ifPresent: record.encryptionScope)
        if record.tagCount > 0 { xml.element("TagCount", String(record.tagCount)) }
        xml.close("Properties")
    }

    func writeTags(_ tags: [(String, String)], to xml: inout XMLDocumentWriter) {
        xml.open("Tags")
        xml.open("TagSet")
        for (name, value) in tags {
            xml.open("Tag")
            xml.element("Key", name)
            xml.element("Value", value)
            xml.close("Tag")
        }
        xml.close("TagSet")
        xml.close("Tags")
    }
}
