import EncryptionAtRest
import Logging

/// What a server does by itself: it collects what crashes left behind once, then sweeps garbage from time to time.
enum Maintenance {
    static let sweepInterval = Duration.seconds(30)

    static func start(_ platform: Platform, log: Logger) -> Task<Void, Never> {
        Task {
            await attempt("collecting orphans", log) { _ = try await platform.store.collectOrphans() }
            while !Task.isCancelled {
                await attempt("sweeping", log) { _ = try await platform.store.sweep() }
                try? await Task.sleep(for: sweepInterval)
            }
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
