import CofferCore
import Synchronization

/// Decoded private keys, kept so that an operation need not decode its key again. Bounded; the longest unused goes
/// first, and one that nothing used for a while goes by itself. OpenSSL cleanses a key's memory when it goes.
///
/// Nothing is decided by what lies here: every operation decides on the key's record first. Dropping is hygiene, so
/// that a key that was deleted or disabled does not stay in memory (docs/decisions/0013).
final class KeyHandles: Sendable {
    struct Name: Hashable, Sendable {
        let vault: String
        let key: String
        let version: String
    }
    private struct Kept {
        let key: AsymmetricKey
        var used: Timestamp
    }
    private struct State {
        var handles: [Name: Kept] = [:]
        var drops: UInt64 = 0
    }
    /// What was read under a ticket is kept only while nothing was dropped since: a key that was decided on before a
    /// drop must not be kept after it.
    struct Ticket: Sendable { fileprivate let drops: UInt64 }

    private let state = Mutex(State())
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    /// Taken before the first record is read that a decision rests on.
    func ticket() -> Ticket { state.withLock { Ticket(drops: $0.drops) } }

    func find(_ name: Name, at now: Timestamp) -> AsymmetricKey? {
        state.withLock { state in
            guard let index = state.handles.index(forKey: name) else { return nil }
            state.handles.values[index].used = now
            return state.handles.values[index].key
        }
    }
    func keep(_ key: AsymmetricKey, as name: Name, ticket: Ticket, at now: Timestamp) {
        state.withLock { state in
            guard state.drops == ticket.drops else { return }
            if state.handles[name] == nil, state.handles.count >= limit,
                let oldest = state.handles.min(by: { $0.value.used < $1.value.used })
            {
                state.handles[oldest.key] = nil
            }
            state.handles[name] = Kept(key: key, used: now)
        }
    }
    func drop(vault: String, key: String? = nil) {
        state.withLock { state in
            state.drops += 1
            state.handles = state.handles.filter { $0.key.vault != vault || (key != nil && $0.key.key != key) }
        }
    }
    func drop(unusedSince time: Timestamp) {
        state.withLock { state in state.handles = state.handles.filter { $0.value.used >= time } }
    }
    var count: Int { state.withLock { $0.handles.count } }
}
