/// Row keys inside a container's partition. Names hold no NUL, so `name 00` ends a name and keys sort as names do: by
/// UTF-8 bytes, which for names without surrogate pairs is the order Azure lists in. A name's snapshots come before its
/// base blob, oldest first.
enum BlobKeys {
    /// Present as long as the container is: every commit checks it, so that nothing is written behind a container's
    /// deletion.
    static let container: [UInt8] = [0x00]

    private static let blobMark: UInt8 = 0x62
    private static let blockMark: UInt8 = 0x75

    static func base(_ name: String) -> [UInt8] { key(blobMark, name, [0xff]) }
    static func snapshot(_ name: String, _ snapshot: String) -> [UInt8] { key(blobMark, name, Array(snapshot.utf8)) }
    static func row(_ name: String, _ snapshot: String?) -> [UInt8] {
        snapshot.map { self.snapshot(name, $0) } ?? base(name)
    }
    /// The base blob and all its snapshots.
    static func group(_ name: String) -> (from: [UInt8], upTo: [UInt8]) {
        (key(blobMark, name, []), end(blobMark, name))
    }
    /// An uncommitted block. Its identifier has a byte at least.
    static func block(_ name: String, _ id: [UInt8]) -> [UInt8] { key(blockMark, name, id) }
    static func blocks(_ name: String) -> (from: [UInt8], upTo: [UInt8]) {
        (key(blockMark, name, [0]), end(blockMark, name))
    }
    /// What is known of a name's uncommitted blocks together; right before them.
    static func stagedBlocks(_ name: String) -> [UInt8] { key(blockMark, name, []) }
    /// Empty for the row before the blocks.
    static func blockID(of key: [UInt8]) -> ArraySlice<UInt8> { key.drop { $0 != 0 }.dropFirst() }
    /// The name of a block's row, or of the row before the blocks; nil for a key of another kind.
    static func blockName(of key: [UInt8]) -> String? {
        guard key.first == blockMark, let separator = key.firstIndex(of: 0) else { return nil }
        return String(validating: key[1..<separator], as: UTF8.self)
    }

    /// Every blob row whose name begins with `prefix`.
    static func listing(prefix: String) -> (from: [UInt8], upTo: [UInt8]) {
        let from = [blobMark] + Array(prefix.utf8)
        return (from, successor(of: from))
    }
    static var allBlocks: (from: [UInt8], upTo: [UInt8]) { ([blockMark], [blockMark + 1]) }

    /// The smallest key above every key that begins with `prefix`. A key's first byte is a mark below 0xff, so there
    /// always is one.
    static func successor(of prefix: [UInt8]) -> [UInt8] {
        var bytes = prefix
        while let last = bytes.popLast() {
            if last < 0xff { return bytes + [last + 1] }
        }
        return [0xff]
    }

    /// The name and, for a snapshot, its time; nil for a key of another kind.
    static func parse(_ key: [UInt8]) -> (name: String, snapshot: String?)? {
        guard key.first == blobMark, let separator = key.firstIndex(of: 0) else { return nil }
        guard let name = String(validating: key[1..<separator], as: UTF8.self) else { return nil }
        let rest = key[(separator + 1)...]
        if rest.first == 0xff { return (name, nil) }
        return (name, String(decoding: rest, as: UTF8.self))
    }

    private static func key(_ mark: UInt8, _ name: String, _ rest: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(name.utf8.count + rest.count + 2)
        bytes.append(mark)
        bytes.append(contentsOf: name.utf8)
        bytes.append(0)
        bytes.append(contentsOf: rest)
        return bytes
    }
    private static func end(_ mark: UInt8, _ name: String) -> [UInt8] {
        var bytes = key(mark, name, [])
        bytes[bytes.count - 1] = 1
        return bytes
    }
}

/// Row keys in the account's own partition.
enum AccountKeySpace {
    static func container(_ name: String) -> [UInt8] { Array("c/\(name)".utf8) }
    static func containers(prefix: String) -> (from: [UInt8], upTo: [UInt8]) {
        let from = container(prefix)
        return (from, BlobKeys.successor(of: from))
    }
    /// A deleted container whose rows are still to be removed.
    static func deleted(_ id: String) -> [UInt8] { Array("d/\(id)".utf8) }
    static let allDeleted: (from: [UInt8], upTo: [UInt8]) = (Array("d/".utf8), Array("d0".utf8))
}
