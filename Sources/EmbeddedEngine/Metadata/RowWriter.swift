internal import CSQLite
internal import Logging
internal import StorageEngine
internal import Synchronization

/// Commits, on a thread of its own: everything that waits goes into one transaction and one fsync.
final class RowWriter: @unchecked Sendable {
    // @unchecked: the connection and the counters belong to the writer's thread; `close` touches them after the thread
    // has ended.

    struct Job: Sendable {
        let partition: Partition
        let checks: [RowCheck]
        let writes: [RowWrite]
        let answer: @Sendable (Result<CommitResult, StorageEngineError>) -> Void
    }

    /// Commits in one transaction at most: bounds the time a commit waits for its companions.
    private static let batchLimit = 256
    /// Versions are durable in advance by this many, so that a commit need not write the counter.
    private static let versionsPerReservation: Int64 = 1 << 20

    private let connection: SQLiteConnection
    private let statements: Statements
    private let copier: LogCopier
    private let cache: RowCache
    private let logger: Logger
    private var lastVersion: Int64
    private var reservedVersion: Int64
    private var isBroken = false
    /// How many times the database was opened, this time included: no two runs share it.
    let openCount: UInt32
    private let thread = Mutex<BatchThread<Job>?>(nil)

    init(_ database: MetadataDatabase, cache: RowCache, logger: Logger) throws(SQLiteFailure) {
        checkpointPages = database.checkpointPages
        checkpointDue = checkpointPages
        self.cache = cache
        self.logger = logger
        connection = try database.connect(isWriter: true)
        copier = try LogCopier(database)
        statements = try Statements(connection)
        guard try connection.pragma("user_version") == "1" else {
            throw SQLiteFailure(
                code: SQLITE_MISUSE, text: "this data directory was written by a newer version of Coffer")
        }
        // Versions that a run reserved and did not use are skipped.
        reservedVersion = try statements.counter("version")
        lastVersion = reservedVersion
        let opened = try statements.counter("opened") + 1
        openCount = UInt32(truncatingIfNeeded: opened)
        try statements.setCounter("opened", opened)
        followLog()
    }

    func start() {
        copier.start()
        let made = BatchThread<Job>(name: "coffer-commit", batchLimit: Self.batchLimit) { [self] in process($0) }
        made.start()
        thread.withLock { $0 = made }
    }

    func submit(_ job: Job) {
        let isTaken = thread.withLock { $0 }?.submit(job) ?? false
        if !isTaken { job.answer(.failure(StorageEngineError(.unavailable, "The storage engine is closed."))) }
    }

    /// Finishes what waits, copies the log into the database, and ends.
    func close() {
        let ending = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let ending else { return }
        ending.close()
        copier.close()
        note(connection.checkpoint(SQLITE_CHECKPOINT_TRUNCATE))
        connection.close()
    }

    // MARK: On the thread

    private func process(_ jobs: [Job]) {
        cache.close(jobs)
        let answers = commit(jobs)
        cache.open(jobs, answers)
        for (job, answer) in zip(jobs, answers) { job.answer(answer) }
        tendLog()
    }

    private func tendLog() {
        if logFrames < checkpointPages { checkpointDue = checkpointPages }
        if let code = copier.takeOutcome() {
            note(code)
            // Unless the log has started over already, which it does when nothing came meanwhile.
            if code == SQLITE_OK, logFrames >= checkpointPages {
                note(connection.checkpoint(SQLITE_CHECKPOINT_PASSIVE))
            }
            // A reader may have kept the log from starting over: then not again after every commit.
            checkpointDue = logFrames + checkpointPages / 4
        } else if logFrames >= checkpointDue {
            // The commit just made keeps the log from starting over before the copy ends: SQLite before 3.51.3 may lose
            // frames when a copy begins as the log does.
            copier.begin()
        }
    }

    private func note(_ code: Int32) {
        switch code {
        case SQLITE_OK: break
        case SQLiteCode.syncFailed:
            isBroken = true
            logger.critical("the metadata database could not be made durable; no more commits until a restart")
        default: logger.warning("checkpoint failed", metadata: ["code": "\(code)"])
        }
    }

    /// Frames in the log, as the last commit left it.
    private var logFrames = 0
    private let checkpointPages: Int
    private var checkpointDue: Int

    private func followLog() {
        sqlite3_wal_hook(
            connection.handle,
            { context, _, _, frames in
                Unmanaged<RowWriter>.fromOpaque(context!)._withUnsafeGuaranteedRef { $0.logFrames = Int(frames) }
                return SQLITE_OK
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    private func commit(_ jobs: [Job]) -> [Result<CommitResult, StorageEngineError>] {
        if isBroken {
            let error = StorageEngineError(
                .unavailable, "The metadata log could not be made durable earlier. Restart the server.")
            return jobs.map { _ in .failure(error) }
        }
        let versionBefore = lastVersion
        let reservedBefore = reservedVersion
        do throws(SQLiteFailure) {
            try statements.begin.run()
            var results: [Result<CommitResult, StorageEngineError>] = []
            results.reserveCapacity(jobs.count)
            for job in jobs { results.append(.success(try apply(job))) }
            if lastVersion > reservedVersion {
                reservedVersion = lastVersion + Self.versionsPerReservation
                try statements.setCounter("version", reservedVersion)
            }
            try statements.commit.run()
            return results
        } catch {
            // The transaction is undone: nothing of the batch was written, also not the parts that had succeeded.
            lastVersion = versionBefore
            reservedVersion = reservedBefore
            if sqlite3_get_autocommit(connection.handle) == 0 { try? connection.execute("ROLLBACK") }
            return jobs.map { _ in .failure(outcome(of: error)) }
        }
    }

    private func outcome(of failure: SQLiteFailure) -> StorageEngineError {
        guard failure.code == SQLiteCode.syncFailed else { return failure.engineError }
        // After a failed fsync the kernel may have dropped the pages and call the next fsync a success: trust nothing
        // until a restart reads the log from the medium. The frames may be there, so the commits may stand.
        isBroken = true
        logger.critical("the metadata log could not be made durable; no more commits until a restart")
        return StorageEngineError(.outcomeUnknown, "The disk did not confirm the commit.")
    }

    private func apply(_ job: Job) throws(SQLiteFailure) -> CommitResult {
        var partition = try statements.partitionID(job.partition)
        for check in job.checks where try !holds(check, in: partition) { return .conflict }
        lastVersion += 1
        var deleted = false
        for write in job.writes {
            switch write {
            case .put(let key, let value):
                if partition == nil {
                    partition = lastVersion
                    try statements.makePartition(job.partition, id: lastVersion)
                }
                try statements.put(partition!, key, lastVersion, value)
            case .delete(let key):
                guard let partition else { continue }
                try statements.delete(partition, key)
                deleted = true
            }
        }
        if deleted, let partition, try !statements.hasRows(partition) { try statements.dropPartition(job.partition) }
        return .committed(RowVersion(UInt64(lastVersion)))
    }

    private func holds(_ check: RowCheck, in partition: Int64?) throws(SQLiteFailure) -> Bool {
        func version(_ key: RowKey) throws(SQLiteFailure) -> Int64? {
            guard let partition else { return nil }
            return try statements.version(partition, key)
        }
        switch check {
        case .absent(let key): return try version(key) == nil
        case .present(let key): return try version(key) != nil
        case .unchanged(let key, let expected): return try version(key) == Int64(bitPattern: expected.number)
        }
    }
}

extension RowWriter {
    /// The writer's statements.
    private final class Statements {
        let begin, commit: SQLiteStatement
        private let selectPartition, insertPartition, deletePartition, selectAny: SQLiteStatement
        private let selectVersion, upsert, deleteRow, selectCounter, updateCounter: SQLiteStatement

        init(_ connection: SQLiteConnection) throws(SQLiteFailure) {
            begin = try connection.prepare("BEGIN IMMEDIATE")
            commit = try connection.prepare("COMMIT")
            selectPartition = try connection.prepare("SELECT id FROM partitions WHERE name = ?1")
            insertPartition = try connection.prepare("INSERT INTO partitions(name, id) VALUES(?1, ?2)")
            deletePartition = try connection.prepare("DELETE FROM partitions WHERE name = ?1")
            selectAny = try connection.prepare("SELECT 1 FROM rows WHERE partition = ?1 LIMIT 1")
            selectVersion = try connection.prepare("SELECT version FROM rows WHERE partition = ?1 AND key = ?2")
            // Not REPLACE: that frees the old row's pages first, where this writes over a value of the same length.
            upsert = try connection.prepare(
                """
                INSERT INTO rows(partition, key, version, value) VALUES(?1, ?2, ?3, ?4)
                ON CONFLICT DO UPDATE SET version = ?3, value = ?4
                """)
            deleteRow = try connection.prepare("DELETE FROM rows WHERE partition = ?1 AND key = ?2")
            selectCounter = try connection.prepare("SELECT value FROM counters WHERE name = CAST(?1 AS TEXT)")
            updateCounter = try connection.prepare("UPDATE counters SET value = ?2 WHERE name = CAST(?1 AS TEXT)")
        }

        func partitionID(_ partition: Partition) throws(SQLiteFailure) -> Int64? {
            try partition.bytes.withBytes { name throws(SQLiteFailure) -> Int64? in
                selectPartition.bind(1, name)
                defer { selectPartition.reset() }
                return try selectPartition.step() ? selectPartition.number(0) : nil
            }
        }

        func makePartition(_ partition: Partition, id: Int64) throws(SQLiteFailure) {
            try partition.bytes.withBytes { name throws(SQLiteFailure) in
                insertPartition.bind(1, name)
                insertPartition.bind(2, id)
                try insertPartition.run()
            }
        }

        func dropPartition(_ partition: Partition) throws(SQLiteFailure) {
            try partition.bytes.withBytes { name throws(SQLiteFailure) in
                deletePartition.bind(1, name)
                try deletePartition.run()
            }
        }

        func hasRows(_ partition: Int64) throws(SQLiteFailure) -> Bool {
            selectAny.bind(1, partition)
            defer { selectAny.reset() }
            return try selectAny.step()
        }

        func version(_ partition: Int64, _ key: RowKey) throws(SQLiteFailure) -> Int64? {
            try key.bytes.withBytes { key throws(SQLiteFailure) -> Int64? in
                selectVersion.bind(1, partition)
                selectVersion.bind(2, key)
                defer { selectVersion.reset() }
                return try selectVersion.step() ? selectVersion.number(0) : nil
            }
        }

        func put(_ partition: Int64, _ key: RowKey, _ version: Int64, _ value: [UInt8]) throws(SQLiteFailure) {
            try key.bytes.withBytes { key throws(SQLiteFailure) in
                try value.withBytes { value throws(SQLiteFailure) in
                    upsert.bind(1, partition)
                    upsert.bind(2, key)
                    upsert.bind(3, version)
                    upsert.bind(4, value)
                    try upsert.run()
                }
            }
        }

        func delete(_ partition: Int64, _ key: RowKey) throws(SQLiteFailure) {
            try key.bytes.withBytes { key throws(SQLiteFailure) in
                deleteRow.bind(1, partition)
                deleteRow.bind(2, key)
                try deleteRow.run()
            }
        }

        func counter(_ name: StaticString) throws(SQLiteFailure) -> Int64 {
            selectCounter.bind(1, UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
            defer { selectCounter.reset() }
            return try selectCounter.step() ? selectCounter.number(0) : 0
        }

        func setCounter(_ name: StaticString, _ value: Int64) throws(SQLiteFailure) {
            updateCounter.bind(1, UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
            updateCounter.bind(2, value)
            try updateCounter.run()
        }
    }
}
