internal import CSQLite
internal import Synchronization

/// Copies the log into the database (a checkpoint, sqlite.org/wal.html §3.1) on a thread and a connection of its own:
/// commits go on meanwhile.
///
/// The log starts over only once all of it is copied, and under load something is committed while a copy runs. So who
/// commits asks for the outcome, and copies the little that came meanwhile itself.
final class LogCopier: @unchecked Sendable {
    // @unchecked: the connection belongs to the thread; `close` touches it after the thread has ended.

    private enum State { case idle, copying, done(Int32) }

    private let connection: SQLiteConnection
    private let state = Mutex(State.idle)
    private let thread = Mutex<BatchThread<Void>?>(nil)

    init(_ database: MetadataDatabase) throws(SQLiteFailure) { connection = try database.connect(isWriter: false) }

    func start() {
        let made = BatchThread<Void>(name: "coffer-copy", batchLimit: 1) { [self] _ in
            var code = connection.checkpoint(SQLITE_CHECKPOINT_PASSIVE)
            if code == SQLITE_OK { code = connection.syncDatabase() }
            state.withLock { $0 = .done(code) }
        }
        made.start()
        thread.withLock { $0 = made }
    }

    /// Begins to copy what is committed now; nothing when a copy is under way.
    func begin() {
        let begins = state.withLock { state in
            guard case .idle = state else { return false }
            state = .copying
            return true
        }
        guard begins else { return }
        let isTaken = thread.withLock { $0 }?.submit(()) ?? false
        if !isTaken { state.withLock { $0 = .idle } }
    }

    /// SQLite's code for the copy that ended since this was asked last.
    func takeOutcome() -> Int32? {
        state.withLock { state in
            guard case .done(let code) = state else { return nil }
            state = .idle
            return code
        }
    }

    /// Waits for the copy under way.
    func close() {
        let ending = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        ending?.close()
        connection.close()
    }
}
