internal import NIOCore
internal import Synchronization

/// How long a handler may take for a call: seconds.
struct CallTimes: Sendable {
    /// Without a word from it, before its answer begins or in the midst of it.
    let silence: Int64
    /// `functionTimeout`, from the call to the answer's end; nil: as long as something comes.
    let whole: Int64?
    /// For who gets nothing of an answer before all of it is there.
    var tillAnswer: Int64 { min(silence, whole ?? .max) }
}

/// Sees to it that a handler goes on with an answer it has begun, and ends it.
///
/// Only the time the handler is waited for counts as its silence: for a client that reads slowly the edge has a limit.
final class AnswerWatch: Sendable {
    struct TooLate: Error {}

    private let loop: any EventLoop
    private let silence: TimeAmount
    private let end: NIODeadline
    /// nil while the handler is not waited for.
    private let waitingSince = Mutex<NIODeadline?>(nil)

    /// The call begins now, by the clock of `loop`.
    init(silenceSeconds: Int64, wholeSeconds: Int64?, on loop: any EventLoop) {
        self.loop = loop
        silence = .seconds(silenceSeconds)
        end = wholeSeconds.map { loop.now + .seconds($0) } ?? .distantFuture
    }

    /// Does `work`, which is cancelled when the handler is too late. Throws `TooLate` then.
    func run<Result: Sendable>(_ work: @escaping @Sendable () async throws -> Result) async throws -> Result {
        try await withThrowingTaskGroup(of: Result?.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await work() }
            group.addTask {
                try await self.expire()
                return nil
            }
            guard let result = try await group.next() ?? nil else { throw TooLate() }
            return result
        }
    }

    /// Waits for the handler's next part. Inside `run`, and for one at a time.
    func next<Parts: AsyncIteratorProtocol>(of parts: inout Parts) async throws -> Parts.Element? {
        waitingSince.withLock { $0 = loop.now }
        defer { waitingSince.withLock { $0 = nil } }
        return try await parts.next(isolation: #isolation)
    }

    /// Returns when the time is over.
    private func expire() async throws {
        while true {
            let now = loop.now
            let due = waitingSince.withLock { min(end, ($0 ?? now) + silence) }
            guard due > now else { return }
            try await sleep(until: due)
        }
    }

    /// A timer of the loop, and no `Task.sleep`: that stays in memory until its time, however early it is cancelled.
    private func sleep(until deadline: NIODeadline) async throws {
        let timer = loop.scheduleTask(deadline: deadline) {}
        try await withTaskCancellationHandler {
            try await timer.futureResult.get()
        } onCancel: {
            timer.cancel()
        }
    }
}
