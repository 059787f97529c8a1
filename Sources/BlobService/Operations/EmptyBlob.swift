internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Put Blob, for an append blob: an empty one.
    func createAppendBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        try await createEmptyBlob(call, containerName, name, .append) { _ in }
    }

    /// Put Blob, for a page blob: zeros, of the length that `x-ms-blob-content-length` says.
    func createPageBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        try await createEmptyBlob(call, containerName, name, .page) { record in
            // Page blobs have tiers in premium accounts only.
            if let tier = call.header("x-ms-access-tier"), !tier.isEmpty {
                throw StorageError.invalidHeader("x-ms-access-tier", tier)
            }
            guard let length = try call.number("x-ms-blob-content-length") else {
                throw StorageError.missingHeader("x-ms-blob-content-length")
            }
            try Self.checkPageBlobLength(length)
            record.length = length
            record.sequenceNumber = try Self.sequenceNumber(call, "x-ms-blob-sequence-number") ?? 0
            record.pages = PageMapRoot(id: randomness.bytes(PageMapRoot.idBytes))
        }
    }

    /// Put Blob, for the types that begin without a body: `shape` completes what every type's headers say.
    private func createEmptyBlob(
        _ call: BlobCall, _ containerName: String, _ name: String, _ type: BlobType,
        _ shape: (inout BlobRecord) throws -> Void
    ) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        guard (call.request.body.declaredLength ?? 0) == 0 else {
            throw StorageError.invalidHeader("Content-Length", reason: "A blob of this type begins without a body.")
        }
        var secrets = BlobSecrets()
        secrets.metadata = try call.metadata()
        secrets.tags = try call.tagsHeader()
        secrets.md5 = try call.md5Header("x-ms-blob-content-md5")
        var template = BlobRecord(etag: ETag(number: 0), at: call.now)
        template.type = type
        template.content = call.contentHeaders(fallbacks: true)
        try shape(&template)
        let fixed = (template, secrets)
        let key = try await dataKey(call, encryption)
        let record = try await replaceBlob(
            call, container, name, replacing: .unread, conditions: conditions, under: key
        ) { _ in fixed }
        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.addWriteEncryption(record)
        return response
    }
}
