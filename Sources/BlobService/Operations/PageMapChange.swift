internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge

/// What a write or clear of pages does to a blob's rows, for one commit.
struct PageMapChange: Sendable {
    var root: PageMapRoot
    var writes: [VolumeWrite] = []
    var linking: [ExtentReference] = []
    var releasing: [ExtentReference] = []
    /// Extents made for this change; nobody's, when it is not committed.
    var fresh: [ExtentReference] = []
}

extension BlobService {
    /// Puts `body` over `range`, or clears it. `stamp` is the entity tag's number the write will have. Throws
    /// `ContentChanged` when the row was read too long ago to be changed.
    func changePages(
        _ range: Range<UInt64>, to body: ExtentReference?, of row: BlobRow, _ name: String, stamp: UInt64,
        _ call: BlobCall, _ container: ContainerHandle, under key: DataKey
    ) async throws -> PageMapChange {
        guard let map = pageMap(of: row, call.volume, container.partition) else { throw RecordError.malformed }
        let writer = PageMapWriter(map: map, stamp: stamp, key: key)
        var change = PageMapChange(root: map.root)
        do {
            if let body {
                try await writer.write(body, over: range, into: &change)
            } else {
                try await clear(range, writer, name, &change)
            }
        } catch {
            await discard(change.fresh, call)
            throw error
        }
        return change
    }

    private func clear(
        _ range: Range<UInt64>, _ writer: PageMapWriter, _ name: String, _ change: inout PageMapChange
    ) async throws {
        let whole = PageMapRoot.leaves(within: range)
        let (found, rest) = try await writer.map.window(PageMapRoot.leaves(touching: range))
        // A clear of more rows empties whole leaves by the root alone, and leaves the rows to the collector.
        guard !rest.isEmpty, whole.count > pageMapLimits.windowRows else {
            for leaf in found { try await writer.clear(range, leaf, into: &change) }
            return try await clearRest(rest, of: range, writer, &change)
        }
        let map = writer.map.root
        try change.root.empty(whole)
        change.writes.append(release(map, name, writer.map.volume, writer.map.partition))
        // The leaves at the ends are not whole.
        for part in [
            range.lowerBound..<PageMapRoot.range(of: whole.lowerBound).lowerBound,
            PageMapRoot.range(of: whole.upperBound).lowerBound..<range.upperBound,
        ] where !part.isEmpty {
            let (found, _) = try await writer.map.window(PageMapRoot.leaves(touching: part))
            for leaf in found { try await writer.clear(part, leaf, into: &change) }
        }
    }

    /// Few leaves of which there are many old rows.
    private func clearRest(
        _ rest: Range<Int>, of range: Range<UInt64>, _ writer: PageMapWriter, _ change: inout PageMapChange
    ) async throws {
        var rest = rest
        while !rest.isEmpty {
            let (found, behind) = try await writer.map.window(rest)
            for leaf in found { try await writer.clear(range, leaf, into: &change) }
            rest = behind
        }
    }

    /// Commits a change with the row of the blob it belongs to; false when that has changed meanwhile.
    func commit(
        _ change: PageMapChange, _ record: BlobRecord, _ row: BlobRow, sealed: SealedPart? = nil, _ call: BlobCall,
        _ container: ContainerHandle
    ) async throws -> Bool {
        var record = record
        record.pages = change.root
        let base = VolumeWrite.put(row.key, visible: record.encoded(), sealed: sealed ?? row.sealed)
        let isDone = try await linking(change.fresh, call) {
            try await commit(
                call, container, checks: [.unchanged(row.key, row.version)], writes: [base] + change.writes,
                linking: change.linking, releasing: change.releasing)
        }
        if !isDone { await discard(change.fresh, call) }
        return isDone
    }

    func discard(_ extents: [ExtentReference], _ call: BlobCall) async {
        for extent in extents { await call.volume.discard(extent) }
    }

    /// Says, in the commit by which `root`'s holder goes, that the collector has work.
    func release(
        _ root: PageMapRoot, _ name: String, _ volume: AccountVolume, _ partition: VolumePartition
    ) -> VolumeWrite {
        pageReleases.note(volume, partition)
        let release = PageReleaseRecord(releasedAt: clock.now(), name: name)
        return .put(PageKeys.release(root.id, root.epoch), visible: release.encoded(), sealed: .none)
    }
    /// The same for a row that is deleted or replaced; nothing for a blob that has no map.
    func releasePages(
        of record: BlobRecord?, _ name: String, _ call: BlobCall, _ container: ContainerHandle
    ) -> [VolumeWrite] {
        record?.pages.map { [release($0, name, call.volume, container.partition)] } ?? []
    }
}

/// Writes leaves of a map, each a whole row under `key`.
struct PageMapWriter: Sendable {
    let map: PageMapView
    let stamp: UInt64
    let key: DataKey

    func write(_ body: ExtentReference, over range: Range<UInt64>, into change: inout PageMapChange) async throws {
        var rest = PageMapRoot.leaves(touching: range)
        while !rest.isEmpty {
            let (found, behind) = try await map.window(rest)
            var next = found.makeIterator()
            var old = next.next()
            for index in rest.lowerBound..<(behind.isEmpty ? rest.upperBound : behind.lowerBound) {
                let leaf = old?.index == index ? old : nil
                if leaf != nil { old = next.next() }
                try await write(body, over: range, at: index, leaf, into: &change)
            }
            rest = behind
        }
    }

    private func write(
        _ body: ExtentReference, over range: Range<UInt64>, at index: Int, _ old: PageMapView.Leaf?,
        into change: inout PageMapChange
    ) async throws {
        let whole = PageMapRoot.range(of: index)
        let part = whole.clamped(to: range)
        let start = part.lowerBound - whole.lowerBound
        let slice = Manifest.Slice(
            blockID: "", extent: body, offset: Int(part.lowerBound - range.lowerBound), length: part.count)
        var content = Manifest.zeros(UInt64(PageMapRoot.leafBytes))
        // What is written over as a whole need not be opened.
        if let old, part != whole {
            content = try await map.content(of: old, under: key)
            content.replace(from: start, with: .zeros(part.count))
            if isScattered(content, beside: body) {
                let scattered = content
                let (compact, extents) = try await awayFromEventLoop {
                    try await map.volume.seal(scattered, of: map.volume, under: key, mayBeInline: false, to: key)
                }
                content = compact
                change.fresh += extents
            }
        }
        content.replace(from: start, with: slice)
        try await put(content, at: index, over: old, into: &change)
    }

    private func isScattered(_ content: Manifest, beside body: ExtentReference) -> Bool {
        let extents = content.extents
        return extents.count >= map.limits.extentsPerLeaf
            || extents.reduce(body.plaintextBytes) { $0 + $1.plaintextBytes } > map.limits.bytesHeldPerLeaf
    }

    /// The row stays, of zeros: without it an older one would count.
    func clear(_ range: Range<UInt64>, _ old: PageMapView.Leaf, into change: inout PageMapChange) async throws {
        let whole = PageMapRoot.range(of: old.index)
        let part = whole.clamped(to: range)
        var content = Manifest.zeros(UInt64(PageMapRoot.leafBytes))
        if part != whole {
            content = try await map.content(of: old, under: key)
            content.replace(from: part.lowerBound - whole.lowerBound, with: .zeros(part.count))
        }
        try await put(content, at: old.index, over: old, into: &change)
    }

    /// A row that somebody else may hold is left to them, and what the new one shares with it is linked once more.
    func put(
        _ content: Manifest, at index: Int, over old: PageMapView.Leaf?, into change: inout PageMapChange
    ) async throws {
        var epoch = change.root.epoch
        if let old, old.epoch > change.root.frozen {
            epoch = old.epoch
            change.releasing += old.record.releasable
        }
        let rowKey = PageKeys.leaf(change.root.id, index, epoch)
        let extents = content.extents
        change.linking += extents
        var record = PageLeafRecord(stamp: stamp, releasable: extents.compactMap(\.withoutKey))
        if key.customerProvidedKeySHA256 != nil {
            let accountKey = try await map.volume.accountKey()
            record.accountSealed = try await map.volume.seal(
                PageLeafRecord.encode(ContentLayout(content)), of: [], at: rowKey, in: map.partition, under: accountKey
            ).message
        }
        let sealed = try await map.volume.seal(
            PageLeafRecord.encode(content), of: extents, at: rowKey, in: map.partition, under: key)
        change.writes.append(.put(rowKey, visible: record.encoded(), sealed: sealed))
    }
}
