internal import CofferCore
internal import NIOCore

/// A deployment package that was read and found safe: its files as a sealed archive in memory, its configuration
/// parsed.
struct Package: Sendable {
    /// One thing in it.
    struct Item: Sendable, Equatable {
        enum Kind: Sendable, Equatable {
            case folder
            case link(target: String, checksum: UInt32)
            /// `offset`: of its content in the archive.
            case file(offset: Int, bytes: Int, checksum: UInt32, isExecutable: Bool)
        }
        /// Relative, without a slash at its end.
        let path: String
        let kind: Kind
    }
    /// Sealed: a tar for the sandbox.
    let archive: MemoryFile
    let unpackedBytes: Int
    /// Every file's path.
    let files: [String]
    /// Everything, sorted by path: a folder comes before what is in it.
    let items: [Item]
    /// `host.json` and every `NAME/function.json`, by path.
    let configuration: [String: [UInt8]]
    private let memory: PackageMemory.Share

    /// Unpacks in memory, for the named site. Throws `PackageError`; nothing stays behind then.
    init(_ zip: ByteBuffer, of site: String, limits: PackageLimits, memory: PackageMemory) throws(PackageError) {
        let archive = try ZipArchive(zip, limits: limits)
        let contentBytes = archive.entries.reduce(0) { $0 + Self.pages($1.unpackedBytes) }
        // Each has a header in the archive and an inode where it is unpacked.
        let headBytes = (archive.entries.count + archive.impliedFolders) * Self.pages(1)
        // Before the first byte of it is unpacked.
        self.memory = try memory.share(of: site, unpackedBytes: contentBytes + headBytes)
        let file = try MemoryFile(name: "coffer-package")
        let tar = TarWriter(file: file)
        var folders = Set<[UInt8]>()
        func makeParents(of path: String) throws(PackageError) {
            let components = path.parts(at: UInt8(ascii: "/")).dropLast()
            var folder = ""
            for component in components {
                folder += folder.isEmpty ? component : "/" + component
                if folders.insert(Array(folder.utf8)).inserted { try tar.directory(folder) }
            }
        }
        var configuration: [String: [UInt8]] = [:]
        var unpacked = 0
        var files: [String] = []
        var items: [Item] = []
        // Links come last, so that nothing is ever unpacked through one.
        let ordered =
            archive.entries.filter { $0.kind != .symbolicLink } + archive.entries.filter { $0.kind == .symbolicLink }
        for entry in ordered {
            try makeParents(of: entry.path)
            switch entry.kind {
            case .directory: if folders.insert(Array(entry.path.utf8)).inserted { try tar.directory(entry.path) }
            case .symbolicLink:
                let target = try Self.link(entry, archive, tar)
                items.append(Item(path: entry.path, kind: .link(target: target, checksum: entry.checksum)))
            case .file:
                try tar.fileHeader(entry.path, size: entry.unpackedBytes, executable: entry.isExecutable)
                let keeps = Self.isConfiguration(entry.path)
                guard !keeps || entry.unpackedBytes <= limits.configurationBytes else {
                    throw PackageError(
                        .configuration,
                        "'\(entry.path)' in the package is larger than \(limits.configurationBytes) bytes.")
                }
                let offset = file.end
                var kept: [UInt8] = []
                try archive.read(entry) { (part) throws(PackageError) in
                    try tar.content(part)
                    if keeps { kept += part }
                }
                try tar.padding(after: entry.unpackedBytes)
                if keeps { configuration[entry.path] = kept }
                files.append(entry.path)
                items.append(
                    Item(
                        path: entry.path,
                        kind: .file(
                            offset: offset, bytes: entry.unpackedBytes, checksum: entry.checksum,
                            isExecutable: entry.isExecutable)))
                unpacked += Self.pages(entry.unpackedBytes)
            }
        }
        try tar.end()
        file.seal()
        self.archive = file
        self.configuration = configuration
        self.files = files.sorted()
        items += folders.map { Item(path: String(decoding: $0, as: UTF8.self), kind: .folder) }
        self.items = items.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }
        unpackedBytes = unpacked + (folders.count + 1) * 4_096
    }

    /// What a file takes in a file system of pages: bytes.
    private static func pages(_ bytes: Int) -> Int { (bytes + 4_095) & ~4_095 }

    private static func isConfiguration(_ path: String) -> Bool {
        path == "host.json" || path.parts(at: UInt8(ascii: "/")).dropFirst() == ["function.json"]
    }

    /// Returns where it points.
    private static func link(_ entry: ZipArchive.Entry, _ archive: borrowing ZipArchive, _ tar: TarWriter)
        throws(PackageError) -> String
    {
        guard entry.unpackedBytes <= 1_024 else {
            throw PackageError(.unsafe, "The link '\(entry.path)' in the package is too long.")
        }
        var bytes: [UInt8] = []
        try archive.read(entry) { (part) throws(PackageError) in bytes += part }
        guard let target = String(validating: bytes, as: UTF8.self), staysInside(target, from: entry.path) else {
            throw PackageError(.unsafe, "The link '\(entry.path)' in the package points outside it.")
        }
        try tar.symbolicLink(entry.path, to: target)
        return target
    }

    /// Whether a relative link at `path` never rises above the package's root, at any step of the way.
    static func staysInside(_ target: String, from path: String) -> Bool {
        guard !target.isEmpty, target.utf8.first != UInt8(ascii: "/"), !target.utf8.contains(0) else { return false }
        var depth = path.parts(at: UInt8(ascii: "/")).count - 1
        for component in target.parts(at: UInt8(ascii: "/")) {
            if component == ".." { depth -= 1 } else if component != "." { depth += 1 }
            if depth < 0 { return false }
        }
        return true
    }
}
