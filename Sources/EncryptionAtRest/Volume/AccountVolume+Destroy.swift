internal import CofferCore
internal import StorageEngine

/// The end of a partition or an account. Both may be called again after a failure and go on where they stopped.
extension AccountVolume {
    /// Rows deleted in one commit.
    private static let pageRows = 500

    /// Deletes every row and extent of the account. Callers destroy the key first (`AccountKeys.destroy`): then nothing
    /// opens any more.
    public func destroy() async throws(SealedStoreError) {
        for partition in try await core.partitions(prefix: EnginePartition.volumePrefix(account)) {
            try await destroy(partition)
        }
    }

    private func destroy(_ partition: Partition) async throws(SealedStoreError) {
        while true {
            let rows = try await core.scan(partition, from: RowKey([]), upTo: nil, limit: Self.pageRows)
            guard !rows.isEmpty else { return }
            for row in rows {
                // Bytes go before the row that names them, so that a crash in between leaves nothing unnamed.
                guard let kind = row.key.bytes.first, kind == RowKind.link.rawValue || kind == RowKind.garbage.rawValue
                else { continue }
                try await core.deleteExtent(ExtentLocation(Array(row.key.bytes.dropFirst())))
            }
            _ = try await core.commit(partition, checks: [], writes: rows.map { .delete($0.key) })
        }
    }
}
