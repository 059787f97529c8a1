internal import CofferCore

/// Writes a package back as a zip (PKWARE APPNOTE 6.3), its files stored as they are: their lengths and checksums are
/// known, so that the whole has a length before its first byte is read.
struct ZipWriter {
    private static let partBytes = 256 << 10
    private static let localBytes = 30
    private static let centralBytes = 46
    private static let endBytes = 22
    /// 1980-01-01, the first day a zip can tell: a package's files have no times.
    private static let date: UInt16 = 1 << 5 | 1

    private let package: Package?
    private let items: [Package.Item]
    /// Of the whole zip.
    let length: Int

    /// nil for what only the 64-bit form could tell.
    init?(_ package: Package?) {
        self.package = package
        items = package?.items ?? []
        var length = Self.endBytes
        for item in items {
            let name = Self.name(of: item).count
            length += Self.localBytes + Self.centralBytes + 2 * name + Self.content(of: item).bytes
        }
        self.length = length
        guard items.count < 0xffff, length < 0xffff_ffff else { return nil }
    }

    /// Hands over the zip in parts.
    func write(_ body: ([UInt8]) async throws -> Void) async throws {
        for item in items {
            try await body(Self.localHeader(of: item))
            try await writeContent(of: item, body)
        }
        // The directory once more from the items, and in parts: of many long names it is large.
        var (offset, directoryBytes) = (0, 0)
        var part: [UInt8] = []
        for item in items {
            let header = Self.centralHeader(of: item, offset: offset)
            part += header
            directoryBytes += header.count
            offset += Self.localBytes + Self.name(of: item).count + Self.content(of: item).bytes
            guard part.count >= Self.partBytes else { continue }
            try await body(part)
            part = []
        }
        let end =
            Self.number(0x0605_4b50, 4) + Self.number(0, 4) + Self.number(items.count, 2)
            + Self.number(items.count, 2) + Self.number(directoryBytes, 4) + Self.number(offset, 4)
            + Self.number(0, 2)
        try await body(part + end)
    }

    private func writeContent(of item: Package.Item, _ body: ([UInt8]) async throws -> Void) async throws {
        switch item.kind {
        case .folder: break
        case .link(let target, _): try await body(Array(target.utf8))
        case .file(let offset, let bytes, _, _):
            try await package?.archive.read(offset, bytes, inPartsOf: Self.partBytes, body)
        }
    }

    // MARK: Headers

    private static func name(of item: Package.Item) -> [UInt8] {
        Array(item.path.utf8) + (item.kind == .folder ? [UInt8(ascii: "/")] : [])
    }
    private static func content(of item: Package.Item) -> (bytes: Int, checksum: UInt32, mode: Int) {
        switch item.kind {
        case .folder: (0, 0, 0o040755)
        case .link(let target, let checksum): (target.utf8.count, checksum, 0o120777)
        case .file(_, let bytes, let checksum, let isExecutable):
            (bytes, checksum, isExecutable ? 0o100755 : 0o100644)
        }
    }

    /// What both headers have: version, flags (names are UTF-8), method (stored), time, date, checksum, lengths.
    private static func common(of item: Package.Item) -> [UInt8] {
        let content = content(of: item)
        return number(20, 2) + number(1 << 11, 2) + number(0, 4) + number(Int(date), 2)
            + number(Int(content.checksum), 4) + number(content.bytes, 4) + number(content.bytes, 4)
            + number(name(of: item).count, 2) + number(0, 2)
    }
    private static func localHeader(of item: Package.Item) -> [UInt8] {
        number(0x0403_4b50, 4) + common(of: item) + name(of: item)
    }
    private static func centralHeader(of item: Package.Item, offset: Int) -> [UInt8] {
        // Made on Unix: the attributes are a file's mode.
        number(0x0201_4b50, 4) + number(3 << 8 | 20, 2) + common(of: item) + number(0, 6)
            + number(content(of: item).mode << 16, 4) + number(offset, 4) + name(of: item)
    }

    /// Little-endian.
    private static func number(_ value: Int, _ bytes: Int) -> [UInt8] {
        (0..<bytes).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
}

extension MemoryFile {
    /// Hands over `count` bytes from `offset`. Throws when it ends before.
    func read(
        _ offset: Int, _ count: Int, inPartsOf partBytes: Int, _ body: ([UInt8]) async throws -> Void
    ) async throws {
        var done = 0
        while done < count {
            let part = read(at: offset + done, count: min(partBytes, count - done))
            guard !part.isEmpty else { throw PackageError(.broken, "The package's archive ends too early.") }
            done += part.count
            try await body(part)
        }
    }
}
