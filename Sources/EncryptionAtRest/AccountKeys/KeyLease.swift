internal import CofferCore
internal import Synchronization

/// How long an account's key may be used without asking again. One per key in memory; every operation that holds the
/// key looks at it.
///
/// States: live (use it), suspended (an announcement came: ask before the next use), dead (the vault refused: never
/// again).
final class KeyLease: Sendable {
    struct Limits: Sendable {
        /// From this age on a use asks the vault in the background.
        var refreshAfterSeconds: Int64 = 30
        /// From this age on a use waits for the vault's answer.
        var confirmAfterSeconds: Int64 = 60
        /// How long time-outs are forgiven: the oldest confirmation a key is used with.
        var graceSeconds: Int64 = 600
        /// How long a refusal is repeated without asking again.
        var denialSeconds: Int64 = 1
    }
    private enum State { static let live: UInt8 = 0, suspended: UInt8 = 1, dead: UInt8 = 2 }

    private let state = Atomic<UInt8>(State.live)
    /// Microseconds since 1970.
    private let confirmedAt: Atomic<Int64>
    /// Whether a customer's vault governs the key. A key wrapped by the platform never expires.
    private let isGoverned: Atomic<Bool>
    private let reason = Mutex<KeyUnavailable?>(nil)
    private let clock: any WallClock
    private let limits: Limits
    /// Asks the vault; returns when the lease runs again.
    private let renew: @Sendable () async throws -> Void

    init(isGoverned: Bool, clock: any WallClock, limits: Limits, renew: @escaping @Sendable () async throws -> Void) {
        self.isGoverned = Atomic(isGoverned)
        self.clock = clock
        self.limits = limits
        self.renew = renew
        confirmedAt = Atomic(clock.now().microseconds)
    }

    enum Standing: Sendable { case current, due, overdue, expired, suspended, dead }

    /// What a use of the key must do first.
    var standing: Standing {
        switch state.load(ordering: .acquiring) {
        case State.dead: return .dead
        case State.suspended: return .suspended
        default: break
        }
        guard isGoverned.load(ordering: .acquiring) else { return .current }
        let age = secondsSinceConfirmed
        // A clock that was set back makes an age below zero: ask.
        if age < 0 { return .overdue }
        if age >= limits.graceSeconds { return .expired }
        if age >= limits.confirmAfterSeconds { return .overdue }
        return age >= limits.refreshAfterSeconds ? .due : .current
    }

    private var secondsSinceConfirmed: Int64 {
        (clock.now().microseconds - confirmedAt.load(ordering: .acquiring)) / 1_000_000
    }

    /// Nobody has confirmed the key for the length of the grace, whether anybody asked or not.
    var isPastGrace: Bool { secondsSinceConfirmed >= limits.graceSeconds }

    func check() throws(KeyUnavailable) {
        switch standing {
        case .current, .due, .overdue: return
        case .dead: throw reason.withLock { $0 } ?? Self.suspendedReason
        case .suspended: throw Self.suspendedReason
        case .expired:
            throw KeyUnavailable(
                .accessDenied, "The key vault has not answered for \(limits.graceSeconds) seconds.", isDenial: false)
        }
    }

    func confirm() async throws {
        // Each announcement that comes while the vault is asked suspends the lease anew: it is asked again.
        for _ in 0..<Self.confirmationsLimit {
            switch standing {
            case .current: return
            case .dead: break
            case .due, .overdue, .expired, .suspended: try await renew()
            }
            guard standing == .suspended else { break }
        }
        // The renewed lease may be another object's: this one must itself be in force.
        try check()
    }
    private static let confirmationsLimit = 32

    private static let suspendedReason = KeyUnavailable(
        .accessDenied,
        "The key vault announced a change; access to the account's key is being checked again. Try again.",
        isDenial: false)

    // MARK: Changes, by AccountKeys alone

    func confirmed(isGoverned governed: Bool) {
        isGoverned.store(governed, ordering: .releasing)
        confirmedAt.store(clock.now().microseconds, ordering: .releasing)
        _ = state.compareExchange(expected: State.suspended, desired: State.live, ordering: .acquiringAndReleasing)
    }
    func suspend() {
        _ = state.compareExchange(expected: State.live, desired: State.suspended, ordering: .acquiringAndReleasing)
    }
    func kill(_ why: KeyUnavailable) {
        reason.withLock { $0 = why }
        state.store(State.dead, ordering: .releasing)
    }
}
