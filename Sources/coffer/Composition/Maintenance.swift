import BlobService
import CofferCore
import EncryptionAtRest
import KeyVault
import Logging
import ResourceProviders
import StorageAccount

/// What a server does by itself: it collects what crashes left behind once, then sweeps garbage from time to time, and
/// once an hour does what vaults' policies and accounts' deletions have made due.
enum Maintenance {
    static let sweepInterval = Duration.seconds(30)
    static let dueWorkInterval = Duration.seconds(3_600)

    static func start(_ platform: Platform, log: Logger) -> Task<Void, Never> {
        Task {
            await withDiscardingTaskGroup { group in
                group.addTask {
                    await attempt("collecting orphans", log) { _ = try await platform.store.collectOrphans() }
                    await repeating(every: sweepInterval) {
                        await attempt("sweeping", log) { _ = try await platform.store.sweep() }
                    }
                }
                // Rotation makes RSA keys, which takes seconds: sweeping does not wait for it.
                group.addTask {
                    await repeating(every: dueWorkInterval) { await platform.vaults.performDueWork() }
                }
                group.addTask {
                    await repeating(every: dueWorkInterval) {
                        await attempt("collecting garbage", log) { try await collectGarbage(platform, log) }
                    }
                }
            }
        }
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

    /// Until the task is cancelled; the first time at once.
    private static func repeating(every interval: Duration, _ work: () async -> Void) async {
        while !Task.isCancelled {
            await work()
            try? await Task.sleep(for: interval)
        }
    }

    private static func attempt(_ what: String, _ log: Logger, _ work: () async throws -> Void) async {
        do {
            try await work()
        } catch {
            log.error("\(what) failed; it will be tried again", metadata: ["reason": "\(error)"])
        }
    }
}
