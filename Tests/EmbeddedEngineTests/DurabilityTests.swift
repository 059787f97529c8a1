import CofferCore
import Foundation
import NIOCore
import StorageEngine
import Synchronization
import Testing

@testable import EmbeddedEngine

@Suite struct DurabilityTests {
    @Test func rowsAndExtentsSurviveReopening() async throws {
        let directory = TestDirectory()
        var engine = try directory.open()
        try await put(engine, "k", [1, 2, 3])
        let small = try await extent(engine, 7, 5000)
        let large = try await extent(engine, 8, 2_000_000)
        let gone = try await extent(engine, 9, 6000)
        try await engine.delete(gone)
        engine.close()

        engine = try directory.open()
        #expect(try await value(engine, "k") == [1, 2, 3])
        #expect(try await engine.read(small, range: 0..<5000) == .init(repeating: 7, count: 5000))
        #expect(try await engine.read(large, range: 1_999_990..<2_000_000) == .init(repeating: 8, count: 10))
        let listed = try await engine.list(after: nil, limit: 10)
        #expect(listed.map(\.location) == [small, large])
        #expect(listed.allSatisfy { !$0.isRecent })
        // The segment of the last run takes more, and the new extent is told from the old.
        let another = try await extent(engine, 10, 100)
        #expect(try await engine.list(after: small, limit: 1).map(\.location) == [another])
        #expect(try await engine.list(after: small, limit: 1).map(\.isRecent) == [true])
        engine.close()
    }

    @Test func versionsGrowAcrossRestarts() async throws {
        let directory = TestDirectory()
        var last: UInt64 = 0
        for _ in 0..<3 {
            let engine = try directory.open()
            guard
                case .committed(let version) = try await engine.commit(
                    Partition("p"), checks: [], writes: [.put(RowKey("k"), []), .delete(RowKey("k"))])
            else {
                Issue.record("refused")
                return
            }
            #expect(version.number > last)
            last = version.number
            engine.close()
        }
    }

    @Test func aClosedEngineRefuses() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        engine.close()
        engine.close()
        #expect(await failure { try await put(engine, "k", []) }?.code == .unavailable)
        #expect(await failure { _ = try await value(engine, "k") }?.code == .unavailable)
        #expect(await failure { _ = try await extent(engine, 1, 10) }?.code == .unavailable)
        #expect(FileManager.default.fileExists(atPath: directory.path + "/metadata/rows.db"))
        #expect(
            !FileManager.default.fileExists(atPath: directory.path + "/metadata/rows.db-wal"), "the log is copied out")
    }

    /// Before every change of the disk, and within every longer write, an image of it is taken, as kill -9 there would
    /// leave it. Each opens, holds what was acknowledged before, and nothing half.
    @Test(.timeLimit(.minutes(10)), arguments: EngineFormat.allCases)
    func crashAtEveryStep(format: EngineFormat) async throws {
        let directory = TestDirectory()
        let camera = Camera(directory)
        let engine = try directory.open(
            options: .init(gate: camera.gate, pieceBytes: 2503, segmentBytes: 64 << 10, format: format))
        var random = SystemRandomNumberGenerator()
        camera.start()
        for round in 0..<6 {
            let size = round == 3 ? 1_100_000 : 20_000 + Int(random.next() % 1000)
            // A large extent's pieces differ in nothing: a few images of them are enough.
            camera.setInterval(round == 3 ? 50 : 1)
            let location = try await extent(engine, UInt8(round), size)
            camera.acknowledge { $0.extents[round] = (location, size) }
            camera.setInterval(1)
            let writes = (0..<4).map {
                RowWrite.put(RowKey("row \($0)"), [UInt8](repeating: UInt8(round), count: 2500))
            }
            _ = try await engine.commit(Partition("p"), checks: [], writes: writes)
            camera.acknowledge { $0.round = round }
        }
        // The last images are of the checkpoint, which copies the log into the database.
        engine.close()
        let images = camera.stop()
        #expect(images.count > 100)
        #expect(
            images.contains { $0.0.bytes("metadata/rows.db") != images[0].0.bytes("metadata/rows.db") },
            "the checkpoint was seen")
        for (image, promised) in images { try await inspect(image, promised) }
    }

    /// The same while a thread of its own copies the log into the database and the log starts over, three times.
    @Test(.timeLimit(.minutes(10))) func crashWhileTheLogIsCopied() async throws {
        let directory = TestDirectory()
        let camera = Camera(directory)
        let engine = try directory.open(options: .init(gate: camera.gate, pieceBytes: 2503, logBytes: 64 << 10))
        // SQLite counts the logs in their header (sqlite.org/fileformat2.html §4.1).
        func logNumber() -> [UInt8] { Array(directory.bytes("metadata/rows.db-wal")[12..<16]) }
        camera.start()
        var numbers: Set<[UInt8]> = []
        var round = 0
        while numbers.count < 4, round < 600 {
            camera.setInterval(round % 3 == 0 ? 5 : 50)
            let writes = (0..<4).map {
                RowWrite.put(RowKey("row \($0)"), [UInt8](repeating: UInt8(round), count: 2500 + round))
            }
            _ = try await engine.commit(Partition("p"), checks: [], writes: writes)
            camera.acknowledge { $0.round = round }
            numbers.insert(logNumber())
            round += 1
        }
        #expect(numbers.count == 4, "the log started over")
        let images = camera.stop()
        #expect(Set(images.map { $0.0.bytes("metadata/rows.db") }).count > 1, "copies were seen")
        engine.close()
        for (image, promised) in images { try await inspect(image, promised) }
    }

    @Test func commitsGoOnWhileTheLogIsCopied() async throws {
        let directory = TestDirectory()
        let copy = CopyThread { _ in 0 }
        defer { copy.release() }
        let engine = try directory.open(options: .init(gate: copy.gate, logBytes: 64 << 10))
        for round in 0..<40 { try await put(engine, "row \(round)", [UInt8](repeating: 1, count: 6000)) }
        #expect(copy.isHeld(within: 60))
        for round in 0..<40 { try await put(engine, "row \(round)", [UInt8](repeating: 2, count: 6000)) }
        copy.release()
        engine.close()
        let again = try directory.open()
        for round in 0..<40 { #expect(try await value(again, "row \(round)")?.first == 2) }
        again.close()
    }

    /// What the disk did not confirm may be gone though a later fsync succeeds. The log then stays as it is, through
    /// closing too, and the next start copies it again.
    @Test func aCopyThatIsNotConfirmedLeavesTheLog() async throws {
        let directory = TestDirectory()
        let syncs = Atomic(0)
        // The first is of the log, which is read in what follows.
        let copy = CopyThread { $0 == .sync && syncs.add(1, ordering: .relaxed).newValue > 1 ? EIO : 0 }
        let engine = try directory.open(options: .init(gate: copy.gate, logBytes: 64 << 10))
        copy.release()
        let before = directory.bytes("metadata/rows.db")
        var acknowledged = 0
        // As many as it takes until the copying thread has had its turn.
        let most = 5_000
        for round in 0..<most {
            guard await failure({ try await put(engine, "row \(round)", [UInt8](repeating: 1, count: 6000)) }) == nil
            else { break }
            acknowledged += 1
        }
        #expect(acknowledged < most, "commits end")
        #expect(await failure { try await put(engine, "later", [1]) }?.code == .unavailable)
        #expect(try await value(engine, "row 0") != nil, "reads go on")
        engine.close()
        // As if the kernel had dropped all that was written.
        directory.write(before, to: "metadata/rows.db")
        let again = try directory.open()
        for round in 0..<acknowledged { #expect(try await value(again, "row \(round)")?.count == 6000) }
        try await again.verifyMetadata()
        again.close()
    }

    private func inspect(_ image: TestDirectory, _ promised: Camera.Promise) async throws {
        let engine = try image.open(options: .init(segmentBytes: 64 << 10))
        let rows = try await engine.scan(Partition("p"), from: RowKey([]), upTo: nil, limit: 100)
        #expect(rows.isEmpty || rows.count == 4)
        #expect(Set(rows.map(\.value)).count <= 1, "half a commit")
        #expect(Int(rows.first?.value.first ?? 0) >= promised.round ?? 0, "an acknowledged commit is lost")
        #expect(promised.round == nil || rows.count == 4)
        for (round, (location, size)) in promised.extents {
            #expect(try await engine.read(location, range: 0..<size) == .init(repeating: UInt8(round), count: size))
        }
        for listing in try await engine.list(after: nil, limit: 100) {
            let bytes = try await engine.read(listing.location, range: 0..<listing.byteCount)
            let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self)!
            #expect(bytes == .init(repeating: first, count: listing.byteCount), "half an extent is listed")
            #expect(listing.byteCount >= 20_000)
        }
        let listed = Set(try await engine.list(after: nil, limit: 100).map(\.location))
        for (location, _) in promised.extents.values { #expect(listed.contains(location)) }
        try await engine.verifyMetadata()
        // And it goes on.
        try await put(engine, "after", [1])
        _ = try await extent(engine, 200, 100)
        engine.close()
        let again = try image.open()
        #expect(try await value(again, "after") == [1])
        again.close()
    }

    @Test(arguments: [1, 24, 25, 100, TestDirectory.frameBytes - 1]) func aTornLogEndsBeforeTheTear(cut: Int)
        async throws
    {
        let directory = TestDirectory()
        let engine = try directory.open()
        try await put(engine, "first", [1])
        let intact = directory.bytes("metadata/rows.db-wal").count
        try await put(engine, "second", [2])
        let image = directory.image()
        engine.close()

        let log = image.bytes("metadata/rows.db-wal")
        #expect(log.count > intact)
        image.write(Array(log.dropLast(cut)), to: "metadata/rows.db-wal")
        let reopened = try image.open()
        #expect(try await value(reopened, "first") == [1])
        #expect(try await value(reopened, "second") == nil)
        reopened.close()
    }

    @Test(arguments: [1, 20, 41, 4000, 4097, 4104, 4114, 4120]) func aGarbledLogEndsBeforeTheDamage(
        fromTheEnd position: Int
    ) async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        try await put(engine, "first", [1])
        try await put(engine, "second", [2])
        let image = directory.image()
        engine.close()

        var log = image.bytes("metadata/rows.db-wal")
        log[log.count - position] ^= 0x10
        image.write(log, to: "metadata/rows.db-wal")
        let reopened = try image.open()
        #expect(try await value(reopened, "first") == [1])
        #expect(try await value(reopened, "second") == nil)
        reopened.close()
    }

    /// What SQLite frees it fills with zeros, so the page of the last frame is what a cleared one looks like.
    @Test(arguments: EngineFormat.allCases)
    func aGarbledPageOfZerosIsNotTakenForOne(format: EngineFormat) async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(format: format))
        try await put(engine, "k", [UInt8](repeating: 1, count: 6000))
        try await put(engine, "k", [2])
        let image = directory.image()
        engine.close()

        var log = image.bytes("metadata/rows.db-wal")
        log[log.count - 1] ^= 0x10
        image.write(log, to: "metadata/rows.db-wal")
        let reopened = try image.open()
        #expect(try await value(reopened, "k")?.count == 6000)
        try await reopened.verifyMetadata()
        reopened.close()
    }

    /// A directory keeps the pages it was made with, its log too.
    @Test func aDirectoryOfPagesOf8KiBGoesOn() async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(format: .pagesOf8KiB))
        try await put(engine, "copied", [UInt8](repeating: 1, count: 6000))
        engine.close()
        #expect(directory.bytes("metadata/rows.db").count % 8192 == 0)
        let second = try directory.open()
        try await put(second, "logged", [UInt8](repeating: 2, count: 6000))
        #expect((directory.bytes("metadata/rows.db-wal").count - 32) % (24 + 8192) == 0)
        let image = directory.image()
        second.close()
        let third = try image.open()
        #expect(try await value(third, "copied") == [UInt8](repeating: 1, count: 6000))
        #expect(try await value(third, "logged") == [UInt8](repeating: 2, count: 6000))
        try await third.verifyMetadata()
        third.close()
    }

    /// A crash while page 1 is copied out of the log leaves it torn; the log still has it.
    @Test(arguments: EngineFormat.allCases) func aTornFirstPageComesFromTheLog(format: EngineFormat) async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(format: format))
        // A new table of contents: page 1 is in the log only when a commit changed it.
        for round in 0..<200 { try await put(engine, "row \(round)", [UInt8](repeating: 1, count: 6000)) }
        let image = directory.image()
        engine.close()
        var database = image.bytes("metadata/rows.db")
        for index in format.pageBytes / 2..<format.pageBytes { database[index] = 0 }
        image.write(database, to: "metadata/rows.db")
        let reopened = try image.open()
        #expect(try await value(reopened, "row 150") != nil)
        reopened.close()
    }

    @Test func aFullDiskRefusesAndLosesNothing() async throws {
        let directory = TestDirectory()
        let isFull = Mutex(false)
        let engine = try directory.open(
            options: .init(gate: { operation in operation == .write && isFull.withLock { $0 } ? ENOSPC : 0 }))
        try await put(engine, "k", [1])
        let before = try await extent(engine, 1, 1000)
        isFull.withLock { $0 = true }
        #expect(await failure { try await put(engine, "k", [2]) }?.code == .full)
        #expect(await failure { _ = try await extent(engine, 2, 1000) }?.code == .full)
        #expect(await failure { _ = try await extent(engine, 2, 2_000_000) }?.code == .full)
        #expect(try await value(engine, "k") == [1])
        isFull.withLock { $0 = false }
        try await put(engine, "k", [3])
        let after = try await extent(engine, 3, 1000)
        #expect(try await engine.list(after: nil, limit: 10).map(\.location) == [before, after])
        engine.close()
        let reopened = try directory.open()
        #expect(try await value(reopened, "k") == [3])
        #expect(try await reopened.read(after, range: 0..<1000) == .init(repeating: 3, count: 1000))
        reopened.close()
    }

    /// After a failed fsync nothing can be promised until the log has been read from the medium again.
    @Test func aFailedSyncStopsCommits() async throws {
        let directory = TestDirectory()
        let fails = Mutex(false)
        let engine = try directory.open(
            options: .init(gate: { operation in operation == .sync && fails.withLock { $0 } ? EIO : 0 }))
        try await put(engine, "k", [1])
        fails.withLock { $0 = true }
        #expect(await failure { try await put(engine, "k", [2]) }?.code == .outcomeUnknown)
        #expect(await failure { _ = try await extent(engine, 2, 1000) }?.code == .unavailable)
        fails.withLock { $0 = false }
        #expect(await failure { try await put(engine, "k", [3]) }?.code == .unavailable)
        #expect(try await value(engine, "k") == [1])
        engine.close()
        let reopened = try directory.open()
        let after = try await value(reopened, "k")
        #expect(after == [1] || after == [2])
        try await put(reopened, "k", [4])
        reopened.close()
    }

    /// Closing waits for the readers, and those that come too late are refused: nobody touches the files when it has
    /// returned.
    @Test func closingAmongReaders() async throws {
        let directory = TestDirectory()
        for _ in 0..<5 {
            let engine = try directory.open()
            try await put(engine, "k", [UInt8](repeating: 1, count: 5000))
            await withTaskGroup { group in
                for _ in 0..<4 {
                    group.addTask {
                        while true {
                            let error = await failure {
                                _ = try await engine.scan(Partition("p"), from: RowKey([]), upTo: nil, limit: 10)
                            }
                            if let error {
                                #expect(error.code == .unavailable)
                                return
                            }
                            // Reads do not suspend, and would leave no thread for the one that closes.
                            await Task.yield()
                        }
                    }
                }
                group.addTask { engine.close() }
            }
            #expect(!FileManager.default.fileExists(atPath: directory.path + "/metadata/rows.db-wal"))
        }
    }

    @Test func emptySegmentsAreRemoved() async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(segmentBytes: 64 << 10))
        var written: [ExtentLocation] = []
        for round in 0..<12 { written.append(try await extent(engine, UInt8(round), 30_000)) }
        func segments() throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: directory.path + "/extents/segments").count
        }
        let before = try segments()
        #expect(before >= 4)
        for location in written.dropLast() { try await engine.delete(location) }
        #expect(try segments() == 1)
        #expect(try await engine.list(after: nil, limit: 10).map(\.location) == [written.last!])
        engine.close()
    }

    /// What a start cannot vouch for it must not throw away: most of a damaged extent still opens, chunk by chunk.
    @Test func aDamagedExtentIsKeptWhenItIsTheLastOfItsSegment() async throws {
        let directory = TestDirectory()
        var engine = try directory.open()
        let location = try await extent(engine, 7, 40_000)
        engine.close()
        let file = "extents/segments/" + directory.segmentNames[0]
        var bytes = directory.bytes(file)
        bytes[SegmentRecord.headerBytes + 39_000] ^= 1
        directory.write(bytes, to: file)

        engine = try directory.open()
        #expect(try await engine.read(location, range: 0..<30_000) == .init(repeating: 7, count: 30_000))
        // It holds its segment also when the last whole one goes.
        let other = try await extent(engine, 8, 100)
        engine.close()
        engine = try directory.open(options: .init(segmentBytes: 64))
        _ = try await extent(engine, 9, 100)
        try await engine.delete(other)
        #expect(try await engine.read(location, range: 0..<30_000) == .init(repeating: 7, count: 30_000))
        try await engine.delete(location)
        #expect(directory.segmentNames.count == 1)
        engine.close()
    }

    /// Bytes that the disk does not give are not bytes that are not there.
    @Test func aWalkTellsWhatItCouldNotRead() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        let (reading, writing) = (OpenFile(descriptor: ends[0]), OpenFile(descriptor: ends[1]))
        // A pipe cannot be read at an offset.
        var walk = SegmentWalk(file: reading, segment: 1, end: 4096)
        #expect(walk.next() == nil && walk.failure == ESPIPE)
        withExtendedLifetime(writing) {}
    }

    /// An empty database over existing extents would have the sweeper delete them all.
    @Test func aLostDatabaseIsNotReplacedByAnEmptyOne() async throws {
        for count in [1_000, 2_000_000] {
            let directory = TestDirectory()
            let engine = try directory.open()
            _ = try await extent(engine, 7, count)
            engine.close()
            try FileManager.default.removeItem(atPath: directory.path + "/metadata")
            #expect(await failure { try directory.open().close() }?.code == .corrupt)
        }
    }

    /// An older copy of the metadata counts starts from an older number: what later starts wrote must stay as it is.
    @Test func olderMetadataNumbersItsExtentsPastTheExistingOnes() async throws {
        let directory = TestDirectory()
        try directory.open().close()
        let old = directory.image()
        var locations: [ExtentLocation] = []
        for round in 0..<3 {
            let engine = try directory.open()
            for _ in 0..<3 { locations.append(try await extent(engine, UInt8(round), 1_200_000)) }
            locations.append(try await extent(engine, UInt8(round), 1_000))
            engine.close()
        }
        try FileManager.default.removeItem(atPath: directory.path + "/metadata")
        try FileManager.default.copyItem(atPath: old.path + "/metadata", toPath: directory.path + "/metadata")
        let engine = try directory.open(options: .init(segmentBytes: 64))
        for _ in 0..<4 {
            let large = try await extent(engine, 99, 1_200_000)
            let small = try await extent(engine, 98, 1_000)
            #expect(!locations.contains(large) && !locations.contains(small))
        }
        for (index, location) in locations.enumerated() {
            #expect(try await engine.read(location, range: 0..<10) == .init(repeating: UInt8(index / 4), count: 10))
        }
        engine.close()
    }
}

/// Takes an image of the directory before every change of the disk.
private final class Camera: Sendable {
    struct Promise: Sendable {
        var round: Int?
        var extents: [Int: (ExtentLocation, Int)] = [:]
    }
    private struct State {
        var isOn = false
        var interval = 1
        var changes = 0
        var promise = Promise()
        var images: [(TestDirectory, Promise)] = []
    }
    private let directory: TestDirectory
    private let state = Mutex(State())
    init(_ directory: TestDirectory) { self.directory = directory }

    var gate: @Sendable (DiskOperation) -> Int32 {
        { _ in
            self.state.withLock { state in
                // The lock holds all other changes of the disk back while the picture is taken.
                state.changes += 1
                if state.isOn, state.changes % state.interval == 0 {
                    state.images.append((self.directory.image(), state.promise))
                }
            }
            return 0
        }
    }
    func setInterval(_ interval: Int) { state.withLock { $0.interval = interval } }
    func start() { state.withLock { $0.isOn = true } }
    func acknowledge(_ change: (inout Promise) -> Void) { state.withLock { change(&$0.promise) } }
    func stop() -> [(TestDirectory, Promise)] {
        state.withLock { state in
            state.isOn = false
            return state.images
        }
    }
}

/// Holds the thread that copies the log back before its first change of the disk, and answers for its changes.
private final class CopyThread: Sendable {
    private let held = DispatchSemaphore(value: 0)
    private let goOn = DispatchSemaphore(value: 0)
    private let hasStopped = Atomic(false)
    private let answer: @Sendable (DiskOperation) -> Int32
    init(_ answer: @escaping @Sendable (DiskOperation) -> Int32) { self.answer = answer }

    var gate: @Sendable (DiskOperation) -> Int32 {
        { operation in
            let name = try? String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)
            guard name == "coffer-copy\n" else { return 0 }
            if !self.hasStopped.exchange(true, ordering: .relaxed) {
                self.held.signal()
                self.goOn.wait()
            }
            return self.answer(operation)
        }
    }
    func isHeld(within seconds: Double) -> Bool { held.wait(timeout: .now() + seconds) == .success }
    func release() { goOn.signal() }
}
