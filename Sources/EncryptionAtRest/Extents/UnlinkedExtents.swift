internal import CofferCore
internal import StorageEngine
internal import Synchronization

/// Extents this process finished that no commit holds yet. The sweepers leave them alone while they wait, and a commit
/// that links one knows by this that the extent is new. Kept in memory only: after a restart, an extent without a link
/// row is an orphan.
final class UnlinkedExtents: Sendable {
    private enum State { case waiting(since: Timestamp), linking }
    private let states = Mutex<[ExtentLocation: State]>([:])
    private let garbage = Mutex<Set<Partition>>([])

    /// Partitions in which this process left garbage rows since the last sweep took them.
    func noteGarbage(in partition: Partition) { _ = garbage.withLock { $0.insert(partition) } }
    func takeGarbagePartitions() -> Set<Partition> {
        garbage.withLock { partitions in
            defer { partitions = [] }
            return partitions
        }
    }

    func add(_ location: ExtentLocation, at now: Timestamp) { states.withLock { $0[location] = .waiting(since: now) } }

    func contains(_ location: ExtentLocation) -> Bool { states.withLock { $0[location] != nil } }

    /// Takes those of `locations` that wait, for a commit. They must be given back or removed.
    func claim(_ locations: some Sequence<ExtentLocation>) -> Set<ExtentLocation> {
        states.withLock { states in
            var claimed: Set<ExtentLocation> = []
            for location in locations {
                guard case .waiting = states[location] else { continue }
                states[location] = .linking
                claimed.insert(location)
            }
            return claimed
        }
    }
    func release(_ locations: Set<ExtentLocation>, at now: Timestamp) {
        states.withLock { states in for location in locations { states[location] = .waiting(since: now) } }
    }
    func remove(_ locations: some Sequence<ExtentLocation>) {
        states.withLock { states in for location in locations { states[location] = nil } }
    }

    /// Takes out those that have waited since before `limit`: their request is long gone. A commit that names one
    /// afterwards is refused.
    func takeAbandoned(before limit: Timestamp) -> [ExtentLocation] {
        states.withLock { states in
            let abandoned = states.compactMap { location, state -> ExtentLocation? in
                if case .waiting(let since) = state, since < limit { location } else { nil }
            }
            for location in abandoned { states[location] = nil }
            return abandoned
        }
    }

    /// Takes one that waits; false when it does not.
    func take(_ location: ExtentLocation) -> Bool {
        states.withLock { states in
            guard case .waiting = states[location] else { return false }
            states[location] = nil
            return true
        }
    }
}

/// Extents that somebody is reading now. What a commit released meanwhile stays until they are done.
final class ExtentReaders: Sendable {
    private let counts = Mutex<[ExtentLocation: Int]>([:])

    func enter(_ locations: [ExtentLocation]) {
        counts.withLock { counts in for location in locations { counts[location, default: 0] += 1 } }
    }
    func leave(_ locations: [ExtentLocation]) {
        counts.withLock { counts in
            for location in locations {
                let left = counts[location, default: 0] - 1
                counts[location] = left > 0 ? left : nil
            }
        }
    }
    func contains(_ location: ExtentLocation) -> Bool { counts.withLock { $0[location] != nil } }
}
