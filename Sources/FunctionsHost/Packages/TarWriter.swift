/// Writes the POSIX tar (IEEE 1003.1 pax) that a worker's sandbox unpacks: ours from the first byte, so that no name in
/// it can surprise.
struct TarWriter {
    let file: MemoryFile

    func directory(_ path: String) throws(PackageError) { try header(path + "/", type: "5", size: 0, mode: 0o755) }
    func symbolicLink(_ path: String, to target: String) throws(PackageError) {
        try header(path, type: "2", size: 0, mode: 0o777, link: target)
    }
    /// The content must follow through `content`, then `padding`.
    func fileHeader(_ path: String, size: Int, executable: Bool) throws(PackageError) {
        try header(path, type: "0", size: size, mode: executable ? 0o755 : 0o644)
    }
    func content(_ bytes: UnsafeRawBufferPointer) throws(PackageError) { try file.append(bytes) }
    func padding(after size: Int) throws(PackageError) {
        let rest = size % 512
        if rest > 0 { try file.append([UInt8](repeating: 0, count: 512 - rest)) }
    }
    func end() throws(PackageError) { try file.append([UInt8](repeating: 0, count: 1_024)) }

    private func header(_ path: String, type: Character, size: Int, mode: Int, link: String = "") throws(PackageError) {
        if path.utf8.count > 100 || link.utf8.count > 100 {
            var records = Self.record("path", path)
            if !link.isEmpty { records += Self.record("linkpath", link) }
            try file.append(Self.block("././@PaxHeader", type: "x", size: records.count, mode: 0o644, link: ""))
            try file.append(records)
            try padding(after: records.count)
        }
        try file.append(Self.block(path, type: type, size: size, mode: mode, link: link))
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    private static func record(_ key: String, _ value: String) -> [UInt8] {
        let rest = " \(key)=\(value)\n"
        var length = rest.utf8.count + 1
        while String(length).utf8.count + rest.utf8.count != length { length += 1 }
        return Array("\(length)\(rest)".utf8)
    }

    private static func block(_ path: String, type: Character, size: Int, mode: Int, link: String) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: some Sequence<UInt8>, at offset: Int, limit: Int) {
            for (index, byte) in text.prefix(limit).enumerated() { block[offset + index] = byte }
        }
        func octal(_ value: Int, at offset: Int, digits: Int) {
            let text = String(value, radix: 8)
            put((String(repeating: "0", count: max(0, digits - text.count)) + text).utf8, at: offset, limit: digits)
        }
        put(path.utf8, at: 0, limit: 100)
        octal(mode, at: 100, digits: 7)
        octal(0, at: 108, digits: 7)
        octal(0, at: 116, digits: 7)
        octal(size, at: 124, digits: 11)
        octal(0, at: 136, digits: 11)
        block[156] = type.asciiValue ?? 0x30
        put(link.utf8, at: 157, limit: 100)
        put("ustar".utf8, at: 257, limit: 5)
        put("00".utf8, at: 263, limit: 2)
        for index in 148..<156 { block[index] = 0x20 }
        octal(block.reduce(0) { $0 + Int($1) }, at: 148, digits: 6)
        block[154] = 0
        return block
    }
}
