import Synchronization

/// Decoded records, so that a busy vault neither asks the engine nor reads JSON again for what has not changed.
///
/// Never behind the store: every write of the records goes through `writing`, and all writes of a store come from one
/// process. What is remembered goes before the write begins, nothing is remembered while it runs, and a reading that
/// began before it is not kept. So a request that comes after a change was acknowledged finds the change. Holds no
/// private key and no secret's value.
final class RecordMemory<Value: Sendable>: Sendable {
    private struct State {
        var values: [String: [String: Value]] = [:]
        var count = 0
        /// Whose reading may be kept: the last that began, unless a write came after it.
        var readings: [String: [String: UInt64]] = [:]
        var lastReading: UInt64 = 0
        /// Writes under way.
        var writings: [String: Int] = [:]

        mutating func forget(_ name: String) {
            if let gone = values.removeValue(forKey: name) { count -= gone.count }
            readings[name] = nil
        }
        mutating func endReading(_ name: String, _ part: String) {
            readings[name]?[part] = nil
            if readings[name]?.isEmpty == true { readings[name] = nil }
        }
    }
    private let state = Mutex(State())
    /// Above this many values the memory starts anew.
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// What is remembered of a part of `name`, or else what `read` finds. A throw, or nil, is not remembered.
    func value(_ name: String, _ part: String = "", reading read: () async throws -> Value?) async throws -> Value? {
        let (known, reading) = state.withLock { state -> (Value?, UInt64?) in
            if let known = state.values[name]?[part] { return (known, nil) }
            guard state.writings[name] == nil else { return (nil, nil) }
            state.lastReading += 1
            state.readings[name, default: [:]][part] = state.lastReading
            return (nil, state.lastReading)
        }
        if let known { return known }
        guard let reading else { return try await read() }
        var found: Value?
        defer {
            state.withLock { [found] state in
                guard state.readings[name]?[part] == reading else { return }
                state.endReading(name, part)
                guard let found else { return }
                if state.count >= limit {
                    state.values = [:]
                    state.count = 0
                }
                if state.values[name, default: [:]].updateValue(found, forKey: part) == nil { state.count += 1 }
            }
        }
        found = try await read()
        return found
    }

    /// Runs a write of records that belong to `name`. Whatever its outcome, and also when nobody knows it, what was
    /// remembered of `name` is gone afterwards.
    func writing<Result>(_ name: String, _ write: () async throws -> Result) async rethrows -> Result {
        state.withLock { state in
            state.forget(name)
            state.writings[name, default: 0] += 1
        }
        defer {
            state.withLock { state in
                let others = state.writings[name, default: 1] - 1
                state.writings[name] = others > 0 ? others : nil
            }
        }
        return try await write()
    }

    var count: Int { state.withLock { $0.count } }
}
