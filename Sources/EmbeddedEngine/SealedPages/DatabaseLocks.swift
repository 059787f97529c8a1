internal import CSQLite
internal import Glibc
internal import Synchronization

/// SQLite's file locks and its wal-index, among the connections of this process. The lock on the data directory keeps
/// other processes out, so neither needs the disk: there is no -shm file that would show page numbers in clear.
final class DatabaseLocks: @unchecked Sendable {
    // @unchecked: the region pointers are handed out under the lock, and SQLite orders its use of the memory by the
    // locks below.

    private struct State {
        // File locks (sqlite.org/lockingv3.html).
        var shared = 0
        var reservedBy: ObjectIdentifier?
        var exclusiveBy: ObjectIdentifier?
        // The wal-index.
        var regions: [UnsafeMutableRawPointer] = []
        var users = 0
        var slotShared = [Int](repeating: 0, count: Int(SQLITE_SHM_NLOCK))
        var slotExclusive = [ObjectIdentifier?](repeating: nil, count: Int(SQLITE_SHM_NLOCK))
    }
    private let state = Mutex(State())

    // MARK: File locks

    /// Raises `holder`'s lock from `held` to `wanted`; SQLITE_BUSY when another connection is in the way.
    func lock(_ holder: ObjectIdentifier, held: Int32, wanted: Int32) -> Int32 {
        state.withLock { state in
            if held < SQLITE_LOCK_SHARED {
                guard state.exclusiveBy == nil else { return SQLITE_BUSY }
                state.shared += 1
            }
            guard wanted > SQLITE_LOCK_SHARED else { return SQLITE_OK }
            guard state.reservedBy == nil || state.reservedBy == holder else { return SQLITE_BUSY }
            // No pending lock: only opening and closing want an exclusive one, and there are no readers then that could
            // starve it.
            if wanted >= SQLITE_LOCK_PENDING {
                guard state.shared == 1 else { return SQLITE_BUSY }
                state.exclusiveBy = holder
            }
            state.reservedBy = holder
            return SQLITE_OK
        }
    }

    /// Lowers `holder`'s lock to `wanted`: shared or none.
    func unlock(_ holder: ObjectIdentifier, held: Int32, wanted: Int32) {
        state.withLock { state in
            if state.reservedBy == holder { state.reservedBy = nil }
            if state.exclusiveBy == holder { state.exclusiveBy = nil }
            if wanted == SQLITE_LOCK_NONE, held >= SQLITE_LOCK_SHARED { state.shared -= 1 }
        }
    }

    var isReserved: Bool {
        state.withLock { $0.reservedBy != nil || $0.exclusiveBy != nil }
    }

    // MARK: The wal-index

    func addUser() { state.withLock { $0.users += 1 } }

    func removeUser() {
        state.withLock { state in
            state.users -= 1
            guard state.users == 0 else { return }
            state.regions.forEach { $0.deallocate() }
            state.regions = []
        }
    }

    func region(_ index: Int, byteCount: Int, extend: Bool) -> UnsafeMutableRawPointer? {
        state.withLock { state in
            while extend, state.regions.count <= index {
                let region = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
                memset(region, 0, byteCount)
                state.regions.append(region)
            }
            return index < state.regions.count ? state.regions[index] : nil
        }
    }

    func lockSlots(_ holder: ObjectIdentifier, _ slots: Range<Int>, flags: Int32) -> Int32 {
        state.withLock { state in
            let isExclusive = flags & SQLITE_SHM_EXCLUSIVE != 0
            if flags & SQLITE_SHM_UNLOCK != 0 {
                for slot in slots {
                    if isExclusive {
                        if state.slotExclusive[slot] == holder { state.slotExclusive[slot] = nil }
                    } else {
                        state.slotShared[slot] -= 1
                    }
                }
                return SQLITE_OK
            }
            for slot in slots {
                guard state.slotExclusive[slot] == nil, !isExclusive || state.slotShared[slot] == 0 else {
                    return SQLITE_BUSY
                }
            }
            for slot in slots {
                if isExclusive { state.slotExclusive[slot] = holder } else { state.slotShared[slot] += 1 }
            }
            return SQLITE_OK
        }
    }

    func barrier() {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }
}
