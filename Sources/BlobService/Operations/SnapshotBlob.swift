internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Snapshot Blob: a read-only row beside the base blob that holds the same extents, or of a page blob the same map
    /// at the same epoch. Metadata in the request replaces the blob's own in it.
    func snapshotBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .snapshotBlob)
        let conditions = try Conditions(call.request)
        let encryption = try RequestedEncryption(call, in: container.record)
        let metadata = try call.metadata()
        let (snapshot, record) = try await retrying { () -> (String, BlobRecord)? in
            let row = try await existingBlob(call, container, name)
            try conditions.checkWrite(etag: row.record.etag, modified: row.record.modified)
            try conditions.checkLeaseForRead(row.record.lease, of: .blob, at: call.now)
            try encryption.check(row.record)
            let key = try await dataKey(call, encryption)
            var secrets = try await open(row, call, container, under: key)
            if !metadata.isEmpty { secrets.metadata = metadata }

            var copy = row.record
            copy.lease = Lease()
            copy.snapshotCount = 0
            copy.hasStagedBlocks = false
            if !metadata.isEmpty { copy.etag = ETag(at: call.now, after: copy.etag) }
            let snapshot = try await freeSnapshotTime(call, container, name)
            let snapshotKey = BlobKeys.snapshot(name, snapshot)
            var base = row.record
            base.snapshotCount += 1
            try base.pages?.freeze()
            let done = try await commit(
                call, container, checks: [.unchanged(row.key, row.version), .absent(snapshotKey)],
                writes: [
                    try await put(copy, secrets, at: snapshotKey, call, container, under: key),
                    .put(row.key, visible: base.encoded(), sealed: row.sealed),
                ],
                linking: secrets.manifest.extents)
            return done ? (snapshot, copy) : nil
        }
        var response = Response(status: .created)
        response.headers.add(name: "x-ms-snapshot", value: snapshot)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.addWriteEncryption(record)
        return response
    }

    /// The request's time, or the next microsecond at which the blob has no snapshot.
    private func freeSnapshotTime(_ call: BlobCall, _ container: ContainerHandle, _ name: String) async throws -> String
    {
        var time = call.now
        while true {
            let text = time.iso8601WithTicks
            if try await storedRow(call, container, name, snapshot: text) == nil { return text }
            time.microseconds += 1
        }
    }
}
