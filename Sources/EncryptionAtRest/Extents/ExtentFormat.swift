internal import CofferCore

/// The arithmetic and the fixed strings of an extent (docs/format.md §7).
struct ExtentFormat: Equatable, Sendable {
    static let headerBytes = 64
    static let algorithm: UInt8 = 1
    static let version: UInt8 = 1
    static let magic = Array("XE01".utf8)
    static let log2ChunkBytesAllowed: Set<UInt8> = [14, 16]
    /// Above this many expected bytes, chunks are 64 KiB instead of 16 KiB.
    static let largeAboveBytes = 8 << 20
    /// 2^32 chunks of 16 KiB would be more; a block is at most 4,000 MiB. Decoders refuse what is above.
    static let plaintextBytesLimit = 1 << 45
    private static let bound = Array("extent/v1".utf8)

    let account: AccountID
    let domainID: [UInt8]
    let extentID: [UInt8]
    let log2ChunkBytes: UInt8

    static func log2ChunkBytes(expectedBytes: Int?) -> UInt8 { (expectedBytes ?? 0) > largeAboveBytes ? 16 : 14 }

    var chunkBytes: Int { 1 << Int(log2ChunkBytes) }
    var sealedChunkBytes: Int { chunkBytes + AEAD.tagBytes }

    /// An empty extent has one empty chunk.
    func chunkCount(plaintextBytes: Int) -> Int { max(1, (plaintextBytes + chunkBytes - 1) >> Int(log2ChunkBytes)) }

    func sealedBytes(plaintextBytes: Int) -> Int {
        Self.headerBytes + plaintextBytes + chunkCount(plaintextBytes: plaintextBytes) * AEAD.tagBytes
    }

    static func sealedBytes(of reference: ExtentReference) -> Int {
        let format = ExtentFormat(
            account: AccountID(bytes: [UInt8](repeating: 0, count: 16)), domainID: [], extentID: reference.extentID,
            log2ChunkBytes: reference.log2ChunkBytes)
        return format.sealedBytes(plaintextBytes: reference.plaintextBytes)
    }

    var header: [UInt8] {
        var bytes = Self.magic + [Self.version, Self.algorithm, log2ChunkBytes, 0]
        bytes += extentID + account.bytes + domainID
        bytes.append(bigEndian: UInt32(0))
        bytes.append(bigEndian: crc32(bytes))
        return bytes
    }

    /// Bytes of `additional` that come before the chunk's index.
    static let indexOffset = 9 + 1 + 16 + 16 + 16 + 1

    /// "extent/v1" | algorithm | account | key domain | extent | k | index 0: the index is patched in for each chunk;
    /// the last adds the length.
    var additional: [UInt8] {
        var bytes = Self.bound + [Self.algorithm]
        bytes += account.bytes + domainID + extentID + [log2ChunkBytes]
        bytes.append(bigEndian: UInt32(0))
        return bytes
    }
}

/// The sealing of chunk after chunk under one data encryption key, without I/O: nonces and bound data as docs/format.md
/// §7.3 says.
struct ChunkCipher: Sendable {
    let format: ExtentFormat
    let aead: AEAD
    /// Room for the length behind the index.
    private var additional: [UInt8]

    init(format: ExtentFormat, aead: AEAD) {
        self.format = format
        self.aead = aead
        additional = format.additional + [UInt8](repeating: 0, count: 8)
    }

    private mutating func withParameters<Result>(
        _ index: UInt32, totalBytes: Int?, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Result
    ) -> Result {
        // 7 zero bytes | final flag | index: unique, because a data encryption key seals one extent and each index
        // once.
        var nonce: (UInt64, UInt32) = ((totalBytes == nil ? 0 : 1 as UInt64).bigEndian, index.bigEndian)
        return additional.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: index.bigEndian, toByteOffset: ExtentFormat.indexOffset, as: UInt32.self)
            var count = ExtentFormat.indexOffset + 4
            if let totalBytes {
                bytes.storeBytes(of: UInt64(totalBytes).bigEndian, toByteOffset: count, as: UInt64.self)
                count += 8
            }
            let bound = UnsafeRawBufferPointer(rebasing: bytes[..<count])
            return withUnsafeBytes(of: &nonce) { body(UnsafeRawBufferPointer(rebasing: $0[..<AEAD.nonceBytes]), bound) }
        }
    }

    /// `totalBytes` is the plaintext length of the whole extent, on its last chunk only.
    mutating func seal(
        _ input: UnsafeRawBufferPointer, index: UInt32, totalBytes: Int?, to output: UnsafeMutableRawPointer
    ) {
        let aead = aead
        withParameters(index, totalBytes: totalBytes) { nonce, bound in
            aead.seal(input, to: output, tag: output.advanced(by: input.count), nonce: nonce, additional: bound)
        }
    }

    /// `sealed` ends with the tag.
    mutating func open(
        _ sealed: UnsafeRawBufferPointer, index: UInt32, totalBytes: Int?, to output: UnsafeMutableRawPointer
    ) -> Bool {
        guard sealed.count >= AEAD.tagBytes else { return false }
        let aead = aead
        let count = sealed.count - AEAD.tagBytes
        return withParameters(index, totalBytes: totalBytes) { nonce, bound in
            aead.open(
                UnsafeRawBufferPointer(rebasing: sealed[..<count]),
                tag: UnsafeRawBufferPointer(rebasing: sealed[count...]),
                to: output, nonce: nonce, additional: bound)
        }
    }
}

/// CRC-32 (ISO-HDLC, as in zip): tells damage from a foreign file. Authenticity comes from the chunks' tags.
func crc32(_ bytes: some Sequence<UInt8>) -> UInt32 {
    ~bytes.reduce(~0) { crc, byte in
        var value = crc ^ UInt32(byte)
        for _ in 0..<8 { value = value >> 1 ^ (value & 1) &* 0xedb8_8320 }
        return value
    }
}
