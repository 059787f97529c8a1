internal import CLibzip
internal import CofferCore
internal import Glibc
internal import NIOCore

/// A zip in memory, read through libzip: its directory checked against every limit before the first byte is unpacked.
///
/// Not `Sendable`: one archive is read by one task, from opening to closing.
struct ZipArchive: ~Copyable {
    struct Entry: Equatable {
        enum Kind: Equatable { case file, directory, symbolicLink }
        let index: UInt64
        /// Relative, with `/` between components, without a trailing one.
        let path: String
        let kind: Kind
        let packedBytes: Int
        let unpackedBytes: Int
        /// CRC-32, of the content unpacked.
        let checksum: UInt32
        let isExecutable: Bool
    }

    let entries: [Entry]
    /// How many folders the entries' paths name that have no entry of their own. Unpacking makes them all the same.
    let impliedFolders: Int
    private let handle: OpaquePointer
    /// libzip reads from it until the archive closes.
    private let bytes: UnsafeMutableRawBufferPointer

    /// Copies `archive`. Throws `PackageError` for anything that is not a zip within `limits`.
    init(_ archive: ByteBuffer, limits: PackageLimits) throws(PackageError) {
        guard archive.readableBytes <= limits.archiveBytes else {
            throw PackageError(.tooLarge, "The package has more than \(limits.archiveBytes) bytes.")
        }
        try Self.checkFormat(archive)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(archive.readableBytes, 1), alignment: 16)
        archive.withUnsafeReadableBytes { memory.copyMemory(from: $0) }
        var error = zip_error_t()
        zip_error_init(&error)
        defer { zip_error_fini(&error) }
        guard let source = zip_source_buffer_create(memory.baseAddress, UInt64(archive.readableBytes), 0, &error) else {
            memory.deallocate()
            throw PackageError(.broken, "The package cannot be read.")
        }
        guard let handle = zip_open_from_source(source, ZIP_RDONLY, &error) else {
            zip_source_free(source)
            memory.deallocate()
            throw PackageError(
                .broken, "The package is not a readable zip archive (\(String(cString: zip_error_strerror(&error)))).")
        }
        let directory: [Entry]
        let implied: Int
        do throws(PackageError) {
            directory = try Self.directory(handle, limits: limits)
            implied = try Self.impliedFolders(of: directory, limits: limits)
        } catch {
            zip_discard(handle)
            memory.deallocate()
            throw error
        }
        entries = directory
        impliedFolders = implied
        self.handle = handle
        bytes = memory
    }

    deinit {
        zip_discard(handle)
        bytes.deallocate()
    }

    /// Hands over the file in parts of up to 64 KiB; verifies its length and checksum.
    func read(_ entry: Entry, _ body: (UnsafeRawBufferPointer) throws(PackageError) -> Void) throws(PackageError) {
        guard let file = zip_fopen_index(handle, entry.index, 0) else {
            throw PackageError(.broken, "The file '\(entry.path)' in the package cannot be read.")
        }
        defer { zip_fclose(file) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
        defer { buffer.deallocate() }
        var total = 0
        while true {
            // At the end libzip compares the checksum and fails when it is wrong.
            let count = Int(zip_fread(file, buffer.baseAddress, UInt64(buffer.count)))
            guard count >= 0 else { throw PackageError(.broken, "The file '\(entry.path)' in the package is damaged.") }
            guard count > 0 else { break }
            total += count
            guard total <= entry.unpackedBytes else {
                throw PackageError(
                    .unsafe, "The file '\(entry.path)' in the package is longer than the archive's directory says.")
            }
            try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
        guard total == entry.unpackedBytes else {
            throw PackageError(
                .broken, "The file '\(entry.path)' in the package is shorter than the archive's directory says.")
        }
    }

    // MARK: Checks

    private static let formats: [(magic: [UInt8], offset: Int, name: String)] = [
        ([0x1f, 0x8b], 0, "a GZIP archive"), ([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], 0, "a 7z archive"),
        (Array("Rar!".utf8), 0, "a RAR archive"), (Array("ustar".utf8), 257, "a TAR archive"),
        (Array("hsqs".utf8), 0, "a squashfs image"), ([0xfd, 0x37, 0x7a, 0x58, 0x5a], 0, "an XZ archive"),
        (Array("BZh".utf8), 0, "a BZIP2 archive"), ([0x28, 0xb5, 0x2f, 0xfd], 0, "a Zstandard archive"),
    ]

    private static func checkFormat(_ archive: ByteBuffer) throws(PackageError) {
        let bytes = archive.readableBytesView
        for (magic, offset, name) in formats where bytes.dropFirst(offset).starts(with: magic) {
            throw PackageError(.notAZip, "The package is \(name); only ZIP packages are supported.")
        }
        // A local file header, or the end record of an empty archive.
        guard bytes.starts(with: [0x50, 0x4b, 0x03, 0x04]) || bytes.starts(with: [0x50, 0x4b, 0x05, 0x06]) else {
            throw PackageError(.notAZip, "The package is not a ZIP archive.")
        }
    }

    private static func directory(_ handle: OpaquePointer, limits: PackageLimits) throws(PackageError) -> [Entry] {
        let count = zip_get_num_entries(handle, 0)
        guard count >= 0, count <= limits.entries else {
            throw PackageError(.tooLarge, "The package has \(count) entries; at most \(limits.entries) are allowed.")
        }
        var entries: [Entry] = []
        entries.reserveCapacity(Int(count))
        var total = 0
        for index in 0..<UInt64(count) {
            guard let entry = try entry(handle, index, limits: limits) else { continue }
            total += entry.unpackedBytes
            guard total <= limits.unpackedBytes else {
                throw PackageError(.tooLarge, "The package unpacks to more than \(limits.unpackedBytes) bytes.")
            }
            entries.append(entry)
        }
        try checkNames(entries)
        return entries
    }

    /// A path of 64 components costs 63 folders: they count as the entries they become.
    private static func impliedFolders(of entries: [Entry], limits: PackageLimits) throws(PackageError) -> Int {
        // As bytes: two spellings of one letter are two folders.
        var known = Set(entries.lazy.filter { $0.kind == .directory }.map { Array($0.path.utf8) })
        let stated = known.count
        for entry in entries {
            for folder in folders(above: entry.path) {
                // What is above a folder met before was met with it, or is with the folder's own entry.
                guard known.insert(folder).inserted else { break }
                guard entries.count + known.count - stated <= limits.entries else {
                    throw PackageError(
                        .tooLarge,
                        "The package has too many entries, counting the folders its paths name; at "
                            + "most \(limits.entries) are allowed.")
                }
            }
        }
        return known.count - stated
    }

    /// Innermost first.
    private static func folders(above path: String) -> [[UInt8]] {
        let bytes = Array(path.utf8)
        return bytes.indices.reversed().filter { bytes[$0] == UInt8(ascii: "/") }.map { Array(bytes[..<$0]) }
    }

    /// nil for an entry that names the root itself.
    private static func entry(_ handle: OpaquePointer, _ index: UInt64, limits: PackageLimits) throws(PackageError)
        -> Entry?
    {
        var stat = zip_stat_t()
        zip_stat_init(&stat)
        guard zip_stat_index(handle, index, UInt32(ZIP_FL_ENC_RAW), &stat) == 0, let rawName = stat.name,
            stat.valid & UInt64(ZIP_STAT_SIZE) != 0, stat.valid & UInt64(ZIP_STAT_COMP_SIZE) != 0,
            stat.valid & UInt64(ZIP_STAT_CRC) != 0
        else { throw PackageError(.broken, "An entry of the package's directory is damaged.") }
        guard let name = String(validatingCString: rawName) else {
            throw PackageError(.unsafe, "A file name in the package is not UTF-8.")
        }
        guard stat.encryption_method == UInt16(ZIP_EM_NONE) else {
            throw PackageError(
                .unsafe,
                "The file '\(name.prefix(200))' in the package is encrypted; encrypted packages are not supported.")
        }
        guard stat.size <= UInt64(limits.unpackedBytes), stat.comp_size <= UInt64(limits.archiveBytes) else {
            throw PackageError(.tooLarge, "The file '\(name.prefix(200))' in the package is too large.")
        }
        guard stat.size <= 1 << 20 || stat.size / max(stat.comp_size, 1) <= UInt64(limits.expansionRatio) else {
            throw PackageError(
                .unsafe,
                "The file '\(name.prefix(200))' in the package expands more than \(limits.expansionRatio) times.")
        }
        guard let path = try path(name, limits: limits) else { return nil }
        var system: UInt8 = 0
        var attributes: UInt32 = 0
        zip_file_get_external_attributes(handle, index, 0, &system, &attributes)
        let mode = system == UInt8(ZIP_OPSYS_UNIX) ? attributes >> 16 : 0
        let kind: Entry.Kind
        switch mode & 0o170000 {
        case 0, 0o100000: kind = name.hasSuffix("/") ? .directory : .file
        case 0o040000: kind = .directory
        case 0o120000: kind = .symbolicLink
        default: throw PackageError(.unsafe, "'\(path)' in the package is a device, socket or pipe.")
        }
        guard kind != .directory || stat.size == 0 else {
            throw PackageError(.broken, "The folder '\(path)' in the package has content.")
        }
        return Entry(
            index: index, path: path, kind: kind, packedBytes: Int(stat.comp_size), unpackedBytes: Int(stat.size),
            checksum: stat.crc, isExecutable: mode & 0o111 != 0)
    }

    /// Windows tools write `\` for `/`: read as such, so that it cannot hide a traversal either.
    private static func path(_ name: String, limits: PackageLimits) throws(PackageError) -> String? {
        let shown = name.prefix(200)
        guard name.utf8.count <= limits.pathBytes else {
            throw PackageError(.unsafe, "A path in the package has more than \(limits.pathBytes) bytes.")
        }
        let (slash, backslash) = (UInt8(ascii: "/"), UInt8(ascii: "\\"))
        let unified = String(decoding: name.utf8.map { $0 == backslash ? slash : $0 }, as: UTF8.self)
        guard unified.utf8.first != slash else {
            throw PackageError(.unsafe, "The package has an absolute path ('\(shown)').")
        }
        guard !unified.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) else {
            throw PackageError(.unsafe, "A path in the package holds control characters.")
        }
        let components = unified.parts(at: slash).filter { $0 != "." }
        guard !components.contains("..") else {
            throw PackageError(.unsafe, "The package has a path that leaves it ('\(shown)').")
        }
        if let first = components.first, first.utf8.count == 2, first.utf8.last == UInt8(ascii: ":") {
            throw PackageError(.unsafe, "The package has an absolute path ('\(shown)').")
        }
        guard components.count <= limits.pathDepth, components.allSatisfy({ $0.utf8.count <= 255 }) else {
            throw PackageError(.unsafe, "A path in the package is too deep or has too long a name ('\(shown)').")
        }
        return components.isEmpty ? nil : components.joined(separator: "/")
    }

    /// No name twice, and nothing below something that is not a folder.
    private static func checkNames(_ entries: [Entry]) throws(PackageError) {
        var kinds: [[UInt8]: Entry.Kind] = [:]
        for entry in entries {
            let path = Array(entry.path.utf8)
            if let earlier = kinds[path], !(earlier == .directory && entry.kind == .directory) {
                throw PackageError(.unsafe, "The package has two entries named '\(entry.path.prefix(200))'.")
            }
            kinds[path] = entry.kind
        }
        for entry in entries {
            for folder in folders(above: entry.path) {
                if let kind = kinds[folder], kind != .directory {
                    throw PackageError(
                        .unsafe, "'\(entry.path.prefix(200))' in the package lies below something that is not a folder."
                    )
                }
            }
        }
    }
}
