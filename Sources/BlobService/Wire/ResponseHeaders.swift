internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension HTTPHeaders {
    mutating func add(etag: ETag, modified: Timestamp) {
        add(name: "ETag", value: etag.quoted)
        add(name: "Last-Modified", value: modified.rfc1123)
    }
    mutating func add(lease: Lease, at now: Timestamp) {
        add(name: "x-ms-lease-status", value: lease.isActive(at: now) ? "locked" : "unlocked")
        add(name: "x-ms-lease-state", value: lease.state(at: now).rawValue)
        if let kind = lease.durationKind(at: now) { add(name: "x-ms-lease-duration", value: kind) }
    }
    mutating func add(metadata: [(String, String)]) {
        for (name, value) in metadata { add(name: "x-ms-meta-" + name, value: value) }
    }
    /// Those that were computed of a request's body.
    mutating func add(hashesOf body: IngestedBody) {
        if let md5 = body.md5 { add(name: "Content-MD5", value: md5.base64) }
        if let crc64 = body.crc64 { add(name: "x-ms-content-crc64", value: crc64.base64) }
    }
    /// After a write: encrypted, and by whose key.
    mutating func addWriteEncryption(customerKeySHA256: String?, scope: String?) {
        add(name: "x-ms-request-server-encrypted", value: "true")
        addEncryption(customerKeySHA256, scope)
    }
    mutating func addWriteEncryption(_ record: BlobRecord) {
        addWriteEncryption(customerKeySHA256: record.customerKeySHA256, scope: record.encryptionScope)
    }
    private mutating func addReadEncryption(_ record: BlobRecord) {
        add(name: "x-ms-server-encrypted", value: "true")
        addEncryption(record.customerKeySHA256, record.encryptionScope)
    }
    private mutating func addEncryption(_ customerKeySHA256: String?, _ scope: String?) {
        if let customerKeySHA256 { add(name: "x-ms-encryption-key-sha256", value: customerKeySHA256) }
        if let scope { add(name: "x-ms-encryption-scope", value: scope) }
    }

    /// What Get Blob and Get Blob Properties share.
    mutating func add(blob record: BlobRecord, snapshot: String?, secrets: BlobSecrets, at now: Timestamp) {
        add(etag: record.etag, modified: record.modified)
        add(name: "Content-Type", value: record.content.type ?? "application/octet-stream")
        if let value = record.content.encoding { add(name: "Content-Encoding", value: value) }
        if let value = record.content.language { add(name: "Content-Language", value: value) }
        if let value = record.content.disposition { add(name: "Content-Disposition", value: value) }
        if let value = record.content.cacheControl { add(name: "Cache-Control", value: value) }
        add(name: "Accept-Ranges", value: "bytes")
        add(name: "x-ms-blob-type", value: record.type.wireName)
        add(name: "x-ms-creation-time", value: record.created.rfc1123)
        if snapshot == nil { add(lease: record.lease, at: now) }
        add(metadata: secrets.metadata)
        if !secrets.tags.isEmpty { add(name: "x-ms-tag-count", value: String(secrets.tags.count)) }
        if record.type == .append {
            add(name: "x-ms-blob-committed-block-count", value: String(record.blockCount))
            if record.isAppendSealed { add(name: "x-ms-blob-sealed", value: "true") }
        }
        if record.type == .page { add(name: "x-ms-blob-sequence-number", value: String(record.sequenceNumber)) }
        if let copy = record.copy {
            add(name: "x-ms-copy-id", value: copy.id)
            add(name: "x-ms-copy-source", value: copy.source)
            add(name: "x-ms-copy-status", value: "success")
            add(name: "x-ms-copy-progress", value: "\(copy.bytes)/\(copy.bytes)")
            add(name: "x-ms-copy-completion-time", value: copy.completed.rfc1123)
        }
        addReadEncryption(record)
    }

    /// A SAS may name the content headers that its downloads have (`rscc` and its kin).
    mutating func override(by grant: StorageCaller) {
        guard case .sharedAccess(let grant) = grant, !grant.responseHeaders.isEmpty else { return }
        let names = [
            "rscc": "Cache-Control", "rscd": "Content-Disposition", "rsce": "Content-Encoding",
            "rscl": "Content-Language",
            "rsct": "Content-Type",
        ]
        for (parameter, value) in grant.responseHeaders {
            if let name = names[parameter] { replaceOrAdd(name: name, value: value) }
        }
    }
}
