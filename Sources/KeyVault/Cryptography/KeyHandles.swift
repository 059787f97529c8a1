import Synchronization

/// Decoded private keys, kept so that an operation need not decode its key again. Bounded; the longest unused goes
/// first.
///
/// Nothing is decided by what lies here: every operation reads the key's record first. Dropping is hygiene, so that a
/// key that was deleted or disabled does not stay in memory.
final class KeyHandles: Sendable {
    struct Name: Hashable, Sendable {
        let vault: String
        let key: String
        let version: String
    }
    private struct State {
        var handles: [Name: (key: AsymmetricKey, used: UInt64)] = [:]
        var clock: UInt64 = 0
        /// Counts the drops: a key read before a drop must not be kept after it.
        var drops: UInt64 = 0
    }
    private let state = Mutex(State())
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// The handle, or the ticket to `keep` one under.
    func find(_ name: Name) -> (key: AsymmetricKey?, ticket: UInt64) {
        state.withLock { state in
            state.clock += 1
            state.handles[name]?.used = state.clock
            return (state.handles[name]?.key, state.drops)
        }
    }
    func keep(_ key: AsymmetricKey, as name: Name, ticket: UInt64) {
        state.withLock { state in
            guard state.drops == ticket else { return }
            if state.handles.count >= limit, let oldest = state.handles.min(by: { $0.value.used < $1.value.used }) {
                state.handles[oldest.key] = nil
            }
            state.handles[name] = (key, state.clock)
        }
    }
    func drop(vault: String, key: String? = nil) {
        state.withLock { state in
            state.drops += 1
            state.handles = state.handles.filter { $0.key.vault != vault || (key != nil && $0.key.key != key) }
        }
    }
    var count: Int { state.withLock { $0.handles.count } }
}
