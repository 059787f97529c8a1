internal import CPlatform
internal import Glibc
internal import NIOConcurrencyHelpers

private enum Signal { static let idle = 0, work = 1, ended = 2 }

/// A thread that takes everything that waits for it at once: while it makes one batch durable, the next gathers.
final class BatchThread<Job: Sendable>: @unchecked Sendable {
    // @unchecked: what changes is touched only while `signal` is locked.

    // The lock's value says whether there is something to do, so that waiting needs no loop.
    private let signal = ConditionLock(value: Signal.idle)
    private var waiting: [Job] = []
    private var isClosing = false
    private var hasEnded = false
    private let name: String
    private let batchLimit: Int
    private let body: @Sendable ([Job]) -> Void

    /// `body` runs on the thread with at most `batchLimit` jobs, in the order they came.
    init(name: String, batchLimit: Int, body: @escaping @Sendable ([Job]) -> Void) {
        self.name = name
        self.batchLimit = batchLimit
        self.body = body
    }

    func start() {
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Entry>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Entry { self.run() }).toOpaque())
        precondition(code == 0, "no thread for \(name): \(code)")
        pthread_detach(thread)
    }

    /// False when the thread takes no more work.
    func submit(_ job: Job) -> Bool {
        signal.lock()
        guard !isClosing else {
            signal.unlock(withValue: hasEnded ? Signal.ended : Signal.work)
            return false
        }
        waiting.append(job)
        signal.unlock(withValue: Signal.work)
        return true
    }

    /// Does what was submitted, then ends the thread and returns.
    func close() {
        signal.lock()
        isClosing = true
        signal.unlock(withValue: hasEnded ? Signal.ended : Signal.work)
        signal.lock(whenValue: Signal.ended)
        signal.unlock(withValue: Signal.ended)
    }

    private func run() {
        coffer_name_thread(name)
        while true {
            signal.lock(whenValue: Signal.work)
            let batch = Array(waiting.prefix(batchLimit))
            waiting.removeFirst(batch.count)
            let isDone = isClosing && waiting.isEmpty
            let next = waiting.isEmpty && !isClosing ? Signal.idle : Signal.work
            signal.unlock(withValue: next)
            if !batch.isEmpty { body(batch) }
            if isDone {
                signal.lock()
                hasEnded = true
                signal.unlock(withValue: Signal.ended)
                return
            }
        }
    }
}

private final class Entry {
    let run: () -> Void
    init(run: @escaping () -> Void) { self.run = run }
}
