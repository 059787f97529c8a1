internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Delete Blob: the base blob with or without its snapshots, only its snapshots, or one snapshot. Needs no key.
    /// There is no soft delete: what is deleted is gone.
    func deleteBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .deleteBlob)
        let conditions = try Conditions(call.request)
        if call.parameters["deletetype"] != nil {
            throw StorageError.featureNotEnabled("Permanent delete of soft-deleted blobs")
        }
        let choice = call.header("x-ms-delete-snapshots")?.lowercased()
        guard choice == nil || choice == "include" || choice == "only" else {
            throw StorageError.invalidHeader("x-ms-delete-snapshots", choice)
        }
        if let snapshot = try snapshotParameter(call) {
            guard choice == nil else { throw StorageError.invalidHeader("x-ms-delete-snapshots", choice) }
            try await deleteSnapshot(call, container, name, snapshot, conditions)
        } else {
            try await deleteBase(call, container, name, choice, conditions)
        }
        return Response(status: .accepted)
    }

    private func deleteBase(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ choice: String?, _ conditions: Conditions
    ) async throws {
        try await retrying { () -> Void? in
            let row = try await existingBlob(call, container, name)
            try checkChange(call, conditions, row.record)
            try checkTierConditions(call, row.record)
            if choice == nil, row.record.snapshotCount > 0 { throw StorageError.snapshotsPresent }
            var change = Unlinking(checks: [.unchanged(row.key, row.version)])
            if choice != nil, row.record.snapshotCount > 0 {
                let group = BlobKeys.group(name)
                let rows = try await call.volume.scan(
                    container.partition, from: group.from, upTo: group.upTo, limit: .max)
                for snapshot in rows where snapshot.key != row.key {
                    change.checks.append(.unchanged(snapshot.key, snapshot.version))
                    change.writes.append(.delete(snapshot.key))
                    let record = try BlobRecord(decoding: snapshot.visible)
                    change.releasing += record.releasable
                    change.writes += releasePages(of: record, name, call, container)
                }
            }
            if choice == "only" {
                var record = row.record
                record.snapshotCount = 0
                change.writes.append(.put(row.key, visible: record.encoded(), sealed: row.sealed))
            } else {
                change.writes.append(.delete(row.key))
                change.releasing += row.record.releasable
                change.writes += releasePages(of: row.record, name, call, container)
                if row.record.hasStagedBlocks { change.add(try await unlinkStagedBlocks(call, container, name)) }
            }
            let done = try await commit(
                call, container, checks: change.checks, writes: change.writes, releasing: change.releasing)
            return done ? () : nil
        }
    }

    /// `x-ms-access-tier-if-modified-since` and its opposite ("Delete Blob"): against the time the tier was last set,
    /// or the blob was made. 412.
    private func checkTierConditions(_ call: BlobCall, _ record: BlobRecord) throws(StorageError) {
        let changed = (record.tierChanged ?? record.created).unixSeconds
        func time(_ name: String) throws(StorageError) -> Int64? {
            guard let text = call.header(name) else { return nil }
            guard let time = Timestamp(rfc1123: text) else { throw .invalidHeader(name, text) }
            return time.unixSeconds
        }
        if let since = try time("x-ms-access-tier-if-modified-since"), changed <= since { throw .conditionNotMet }
        if let since = try time("x-ms-access-tier-if-unmodified-since"), changed > since { throw .conditionNotMet }
    }

    private func deleteSnapshot(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ snapshot: String, _ conditions: Conditions
    ) async throws {
        try await retrying { () -> Void? in
            let row = try await existingBlob(call, container, name, snapshot: snapshot)
            try conditions.checkWrite(etag: row.record.etag, modified: row.record.modified)
            try checkTierConditions(call, row.record)
            guard let base = try await storedRow(call, container, name) else { throw StorageError.blobNotFound }
            var record = base.record
            record.snapshotCount -= min(record.snapshotCount, 1)
            let done = try await commit(
                call, container, checks: [.unchanged(row.key, row.version), .unchanged(base.key, base.version)],
                writes: [.delete(row.key), .put(base.key, visible: record.encoded(), sealed: base.sealed)]
                    + releasePages(of: row.record, name, call, container),
                releasing: row.record.releasable)
            return done ? () : nil
        }
    }
}
