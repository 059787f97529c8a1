import CofferCore
import NIOCore
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import EncryptionAtRest

/// An extent store over the in-memory engine whose extents are all from before this process: what a restart sees.
struct RestartedExtents: ExtentStore {
    let engine: InMemoryEngine
    func create(expectedBytes: Int?) async throws(StorageEngineError) -> any ExtentWriter {
        try await engine.create(expectedBytes: expectedBytes)
    }
    func read(_ location: ExtentLocation, range: Range<Int>) async throws(StorageEngineError) -> ByteBuffer {
        try await engine.read(location, range: range)
    }
    func delete(_ location: ExtentLocation) async throws(StorageEngineError) { try await engine.delete(location) }
    func list(after: ExtentLocation?, limit: Int) async throws(StorageEngineError) -> [ExtentListing] {
        try await engine.list(after: after, limit: limit).map {
            ExtentListing(location: $0.location, byteCount: $0.byteCount, isRecent: false)
        }
    }
    func freeBytes() async throws(StorageEngineError) -> Int { try await engine.freeBytes() }
}

@Suite struct LinkAndSweepTests {
    let partition = VolumePartition.container("c")
    let body = [UInt8](repeating: 5, count: 20_000)

    private func held(_ store: Store) async throws -> Int {
        try await store.engine.list(after: nil, limit: 1_000).count
    }
    private func put(_ key: UInt8) -> [VolumeWrite] { [.put([key], visible: [], sealed: .none)] }

    @Test func theLastHolderMakesGarbageAndTheSweepDeletesItLater() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let reference = try await store.write(body, under: key)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [reference])
        // A snapshot and a copy share it.
        _ = try await store.volume.commit(
            partition, checks: [.present([1])], writes: put(2), linking: [reference, reference])
        for _ in 0..<2 {
            _ = try await store.volume.commit(partition, checks: [], writes: [.delete([1])], releasing: [reference])
            #expect(try await store.sealed.sweep(keptSeconds: 0) == SweepReport())
        }
        #expect(try await store.read(reference, under: key) == body)
        _ = try await store.volume.commit(partition, checks: [], writes: [.delete([2])], releasing: [reference])
        store.clock.advance(seconds: 299)
        #expect(try await store.sealed.sweep().remainingExtents == 1)
        #expect(try await store.read(reference, under: key) == body)
        store.clock.advance(seconds: 1)
        #expect(try await store.sealed.sweep().deletedExtents == 1)
        #expect(try await held(store) == 0)
        #expect(
            try await store.engine.scan(store.volume.engine(partition), from: RowKey([]), upTo: nil, limit: 9).isEmpty)
        #expect(try await store.sealed.sweep() == SweepReport())
    }

    /// A long download of a blob that was overwritten meanwhile ends as it began.
    @Test func anExtentThatIsBeingReadOutlivesTheSweep() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let large = [UInt8](repeating: 6, count: 5_000_000)
        let reference = try await store.write(large, under: key, piece: 1_000_000)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [reference])
        let received = Atomic(0)
        try await store.volume.readExtent(reference, range: 0..<large.count, under: key) { piece in
            if received.add(piece.readableBytes, ordering: .relaxed).oldValue == 0 {
                _ = try await store.volume.commit(
                    partition, checks: [], writes: [.delete([1])], releasing: [reference])
                store.clock.advance(seconds: 10_000)
                let report = try await store.sealed.sweep()
                #expect(report.deletedExtents == 0 && report.remainingExtents == 1)
            }
        }
        #expect(received.load(ordering: .relaxed) == large.count)
        #expect(try await store.sealed.sweep().deletedExtents == 1)
        #expect(try await held(store) == 0)
    }

    /// Of a blob in many pieces the last must be there when the first has gone out; and two readers are two.
    @Test func whatAReaderNamesStaysUntilItIsDone() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let pieces = [try await store.write(body, under: key), try await store.write(body, under: key)]
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: pieces)
        try await store.volume.whileReading(pieces) {
            try await store.volume.whileReading(pieces) {
                _ = try await store.volume.commit(partition, checks: [], writes: [.delete([1])], releasing: pieces)
            }
            store.clock.advance(seconds: 10_000)
            #expect(try await store.sealed.sweep().remainingExtents == 2)
            #expect(try await store.read(pieces[1], under: key) == body)
            #expect(try await store.sealed.sweep().remainingExtents == 2)
        }
        #expect(try await store.sealed.sweep().deletedExtents == 2)
    }

    /// Overwriting the largest blob there can be: 50,000 committed blocks go, and 100,000 uncommitted ones, each with
    /// its row; an extent's release is two writes.
    @Test func theLargestReplacementFitsOneCommit() {
        let writes = 2 * 50_000 + 3 * 100_000 + 1
        #expect(InMemoryEngine().properties.writesPerCommitLimit >= writes)
    }

    @Test func aConflictLinksAndReleasesNothing() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let old = try await store.write(body, under: key)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [old])
        let new = try await store.write(body, under: key)
        #expect(
            try await store.volume.commit(
                partition, checks: [.absent([1])], writes: put(1), linking: [new], releasing: [old])
                == .conflict)
        #expect(try await store.sealed.verify().garbageExtents == 0)
        // The same extent goes into the next attempt.
        #expect(
            try await store.volume.commit(
                partition, checks: [.present([1])], writes: put(1), linking: [new], releasing: [old])
                != .conflict)
        #expect(try await store.sealed.verify().garbageExtents == 1)
        // Released twice: nothing happens, and nothing is brought to life again.
        _ = try await store.volume.commit(partition, checks: [], writes: [], releasing: [old])
        #expect(
            await code { try await store.volume.commit(partition, checks: [], writes: [], linking: [old]) }
                == .extentGone)
    }

    @Test func anExtentOfAnotherContainerIsRefused() async throws {
        let store = try await Store.withAccount()
        let reference = try await store.write(body, under: try await store.volume.accountKey())
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [reference])
        let other = VolumePartition.container("d")
        #expect(
            await code { try await store.volume.commit(other, checks: [], writes: put(1), linking: [reference]) }
                == .extentGone)
        #expect(try await store.volume.scan(other, from: [], upTo: nil, limit: 1).isEmpty)
    }

    /// A row deleted without its key knows the locations alone.
    @Test func aLocationIsEnoughToReleaseAndNotToLink() async throws {
        let store = try await Store.withAccount()
        let reference = try await store.write(body, under: try await store.volume.accountKey())
        let bare = ExtentReference(releasing: reference.location)
        let refused = await code {
            try await store.volume.commit(partition, checks: [], writes: put(1), linking: [bare])
        }
        #expect(refused == .corrupt)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [reference])
        _ = try await store.volume.commit(partition, checks: [], writes: [.delete([1])], releasing: [bare])
        #expect(try await store.sealed.verify().garbageExtents == 1)
    }

    @Test func whatMovesBetweenRowsCostsNothing() async throws {
        let store = try await Store.withAccount()
        let reference = try await store.write(body, under: try await store.volume.accountKey())
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [reference])
        _ = try await store.volume.commit(
            partition, checks: [], writes: put(2) + [.delete([1])], linking: [reference], releasing: [reference])
        #expect(try await store.sealed.verify().extentsOpened == 1)
        #expect(try await store.sealed.verify().garbageExtents == 0)
    }

    @Test func concurrentSharingLosesNoHolder() async throws {
        let store = try await Store.withAccount()
        let reference = try await store.write(body, under: try await store.volume.accountKey())
        _ = try await store.volume.commit(partition, checks: [], writes: put(0), linking: [reference])
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 1...8 as ClosedRange<UInt8> {
                group.addTask {
                    for turn in 0..<5 as Range<UInt8> {
                        let write = VolumeWrite.put([number, turn], visible: [], sealed: .none)
                        let outcome = try await store.volume.commit(
                            partition, checks: [], writes: [write], linking: [reference])
                        #expect(outcome != .conflict)
                    }
                }
            }
            try await group.waitForAll()
        }
        for left in (0...40).reversed() {
            #expect(try await store.sealed.verify().garbageExtents == 0)
            _ = try await store.volume.commit(partition, checks: [], writes: [], releasing: [reference])
            if left == 0 { #expect(try await store.sealed.verify().garbageExtents == 1) }
        }
    }

    @Test func orphansAreCollectedAndNothingElse() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let customer = store.volume.customerProvidedKey(store.randomness.secret(32))
        let kept = try await [store.write(body, under: key), store.write(body, under: customer)]
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: kept)
        let garbage = try await store.write(body, under: key)
        _ = try await store.volume.commit(partition, checks: [], writes: put(2), linking: [garbage])
        _ = try await store.volume.commit(partition, checks: [], writes: [.delete([2])], releasing: [garbage])
        _ = try await store.write(body, under: key)
        _ = try await store.write(body, under: key)
        // This process knows its own: nothing is an orphan yet.
        #expect(try await store.sealed.collectOrphans().deletedExtents == 0)

        // After a restart, without any vault or customer's key, and with an upload under way.
        let restarted = try Store(engine: store.engine, extents: RestartedExtents(engine: store.engine), seed: 2)
        _ = try await restarted.write(body, under: try await restarted.volume.accountKey())
        let size = ExtentFormat.sealedBytes(of: kept[0])
        let report = try await restarted.sealed.verify()
        #expect(
            report.orphanExtents == 2 && report.orphanBytes == 2 * size && report.garbageExtents == 1 && report.isSound)
        #expect(report.extentsOpened == 1 && report.extentsUnchecked == 1)
        let swept = try await restarted.sealed.collectOrphans()
        #expect(swept.deletedExtents == 2 && swept.deletedBytes == 2 * size)
        #expect(try await held(store) == 4)
        // The first sweep after a start finds the garbage of the process before.
        restarted.clock.advance(seconds: 1_000)
        #expect(try await restarted.sealed.sweep().deletedExtents == 1)
        #expect(try await store.read(kept[0], under: key) == body)
        #expect(try await store.read(kept[1], under: customer) == body)
    }

    /// Whoever reads it has its five minutes all the same.
    @Test func anExtentReleasedDuringMarkAndSweepIsNoOrphan() async throws {
        let store = try await Store.withAccount()
        let extent = try await store.write(body, under: try await store.volume.accountKey())
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [extent])
        let engine = FaultyEngine(store.engine)
        let restarted = try Store(
            engine: store.engine, metadata: engine, extents: RestartedExtents(engine: store.engine), clock: store.clock,
            seed: 2)
        engine.interrupt(where: { !$0.reads.isEmpty }) { _ in
            let outcome = try? await restarted.volume.commit(
                partition, checks: [], writes: [.delete([1])], releasing: [extent])
            #expect(outcome != nil && outcome != .conflict)
        }
        #expect(try await restarted.sealed.collectOrphans().deletedExtents == 0)
        #expect(try await held(store) == 1)
        #expect(try await restarted.sealed.sweep(keptSeconds: 0).deletedExtents == 1)
    }

    @Test func aDamagedGarbageRowHoldsNothingUp() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let extent = try await store.write(body, under: key)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [extent])
        _ = try await store.volume.commit(partition, checks: [], writes: [.delete([1])], releasing: [extent])
        _ = try await store.engine.commit(
            store.volume.engine(partition), checks: [], writes: [.put(RowKind.garbage.key([0]), [1, 2, 3])])
        store.clock.advance(seconds: 1_000)
        let report = try await store.sealed.sweep()
        #expect(report.deletedExtents == 1)
        #expect(report.damagedRows == 1)
        #expect(try await held(store) == 0)
        #expect(try await store.sealed.sweep() == SweepReport(), "it is not looked for again until a restart")
    }

    @Test func anUnwantedExtentIsGivenBack() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let reference = try await store.write(body, under: key)
        await store.volume.discard(reference)
        #expect(try await held(store) == 0)
        #expect(
            await code { try await store.volume.commit(partition, checks: [], writes: [], linking: [reference]) }
                == .extentGone)
        // A linked one stays.
        let linked = try await store.write(body, under: key)
        _ = try await store.volume.commit(partition, checks: [], writes: put(1), linking: [linked])
        await store.volume.discard(linked)
        #expect(try await store.read(linked, under: key) == body)
        // One whose request never came back goes after an hour.
        _ = try await store.write(body, under: key)
        #expect(try await store.sealed.sweep().deletedExtents == 0)
        store.clock.advance(seconds: 3_601)
        #expect(try await store.sealed.sweep().deletedExtents == 1)
        #expect(try await held(store) == 1)
    }

    @Test func anUnknownOutcomeNeverCostsALinkedExtent() async throws {
        let store = try await Store.withAccount()
        let faulty = FaultyEngine(store.engine)
        let shaky = try Store(engine: store.engine, metadata: faulty, clock: store.clock, seed: 9)
        let key = try await shaky.volume.accountKey()
        let reference = try await shaky.write(body, under: key)
        faulty.fail(at: 0, .after)
        #expect(
            await code { try await shaky.volume.commit(partition, checks: [], writes: put(1), linking: [reference]) }
                == .outcomeUnknown)
        faulty.heal()
        store.clock.advance(seconds: 100_000)
        await shaky.volume.discard(reference)
        _ = try await shaky.sealed.sweep()
        let restarted = try Store(engine: store.engine, extents: RestartedExtents(engine: store.engine), seed: 2)
        #expect(try await restarted.sealed.collectOrphans().deletedExtents == 0)
        #expect(try await shaky.read(reference, under: key) == body)
    }

    @Test func destroyingLeavesNothing() async throws {
        let store = try await Store.withAccount()
        let other = AccountID(bytes: Array(16..<32))
        try await store.sealed.accountKeys.create(other)
        _ = try await store.sealed.volume(account: other).commit(.account, checks: [], writes: put(1))
        let key = try await store.volume.accountKey()
        for name in ["a", "b"] {
            let partition = VolumePartition.container(name)
            for number in 0..<3 as Range<UInt8> {
                let reference = try await store.write(body, under: key)
                _ = try await store.volume.commit(partition, checks: [], writes: put(number), linking: [reference])
                if number == 0 {
                    _ = try await store.volume.commit(partition, checks: [], writes: [], releasing: [reference])
                }
            }
        }
        #expect(try await held(store) == 6)
        try await store.sealed.accountKeys.destroy(store.account)
        try await store.volume.destroy()
        #expect(try await held(store) == 0)
        #expect(try await store.sealed.volume(account: other).scan(.account, from: [], upTo: nil, limit: 9).count == 1)
        let report = try await store.sealed.verify()
        #expect(report.isSound && report.rowsOpened == 1)
    }
}
