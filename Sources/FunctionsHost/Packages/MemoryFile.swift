internal import CPlatform
internal import Glibc

/// A file that lives in memory alone (memfd_create(2)) and closes with its last reference. Nothing of it ever reaches a
/// disk.
final class MemoryFile: Sendable {
    let descriptor: Int32

    init(name: String) throws(PackageError) {
        descriptor = coffer_memory_file(name)
        guard descriptor >= 0 else { throw PackageError(.tooLarge, "The server has no memory left for the package.") }
    }
    deinit { close(descriptor) }

    func append(_ bytes: UnsafeRawBufferPointer) throws(PackageError) {
        var rest = bytes
        while !rest.isEmpty {
            let count = write(descriptor, rest.baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw PackageError(.tooLarge, "The server has no memory left for the package.") }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
    func append(_ bytes: [UInt8]) throws(PackageError) {
        try bytes.withUnsafeBytes { buffer in Result { () throws(PackageError) in try append(buffer) } }.get()
    }

    /// What it holds from its beginning, at most `limit` bytes.
    func contents(limit: Int) -> [UInt8] {
        read(at: 0, count: limit)
    }

    /// Where the next byte will be appended.
    var end: Int { Int(lseek(descriptor, 0, SEEK_CUR)) }

    /// At most `count` bytes from `offset`; fewer where it ends.
    func read(at offset: Int, count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, read in
            read = max(0, pread(descriptor, buffer.baseAddress, count, offset))
        }
    }

    /// No more writing, growing or shrinking, by anyone who holds the descriptor.
    func seal() { _ = fcntl(descriptor, 1_033 /* F_ADD_SEALS */, 0x1 | 0x2 | 0x4 | 0x8) }

    /// Another open file at its beginning, read-only, for a child process. The caller closes it. -1 when the system
    /// refuses.
    func reopened() -> Int32 { open("/proc/self/fd/\(descriptor)", O_RDONLY | O_CLOEXEC) }
}
