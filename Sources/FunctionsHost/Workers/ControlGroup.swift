internal import Glibc

/// A memory limit the kernel keeps, where this process may make control groups (version 1 or 2). Gone with its last
/// reference.
final class ControlGroup: Sendable {
    private static let removalAttempts = 500

    let processesFile: String
    private let path: String

    /// nil when the machine or its rights do not allow one; then resource limits must do.
    init?(name: String, memoryBytes: Int) {
        let v1 = "/sys/fs/cgroup/memory"
        let v2 = "/sys/fs/cgroup"
        let isV1 = access(v1 + "/memory.limit_in_bytes", F_OK) == 0
        path = (isV1 ? v1 : v2) + "/coffer-" + name
        let limitFile = path + (isV1 ? "/memory.limit_in_bytes" : "/memory.max")
        processesFile = path + "/cgroup.procs"
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { return nil }
        guard access(limitFile, W_OK) == 0, Self.write(String(memoryBytes), to: limitFile) else {
            rmdir(path)
            return nil
        }
    }
    deinit {
        let path = path
        Task.detached { await Self.remove(path) }
    }

    /// Returns when its last process is gone, and it with them; after five seconds in any case.
    func remove() async { await Self.remove(path) }

    private static func remove(_ path: String) async {
        // The last processes may still be dying: a group with members does not go.
        for _ in 0..<removalAttempts {
            guard rmdir(path) != 0, errno == EBUSY else { return }
            try? await Task.sleep(for: .milliseconds(10))
        }
    }

    private static func write(_ text: String, to path: String) -> Bool {
        let file = open(path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        return Glibc.write(file, text, text.utf8.count) == text.utf8.count
    }
}
