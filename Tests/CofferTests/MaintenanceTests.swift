import CofferCore
import EncryptionAtRest
import Synchronization
import TestSupport
import Testing

@testable import coffer

/// A hang is a failure here: the limits end it.
@Suite(.timeLimit(.minutes(5))) struct MaintenanceTests {
    @Test func everyJobHasItsOwnInterval() async {
        let clock = ManualClock()
        let done = Mutex<[String]>([])
        @Sendable func note(_ what: String) { done.withLock { $0.append(what) } }
        let maintenance = Maintenance(
            [
                Maintenance.Job(
                    what: "often", interval: .seconds(30), atStart: { note("start") }, work: { note("often") }),
                Maintenance.Job(what: "seldom", interval: .seconds(100)) {
                    note("seldom")
                    throw SealedStoreError(.unavailable, "a failure ends one round, not the job")
                },
            ], clock: clock, log: silentLogger)
        await clock.waitForSleepers(2)
        #expect(done.withLock { $0.filter { $0 != "seldom" } } == ["start", "often"])
        for _ in 1...4 {
            clock.advance(by: .seconds(25))
            await clock.waitForSleepers(2)
        }
        await maintenance.stop()
        #expect(done.withLock { $0.count { $0 == "start" } } == 1)
        // At 0 s, 50 s and 100 s; at 0 s and 100 s.
        #expect(done.withLock { $0.count { $0 == "often" } } == 3)
        #expect(done.withLock { $0.count { $0 == "seldom" } } == 2)
    }

    @Test func stoppingWaitsForWorkUnderWay() async {
        let clock = ManualClock()
        let state = Mutex((began: 0, isStopped: false))
        let gate = AsyncStream<Void>.makeStream()
        let maintenance = Maintenance(
            [
                Maintenance.Job(what: "long", interval: .seconds(1)) {
                    state.withLock { $0.began += 1 }
                    // Not ended by the cancellation, like a commit under way.
                    await Task { for await _ in gate.stream { break } }.value
                }
            ], clock: clock, log: silentLogger)
        while state.withLock({ $0.began }) == 0 { await Task.yield() }
        let stopping = Task {
            await maintenance.stop()
            state.withLock { $0.isStopped = true }
        }
        for _ in 1...100 { await Task.yield() }
        #expect(!state.withLock { $0.isStopped })
        gate.continuation.yield()
        await stopping.value
        #expect(state.withLock { $0.began } == 1 && clock.sleepers == 0)
    }

    /// A rotation whose announcement was lost, with a crash for instance, is followed at the start and every hour.
    @Test func rotationsAreFollowedByTheClock() async throws {
        let home = TestHome()
        let platform = try await home.platform()
        let vault = FakeVault()
        vault.addVersion("cmk")
        let keys = platform.store.accountKeys
        keys.attach(vault)
        let account = AccountID(bytes: Array(0..<16))
        try await keys.create(account)
        let identity = Caller(kind: .managedIdentity, objectID: "identity", tenantID: "tenant")
        vault.allow(identity)
        _ = try await keys.useCustomerKey(account, vault.reference("cmk"), as: identity)

        let clock = ManualClock()
        let jobs = Maintenance.jobs(platform, log: silentLogger)
        vault.addVersion("cmk", announcing: false)
        let maintenance = Maintenance(jobs, clock: clock, log: silentLogger)
        await clock.waitForSleepers(jobs.count)
        // Once each, but that on a slow machine the key's own lease may find the rotation at the same moment.
        func versions() -> [String] {
            vault.wraps.reduce(into: []) { if $0.last != $1 { $0.append($1) } }
        }
        #expect(versions() == ["1", "2"].map { vault.identifier("cmk", $0) })
        vault.addVersion("cmk", announcing: false)
        clock.advance(by: Maintenance.dueWorkInterval)
        await clock.waitForSleepers(jobs.count)
        #expect(versions() == ["1", "2", "3"].map { vault.identifier("cmk", $0) })
        await maintenance.stop()
        await platform.close()
    }
}
