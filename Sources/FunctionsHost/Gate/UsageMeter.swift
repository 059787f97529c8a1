internal import CofferCore
internal import Synchronization

/// GB-seconds of one site on one UTC day (App Service, daily usage quota): memory rounded up to 128 MB times duration,
/// at least 100 ms.
final class UsageMeter: Sendable {
    private struct State {
        var record: UsageRecord
        /// As it lies in the store.
        var written: UsageRecord
        var memory: (megabytes: Int64, at: Timestamp)?
    }
    static let memoryStepMegabytes: Int64 = 128
    static let memoryLimitMegabytes: Int64 = 1_536
    static let shortestMilliseconds: Int64 = 100
    private static let sampleSeconds: Int64 = 5

    private let state: Mutex<State>

    init(_ record: UsageRecord?) {
        let record = record ?? UsageRecord(day: 0, megabyteMilliseconds: 0)
        state = Mutex(State(record: record, written: record))
    }

    static func day(of time: Timestamp) -> Int64 {
        (time.unixSeconds - (time.unixSeconds % 86_400 + 86_400) % 86_400) / 86_400
    }

    /// `quota` in GB-seconds; 0 means none.
    func isSpent(quota: Int64, now: Timestamp) -> Bool {
        guard quota > 0 else { return false }
        return state.withLock { state in
            state.record.day == Self.day(of: now)
                && state.record.megabyteMilliseconds >= quota.multipliedOrMax(by: 1_024 * 1_000)
        }
    }

    /// Until the next midnight UTC.
    static func secondsToMidnight(from now: Timestamp) -> Int64 { (day(of: now) + 1) * 86_400 - now.unixSeconds }

    /// `memoryBytes` is asked at most every few seconds: it reads /proc.
    func record(milliseconds: Int64, now: Timestamp, memoryBytes: () -> Int?) {
        let isFresh = state.withLock { state in
            state.memory.map { now < $0.at.adding(seconds: Self.sampleSeconds) } ?? false
        }
        if !isFresh {
            let megabytes = Int64((memoryBytes() ?? 0) >> 20)
            let steps = (megabytes + Self.memoryStepMegabytes - 1) / Self.memoryStepMegabytes
            let rounded = min(max(steps, 1) * Self.memoryStepMegabytes, Self.memoryLimitMegabytes)
            state.withLock { $0.memory = (rounded, now) }
        }
        state.withLock { state in
            let today = Self.day(of: now)
            if state.record.day != today { state.record = UsageRecord(day: today, megabyteMilliseconds: 0) }
            let megabytes = state.memory?.megabytes ?? Self.memoryStepMegabytes
            state.record.megabyteMilliseconds += megabytes * max(milliseconds, Self.shortestMilliseconds)
        }
    }

    /// What must be written, until `noteWritten` tells that it was; nil when the last written is still right.
    func unwritten() -> UsageRecord? {
        state.withLock { $0.record == $0.written ? nil : $0.record }
    }
    func noteWritten(_ record: UsageRecord) { state.withLock { $0.written = record } }
}

extension Int64 {
    fileprivate func multipliedOrMax(by other: Int64) -> Int64 {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? .max : product
    }
}
