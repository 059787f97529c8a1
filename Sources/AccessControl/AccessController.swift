public import CofferCore
internal import Synchronization

/// Decides, without I/O, whether a caller may do an action at a scope, from the roles last published to it.
///
/// ResourceManager owns the roles: it makes a change durable, then publishes the new book here. A decision after
/// `publish` has returned sees it.
public final class AccessController: Sendable {
    private struct State {
        var book = RoleBook()
        var observers: [@Sendable () -> Void] = []
    }
    private let state = Mutex(State())

    public init() {}

    public func decide(_ caller: Caller, _ action: Action, at scope: ResourceID) -> AccessDecision {
        state.withLock { $0.book }.decide(caller, action, at: scope)
    }

    /// Whether any assignment of the caller lies at, above or below `scope`.
    public func hasAssignment(_ caller: Caller, touching scope: ResourceID) -> Bool {
        state.withLock { $0.book }.hasAssignment(caller, touching: scope)
    }

    /// What each role that covers `scope` grants the caller.
    public func permissions(of caller: Caller, at scope: ResourceID) -> [RolePermissions] {
        state.withLock { $0.book }.permissions(of: caller, at: scope)
    }

    /// Replaces the book, then tells every observer, before it returns: leases that rest on a removed role die with it.
    public func publish(_ book: RoleBook) {
        let observers = state.withLock { state in
            state.book = book
            return state.observers
        }
        for observer in observers { observer() }
    }

    /// Calls back after every later change of roles.
    public func onChange(_ observer: @escaping @Sendable () -> Void) {
        state.withLock { $0.observers.append(observer) }
    }
}
