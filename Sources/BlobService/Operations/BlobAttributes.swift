internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Set Blob Metadata: replaces all of it.
    func setBlobMetadata(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        let conditions = try Conditions(call.request)
        let encryption = try RequestedEncryption(call, in: container.record)
        let metadata = try call.metadata()
        let (record, _) = try await updateBlob(call, container, name) { row, record in
            try self.checkChange(call, conditions, row.record)
            try encryption.check(record)
            let key = try await self.dataKey(call, encryption)
            var secrets = try await self.open(row, call, container, under: key)
            secrets.metadata = metadata
            record.touch(at: call.now)
            let sealed = try await self.seal(
                secrets, including: record.customerKeySHA256 == nil, at: row.key, call, container, under: key)
            return ((), sealed)
        }
        var response = Response(status: .ok)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.addWriteEncryption(record)
        return response
    }

    /// Set Blob Properties (comp=properties): replaces all content headers; one that is not sent is cleared.
    func setBlobProperties(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        let conditions = try Conditions(call.request)
        let content = call.contentHeaders(fallbacks: false)
        // Kept as it is sent: the service does not check here that the value is an MD5.
        let md5 = try call.header("x-ms-blob-content-md5").flatMap { text throws(StorageError) -> [UInt8]? in
            guard !text.isEmpty else { return nil }
            guard let bytes = [UInt8](base64: text), bytes.count <= 64 else { throw .invalidMD5 }
            return bytes
        }
        var response = Response(status: .ok)
        if let change = try pageBlobChange(call) {
            let keeps = content == ContentHeaders() && md5 == nil
            let record = try await setPageBlobProperties(
                change, call, container, name, content: keeps ? nil : content, md5: md5)
            response.headers.add(etag: record.etag, modified: record.modified)
            response.headers.add(name: "x-ms-blob-sequence-number", value: String(record.sequenceNumber))
            return response
        }
        let (record, _) = try await updateBlob(call, container, name) { row, record in
            try self.checkChange(call, conditions, row.record)
            record.content = content
            let sealed = try await self.changeAccountPart(row, &record, call, container) { $0.md5 = md5 }
            record.touch(at: call.now)
            return ((), sealed)
        }
        response.headers.add(etag: record.etag, modified: record.modified)
        if record.type == .page {
            response.headers.add(name: "x-ms-blob-sequence-number", value: String(record.sequenceNumber))
        }
        return response
    }

    func checkChange(_ call: BlobCall, _ conditions: Conditions, _ record: BlobRecord) throws(StorageError) {
        try conditions.checkWrite(etag: record.etag, modified: record.modified)
        try conditions.checkLeaseForWrite(record.lease, of: .blob, at: call.now)
    }

    // MARK: Tier

    /// Set Blob Tier: Hot, Cool or Cold, a label here. Changes neither the entity tag nor the last-modified time.
    func setBlobTier(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        let conditions = try Conditions(call.request)
        let snapshot = try snapshotParameter(call)
        guard let tier = try call.accessTier() else { throw StorageError.missingHeader("x-ms-access-tier") }
        _ = try await updateBlob(call, container, name, snapshot: snapshot) { row, record in
            guard record.type == .block else { throw StorageError.invalidBlobType }
            try conditions.checkLeaseForRead(record.lease, of: .blob, at: call.now)
            // Among the operations that a customer's key must allow (customer-managed-keys-overview).
            _ = try await self.keptKey(call, scope: record.encryptionScope)
            record.tier = tier
            record.tierChanged = call.now
            return ((), nil)
        }
        return Response(status: .ok)
    }

    // MARK: Tags

    /// Get Blob Tags.
    func getBlobTags(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .readTags)
        let conditions = try Conditions(call.request)
        let snapshot = try snapshotParameter(call)
        let row = try await existingBlob(call, container, name, snapshot: snapshot)
        if snapshot == nil { try conditions.checkLeaseForRead(row.record.lease, of: .blob, at: call.now) }
        var xml = XMLDocumentWriter()
        writeTags(try await tags(of: row, call, container), to: &xml)
        return .xml(.ok, xml)
    }

    /// Set Blob Tags: replaces all of them; changes neither the entity tag nor the last-modified time.
    func setBlobTags(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeTags)
        let conditions = try Conditions(call.request)
        let root = try readXML(try await call.request.body.collect(upTo: BlobLimits.xmlBodyBytes))
        guard root.name == "Tags", let set = root["TagSet"] else { throw StorageError.invalidXML }
        let tags = set.all("Tag").map { ($0["Key"]?.text ?? "", $0["Value"]?.text ?? "") }
        try validateTags(tags)
        _ = try await updateBlob(call, container, name) { row, record in
            try conditions.checkLeaseForWrite(record.lease, of: .blob, at: call.now)
            return ((), try await self.changeAccountPart(row, &record, call, container) { $0.tags = tags })
        }
        return Response(status: .noContent)
    }
}

extension BlobRecord {
    /// What every change of a blob's content, properties or metadata does.
    mutating func touch(at now: Timestamp) {
        etag = ETag(at: now, after: etag)
        modified = now
        lease.settleAfterWrite(at: now)
    }
}
