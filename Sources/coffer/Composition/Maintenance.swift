import BlobService
import CofferCore
import EncryptionAtRest
import KeyVault
import Logging
import ResourceProviders
import StorageAccount

/// What a server does by itself, from its start until it is stopped: each job by its own clock, so that none waits for
/// a slow one.
struct Maintenance {
    struct Job: Sendable {
        let what: String
        let interval: Duration
        /// Done once, before the first round.
        var atStart: (@Sendable () async throws -> Void)?
        let work: @Sendable () async throws -> Void
    }

    private let task: Task<Void, Never>

    /// Does every job at once, and again whenever its interval has passed since it ended.
    init(_ jobs: [Job], clock: any Clock<Duration> = ContinuousClock(), log: Logger) {
        task = Task {
            await withDiscardingTaskGroup { group in
                for job in jobs {
                    group.addTask {
                        if let atStart = job.atStart {
                            await Self.attempt(job.what, log, again: "the next start tries again", atStart)
                        }
                        while !Task.isCancelled {
                            await Self.attempt(job.what, log, job.work)
                            try? await clock.sleep(for: job.interval)
                        }
                    }
                }
            }
        }
    }

    /// Begins nothing more, and lets work under way know that it should end.
    func cancel() { task.cancel() }

    /// Returns once work under way has ended; the store may be closed then.
    func stop() async {
        cancel()
        await task.value
    }

    private static func attempt(
        _ what: String, _ log: Logger, again: String = "it will be tried again", _ work: () async throws -> Void
    ) async {
        do {
            try await work()
        } catch {
            // Work that was told to end says so by an error; nothing is wrong.
            guard !Task.isCancelled else { return }
            log.error("\(what) failed; \(again)", metadata: ["reason": "\(error)"])
        }
    }
}

extension Maintenance {
    static let sweepInterval = Duration.seconds(30)
    static let dueWorkInterval = Duration.seconds(3_600)

    /// Collects what crashes left behind once, then sweeps garbage and frees idle keys from time to time; and once an
    /// hour does what vaults' policies and accounts' deletions have made due.
    static func jobs(_ platform: Platform, log: Logger) -> [Job] {
        [
            Job(
                what: "sweeping", interval: sweepInterval,
                atStart: { _ = try await platform.store.collectOrphans() },
                work: {
                    let report = try await platform.store.sweep()
                    if report.damagedRows > 0 {
                        log.error(
                            "rows of deleted extents do not open; stop the server and run 'coffer verify'",
                            metadata: ["rows": "\(report.damagedRows)"])
                    }
                }),
            Job(what: "collecting released pages", interval: sweepInterval) {
                try await platform.blobs.collectReleasedPages()
            },
            Job(what: "letting go of idle keys", interval: sweepInterval) { platform.vaults.forgetIdleKeys() },
            // Rotation makes RSA keys, which takes seconds.
            Job(what: "work due in vaults", interval: dueWorkInterval) { await platform.vaults.performDueWork() },
            // Vaults announce rotations; this finds those that came between a vault's commit and a crash.
            Job(what: "following rotations", interval: dueWorkInterval) {
                await platform.store.accountKeys.followRotations()
            },
            Job(what: "collecting garbage", interval: dueWorkInterval) { try await collectGarbage(platform, log) },
        ]
    }

    /// Each account by itself: one whose key cannot be had does not stop the others.
    private static func collectGarbage(_ platform: Platform, _ log: Logger) async throws {
        for resource in try await platform.accounts.trackedResources(below: .root) where !Task.isCancelled {
            await attempt("collecting the garbage of the account '\(resource.id.name)'", log) {
                let account = try await platform.accounts.account(named: resource.id.name.lowercased())
                try await platform.blobs.collectGarbage(in: account)
            }
        }
    }
}
