internal import CPlatform
internal import Glibc
internal import StorageEngine

/// A change to the disk that is about to happen.
enum DiskOperation: Sendable { case write, sync, truncate, link, unlink }

/// The system calls that change the disk. Each answers 0 or an errno; short writes and EINTR are seen to here.
struct Disk: Sendable {
    /// Asked before every change; an errno other than 0 makes the change fail with it. Tests take crash images here,
    /// and fill the disk.
    var gate: (@Sendable (DiskOperation) -> Int32)?

    /// Most bytes for one system call; the gate is asked before each. Tests see what a crash within a write leaves.
    var pieceBytes = Int.max

    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        var done = 0
        while done < bytes.count {
            if let refusal = gate?(.write), refusal != 0 { return refusal }
            let count = pwrite(
                file, bytes.baseAddress! + done, min(bytes.count - done, pieceBytes), off_t(offset + done))
            if count > 0 { done += count } else if count == 0 { return EIO } else if errno != EINTR { return errno }
        }
        return 0
    }

    /// fdatasync(2): also makes a changed size durable.
    func sync(_ file: Int32) -> Int32 {
        if let refusal = gate?(.sync), refusal != 0 { return refusal }
        return fdatasync(file) == 0 ? 0 : errno
    }

    func truncate(_ file: Int32, to size: Int) -> Int32 {
        if let refusal = gate?(.truncate), refusal != 0 { return refusal }
        return ftruncate(file, off_t(size)) == 0 ? 0 : errno
    }

    func unlink(_ path: String) -> Int32 {
        if let refusal = gate?(.unlink), refusal != 0 { return refusal }
        return Glibc.unlink(path) == 0 || errno == ENOENT ? 0 : errno
    }

    func rename(_ path: String, to other: String) -> Int32 {
        if let refusal = gate?(.link), refusal != 0 { return refusal }
        return Glibc.rename(path, other) == 0 ? 0 : errno
    }

    /// Gives a file without a name (O_TMPFILE) its name.
    func link(_ file: Int32, to path: String) -> Int32 {
        if let refusal = gate?(.link), refusal != 0 { return refusal }
        return linkat(AT_FDCWD, "/proc/self/fd/\(file)", AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno
    }

    /// Makes names created in, or removed from, a directory durable.
    func syncDirectory(_ path: String) -> Int32 {
        if let refusal = gate?(.sync), refusal != 0 { return refusal }
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { return errno }
        defer { close(directory) }
        return fsync(directory) == 0 ? 0 : errno
    }

    /// Creates a directory with mode 0700 and makes its name durable; no error when it exists.
    func makeDirectory(_ path: String) -> Int32 {
        if mkdir(path, 0o700) != 0 { return errno == EEXIST ? 0 : errno }
        return syncDirectory(parent(of: path))
    }

    /// Reads until `buffer` is full or the file ends; the count of bytes read, or the negated errno.
    static func read(_ file: Int32, into buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        var done = 0
        while done < buffer.count {
            let count = pread(file, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
            if count > 0 { done += count } else if count == 0 { break } else if errno != EINTR { return -Int(errno) }
        }
        return done
    }

    /// The file's size, or nil when it cannot be had.
    static func size(_ file: Int32) -> Int? {
        var status = stat()
        return fstat(file, &status) == 0 ? Int(status.st_size) : nil
    }
}

func parent(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
}

extension StorageEngineError {
    /// What a failed system call means to the caller. `action` completes "Could not …".
    init(errno code: Int32, _ action: String) {
        let reason = String(cString: strerror(code))
        switch code {
        case ENOSPC, EDQUOT, EFBIG:
            self.init(.full, "Could not \(action): \(reason). Free some space on the data directory's disk.")
        default:
            self.init(.unavailable, "Could not \(action): \(reason).")
        }
    }

    static func check(_ code: Int32, _ action: @autoclosure () -> String) throws(StorageEngineError) {
        if code != 0 { throw StorageEngineError(errno: code, action()) }
    }
}

/// CRC-32C of several pieces in a row.
struct Checksum {
    private(set) var value: UInt32 = 0
    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        value = coffer_crc32c(value, bytes.baseAddress, bytes.count)
    }
    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 { coffer_crc32c(0, bytes.baseAddress, bytes.count) }
}
