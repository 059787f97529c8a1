internal import CofferCore
public import EncryptionAtRest
public import StorageAccount

extension BlobService {
    private static let rowsPerBatch = 1_000
    /// Each takes two writes of a commit, which has 500,000 at most; one blob more may bring 50,000.
    private static let extentsPerBatch = 100_000

    /// Removes what nobody can reach any more: the rows of deleted containers, uncommitted blocks older than a week,
    /// and pages of blobs and snapshots that went more than `pagesKeptSeconds` ago. The composition root calls it at
    /// start and from a timer; it may be called at any time and more than once.
    public func collectGarbage(
        in account: StorageAccountView, pagesKeptSeconds: Int64 = SealedStore.garbageKeptSeconds
    ) async throws {
        let deleted = try await account.volume.scan(
            .account, from: AccountKeySpace.allDeleted.from, upTo: AccountKeySpace.allDeleted.upTo, limit: .max)
        for row in deleted {
            let id = String(decoding: row.key.dropFirst(2), as: UTF8.self)
            _ = try await purge(id, account.volume, batches: .max)
        }
        let range = AccountKeySpace.containers(prefix: "")
        var failure: (any Error)?
        for row in try await account.volume.scan(.account, from: range.from, upTo: range.upTo, limit: .max) {
            do {
                try await collectGarbage(
                    in: .container(try ContainerRecord(decoding: row.visible).id), account.volume,
                    pagesKeptSeconds: pagesKeptSeconds)
            } catch let stopped as CancellationError {
                throw stopped
            } catch {
                // One container's fault is not the others'.
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    private func collectGarbage(
        in partition: VolumePartition, _ volume: AccountVolume, pagesKeptSeconds: Int64
    ) async throws {
        try await dropOldBlocks(partition, volume)
        guard try await collectPages(in: partition, volume, keptSeconds: pagesKeptSeconds) else {
            return pageReleases.note(volume, partition)
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
            var taken: [VolumeWrite] = []
            for row in rows where taken.isEmpty || extents.count < Self.extentsPerBatch {
                taken.append(.delete(row.key))
                if PageKeys.isLeaf(row.key) {
                    extents += try PageLeafRecord(decoding: row.visible).releasable
                } else if PageKeys.isRelease(row.key) {
                    continue
                } else if BlobKeys.parse(row.key) != nil {
                    extents += try BlobRecord(decoding: row.visible).releasable
                } else if !BlobKeys.blockID(of: row.key).isEmpty {
                    extents += try BlockRecord(decoding: row.visible).releasable
                }
            }
            _ = try await volume.commit(
                partition, checks: [], writes: taken, releasing: extents)
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
            // By the name's bytes: texts that only look the same are two names.
            var old: [[UInt8]: [VolumeRow]] = [:]
            for row in rows where !BlobKeys.blockID(of: row.key).isEmpty {
                guard try BlockRecord(decoding: row.visible).uploaded < limit else { continue }
                old[Array(row.key.prefix { $0 != 0 }), default: []].append(row)
            }
            for blocks in old.values {
                guard let name = BlobKeys.blockName(of: blocks[0].key) else { continue }
                try await drop(blocks, of: name, partition, volume)
            }
            from = last.key + [0]
        }
    }

    /// With the last uncommitted block goes the row that stands for a blob of nothing else. What somebody changes
    /// meanwhile waits for the next time.
    private func drop(
        _ blocks: [VolumeRow], of name: String, _ partition: VolumePartition, _ volume: AccountVolume
    ) async throws {
        let (baseKey, stagedKey) = (BlobKeys.base(name), BlobKeys.stagedBlocks(name))
        let rows = try await volume.get(partition, [baseKey, stagedKey])
        let base = try rows[0].map(BlobRow.init)
        var staged = try await stagedBlocks(rows[1], beside: base, name, volume, partition)
        staged.remove(blocks.count)
        var writes = blocks.map { VolumeWrite.delete($0.key) }
        if staged.count > 0 {
            writes.append(.put(stagedKey, visible: staged.encoded(), sealed: .none))
        } else {
            writes.append(.delete(stagedKey))
            if base?.record.isUncommitted == true { writes.append(.delete(baseKey)) }
        }
        _ = try await volume.commit(
            partition,
            checks: [
                base.map { .unchanged(baseKey, $0.version) } ?? .absent(baseKey),
                rows[1].map { .unchanged(stagedKey, $0.version) } ?? .absent(stagedKey),
            ] + blocks.map { .unchanged($0.key, $0.version) },
            writes: writes, releasing: try blocks.flatMap { try BlockRecord(decoding: $0.visible).releasable })
    }
}
