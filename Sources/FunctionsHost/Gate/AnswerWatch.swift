internal import NIOCore
internal import Synchronization

/// How long a handler may take for a call: seconds.
struct CallTimes: Sendable {
    /// Without a word from it, before its answer begins or in the midst of it.
    let silence: Int64
    /// `functionTimeout`, for the whole answer; nil: as long as something comes.
    let whole: Int64?
    /// For who gets nothing of an answer before all of it is there.
    var tillAnswer: Int64 { min(silence, whole ?? .max) }
}

/// Sees to it that a handler goes on with an answer it has begun, and ends it.
///
/// Only the time the handler is waited for counts: for a client that reads slowly the edge has a limit.
final class AnswerWatch: Sendable {
    struct TooLate: Error {}

    private struct Waiting {
        /// nil while the handler is not waited for.
        var since: NIODeadline?
        /// Before that.
        var waited: TimeAmount
    }
    private let loop: any EventLoop
    private let silence: TimeAmount
    private let whole: TimeAmount?
    private let began: NIODeadline
    private let waiting: Mutex<Waiting>
    private static let lookAgain = TimeAmount.seconds(1)

    /// The call begins now, by the clock of `loop`.
    init(_ times: CallTimes, on loop: any EventLoop) {
        self.loop = loop
        silence = .seconds(times.silence)
        whole = times.whole.map { .seconds($0) }
        began = loop.now
        waiting = Mutex(Waiting(since: nil, waited: .zero))
    }

    /// Does `work`, once the answer has begun, and cancels it when the handler is too late. Throws `TooLate` then.
    func run<Result: Sendable>(_ work: @escaping @Sendable () async throws -> Result) async throws -> Result {
        waiting.withLock { $0.waited = loop.now - began }
        return try await withThrowingTaskGroup(of: Result?.self) { group in
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
        beginWaiting()
        defer { endWaiting() }
        return try await parts.next(isolation: #isolation)
    }

    /// Waits for the handler as long as `work` takes. Inside `run`.
    func wait<Result>(_ work: () async throws -> Result) async throws -> Result {
        beginWaiting()
        defer { endWaiting() }
        return try await work()
    }

    private func beginWaiting() { waiting.withLock { $0.since = loop.now } }
    private func endWaiting() {
        waiting.withLock { waiting in
            if let since = waiting.since { waiting.waited = waiting.waited + (loop.now - since) }
            waiting.since = nil
        }
    }

    /// Returns when the time is over.
    private func expire() async throws {
        while true {
            let now = loop.now
            let due = waiting.withLock { waiting in
                guard let since = waiting.since else { return now + Self.lookAgain }
                return since + min(silence, whole.map { $0 - waiting.waited } ?? silence)
            }
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
