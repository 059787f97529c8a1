import StorageEngine
import Synchronization
import Testing

@testable import EmbeddedEngine

/// Nobody is answered from memory what the database would not say.
@Suite struct RowCacheTests {
    private let partition = Partition("p")
    private let key = RowKey("k")

    private func row(_ version: UInt64, bytes: Int = 10, key: String = "k") -> Row {
        Row(key: RowKey(key), value: .init(repeating: UInt8(version), count: bytes), version: RowVersion(version))
    }
    private func job(_ writes: [RowWrite]) -> RowWriter.Job {
        RowWriter.Job(partition: partition, checks: [], writes: writes) { _ in }
    }
    /// A whole commit of `version` of the key.
    private func commit(_ cache: RowCache, _ version: UInt64, bytes: Int = 10) {
        let jobs = [job([.put(key, row(version, bytes: bytes).value)])]
        cache.close(jobs)
        cache.open(jobs, [.success(.committed(RowVersion(version)))])
    }
    /// What memory says about `keys`; nil when it asks for the database.
    private func known(_ cache: RowCache, _ keys: RowKey...) -> [Row?]? {
        if case .rows(let rows) = cache.find(partition, keys) { rows } else { nil }
    }
    private func losses(_ cache: RowCache) throws -> UInt64 {
        guard case .unknown(let losses) = cache.find(partition, [key]) else {
            throw StorageEngineError(.corrupt, "the key is known")
        }
        return losses
    }

    @Test func whatWasReadOrCommittedIsKnown() throws {
        let cache = RowCache(bytesLimit: 100_000)
        cache.remember(partition, [key], [row(1)], losses: try losses(cache))
        #expect(known(cache, key) == [row(1)])
        commit(cache, 2)
        #expect(known(cache, key) == [row(2)])
        let deletion = [job([.delete(key)])]
        cache.close(deletion)
        cache.open(deletion, [.success(.committed(RowVersion(3)))])
        #expect(known(cache, key) == [nil])
        #expect(known(cache, key, RowKey("other")) == nil)
    }

    @Test func aKeyIsClosedWhileItIsWritten() throws {
        let cache = RowCache(bytesLimit: 100_000)
        commit(cache, 1)
        let jobs = [job([.put(key, [])])]
        cache.close(jobs)
        let before = try losses(cache)
        cache.remember(partition, [key], [row(1)], losses: before)
        #expect(known(cache, key) == nil)
        // Refused: what was known still holds.
        cache.open(jobs, [.success(.conflict)])
        #expect(known(cache, key) == [row(1)])
    }

    @Test func whatWasReadBeforeACommitIsNotKeptAfterIt() throws {
        let cache = RowCache(bytesLimit: 100_000)
        let before = try losses(cache)
        commit(cache, 2)
        cache.remember(partition, [key], [row(1)], losses: before)
        #expect(known(cache, key) == [row(2)])
    }

    @Test func norWhenWhatWasCommittedIsTooLargeToKeep() throws {
        let cache = RowCache(bytesLimit: 100_000)
        let before = try losses(cache)
        commit(cache, 2, bytes: 50_000)
        cache.remember(partition, [key], [row(1)], losses: before)
        #expect(known(cache, key) == nil)
    }

    @Test func norWhenItWasDroppedForRoom() throws {
        let cache = RowCache(bytesLimit: 10_000)
        let before = try losses(cache)
        commit(cache, 2)
        for number in 0..<200 {
            let jobs = [job([.put(RowKey("filler\(number)"), .init(repeating: 0, count: 500))])]
            cache.close(jobs)
            cache.open(jobs, [.success(.committed(RowVersion(9)))])
        }
        #expect(known(cache, key) == nil)
        cache.remember(partition, [key], [row(1)], losses: before)
        #expect(known(cache, key) == nil)
    }

    @Test func anUnknownOutcomeIsAskedOfTheDatabase() throws {
        let cache = RowCache(bytesLimit: 100_000)
        commit(cache, 1)
        let jobs = [job([.put(key, [])])]
        cache.close(jobs)
        cache.open(jobs, [.failure(StorageEngineError(.outcomeUnknown, ""))])
        #expect(known(cache, key) == nil)
    }

    @Test func whatIsAskedForStays() throws {
        let cache = RowCache(bytesLimit: 10_000)
        commit(cache, 1)
        for number in 0..<100 {
            let jobs = [job([.put(RowKey("filler\(number)"), .init(repeating: 0, count: 500))])]
            cache.close(jobs)
            cache.open(jobs, [.success(.committed(RowVersion(9)))])
            #expect(known(cache, key) == [row(1)])
        }
        #expect(known(cache, RowKey("filler1")) == nil)
    }

    /// Through the engine: no reader sees time go backwards, or less than was progress.acknowledged.
    @Test func readersNeverGoBack() async throws {
        let directory = TestDirectory()
        var options = EmbeddedEngine.Options()
        // Room for a few rows only: entries come and go.
        options.cachedBytes = 4_096
        let engine = try directory.open(options: options)
        let progress = Progress()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    var last: UInt64 = 0
                    while !progress.isDone.load(ordering: .acquiring) {
                        let least = progress.acknowledged.load(ordering: .acquiring)
                        let seen = try await engine.get(Partition("p"), [RowKey("k")])[0]?.version.number ?? 0
                        #expect(seen >= least && seen >= last)
                        last = seen
                        await Task.yield()
                    }
                }
            }
            for number in 0..<400 {
                let result = try await engine.commit(
                    Partition("p"), checks: [],
                    writes: [
                        .put(RowKey("k"), .init(repeating: 1, count: number % 3 == 0 ? 1_000 : 100)),
                        .put(RowKey("filler\(number % 10)"), .init(repeating: 2, count: 200)),
                    ])
                guard case .committed(let version) = result else { continue }
                progress.acknowledged.store(version.number, ordering: .releasing)
            }
            progress.isDone.store(true, ordering: .releasing)
            try await group.waitForAll()
        }
        engine.close()
    }

    private final class Progress: Sendable {
        let acknowledged = Atomic<UInt64>(0)
        let isDone = Atomic(false)
    }
}
