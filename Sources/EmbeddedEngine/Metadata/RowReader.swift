internal import CSQLite
internal import StorageEngine
internal import Synchronization

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
                return Row(key: key, value: selectRow.bytes(1), version: RowVersion(UInt64(bitPattern: selectRow.number(0))))
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

/// Read connections. A reader works on the thread that asks, so there are never more than there are threads; a few are kept.
final class RowReaderPool: Sendable {
    private struct State: ~Copyable {
        var idle: [RowReader] = []
        var isClosed = false
    }
    private static let idleLimit = 16
    private let database: MetadataDatabase
    private let state = Mutex(State())

    init(_ database: MetadataDatabase) { self.database = database }

    func read<Result>(
        _ body: (RowReader) throws(SQLiteFailure) -> Result
    ) throws(StorageEngineError) -> Result {
        let reader = try borrow()
        do throws(SQLiteFailure) {
            let result = try body(reader)
            giveBack(reader)
            return result
        } catch {
            // A connection that failed is not used again.
            throw error.engineError
        }
    }

    func close() {
        let idle = state.withLock { state in
            state.isClosed = true
            let idle = ReaderBox(readers: state.idle)
            state.idle = []
            return idle
        }
        _ = idle
    }

    private struct ReaderBox: @unchecked Sendable { let readers: [RowReader] }

    private func borrow() throws(StorageEngineError) -> RowReader {
        let (box, isClosed) = state.withLock { state in
            (ReaderBox(readers: state.idle.popLast().map { [$0] } ?? []), state.isClosed)
        }
        guard !isClosed else { throw StorageEngineError(.unavailable, "The storage engine is closed.") }
        if let reader = box.readers.first { return reader }
        do throws(SQLiteFailure) { return try RowReader(database) } catch { throw error.engineError }
    }

    private func giveBack(_ reader: RowReader) {
        let box = ReaderBox(readers: [reader])
        state.withLock { state in
            if !state.isClosed, state.idle.count < Self.idleLimit { state.idle.append(contentsOf: box.readers) }
        }
    }
}
