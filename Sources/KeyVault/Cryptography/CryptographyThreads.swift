import NIOPosix
import Synchronization

/// A few threads of their own for what takes longer than an event loop may wait: key generation and operations with
/// large keys.
final class CryptographyThreads: Sendable {
    private let pool: NIOThreadPool
    private let waiting = Mutex(0)
    /// Most calls under way or in the queue; above it `busy`.
    private let limit: Int

    init(threads: Int, limit: Int) {
        self.limit = limit
        pool = NIOThreadPool(numberOfThreads: threads)
        pool.start()
    }
    deinit { pool.shutdownGracefully { _ in } }

    func run<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        let isAdmitted = waiting.withLock { count in
            guard count < limit else { return false }
            count += 1
            return true
        }
        guard isAdmitted else { throw VaultError.busy }
        defer { waiting.withLock { $0 -= 1 } }
        return try await pool.runIfActive(work)
    }
}
