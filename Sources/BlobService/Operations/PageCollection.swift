internal import CofferCore
public import EncryptionAtRest
internal import Synchronization

/// Where this process let go of page maps, so that the collector need not look everywhere. What a crash forgets,
/// `collectGarbage` finds.
final class PageReleases: Sendable {
    struct Place: Hashable {
        let account: AccountID
        let partition: VolumePartition
    }
    private let noted = Mutex<[Place: AccountVolume]>([:])
    /// One collector at a time: what one takes away must not be missed by another that looks for it.
    let turnstile = Turnstile()

    func note(_ volume: AccountVolume, _ partition: VolumePartition) {
        noted.withLock { $0[Place(account: volume.account, partition: partition)] = volume }
    }
    func take() -> [Place: AccountVolume] {
        noted.withLock { noted in
            defer { noted = [:] }
            return noted
        }
    }
}

/// Rows of a page map are needed as long as somebody sees them: a snapshot, the base blob, or who began to read when
/// there was one more of these. The collector finds out who there is, then walks the map.
///
/// It is right beside requests for three reasons. Rows that are not the newest of their leaf are never changed, and of
/// those only ones older than the base blob's epoch are taken, so that later snapshots cannot need them. Whoever ceases
/// to hold a map says so in a row of the same commit, which counts as a holder for a while. And who reads for longer
/// than that has a pin.
extension BlobService {
    private static let releasesPerBatch = 1_000
    private static let leavesPerBatch = 200
    private static let attemptsLimit = 8

    /// Collects where this process let go of page maps. The composition root calls it from a timer.
    public func collectReleasedPages(keptSeconds: Int64 = SealedStore.garbageKeptSeconds) async throws {
        var failure: (any Error)?
        for (place, volume) in pageReleases.take() {
            do {
                let isDone = try await collectPages(in: place.partition, volume, keptSeconds: keptSeconds)
                if !isDone { pageReleases.note(volume, place.partition) }
            } catch {
                // What this round has not done, the next one must; one container's fault is not the others'.
                pageReleases.note(volume, place.partition)
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    /// Collects the maps of a container that somebody let go of more than `keptSeconds` ago; true when nothing is left
    /// for later.
    func collectPages(
        in partition: VolumePartition, _ volume: AccountVolume, keptSeconds: Int64
    ) async throws -> Bool {
        try await pageReleases.turnstile.pass {
            let limit = clock.now().adding(seconds: -keptSeconds)
            var isDone = true
            var done: Set<[UInt8]> = []
            var from = PageKeys.allReleases.from
            while true {
                try Task.checkCancellation()
                let rows = try await volume.scan(
                    partition, from: from, upTo: PageKeys.allReleases.upTo, limit: Self.releasesPerBatch)
                for row in rows {
                    guard let (map, _) = PageKeys.parseRelease(row.key) else { throw RecordError.malformed }
                    let release = try PageReleaseRecord(decoding: row.visible)
                    guard release.releasedAt <= limit else {
                        isDone = false
                        continue
                    }
                    guard done.insert(map).inserted else { continue }
                    let collector = PageCollector(
                        volume: volume, partition: partition, map: map, name: release.name, limit: limit,
                        pins: pageMapPins)
                    if try await !collector.run() { isDone = false }
                }
                guard rows.count == Self.releasesPerBatch, let last = rows.last else { return isDone }
                from = last.key + [0]
            }
        }
    }

    /// Collects one map.
    private struct PageCollector {
        let volume: AccountVolume
        let partition: VolumePartition
        let map: [UInt8]
        let name: String
        /// Who let go of the map later counts as a holder still.
        let limit: Timestamp
        let pins: PageMapPins

        /// Who holds the map.
        private struct Holders {
            /// nil when no base blob does; then none will again.
            var base: BlobRow?
            /// The others: their epochs, ascending, and the holes that each sees there.
            var others: [(epoch: UInt32, holes: [PageMapRoot.Hole])] = []
            /// The base blob leaves nothing behind that only it held.
            var isThawed = true
            /// The rows that say of a release long ago.
            var done: [VolumeRow] = []
        }

        /// True when nothing is left for later.
        func run() async throws -> Bool {
            // It may have a base blob at any moment, and rows of epochs that the look for holders knows nothing of.
            guard !pins.isBeingMade(map) else { return false }
            for _ in 0..<BlobService.attemptsLimit {
                guard let holders = try await thawed() else { continue }
                guard let closed = try await walk(holders), try await close(closed), holders.isThawed else {
                    return false
                }
                for start in stride(from: 0, to: holders.done.count, by: BlobService.releasesPerBatch) {
                    let rows = holders.done.dropFirst(start).prefix(BlobService.releasesPerBatch)
                    _ = try await volume.commit(
                        partition, checks: rows.map { .unchanged($0.key, $0.version) },
                        writes: rows.map { .delete($0.key) })
                }
                return try await volume.scan(
                    partition, from: PageKeys.releases(map).from, upTo: PageKeys.releases(map).upTo, limit: 1
                ).isEmpty
            }
            return false
        }

        /// The holders, the base blob let write over what only it holds; nil when there is another snapshot by now.
        private func thawed() async throws -> Holders? {
            // The order matters. Who reads a map pins it before its holder goes: pins come first. A snapshot that is
            // taken after the base blob was read is not older than the epoch read there. And who let go before the
            // snapshots were read has left a row by then.
            let pinned = pins.epochs(of: map)
            var holders = Holders()
            let base = try await volume.get(partition, [BlobKeys.base(name)])[0].map(BlobRow.init)
            if let base, base.record.pages?.id == map { holders.base = base }
            // Who reads, and who ceased to hold lately, sees every row of his epoch, unless a snapshot tells of holes.
            var others: [UInt32: [PageMapRoot.Hole]] = [:]
            for epoch in pinned { others[epoch] = [] }
            try await forEachRow(BlobKeys.group(name)) { row in
                guard BlobKeys.parse(row.key)?.snapshot != nil,
                    let root = try BlobRecord(decoding: row.visible).pages, root.id == map
                else { return }
                others[root.epoch] = root.holes
            }
            try await forEachRow(PageKeys.releases(map)) { row in
                guard let (_, epoch) = PageKeys.parseRelease(row.key) else { throw RecordError.malformed }
                if try PageReleaseRecord(decoding: row.visible).releasedAt > limit || pinned.contains(epoch) {
                    others[epoch] = others[epoch] ?? []
                } else {
                    holders.done.append(row)
                }
            }
            holders.others = others.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
            return try await thaw(&holders) ? holders : nil
        }

        /// From here on the base blob leaves no row behind that nobody needs: it copies only what another holds. Writes
        /// beside this do not matter, snapshots do: false when the base blob is of another epoch by now.
        private func thaw(_ holders: inout Holders) async throws -> Bool {
            guard let epoch = holders.base?.record.pages?.epoch else { return true }
            let newest = holders.others.last { $0.epoch < epoch }?.epoch ?? 0
            for _ in 0..<BlobService.attemptsLimit {
                guard let row = try await volume.get(partition, [BlobKeys.base(name)])[0].map(BlobRow.init),
                    var root = row.record.pages, root.id == map, root.epoch == epoch
                else { return false }
                guard root.thaw(to: newest) else { return true }
                if try await put(root, row) { return true }
            }
            // A blob that is written without a pause: what can go goes, and the rest waits.
            holders.isThawed = false
            return true
        }

        private func put(_ root: PageMapRoot, _ row: BlobRow) async throws -> Bool {
            var record = row.record
            record.pages = root
            let outcome = try await volume.commit(
                partition, checks: [.present(BlobKeys.container), .unchanged(row.key, row.version)],
                writes: [.put(row.key, visible: record.encoded(), sealed: row.sealed)])
            return outcome != .conflict
        }

        /// Takes away what nobody needs, batch by batch. Returns the base blob's holes that hide nothing any more; nil
        /// when a row was not as it was found.
        private func walk(_ holders: Holders) async throws -> [PageMapRoot.Hole]? {
            var open: Set<Int> = []
            let root = holders.base?.record.pages
            var last: (index: Int, epoch: UInt32)?
            var lastKept: Int?
            let bounds = PageKeys.leaves(map)
            var from = bounds.from
            while true {
                try Task.checkCancellation()
                let rows = try await volume.scan(
                    partition, from: from, upTo: bounds.upTo, limit: BlobService.leavesPerBatch)
                var unneeded: [VolumeRow] = []
                for row in rows {
                    guard let place = PageKeys.parseLeaf(row.key) else { throw RecordError.malformed }
                    let newer = last?.index == place.index ? last?.epoch : nil
                    last = place
                    guard isNeeded(place, newer, root, holders) else {
                        unneeded.append(row)
                        continue
                    }
                    if let root, lastKept != place.index { open.formUnion(root.holes(over: place.index, place.epoch)) }
                    lastKept = place.index
                }
                guard try await remove(unneeded) else { return nil }
                guard rows.count == BlobService.leavesPerBatch, let last = rows.last else {
                    return root?.holes.enumerated().filter { !open.contains($0.offset) }.map(\.element) ?? []
                }
                from = last.key + [0]
            }
        }

        /// `newer` is the epoch of the leaf's next newer row: who sees this row holds the map at an epoch before.
        private func isNeeded(
            _ place: (index: Int, epoch: UInt32), _ newer: UInt32?, _ base: PageMapRoot?, _ holders: Holders
        ) -> Bool {
            if let base {
                // Made after the look for holders: there may be others by now.
                if let newer, newer > base.epoch { return true }
                if newer == nil, !base.hides(place.index, place.epoch) { return true }
            }
            return holders.others.drop { $0.epoch < place.epoch }.prefix { other in
                newer.map { other.epoch < $0 } ?? true
            }
            .contains { other in !other.holes.contains { $0.hides(place.index, place.epoch) } }
        }

        private func remove(_ rows: [VolumeRow]) async throws -> Bool {
            guard !rows.isEmpty else { return true }
            let outcome = try await volume.commit(
                partition, checks: rows.map { .unchanged($0.key, $0.version) }, writes: rows.map { .delete($0.key) },
                releasing: try rows.flatMap { try PageLeafRecord(decoding: $0.visible).releasable })
            return outcome != .conflict
        }

        /// Rows older than a hole come no more once there are none.
        private func close(_ holes: [PageMapRoot.Hole]) async throws -> Bool {
            guard !holes.isEmpty else { return true }
            for _ in 0..<BlobService.attemptsLimit {
                guard let row = try await volume.get(partition, [BlobKeys.base(name)])[0].map(BlobRow.init),
                    var root = row.record.pages, root.id == map
                else { return true }
                root.close(holes)
                if try await put(root, row) { return true }
            }
            return false
        }

        private func forEachRow(_ bounds: PageKeys.Bounds, _ body: (VolumeRow) throws -> Void) async throws {
            var from = bounds.from
            while true {
                try Task.checkCancellation()
                let rows = try await volume.scan(
                    partition, from: from, upTo: bounds.upTo, limit: BlobService.releasesPerBatch)
                for row in rows { try body(row) }
                guard rows.count == BlobService.releasesPerBatch, let last = rows.last else { return }
                from = last.key + [0]
            }
        }
    }
}
