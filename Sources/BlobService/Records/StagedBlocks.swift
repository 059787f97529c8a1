internal import EncryptionAtRest
internal import HTTPEdge
internal import StorageAccount

/// What a row beside a name's uncommitted blocks tells of them: how many there are, so that their limit costs no look
/// at each, and the length of their identifiers. Every commit that adds, replaces or removes one writes this row, so
/// that a check of it stands for a check of each.
struct StagedBlocks: Sendable, Equatable {
    private(set) var count: UInt64 = 0
    /// All identifiers of a blob's uncommitted blocks have one length ("Put Block"). Zero while there are none.
    private(set) var idBytes: UInt64 = 0

    private static let version: UInt8 = 1

    init(count: Int = 0, idBytes: Int = 0) {
        precondition((count == 0) == (idBytes == 0), "blocks have identifiers, and nothing else has")
        self.count = UInt64(count)
        self.idBytes = UInt64(idBytes)
    }

    /// Throws 400 for an identifier of another length, and 409 where a new block would be one too many.
    mutating func add(idBytes: Int, isNew: Bool) throws(StorageError) {
        guard count == 0 || self.idBytes == UInt64(idBytes) else { throw .invalidBlobOrBlock }
        guard isNew else { return }
        guard count < UInt64(BlobLimits.uncommittedBlocks) else { throw .uncommittedBlockCountExceedsLimit }
        count += 1
        self.idBytes = UInt64(idBytes)
    }
    mutating func remove(_ removed: Int) {
        count -= min(count, UInt64(removed))
        if count == 0 { idBytes = 0 }
    }

    func encoded() -> [UInt8] {
        var writer = RecordWriter(reserving: 8)
        writer.byte(Self.version)
        writer.number(count)
        writer.number(idBytes)
        return writer.bytes
    }
    init(decoding bytes: [UInt8]) throws(RecordError) {
        var reader = RecordReader(bytes)
        guard try reader.byte() == Self.version else { throw .malformed }
        count = try reader.number()
        idBytes = try reader.number()
        try reader.finish()
        guard (count == 0) == (idBytes == 0), idBytes <= UInt64(BlobLimits.blockIDBytes) else { throw .malformed }
    }
}

extension BlobService {
    /// What stands beside `base`: as the row says, or counted where blocks were put before such rows were kept.
    func stagedBlocks(
        _ row: VolumeRow?, beside base: BlobRow?, _ name: String, _ volume: AccountVolume, _ partition: VolumePartition
    ) async throws -> StagedBlocks {
        if let row { return try StagedBlocks(decoding: row.visible) }
        guard base?.record.hasStagedBlocks == true else { return StagedBlocks() }
        let range = BlobKeys.blocks(name)
        let rows = try await awayFromEventLoop {
            try await volume.scan(partition, from: range.from, upTo: range.upTo, limit: .max)
        }
        return StagedBlocks(count: rows.count, idBytes: rows.first.map { BlobKeys.blockID(of: $0.key).count } ?? 0)
    }

    /// All uncommitted blocks of a name go.
    func unlinkStagedBlocks(_ call: BlobCall, _ container: ContainerHandle, _ name: String) async throws -> Unlinking {
        // There may be 100,000.
        try await awayFromEventLoop { try await unlinkEachStagedBlock(call, container, name) }
    }

    private func unlinkEachStagedBlock(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String
    ) async throws -> Unlinking {
        let key = BlobKeys.stagedBlocks(name)
        let range = BlobKeys.blocks(name)
        var unlinking = Unlinking()
        // Read before the blocks: one that comes or goes meanwhile changes it.
        if let row = try await call.volume.get(container.partition, [key])[0] {
            unlinking.checks.append(.unchanged(key, row.version))
            unlinking.writes.append(.delete(key))
        } else {
            unlinking.checks.append(.absent(key))
        }
        for row in try await call.volume.scan(container.partition, from: range.from, upTo: range.upTo, limit: .max) {
            unlinking.writes.append(.delete(row.key))
            unlinking.releasing += try BlockRecord(decoding: row.visible).releasable
        }
        return unlinking
    }
}
