internal import CofferCore
internal import StorageEngine

/// Commits: the caller's rows, and beside them, in the same commit, what this partition holds of extents.
///
/// Each extent that a row of a partition refers to has one link row there with a count of its holders. A link row is
/// sealed under the platform's key, so that mark and sweep need no customer's key. When the count falls to zero, the
/// link row becomes a garbage row.
extension AccountVolume {
    /// How often a commit starts over because a link row changed between reading and writing.
    private static let attemptsLimit = 64

    /// Writes hold parts already sealed (`seal`).
    ///
    /// `linking` names each extent the writes newly refer to, once per new holder: an extent fresh from
    /// `ExtentSealer.finish`, or one this very partition holds already (a snapshot, a copy inside the container).
    /// `releasing` names each the writes cease to refer to, once per holder; with its last holder gone, an extent is
    /// garbage and is deleted later. What moves from one row to another (a block list takes over its blocks) is named
    /// in neither. Bodies that come with their reference need not be named and are ignored.
    ///
    /// Returns `.conflict` when a check failed. Throws `.extentGone` when none did, and `linking` names an extent that
    /// was discarded, was released by its last holder, or belongs to another partition.
    public func commit(
        _ partition: VolumePartition, checks: [VolumeCheck], writes: [VolumeWrite], linking: [ExtentReference] = [],
        releasing: [ExtentReference] = []
    ) async throws(SealedStoreError) -> VolumeCommit {
        let rowChecks = checks.map(rowCheck)
        let rowWrites = writes.map { rowWrite($0, in: partition) }
        let changes = LinkChange.net(linking: linking, releasing: releasing)
        guard !changes.isEmpty else {
            return VolumeCommit(try await core.commit(engine(partition), checks: rowChecks, writes: rowWrites))
        }
        guard !changes.contains(where: { $0.delta > 0 && $0.reference.wrappedKey.count != WrappedExtentKey.byteCount })
        else { throw SealedStoreError(.corrupt, "A reference for releasing alone cannot be linked.") }
        let fresh = core.unlinked.claim(changes.filter { $0.delta > 0 }.map(\.location))
        do {
            let outcome = try await commit(partition, rowChecks, rowWrites, changes, fresh: fresh)
            if case .committed = outcome {
                core.unlinked.remove(fresh)
            } else {
                core.unlinked.release(fresh, at: core.clock.now())
            }
            return outcome
        } catch {
            // After an unknown outcome an extent may be linked: it must not be taken for abandoned, so it is forgotten
            // here and left to the mark and sweep of the next start.
            if error.code == .outcomeUnknown {
                core.unlinked.remove(fresh)
            } else {
                core.unlinked.release(fresh, at: core.clock.now())
            }
            throw error
        }
    }

    private func commit(
        _ partition: VolumePartition, _ checks: [RowCheck], _ writes: [RowWrite], _ changes: [LinkChange],
        fresh: Set<ExtentLocation>
    ) async throws(SealedStoreError) -> VolumeCommit {
        let known = changes.filter { !fresh.contains($0.location) }
        var rows = try await linkRows(known, partition)
        var makesGarbage = false
        // Behind the commit: a sweep that comes before it would take the note and find nothing.
        defer { if makesGarbage { core.unlinked.noteGarbage(in: engine(partition)) } }
        for _ in 0..<Self.attemptsLimit {
            var allChecks = checks
            var allWrites = writes
            for change in changes where fresh.contains(change.location) {
                allChecks.append(.absent(RowKind.link.key(change.location.bytes)))
                allWrites.append(linkWrite(change.reference, count: UInt32(change.delta), in: partition))
            }
            for (change, row) in zip(known, rows) {
                if let row {
                    if try plan(change, row, partition, &allChecks, &allWrites) { makesGarbage = true }
                } else if change.delta > 0 {
                    return try await conflictWithoutExtent(partition, checks)
                }
                // Released already: nothing to give up. The next sweep or mark and sweep deletes what is left of it.
            }
            let result = try await core.commit(engine(partition), checks: allChecks, writes: allWrites)
            guard result == .conflict else { return VolumeCommit(result) }
            // Whose check failed? If the link rows are as they were, it was the caller's.
            let again = try await linkRows(known, partition)
            if again.map({ $0?.version }) == rows.map({ $0?.version }) { return .conflict }
            rows = again
        }
        throw SealedStoreError(
            .unavailable, "Extents of this container are being shared and released by many; try again.")
    }

    private func linkRows(_ changes: [LinkChange], _ partition: VolumePartition) async throws(SealedStoreError)
        -> [Row?]
    {
        guard !changes.isEmpty else { return [] }
        return try await core.get(engine(partition), changes.map { RowKind.link.key($0.location.bytes) })
    }

    /// Whoever released the extent may have changed what the caller checks, too: then the caller reads again, and finds
    /// other extents.
    private func conflictWithoutExtent(_ partition: VolumePartition, _ checks: [RowCheck])
        async throws(SealedStoreError) -> VolumeCommit
    {
        let result = try await core.commit(engine(partition), checks: checks, writes: [])
        guard result != .conflict else { return .conflict }
        throw SealedStoreError(
            .extentGone, "The extent is not held by this container any more, or never was; its bytes must be had anew.")
    }

    /// Adds the checks and writes that take an existing link row from its count to the next. Returns whether that makes
    /// the extent garbage.
    private func plan(
        _ change: LinkChange, _ row: Row, _ partition: VolumePartition, _ checks: inout [RowCheck],
        _ writes: inout [RowWrite]
    ) throws(SealedStoreError) -> Bool {
        let key = row.key
        let link = try openLink(row, in: partition)
        checks.append(.unchanged(key, row.version))
        let count = Int(link.count) + change.delta
        guard count <= Int(UInt32.max) else {
            throw SealedStoreError(.limitExceeded, "An extent has at most \(UInt32.max) holders.")
        }
        if count > 0 {
            writes.append(linkWrite(link.reference, count: UInt32(count), in: partition))
        } else {
            writes.append(.delete(key))
            let garbage = RowKind.garbage.key(change.location.bytes)
            let contents = GarbageRow(releasedAt: core.clock.now()).encoded
            writes.append(.put(garbage, rowSeal.seal(contents, bound: bound(garbage, in: partition))))
        }
        return count == 0
    }

    func openLink(_ row: Row, in partition: VolumePartition) throws(SealedStoreError) -> LinkRow {
        let plaintext = try rowSeal.open(
            row.value, bound: bound(row.key, in: partition), what: "A link row of a storage account")
        guard let link = LinkRow(plaintext), link.reference.location.elementsEqual(row.key.bytes.dropFirst()) else {
            throw SealedStoreError(
                .corrupt, "A link row of a storage account is not in a format this version of Coffer reads.")
        }
        return link
    }

    private func linkWrite(_ reference: ExtentReference, count: UInt32, in partition: VolumePartition) -> RowWrite {
        let key = RowKind.link.key(reference.location)
        return .put(
            key, rowSeal.seal(LinkRow(count: count, reference: reference).encoded, bound: bound(key, in: partition)))
    }

    private func rowCheck(_ check: VolumeCheck) -> RowCheck {
        switch check {
        case .absent(let key): .absent(RowKind.data.key(key))
        case .present(let key): .present(RowKind.data.key(key))
        case .unchanged(let key, let version): .unchanged(RowKind.data.key(key), version.row)
        }
    }

    private func rowWrite(_ write: VolumeWrite, in partition: VolumePartition) -> RowWrite {
        switch write {
        case .put(let key, let visible, let sealed):
            let key = RowKind.data.key(key)
            return .put(key, encode(visible: visible, sealed: sealed, at: key, in: partition))
        case .delete(let key): return .delete(RowKind.data.key(key))
        }
    }
}

extension VolumeCommit {
    fileprivate init(_ result: CommitResult) {
        switch result {
        case .committed(let version): self = .committed(RecordVersion(row: version))
        case .conflict: self = .conflict
        }
    }
}

/// By how much a commit changes the count of an extent's holders.
private struct LinkChange {
    let reference: ExtentReference
    var delta: Int
    var location: ExtentLocation { ExtentLocation(reference.location) }

    static func net(linking: [ExtentReference], releasing: [ExtentReference]) -> [LinkChange] {
        guard !linking.isEmpty || !releasing.isEmpty else { return [] }
        var changes: [ExtentLocation: LinkChange] = [:]
        for (references, step) in [(linking, 1), (releasing, -1)] {
            for reference in references where !reference.isInline {
                changes[ExtentLocation(reference.location), default: LinkChange(reference: reference, delta: 0)]
                    .delta += step
            }
        }
        return changes.values.filter { $0.delta != 0 }
    }
}

/// What a link row's seal holds: version 1 | count of holders (32 bits, big endian, at least 1) | the extent's
/// reference.
struct LinkRow: Equatable {
    static let version: UInt8 = 1
    let count: UInt32
    let reference: ExtentReference

    init(count: UInt32, reference: ExtentReference) {
        self.count = count
        self.reference = reference
    }
    var encoded: [UInt8] {
        var bytes = [Self.version]
        bytes.append(bigEndian: count)
        return bytes + reference.encoded
    }
    init?(_ bytes: [UInt8]) {
        var reader = FieldReader(bytes)
        guard reader.integer(UInt8.self) == Self.version, let count = reader.integer(UInt32.self), count > 0,
            let reference = ExtentReference(extent: reader.rest)
        else { return nil }
        self.init(count: count, reference: reference)
    }
}

/// What a garbage row's seal holds: version 1 | when the last holder went (microseconds since 1970, 64 bits, big
/// endian). Its key names the extent.
struct GarbageRow: Equatable {
    static let version: UInt8 = 1
    let releasedAt: Timestamp

    init(releasedAt: Timestamp) { self.releasedAt = releasedAt }
    var encoded: [UInt8] {
        var bytes = [Self.version]
        bytes.append(bigEndian: releasedAt.microseconds)
        return bytes
    }
    init?(_ bytes: [UInt8]) {
        var reader = FieldReader(bytes)
        guard reader.integer(UInt8.self) == Self.version, let time = reader.integer(Int64.self), reader.isAtEnd else {
            return nil
        }
        self.init(releasedAt: Timestamp(microseconds: time))
    }
}
