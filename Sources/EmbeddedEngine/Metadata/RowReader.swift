internal import CSQLite
internal import NIOConcurrencyHelpers
internal import StorageEngine

/// A read connection with its statements.
final class RowReader {
    private let connection: SQLiteConnection
    private let selectRow: SQLiteStatement
    private let scanFrom: SQLiteStatement
    private let scanRange: SQLiteStatement
    private let selectPartitions: SQLiteStatement
    private let begin: SQLiteStatement
    private let end: SQLiteStatement

    init(_ database: MetadataDatabase) throws(SQLiteFailure) {
        connection = try database.connect(isWriter: false)
        try connection.execute("PRAGMA query_only = ON")
        let partition = "partition = (SELECT id FROM partitions WHERE name = ?1)"
        selectRow = try connection.prepare("SELECT version, value FROM rows WHERE \(partition) AND key = ?2")
        scanFrom = try connection.prepare(
            "SELECT key, version, value FROM rows WHERE \(partition) AND key >= ?2 ORDER BY key LIMIT ?3")
        scanRange = try connection.prepare(
            "SELECT key, version, value FROM rows WHERE \(partition) AND key >= ?2 AND key < ?4 ORDER BY key LIMIT ?3")
        selectPartitions = try connection.prepare(
            "SELECT name FROM partitions WHERE name >= ?1 AND (name > ?1 OR ?3) ORDER BY name LIMIT ?2")
        begin = try connection.prepare("BEGIN")
        end = try connection.prepare("COMMIT")
    }

    func close() { connection.close() }

    func get(_ partition: Partition, _ keys: [RowKey]) throws(SQLiteFailure) -> [Row?] {
        if keys.count == 1 { return [try get(partition, keys[0])] }
        try begin.run()
        do throws(SQLiteFailure) {
            var rows: [Row?] = []
            rows.reserveCapacity(keys.count)
            for key in keys { rows.append(try get(partition, key)) }
            try end.run()
            return rows
        } catch {
            try? connection.execute("ROLLBACK")
            throw error
        }
    }

    private func get(_ partition: Partition, _ key: RowKey) throws(SQLiteFailure) -> Row? {
        try partition.bytes.withBytes { name throws(SQLiteFailure) in
            try key.bytes.withBytes { keyBytes throws(SQLiteFailure) -> Row? in
                selectRow.bind(1, name)
                selectRow.bind(2, keyBytes)
                defer { selectRow.reset() }
                guard try selectRow.step() else { return nil }
                return Row(
                    key: key, value: selectRow.bytes(1), version: RowVersion(UInt64(bitPattern: selectRow.number(0))))
            }
        }
    }

    func scan(_ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int) throws(SQLiteFailure) -> [Row] {
        let statement = upTo == nil ? scanFrom : scanRange
        return try partition.bytes.withBytes { name throws(SQLiteFailure) in
            try from.bytes.withBytes { first throws(SQLiteFailure) in
                try (upTo?.bytes ?? []).withBytes { end throws(SQLiteFailure) -> [Row] in
                    statement.bind(1, name)
                    statement.bind(2, first)
                    statement.bind(3, Int64(limit))
                    if upTo != nil { statement.bind(4, end) }
                    defer { statement.reset() }
                    var rows: [Row] = []
                    while try statement.step() {
                        let version = RowVersion(UInt64(bitPattern: statement.number(1)))
                        rows.append(Row(key: RowKey(statement.bytes(0)), value: statement.bytes(2), version: version))
                    }
                    return rows
                }
            }
        }
    }

    /// Reads, and so authenticates, every page, and has SQLite check that they fit together. The problems found.
    func verify() throws(SQLiteFailure) -> [String] {
        let check = try connection.prepare("PRAGMA integrity_check(20)")
        defer { check.reset() }
        var problems: [String] = []
        while try check.step() {
            let line = check.text(0)
            if line != "ok" { problems.append(line) }
        }
        return problems
    }

    func partitions(after: Partition?, limit: Int) throws(SQLiteFailure) -> [Partition] {
        try (after?.bytes ?? []).withBytes { first throws(SQLiteFailure) -> [Partition] in
            selectPartitions.bind(1, first)
            selectPartitions.bind(2, Int64(limit))
            selectPartitions.bind(3, after == nil ? 1 : 0)
            defer { selectPartitions.reset() }
            var found: [Partition] = []
            while try selectPartitions.step() { found.append(Partition(selectPartitions.bytes(0))) }
            return found
        }
    }
}

/// Read connections. A reader works on the thread that asks, so there are never more than there are threads; a few are
/// kept.
final class RowReaderPool: @unchecked Sendable {
    // @unchecked: what changes is touched only while `lock` is held.

    private static let idleLimit = 16
    private let database: MetadataDatabase
    // The value is the number of readers at work, so that `close` can wait for none.
    private let lock = ConditionLock(value: 0)
    private var busy = 0
    private var idle: [RowReader] = []
    private var isClosed = false

    init(_ database: MetadataDatabase) { self.database = database }

    func read<Result>(
        _ body: (RowReader) throws(SQLiteFailure) -> Result
    ) throws(StorageEngineError) -> Result {
        var reader = try begin()
        do throws(SQLiteFailure) {
            let ready = if let reader { reader } else { try RowReader(database) }
            reader = ready
            let result = try body(ready)
            end(ready, isSound: true)
            return result
        } catch {
            // A connection that failed is not used again.
            end(reader, isSound: false)
            throw error.engineError
        }
    }

    /// Returns when no reader is at work: a connection that closed later would take the log from whoever opened the
    /// directory next.
    func close() {
        lock.lock()
        isClosed = true
        let ending = idle
        idle = []
        lock.unlock(withValue: busy)
        ending.forEach { $0.close() }
        lock.lock(whenValue: 0)
        lock.unlock(withValue: 0)
    }

    private func begin() throws(StorageEngineError) -> RowReader? {
        lock.lock()
        guard !isClosed else {
            lock.unlock(withValue: busy)
            throw StorageEngineError(.unavailable, "The storage engine is closed.")
        }
        let reader = idle.popLast()
        busy += 1
        lock.unlock(withValue: busy)
        return reader
    }

    private func end(_ reader: RowReader?, isSound: Bool) {
        lock.lock()
        if let reader, isSound, !isClosed, idle.count < Self.idleLimit { idle.append(reader) } else { reader?.close() }
        busy -= 1
        lock.unlock(withValue: busy)
    }
}
