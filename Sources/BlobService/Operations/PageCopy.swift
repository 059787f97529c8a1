internal import CofferCore
internal import EncryptionAtRest
internal import StorageAccount

/// A map that was made for a blob which has no row yet.
struct StagedPages: Sendable {
    let root: PageMapRoot
    /// Goes into the commit that gives the map its blob.
    let completion: Unlinking
    fileprivate let pin: PageMapPins.Pin
}

extension BlobService {
    /// Copies the leaves of a page blob under a new map, in as many commits as it takes; nil for a source of another
    /// type. Inside a container and under one key of the account both hold the same extents; else each leaf is sealed
    /// anew.
    ///
    /// The first commit also says that somebody released the map: what a failure leaves behind is collected as what a
    /// deleted blob leaves is. The pin keeps the collector away until the map has its blob.
    func stagePages(
        of source: CopySource, to container: ContainerHandle, _ name: String, _ call: BlobCall, under key: DataKey
    ) async throws -> StagedPages? {
        guard let map = source.content.pages else { return nil }
        let root = PageMapRoot(id: randomness.bytes(PageMapRoot.idBytes))
        let pin = pageMapPins.pin(root, isBeingMade: true)
        let target = PageMapView(
            volume: call.volume, partition: container.partition, root: root, stamp: nil, limits: pageMapLimits, pin: pin
        )
        let writer = PageMapWriter(map: target, stamp: 0, key: key)
        let mark = release(root, name, call.volume, container.partition)
        let markKey = PageKeys.release(root.id, root.epoch)
        var isMarked = false
        var rest = PageMapRoot.leaves(touching: 0..<source.row.record.length)
        while !rest.isEmpty {
            let (found, behind) = try await map.window(rest)
            try await map.confirmContainer()
            if !found.isEmpty {
                var change = PageMapChange(root: root)
                if !isMarked { change.writes.append(mark) }
                try await stage(
                    found, of: source, map, writer, isShared: isSharable(source, container, call, under: key),
                    &change, call)
                let isDone = try await linking(change.fresh, call) {
                    try await commit(
                        call, container, checks: [isMarked ? .present(markKey) : .absent(markKey)],
                        writes: change.writes, linking: change.linking)
                }
                guard isDone else {
                    await discard(change.fresh, call)
                    throw ContentChanged()
                }
                isMarked = true
            }
            rest = behind
        }
        var completion = Unlinking()
        if isMarked {
            completion.checks.append(.present(markKey))
            completion.writes.append(.delete(markKey))
        }
        return StagedPages(root: root, completion: completion, pin: pin)
    }

    private func stage(
        _ leaves: [PageMapView.Leaf], of source: CopySource, _ map: PageMapView, _ writer: PageMapWriter,
        isShared: Bool, _ change: inout PageMapChange, _ call: BlobCall
    ) async throws {
        do {
            for leaf in leaves {
                var content = try await map.content(of: leaf, under: source.key)
                guard !content.extents.isEmpty else { continue }
                if !isShared {
                    let (sealed, fresh) = try await call.volume.seal(
                        content, of: source.account.volume, under: source.key, mayBeInline: false, to: writer.key)
                    content = sealed
                    change.fresh += fresh
                }
                try await writer.put(content, at: leaf.index, over: nil, into: &change)
            }
        } catch {
            await discard(change.fresh, call)
            throw error
        }
    }
}
