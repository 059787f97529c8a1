internal import CofferCore
internal import StorageEngine
internal import Synchronization

/// What a sweep or a mark and sweep did.
public struct SweepReport: Sendable, Equatable {
    public var deletedExtents = 0
    /// Bytes of deleted orphans, as the engine lists them; a sweep of garbage does not know them.
    public var deletedBytes = 0
    /// Garbage left for later because it is young or being read.
    public var remainingExtents = 0
    /// Garbage rows that do not open, and stay with their extents: `verify` tells about them.
    public var damagedRows = 0
    public init() {}
}

extension SealedStore {
    /// How long a released extent is kept for those who are still reading it.
    public static let garbageKeptSeconds: Int64 = 300
    /// How long an extent that no commit took is kept for its request.
    static let unlinkedKeptSeconds: Int64 = 3_600
    private static let pageRows = 1_000

    /// Deletes the extents that commits released more than `keptSeconds` ago, and those whose request never came to a
    /// commit. The composition root calls it about once a minute. The first call since the start looks into every
    /// partition, later ones only where garbage was left. A task that is cancelled ends it early, by an error.
    public func sweep(
        keptSeconds: Int64 = SealedStore.garbageKeptSeconds
    ) async throws(SealedStoreError) -> SweepReport {
        accountKeys.dropExpired()
        var report = SweepReport()
        let now = core.clock.now()
        for location in core.unlinked.takeAbandoned(before: now.adding(seconds: -Self.unlinkedKeptSeconds)) {
            try await core.deleteExtent(location)
            report.deletedExtents += 1
        }
        let noted = core.unlinked.takeGarbagePartitions()
        var partitions = noted
        do {
            if !core.sweptAll.load(ordering: .acquiring) {
                partitions.formUnion(try await core.partitions(prefix: EnginePartition.volumePrefix))
            }
            for partition in partitions {
                try await sweep(partition, releasedBefore: now.adding(seconds: -keptSeconds), &report)
            }
        } catch {
            // What this sweep has not come to, the next one must look into.
            for left in partitions { core.unlinked.noteGarbage(in: left) }
            throw error
        }
        core.sweptAll.store(true, ordering: .releasing)
        return report
    }

    private func sweep(
        _ partition: Partition, releasedBefore limit: Timestamp, _ report: inout SweepReport
    ) async throws(SealedStoreError) {
        guard let place = VolumePlace(partition) else { return }
        let volume = volume(account: place.account)
        let remainingBefore = report.remainingExtents
        var from = RowKind.garbage.start
        while true {
            try SealedStoreError.checkNotStopped()
            let rows = try await core.scan(partition, from: from, upTo: RowKind.garbage.end, limit: Self.pageRows)
            var done: [RowWrite] = []
            for row in rows {
                let location = ExtentLocation(Array(row.key.bytes.dropFirst()))
                guard let garbage = try? volume.openGarbage(row, in: place.partition) else {
                    report.damagedRows += 1
                    continue
                }
                guard garbage.releasedAt <= limit, !core.readers.contains(location) else {
                    report.remainingExtents += 1
                    continue
                }
                // A link row beside a garbage row cannot come from our own commits; if one lies there, the link wins.
                if try await core.get(partition, [RowKind.link.key(location.bytes)])[0] == nil {
                    try await core.deleteExtent(location)
                    report.deletedExtents += 1
                }
                done.append(.delete(row.key))
            }
            if !done.isEmpty { _ = try await core.commit(partition, checks: [], writes: done) }
            guard rows.count == Self.pageRows, let last = rows.last else { break }
            from = RowKey(last.key.bytes + [0])
        }
        if report.remainingExtents > remainingBefore { core.unlinked.noteGarbage(in: partition) }
    }

    /// Mark and sweep, at start: deletes every extent of the engine that no partition holds or has released, left
    /// behind by a crash between the bytes and the commit. Reads link rows, which need no customer's key. Requests may
    /// be served meanwhile: extents of this process are left alone.
    public func collectOrphans() async throws(SealedStoreError) -> SweepReport {
        var candidates: [ExtentLocation: Int] = [:]
        try await core.forEachExtent { listing in
            if !listing.isRecent, !core.unlinked.contains(listing.location) {
                candidates[listing.location] = listing.byteCount
            }
        }
        // Links are read after extents: one that is linked now was finished before, and an old one cannot be linked
        // anew.
        try await core.forEachNamedExtent { location in candidates[location] = nil }
        var report = SweepReport()
        for (location, bytes) in candidates {
            try SealedStoreError.checkNotStopped()
            try await core.deleteExtent(location)
            report.deletedExtents += 1
            report.deletedBytes += bytes
        }
        return report
    }
}

/// An engine partition that belongs to an account, read back from its name.
struct VolumePlace {
    let account: AccountID
    let partition: VolumePartition

    init?(_ partition: Partition) {
        let prefix = EnginePartition.volumePrefix
        guard partition.bytes.starts(with: prefix), partition.bytes.count >= prefix.count + 17,
            partition.bytes[prefix.count + 16] == 0x2f,
            let name = String(validating: partition.bytes[(prefix.count + 17)...], as: UTF8.self)
        else { return nil }
        account = AccountID(bytes: Array(partition.bytes[prefix.count..<prefix.count + 16]))
        self.partition = VolumePartition(name: name)
    }
}

extension SealedStoreError {
    /// Ends long work between two of its steps, each of which is whole: what is left the next run finds.
    fileprivate static func checkNotStopped() throws(SealedStoreError) {
        if Task.isCancelled { throw SealedStoreError(.unavailable, "The work was stopped before its end.") }
    }
}

extension AccountVolume {
    func openGarbage(_ row: Row, in partition: VolumePartition) throws(SealedStoreError) -> GarbageRow {
        let plaintext = try rowSeal.open(
            row.value, bound: bound(row.key, in: partition), what: "A garbage row of a storage account")
        guard let garbage = GarbageRow(plaintext) else {
            throw SealedStoreError(
                .corrupt, "A garbage row of a storage account is not in a format this version of Coffer reads.")
        }
        return garbage
    }
}

extension StoreCore {
    private static let page = 1_000

    func forEachExtent(_ body: (ExtentListing) -> Void) async throws(SealedStoreError) {
        var after: ExtentLocation?
        while true {
            try SealedStoreError.checkNotStopped()
            let listings: [ExtentListing]
            do { listings = try await extents.list(after: after, limit: Self.page) } catch {
                throw SealedStoreError(error)
            }
            for listing in listings { body(listing) }
            guard listings.count == Self.page else { return }
            after = listings.last?.location
        }
    }

    /// Every extent that a link or a garbage row of any account names.
    ///
    /// Links are read before garbage: a commit meanwhile makes the one into the other, and is not missed.
    func forEachNamedExtent(_ body: (ExtentLocation) -> Void) async throws(SealedStoreError) {
        for partition in try await partitions(prefix: EnginePartition.volumePrefix) {
            for kind in [RowKind.link, .garbage] {
                try await forEachRow(partition, from: kind.start, upTo: kind.end) { (row) throws(SealedStoreError) in
                    body(ExtentLocation(Array(row.key.bytes.dropFirst())))
                }
            }
        }
    }

    /// Pages through a partition; each page is a snapshot of its own.
    func forEachRow(
        _ partition: Partition, from start: RowKey = RowKey([]), upTo: RowKey? = nil,
        _ body: (Row) async throws(SealedStoreError) -> Void
    ) async throws(SealedStoreError) {
        var from = start
        while true {
            try SealedStoreError.checkNotStopped()
            let rows = try await scan(partition, from: from, upTo: upTo, limit: Self.page)
            for row in rows { try await body(row) }
            guard rows.count == Self.page, let last = rows.last else { return }
            from = RowKey(last.key.bytes + [0])
        }
    }
}
