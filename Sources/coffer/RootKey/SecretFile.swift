import CofferCore
import Foundation

/// Small files that hold a secret, read into locked memory, and refused when others could read them.
enum SecretFile {
    enum Guardian {
        /// The operator keeps it: mode 0600 or less.
        case owner
        /// systemd's copy for one unit: 0400, or 0440 where an access list lets the user in, whose mask then stands in
        /// the place of the group's rights.
        case systemd
    }

    /// The folder of this process's systemd credentials.
    static var credentialsFolder: String? {
        ProcessInfo.processInfo.environment["CREDENTIALS_DIRECTORY"].flatMap { $0.hasPrefix("/") ? $0 : nil }
    }
    static func guardian(of path: String) -> Guardian {
        guard let folder = credentialsFolder else { return .owner }
        let parent = URL(fileURLWithPath: path).deletingLastPathComponent().standardizedFileURL.path
        return parent == URL(fileURLWithPath: folder).standardizedFileURL.path ? .systemd : .owner
    }

    /// nil: it is not there, or not to be read. `what` begins the messages, such as "The root key".
    static func read(_ path: String, limit: Int, what: String) throws -> SecretBytes? {
        // A pipe or a device must not hold up the start before it is seen for what it is.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw CommandFailure("\(what) \(path) is not a file. Put a file there, or name another place.")
        }
        try check(status.st_mode & 0o777, path, what: what)
        guard status.st_size <= limit else {
            throw CommandFailure(
                "\(what) \(path) is longer than \(limit) bytes, and so something else. Name the right file.")
        }
        return try SecretBytes(capacity: limit) { memory in
            var count = 0
            while count < limit {
                let got = Foundation.read(file, memory.baseAddress! + count, limit - count)
                if got < 0, errno == EINTR { continue }
                guard got >= 0 else {
                    throw CommandFailure("\(what) \(path) cannot be read: \(String(cString: strerror(errno))).")
                }
                if got == 0 { break }
                count += got
            }
            return count
        }
    }

    private static func check(_ mode: mode_t, _ path: String, what: String) throws {
        let octal = String(mode, radix: 8)
        switch guardian(of: path) {
        case .owner:
            guard mode & 0o077 == 0 else {
                throw CommandFailure("\(what) \(path) can be read by others (mode \(octal)). Run: chmod 600 \(path)")
            }
        case .systemd:
            guard mode & 0o037 == 0 else {
                throw CommandFailure(
                    "\(what) \(path) can be read by others (mode \(octal)), which no credential of systemd can. Let the unit "
                        + "place it: LoadCredentialEncrypted= or LoadCredential=.")
            }
        }
    }
}
