internal import Glibc
internal import StorageEngine
internal import Synchronization

/// An open file, closed when the last user lets go.
final class OpenFile: Sendable {
    let descriptor: Int32
    init(descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }
}

/// Files kept open for reading and for marking: at most `limit`, the oldest leave first.
final class Descriptors: Sendable {
    private struct State {
        var open: [String: OpenFile] = [:]
        var order: [String] = []
    }
    private let limit: Int
    private let state = Mutex(State())

    init(limit: Int) { self.limit = limit }

    /// Throws `.notFound` when the file is gone.
    func file(_ path: String) throws(StorageEngineError) -> OpenFile {
        if let known = state.withLock({ $0.open[path] }) { return known }
        let descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { throw ExtentPlace.unknown }
            throw StorageEngineError(errno: errno, "open an extent")
        }
        let file = OpenFile(descriptor: descriptor)
        state.withLock { state in
            if state.open.updateValue(file, forKey: path) == nil { state.order.append(path) }
            if state.order.count > limit {
                for path in state.order.prefix(limit / 4) { state.open[path] = nil }
                state.order.removeFirst(limit / 4)
            }
        }
        // Removed between opening and keeping: `forget` came too early, so it is done here.
        var status = stat()
        if fstat(descriptor, &status) == 0, status.st_nlink == 0 {
            forget(path)
            throw ExtentPlace.unknown
        }
        return file
    }

    /// Called after the file was unlinked.
    func forget(_ path: String) {
        state.withLock { state in
            if state.open.removeValue(forKey: path) != nil { state.order.removeAll { $0 == path } }
        }
    }
}
