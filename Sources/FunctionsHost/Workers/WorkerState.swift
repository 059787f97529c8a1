internal import CofferCore

/// The life of one worker, without its I/O: events go in, what to do comes out.
///
/// `idle` → `starting` → `ready` → (exit) → `coolingDown` → `starting` …; `stopped` is for good.
struct WorkerState: Sendable, Equatable {
    enum Phase: Sendable, Equatable {
        /// Nothing runs; a request starts it.
        case idle
        case starting(since: Timestamp)
        case ready(since: Timestamp)
        /// It ended by itself; not before `until` again.
        case coolingDown(until: Timestamp)
        case stopped
    }
    enum Action: Sendable, Equatable {
        case none
        case launch
        /// End the process, in good order when it was ready.
        case terminate(gracefully: Bool)
        /// Launch again after so many seconds.
        case retry(afterSeconds: Int64)
    }

    static let firstDelaySeconds: Int64 = 1
    static let longestDelaySeconds: Int64 = 60
    /// A worker that was ready for so long had no bad start: its next failure is the first again.
    static let healthySeconds: Int64 = 60

    private(set) var phase = Phase.idle
    private(set) var failures = 0
    /// Why the last run ended, for answers; nil from the next launch on.
    private(set) var lastFailure: String?

    /// A request needs the worker.
    mutating func wanted(now: Timestamp) -> Action {
        switch phase {
        case .coolingDown(let until) where until > now: return .none
        case .idle, .coolingDown:
            phase = .starting(since: now)
            lastFailure = nil
            return .launch
        case .starting, .ready, .stopped: return .none
        }
    }

    mutating func becameReady(now: Timestamp) -> Action {
        guard case .starting = phase else { return .none }
        phase = .ready(since: now)
        return .none
    }

    /// It runs but does not listen, or listens as somebody else.
    mutating func readinessFailed(_ reason: String, now: Timestamp) -> Action {
        guard case .starting = phase else { return .none }
        lastFailure = reason
        return .terminate(gracefully: false)
    }

    /// The process ended, or could not be made.
    mutating func ended(_ reason: String, now: Timestamp) -> Action {
        switch phase {
        case .idle, .coolingDown, .stopped: return .none
        case .starting:
            // What was found wrong with it says more than that it was killed for it.
            lastFailure = lastFailure ?? reason
            failures += 1
        case .ready(let since):
            failures = now >= since.adding(seconds: Self.healthySeconds) ? 1 : failures + 1
            lastFailure = reason
        }
        let delay = min(Self.firstDelaySeconds << Int64(min(failures - 1, 16)), Self.longestDelaySeconds)
        phase = .coolingDown(until: now.adding(seconds: delay))
        return .retry(afterSeconds: delay)
    }

    /// No request for a long time.
    mutating func idledOut() -> Action {
        guard case .ready = phase else { return .none }
        phase = .idle
        failures = 0
        lastFailure = nil
        return .terminate(gracefully: true)
    }

    /// For good.
    mutating func stop() -> Action {
        defer { phase = .stopped }
        switch phase {
        case .starting: return .terminate(gracefully: false)
        case .ready: return .terminate(gracefully: true)
        case .idle, .coolingDown, .stopped: return .none
        }
    }
}
