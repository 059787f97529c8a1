internal import CofferCore
internal import EncryptionAtRest
public import StorageAccount

extension BlobService {
    private static let rowsPerBatch = 1_000

    /// Removes what nobody can reach any more: the rows of deleted containers, and uncommitted blocks older than a
    /// week. The composition root calls it at start and from a timer; it may be called at any time and more than once.
    public func collectGarbage(in account: StorageAccountView) async throws {
        let deleted = try await account.volume.scan(
            .account, from: AccountKeySpace.allDeleted.from, upTo: AccountKeySpace.allDeleted.upTo, limit: .max)
        for row in deleted {
            let id = String(decoding: row.key.dropFirst(2), as: UTF8.self)
            _ = try await purge(id, account.volume, batches: .max)
        }
        let range = AccountKeySpace.containers(prefix: "")
        for row in try await account.volume.scan(.account, from: range.from, upTo: range.upTo, limit: .max) {
            try await dropOldBlocks(.container(try ContainerRecord(decoding: row.visible).id), account.volume)
        }
    }

    /// Removes the rows of a deleted container, batch by batch; true when none is left.
    func purge(_ id: String, _ volume: AccountVolume, batches: Int) async throws -> Bool {
        let partition = VolumePartition.container(id)
        // Without the container's mark no commit adds a row any more.
        _ = try await volume.commit(partition, checks: [], writes: [.delete(BlobKeys.container)])
        for _ in 0..<batches {
            try Task.checkCancellation()
            let rows = try await volume.scan(partition, from: [0x01], upTo: nil, limit: Self.rowsPerBatch)
            if rows.isEmpty {
                _ = try await volume.commit(.account, checks: [], writes: [.delete(AccountKeySpace.deleted(id))])
                return true
            }
            var extents: [ExtentReference] = []
            for row in rows {
                let isBlob = BlobKeys.parse(row.key) != nil
                extents +=
                    isBlob
                    ? try BlobRecord(decoding: row.visible).releasable
                    : try BlockRecord(decoding: row.visible).releasable
            }
            _ = try await volume.commit(
                partition, checks: [], writes: rows.map { .delete($0.key) }, releasing: extents)
        }
        return false
    }

    private func dropOldBlocks(_ partition: VolumePartition, _ volume: AccountVolume) async throws {
        let limit = clock.now().adding(seconds: -BlobLimits.uncommittedBlockSeconds)
        var from = BlobKeys.allBlocks.from
        while true {
            try Task.checkCancellation()
            let rows = try await volume.scan(
                partition, from: from, upTo: BlobKeys.allBlocks.upTo, limit: Self.rowsPerBatch)
            guard let last = rows.last else { return }
            for row in rows {
                let block = try BlockRecord(decoding: row.visible)
                guard block.uploaded < limit else { continue }
                _ = try await volume.commit(
                    partition, checks: [.unchanged(row.key, row.version)], writes: [.delete(row.key)],
                    releasing: block.releasable)
            }
            from = last.key + [0]
        }
    }
}
