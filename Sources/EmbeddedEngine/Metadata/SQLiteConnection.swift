internal import CSQLite
internal import StorageEngine

/// A failed SQLite call.
struct SQLiteFailure: Error {
    let code: Int32
    let text: String

    /// What it means to the caller of the engine. SQLite's texts name tables and columns, never values.
    var engineError: StorageEngineError {
        switch code & 0xff {
        case _ where code == SQLiteCode.notAuthentic, SQLITE_CORRUPT, SQLITE_NOTADB:
            StorageEngineError(
                .corrupt,
                "The metadata database holds a page that Coffer did not write there. Restore the data directory from a backup."
            )
        case SQLITE_FULL:
            StorageEngineError(.full, "The data directory's disk is full. Free some space on it.")
        case SQLITE_TOOBIG:
            StorageEngineError(.limitExceeded, "A value exceeds what the metadata database holds.")
        default:
            StorageEngineError(.unavailable, "The metadata database answered: \(text) (\(code)).")
        }
    }
}

/// A connection, used by one thread at a time.
final class SQLiteConnection: @unchecked Sendable {
    // @unchecked: the pool or the writer's thread that owns it lets one thread in at a time.

    let handle: OpaquePointer
    // Keeps the VFS registered for as long as a connection uses it.
    private let vfs: SealedVFS
    private var statements: [SQLiteStatement] = []
    private var isClosed = false

    init(_ path: String, vfs: SealedVFS, create: Bool) throws(SQLiteFailure) {
        var handle: OpaquePointer?
        let flags =
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | (create ? SQLITE_OPEN_CREATE : 0)
        let code = sqlite3_open_v2(path, &handle, flags, vfs.name)
        guard code == SQLITE_OK, let handle else {
            let text = String(cString: sqlite3_errstr(code))
            sqlite3_close_v2(handle)
            throw SQLiteFailure(code: code, text: text)
        }
        self.handle = handle
        self.vfs = vfs
        sqlite3_busy_timeout(handle, 10_000)
    }

    deinit { close() }

    /// Ends the connection; the last one of a database removes the log. Nothing may be asked of it later.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        statements.forEach { $0.finalize() }
        sqlite3_close_v2(handle)
    }

    func execute(_ sql: String) throws(SQLiteFailure) {
        let code = sqlite3_exec(handle, sql, nil, nil, nil)
        guard code == SQLITE_OK else { throw failure(code) }
    }

    /// A statement that is kept for the connection's life.
    func prepare(_ sql: String) throws(SQLiteFailure) -> SQLiteStatement {
        var statement: OpaquePointer?
        let code = sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil)
        guard code == SQLITE_OK, let statement else { throw failure(code) }
        let made = SQLiteStatement(statement, handle)
        statements.append(made)
        return made
    }

    /// The one value a pragma answers.
    func pragma(_ sql: String) throws(SQLiteFailure) -> String? {
        let statement = try prepare("PRAGMA " + sql)
        defer { statement.reset() }
        guard try statement.step() else { return nil }
        return statement.text(0)
    }

    /// Copies the log into the database. SQLite's code: busy when a reader or another copy was in the way, which is no
    /// failure.
    func checkpoint(_ mode: Int32) -> Int32 {
        let code = sqlite3_wal_checkpoint_v2(handle, nil, mode, nil, nil)
        return code == SQLITE_BUSY ? SQLITE_OK : code
    }

    /// Makes what was copied durable; a copy that others outran leaves that to the last one.
    func syncDatabase() -> Int32 {
        var file: UnsafeMutablePointer<sqlite3_file>?
        let code = sqlite3_file_control(handle, "main", SQLITE_FCNTL_FILE_POINTER, &file)
        guard code == SQLITE_OK, let file else { return code }
        return file.pointee.pMethods.pointee.xSync(file, SQLITE_SYNC_NORMAL)
    }

    func failure(_ code: Int32) -> SQLiteFailure {
        SQLiteFailure(code: code, text: String(cString: sqlite3_errmsg(handle)))
    }
}

final class SQLiteStatement {
    let pointer: OpaquePointer
    private let connection: OpaquePointer
    fileprivate init(_ pointer: OpaquePointer, _ connection: OpaquePointer) {
        self.pointer = pointer
        self.connection = connection
    }
    fileprivate func finalize() { sqlite3_finalize(pointer) }

    /// Binds without a copy: `bytes` must stay where they are until `reset`.
    func bind(_ index: Int32, _ bytes: UnsafeRawBufferPointer) {
        // A null pointer would bind NULL.
        if bytes.isEmpty {
            sqlite3_bind_zeroblob(pointer, index, 0)
        } else {
            sqlite3_bind_blob(pointer, index, bytes.baseAddress, Int32(bytes.count), nil)
        }
    }

    func bind(_ index: Int32, _ number: Int64) { sqlite3_bind_int64(pointer, index, number) }

    /// Whether there is a row.
    func step() throws(SQLiteFailure) -> Bool {
        switch sqlite3_step(pointer) {
        case SQLITE_ROW: return true
        case SQLITE_DONE: return false
        case let code:
            let text = String(cString: sqlite3_errmsg(connection))
            sqlite3_reset(pointer)
            throw SQLiteFailure(code: code, text: text)
        }
    }

    func reset() { sqlite3_reset(pointer) }

    func number(_ column: Int32) -> Int64 { sqlite3_column_int64(pointer, column) }

    func text(_ column: Int32) -> String { sqlite3_column_text(pointer, column).map { String(cString: $0) } ?? "" }

    func bytes(_ column: Int32) -> [UInt8] {
        let count = Int(sqlite3_column_bytes(pointer, column))
        guard count > 0, let start = sqlite3_column_blob(pointer, column) else { return [] }
        return Array(UnsafeRawBufferPointer(start: start, count: count))
    }

    /// Runs a statement that answers no row.
    func run() throws(SQLiteFailure) {
        _ = try step()
        reset()
    }
}

extension [UInt8] {
    /// `withUnsafeBytes` for a closure with typed errors.
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws(SQLiteFailure) -> Result) throws(SQLiteFailure)
        -> Result
    {
        try withUnsafeBufferPointer { bytes throws(SQLiteFailure) in try body(UnsafeRawBufferPointer(bytes)) }
    }
}
