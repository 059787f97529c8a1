internal import StorageEngine
internal import Synchronization

/// Rows lately read or written, sealed as they lie in the database, so that a hot row costs no search.
///
/// A reader finds here what it would find in the database. While a commit is under way its keys are closed: nobody is
/// answered from memory, and nothing that was read meanwhile is kept. Afterwards what was committed takes the place of
/// what was known.
final class RowCache: Sendable {
    private struct Key: Hashable {
        let partition: Partition
        let row: RowKey
        var byteCount: Int { partition.bytes.count + row.bytes.count + 96 }

        // An array hashes its elements one by one.
        func hash(into hasher: inout Hasher) {
            partition.bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
            row.bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
        }
    }
    /// nil: there is no such row.
    private typealias Entry = Row?

    private struct State {
        /// Two generations of entries. When the younger is full the older goes, which drops what nobody asked for
        /// lately.
        var young: [Key: Entry] = [:]
        var old: [Key: Entry] = [:]
        var youngBytes = 0
        /// Keys of the commit under way.
        var closed: Set<Key> = []
        /// Counts the times when entries went: what was read before one may be older than what went.
        var losses: UInt64 = 0
        var hasEnded = false
        /// Waits to be freed outside the lock.
        var dropped: [Key: Entry] = [:]
    }
    enum Answer {
        case rows([Row?])
        /// Ask the database, and hand what it says to `remember` with this number.
        case unknown(losses: UInt64)
    }

    /// Who asks for more than so many rows at once asks the database.
    private static let rowsPerAnswer = 64
    /// The rows of a commit with more writes than so many are not kept: they would drive out all others.
    private static let writesKept = 1_024

    private let bytesPerGeneration: Int
    private let state = Mutex(State())

    /// Holds about `bytesLimit` bytes. Values above an eighth of a generation are not kept.
    init(bytesLimit: Int) { bytesPerGeneration = bytesLimit / 2 }

    /// All of `rows` as of one moment, or unknown.
    func find(_ partition: Partition, _ rows: [RowKey]) -> Answer {
        locked { state in
            guard rows.count <= Self.rowsPerAnswer else { return .unknown(losses: state.losses) }
            var found: [Row?] = []
            found.reserveCapacity(rows.count)
            for row in rows {
                let key = Key(partition: partition, row: row)
                guard !state.closed.contains(key), let entry = entry(key, &state) else {
                    return .unknown(losses: state.losses)
                }
                found.append(entry)
            }
            return .rows(found)
        }
    }

    /// Keeps what the database said, unless something newer may be known.
    func remember(_ partition: Partition, _ rows: [RowKey], _ found: [Row?], losses: UInt64) {
        guard rows.count <= Self.rowsPerAnswer else { return }
        locked { state in
            guard state.losses == losses else { return }
            for (row, entry) in zip(rows, found) {
                let key = Key(partition: partition, row: row)
                guard !state.closed.contains(key), state.young[key] == nil, state.old[key] == nil, fits(entry) else {
                    continue
                }
                insert(entry, at: key, &state)
            }
        }
    }

    /// Before a commit may become visible.
    func close(_ jobs: [RowWriter.Job]) {
        let count = jobs.reduce(0) { $0 + $1.writes.count }
        state.withLock { $0.closed.reserveCapacity(count) }
        for job in jobs {
            forEachPiece(of: job) { writes, state in
                for write in writes { state.closed.insert(Key(partition: job.partition, row: write.key)) }
            }
        }
    }

    /// After the commit, before anybody is told.
    func open(_ jobs: [RowWriter.Job], _ results: [Result<CommitResult, StorageEngineError>]) {
        for (job, result) in zip(jobs, results) {
            // A conflict wrote nothing: what was known still holds.
            if case .success(.conflict) = result { continue }
            forEachPiece(of: job) { writes, state in
                for write in writes {
                    settle(
                        write, Key(partition: job.partition, row: write.key), result,
                        isKept: job.writes.count <= Self.writesKept, &state)
                }
            }
        }
        // Half a million keys are freed outside the lock.
        _ = state.withLock { state in
            let closed = state.closed
            state.closed = []
            return closed
        }
    }

    /// Forgets everything and keeps nothing more.
    func end() {
        state.withLock {
            $0 = State()
            $0.hasEnded = true
        }
    }

    /// A commit may have half a million writes: requests do not wait for all of them at once.
    private func forEachPiece(of job: RowWriter.Job, _ body: (ArraySlice<RowWrite>, inout State) -> Void) {
        var rest = job.writes[...]
        while !rest.isEmpty {
            locked { body(rest.prefix(Self.writesPerPiece), &$0) }
            rest = rest.dropFirst(Self.writesPerPiece)
        }
    }
    private static let writesPerPiece = 512

    private func locked<Result>(_ body: (inout State) -> Result) -> Result {
        let (result, _) = state.withLock { state in
            let result = body(&state)
            defer { state.dropped = [:] }
            return (result, state.dropped)
        }
        return result
    }

    // MARK: With the lock held

    private func settle(
        _ write: RowWrite, _ key: Key, _ result: Result<CommitResult, StorageEngineError>, isKept: Bool,
        _ state: inout State
    ) {
        forget(key, &state)
        guard case .success(.committed(let version)) = result else {
            state.losses += 1
            return
        }
        let entry: Entry =
            switch write {
            case .put(let row, let value): Row(key: row, value: value, version: version)
            case .delete: nil
            }
        if isKept, fits(entry) { insert(entry, at: key, &state) } else { state.losses += 1 }
    }

    private func fits(_ entry: Entry) -> Bool { (entry?.value.count ?? 0) <= bytesPerGeneration / 8 }

    private func entry(_ key: Key, _ state: inout State) -> Entry? {
        if let entry = state.young[key] { return .some(entry) }
        guard let entry = state.old.removeValue(forKey: key) else { return nil }
        insert(entry, at: key, &state)
        return .some(entry)
    }

    private func insert(_ entry: Entry, at key: Key, _ state: inout State) {
        guard !state.hasEnded else { return }
        let bytes = key.byteCount + (entry?.value.count ?? 0)
        if state.youngBytes + bytes > bytesPerGeneration, !state.young.isEmpty {
            if !state.old.isEmpty { state.losses += 1 }
            state.dropped = state.old
            state.old = state.young
            state.young = [:]
            state.youngBytes = 0
        }
        state.young[key] = .some(entry)
        state.youngBytes += bytes
    }

    private func forget(_ key: Key, _ state: inout State) {
        if let entry = state.young.removeValue(forKey: key) {
            state.youngBytes -= key.byteCount + (entry?.value.count ?? 0)
        } else {
            state.old[key] = nil
        }
    }
}

extension RowWrite {
    fileprivate var key: RowKey {
        switch self {
        case .put(let key, _), .delete(let key): key
        }
    }
}
