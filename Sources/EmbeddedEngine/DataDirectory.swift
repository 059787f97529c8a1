internal import CofferCore
internal import Glibc
internal import StorageEngine

/// The data directory: who may use it, and whose it is.
///
///     lock      held for as long as an engine uses the directory; the owner's process id
///     engine    format, database id, and a check of the page key (docs/format.md)
///     metadata/ rows.db, rows.db-wal
///     extents/  segments/, files/
final class DataDirectory: Sendable {
    let path: String
    private let lockFile: OpenFile

    var metadata: String { path + "/metadata" }
    var segments: String { path + "/extents/segments" }
    var files: String { path + "/extents/files" }

    /// Creates the directory (mode 0700) when it is absent, and locks it. Throws `.unavailable` when another server
    /// uses it.
    init(_ path: String, disk: Disk) throws(StorageEngineError) {
        self.path = path
        try Self.makeParents(parent(of: path), disk: disk)
        try StorageEngineError.check(disk.makeDirectory(path), "create the data directory \(path)")
        guard chmod(path, 0o700) == 0 else {
            throw StorageEngineError(errno: errno, "restrict the data directory \(path) to its owner")
        }

        let lockPath = path + "/lock"
        let descriptor = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StorageEngineError(errno: errno, "open \(lockPath)") }
        lockFile = OpenFile(descriptor: descriptor)
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let owner = Self.owner(descriptor).map { " (process \($0))" } ?? ""
            throw StorageEngineError(
                .unavailable,
                "The data directory \(path) is in use by another Coffer server\(owner). Stop that server, or choose another directory."
            )
        }
        _ = ftruncate(descriptor, 0)
        let text = Array("\(getpid())\n".utf8)
        _ = text.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, $0.count, 0) }

        for folder in [path + "/extents", segments, files] {
            try StorageEngineError.check(disk.makeDirectory(folder), "create \(folder)")
        }
    }

    private static func makeParents(_ path: String, disk: Disk) throws(StorageEngineError) {
        var status = stat()
        if stat(path, &status) == 0 { return }
        try makeParents(parent(of: path), disk: disk)
        try StorageEngineError.check(disk.makeDirectory(path), "create \(path)")
    }

    private static func owner(_ descriptor: Int32) -> Int32? {
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = bytes.withUnsafeMutableBytes { Disk.read(descriptor, into: $0, at: 0) }
        guard count > 0 else { return nil }
        return Int32(String(decoding: bytes[..<count], as: UTF8.self).filter(\.isNumber))
    }

    func release() { flock(lockFile.descriptor, LOCK_UN) }

    // MARK: Identity

    /// Made in `format` for a new directory; otherwise `pageKey` must be the one the directory was made with.
    func identity(
        format: EngineFormat, pageKey: SecretBytes, randomness: any Randomness, disk: Disk
    ) throws(StorageEngineError) -> EngineIdentity {
        let file = path + "/engine"
        if let known = try read(file) {
            let identity = try EngineIdentity(known, path: path)
            let expected = PageSealer.keyCheck(
                pageKey: pageKey, databaseID: identity.databaseID, format: identity.format)
            guard constantTimeEquals(identity.keyCheck, expected) else {
                throw StorageEngineError(
                    .corrupt,
                    "The root key does not belong to the data directory \(path). Start the server with the key it was made with, and with the file `engine` that it wrote."
                )
            }
            return identity
        }
        guard try directoryEntries(metadata).isEmpty else {
            throw StorageEngineError(
                .corrupt,
                "The data directory \(path) has metadata but lacks the file `engine`; restore it from a backup.")
        }
        let databaseID = randomness.bytes(16)
        let identity = EngineIdentity(
            format: format, databaseID: databaseID,
            keyCheck: PageSealer.keyCheck(pageKey: pageKey, databaseID: databaseID, format: format))
        try write(identity.bytes, to: file, disk)
        return identity
    }

    private func read(_ file: String) throws(StorageEngineError) -> [UInt8]? {
        let descriptor = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw StorageEngineError(errno: errno, "open \(file)")
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = bytes.withUnsafeMutableBytes { Disk.read(descriptor, into: $0, at: 0) }
        guard count >= 0 else { throw StorageEngineError(errno: Int32(-count), "read \(file)") }
        return Array(bytes[..<count])
    }

    private func write(_ bytes: [UInt8], to file: String, _ disk: Disk) throws(StorageEngineError) {
        let new = file + ".new"
        let descriptor = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw StorageEngineError(errno: errno, "create \(file)") }
        defer { close(descriptor) }
        var code = bytes.withUnsafeBytes { disk.write(descriptor, $0, at: 0) }
        if code == 0 { code = disk.sync(descriptor) }
        if code == 0 { code = disk.rename(new, to: file) }
        if code == 0 { code = disk.syncDirectory(path) }
        try StorageEngineError.check(code, "create \(file)")
    }
}

/// The layouts of the database; each is read, the last is made (decision 0016).
enum EngineFormat: UInt32, CaseIterable, Sendable {
    case pagesOf8KiB = 1
    case pagesOf4KiB = 2

    static let current = pagesOf4KiB

    var pageBytes: Int {
        switch self {
        case .pagesOf8KiB: 8192
        case .pagesOf4KiB: 4096
        }
    }
}

/// `magic (12) | format (4) | database id (16) | key check (32) | CRC-32C (4)`
struct EngineIdentity: Equatable {
    private static let magic = Array("COFFERENGINE".utf8)
    let format: EngineFormat
    let databaseID: [UInt8]
    let keyCheck: [UInt8]

    init(format: EngineFormat, databaseID: [UInt8], keyCheck: [UInt8]) {
        self.format = format
        self.databaseID = databaseID
        self.keyCheck = keyCheck
    }

    var bytes: [UInt8] {
        let body = Self.magic + Self.bytes(format.rawValue) + databaseID + keyCheck
        return body + Self.bytes(body.withUnsafeBytes { Checksum.of($0) })
    }

    init(_ bytes: [UInt8], path: String) throws(StorageEngineError) {
        guard bytes.count >= 16, Array(bytes[..<12]) == Self.magic else {
            throw StorageEngineError(.corrupt, "The file `engine` in \(path) is not Coffer's.")
        }
        let version = bytes[12..<16].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        guard let format = EngineFormat(rawValue: version) else {
            throw StorageEngineError(
                .unavailable,
                "The data directory \(path) has format \(version), and this version of Coffer reads formats up to \(EngineFormat.current.rawValue)."
            )
        }
        guard bytes.count == 68, Self.bytes(bytes[..<64].withUnsafeBytes { Checksum.of($0) }) == Array(bytes[64...])
        else {
            throw StorageEngineError(.corrupt, "The file `engine` in \(path) is damaged; restore it from a backup.")
        }
        self.format = format
        databaseID = Array(bytes[16..<32])
        keyCheck = Array(bytes[32..<64])
    }

    private static func bytes(_ number: UInt32) -> [UInt8] { withUnsafeBytes(of: number.bigEndian) { Array($0) } }
}
