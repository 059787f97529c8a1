internal import Synchronization

/// Runs an action at most once, and at the latest when the last reference goes.
final class Once: Sendable {
    private let action: Mutex<(@Sendable () -> Void)?>
    init(_ action: @escaping @Sendable () -> Void) { self.action = Mutex(action) }
    func run() {
        let action = action.withLock { action in
            defer { action = nil }
            return action
        }
        action?()
    }
    deinit { action.withLock { $0 }?() }
}
