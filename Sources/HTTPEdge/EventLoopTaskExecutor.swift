import NIOCore

/// Runs Swift tasks on one event loop, so that a request is served on the thread that reads and writes its connection.
///
/// A job enqueued from the loop waits in a queue of its own until the code that enqueued it has returned (it may hold
/// a lock or be in the middle of a change), and costs no hop; one from elsewhere is handed to the loop.
final class EventLoopTaskExecutor: TaskExecutor, @unchecked Sendable {
    // @unchecked: `ready`, `isDraining` and `isScheduled` are read and written on `loop`'s thread only.
    let loop: any EventLoop
    private var ready = CircularBuffer<UnownedJob>(initialCapacity: 64)
    private var isDraining = false
    private var isScheduled = false
    /// After so many jobs in a row the loop gets to look at its sockets.
    private static let jobsPerTurn = 64

    init(loop: any EventLoop) { self.loop = loop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if loop.inEventLoop {
            ready.append(job)
            schedule()
        } else {
            loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
        }
    }

    private func schedule() {
        guard !isDraining, !isScheduled else { return }
        isScheduled = true
        loop.execute {
            self.isScheduled = false
            self.drain()
        }
    }

    /// Runs what is ready. Call it on the loop, where no invariant is open.
    func drain() {
        guard !isDraining, !ready.isEmpty else { return }
        isDraining = true
        var budget = Self.jobsPerTurn
        while budget > 0, let job = ready.popFirst() {
            job.runSynchronously(on: asUnownedTaskExecutor())
            budget -= 1
        }
        isDraining = false
        if !ready.isEmpty { schedule() }
    }
}

/// Runs `work` on Swift's shared thread pool, also when the caller runs on an event loop: for work that takes longer
/// than about a millisecond. Costs two thread switches, about 50 microseconds.
public func awayFromEventLoop<Result: Sendable, Failure: Error>(
    _ work: @concurrent @Sendable () async throws(Failure) -> Result
) async throws(Failure) -> Result {
    try await withTaskExecutorPreference(globalConcurrentExecutor, operation: work)
}
