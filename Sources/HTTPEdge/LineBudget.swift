import CofferCore

/// How many log lines of one kind may be written, when anybody outside can cause them: so many a minute.
struct LineBudget {
    let linesPerMinute: Int
    private var minute = Int64.min
    private var written = 0
    private var omitted = 0

    init(linesPerMinute: Int) { self.linesPerMinute = linesPerMinute }

    /// How many lines were left out since the last one, when this one may be written; nil when it is left out too.
    mutating func take(at now: Timestamp) -> Int? {
        // Another minute, not a later one: a clock that was set back must not silence the log.
        if now.unixSeconds / 60 != minute {
            minute = now.unixSeconds / 60
            written = 0
        }
        guard written < linesPerMinute else {
            omitted += 1
            return nil
        }
        written += 1
        defer { omitted = 0 }
        return omitted
    }
}
