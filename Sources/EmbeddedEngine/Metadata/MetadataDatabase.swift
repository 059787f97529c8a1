internal import CSQLite
internal import StorageEngine

/// The tables, and how connections to them are set up and verified.
struct MetadataDatabase: Sendable {
    let path: String
    let vfs: SealedVFS
    private var pageBytes: Int { vfs.sealer.pageBytes }
    /// Of pages in the log, after which they are copied into the database.
    var logBytes = Self.logBytes
    static let logBytes = 16 << 20
    var checkpointPages: Int { logBytes / pageBytes }

    /// A partition's identifier is the version of the commit that made it, so none is ever used twice. `version` stands
    /// before `value`: checks do not read values.
    private static let schema = """
        CREATE TABLE partitions(name BLOB NOT NULL PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE rows(partition INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY(partition, key)) WITHOUT ROWID;
        CREATE TABLE counters(name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO counters VALUES('version', 0), ('opened', 0);
        PRAGMA user_version = 1;
        """

    /// Makes an empty database and closes it, durable but for its name.
    func create() throws(SQLiteFailure) {
        let connection = try SQLiteConnection(path, vfs: vfs, create: true)
        var reserved = Int32(PageSealer.reservedBytes)
        let code = sqlite3_file_control(connection.handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved)
        guard code == SQLITE_OK else { throw connection.failure(code) }
        try connection.execute("PRAGMA page_size = \(pageBytes); PRAGMA journal_mode = MEMORY")
        try configure(connection, isWriter: true)
        try connection.execute("BEGIN; \(Self.schema) COMMIT")
        _ = try connection.pragma("wal_checkpoint(TRUNCATE)")
    }

    func connect(isWriter: Bool) throws(SQLiteFailure) -> SQLiteConnection {
        let connection = try SQLiteConnection(path, vfs: vfs, create: false)
        try configure(connection, isWriter: isWriter)
        return connection
    }

    /// Sets what a connection does not remember, and reads back what durability and secrecy rest on.
    private func configure(_ connection: SQLiteConnection, isWriter: Bool) throws(SQLiteFailure) {
        try connection.execute(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            PRAGMA temp_store = MEMORY;
            PRAGMA mmap_size = 0;
            PRAGMA wal_autocheckpoint = 0;
            PRAGMA journal_size_limit = 67108864;
            PRAGMA cache_size = \(isWriter ? -16_384 : -4_096);
            PRAGMA trusted_schema = OFF;
            """)
        var reserved: Int32 = -1
        sqlite3_file_control(connection.handle, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved)
        guard try connection.pragma("journal_mode") == "wal", try connection.pragma("synchronous") == "2",
            try connection.pragma("temp_store") == "2", try connection.pragma("page_size") == "\(pageBytes)",
            reserved == PageSealer.reservedBytes
        else {
            throw SQLiteFailure(code: SQLITE_MISUSE, text: "SQLite did not take the settings that durability rests on")
        }
    }
}
