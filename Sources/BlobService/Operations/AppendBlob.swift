internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Append Block and Append Block From URL.
    func appendBlock(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .appendBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        let position = try call.number("x-ms-blob-condition-appendpos")
        let maximum = try call.number("x-ms-blob-condition-maxsize")
        try checkAppend(call, conditions, try await existingBlob(call, container, name).record, encryption)
        let key = try await dataKey(call, encryption)
        let body: IngestedBody
        if call.request.headers.contains(name: "x-ms-copy-source") {
            body = try await ingestSource(call, under: key, limit: BlobLimits.appendBlockBytes)
        } else {
            let hasMD5 = call.request.headers.contains(name: "Content-MD5")
            body = try await ingest(
                call, under: key, limit: BlobLimits.appendBlockBytes, mayBeInline: false, computingMD5: hasMD5,
                computingCRC64: true)
            guard body.length > 0 else { throw StorageError.invalidHeader("Content-Length", "0") }
        }
        let (record, offset) = try await linking(body.extents, call) {
            try await retrying { () -> (BlobRecord, UInt64)? in
                let row = try await existingBlob(call, container, name)
                var record = row.record
                try checkAppend(call, conditions, record, encryption)
                if let position, position != record.length {
                    throw StorageError(
                        412, "AppendPositionConditionNotMet", "The append position condition specified was not met.")
                }
                if let maximum, record.length + UInt64(body.length) > maximum {
                    throw StorageError(
                        412, "MaxBlobSizeConditionNotMet", "The max blob size condition specified was not met.")
                }
                guard record.blockCount < UInt64(BlobLimits.committedBlocks) else {
                    throw StorageError.blockCountExceedsLimit
                }
                var secrets = try await open(row, call, container, under: key)
                secrets.manifest.slices += body.manifest.slices
                let offset = record.length
                record.length += UInt64(body.length)
                record.blockCount += 1
                record.touch(at: call.now)
                let done = try await commit(
                    call, container, checks: [.unchanged(row.key, row.version)],
                    writes: [try await put(record, secrets, at: row.key, call, container, under: key)],
                    linking: body.extents)
                return done ? (record, offset) : nil
            }
        }
        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.add(name: "x-ms-blob-append-offset", value: String(offset))
        response.headers.add(name: "x-ms-blob-committed-block-count", value: String(record.blockCount))
        response.headers.add(hashesOf: body)
        response.headers.addWriteEncryption(record)
        return response
    }

    private func checkAppend(
        _ call: BlobCall, _ conditions: Conditions, _ record: BlobRecord, _ encryption: RequestedEncryption
    ) throws(StorageError) {
        guard record.type == .append else { throw .invalidBlobType }
        try checkChange(call, conditions, record)
        guard !record.isAppendSealed else {
            throw StorageError(409, "BlobIsSealed", "The specified blob is sealed and its contents can't be modified.")
        }
        try encryption.check(record)
    }

    /// Append Blob Seal: no more appends. Needs no key.
    func sealAppendBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        let conditions = try Conditions(call.request)
        let position = try call.number("x-ms-blob-condition-appendpos")
        let (record, _) = try await updateBlob(call, container, name) { row, record in
            guard record.type == .append else { throw StorageError.invalidBlobType }
            try self.checkChange(call, conditions, record)
            if let position, position != record.length {
                throw StorageError(
                    412, "AppendPositionConditionNotMet", "The append position condition specified was not met.")
            }
            if !record.isAppendSealed {
                record.isAppendSealed = true
                record.etag = ETag(at: call.now, after: record.etag)
                record.modified = call.now
            }
            return ((), nil)
        }
        var response = Response(status: .ok)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.add(name: "x-ms-blob-sealed", value: "true")
        return response
    }
}
