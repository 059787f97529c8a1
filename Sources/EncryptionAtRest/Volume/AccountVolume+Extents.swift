internal import CofferCore
public import NIOCore
internal import StorageEngine

/// Making and reading extents.
extension AccountVolume {
    /// Most bytes of an extent asked of the engine at once, about; and so most plaintext handed over at once.
    private static let readBytes = 1 << 20

    /// Starts an extent under a fresh data encryption key, wrapped under `dataKey`. `expectedBytes` is the plaintext
    /// length if known: it chooses the chunk size and the place.
    public func createExtent(under dataKey: DataKey, expectedBytes: Int?) async throws -> ExtentSealer {
        try checkKey(dataKey)
        return ExtentSealer(core: core, dataKey: dataKey, expectedBytes: expectedBytes)
    }

    /// Seals a body of at most 16 KiB inside its reference, without suspension. Longer is a mistake in the program.
    public func sealInline(_ plaintext: ByteBuffer, under dataKey: DataKey) throws -> ExtentReference {
        try checkKey(dataKey)
        precondition(plaintext.readableBytes <= InlineExtent.plaintextBytesLimit)
        return plaintext.withUnsafeReadableBytes { InlineExtent.seal($0, under: dataKey, randomness: core.randomness) }
    }

    /// Opens `range` of an inline body, without suspension. nil when the reference is an extent's: then `readExtent`
    /// reads it.
    public func openInline(_ reference: ExtentReference, range: Range<Int>, under dataKey: DataKey) throws
        -> ByteBuffer?
    {
        guard reference.isInline else { return nil }
        try checkKey(dataKey)
        let range = range.clamped(to: 0..<reference.plaintextBytes)
        var body = try InlineExtent.open(reference, under: dataKey)
        body.moveReaderIndex(forwardBy: range.lowerBound)
        return body.readSlice(length: range.count)!
    }

    /// Opens `range` (clamped to the extent) of the extent's plaintext and hands it over in order, in pieces of up to
    /// about 1 MiB, each verified before it leaves. Checks the lease as it goes and throws `KeyUnavailable` in the
    /// middle when it died. Throws `SealedStoreError.corrupt` for bytes that are not authentic, `.keyMismatch` for
    /// another key.
    public func readExtent(
        _ reference: ExtentReference, range: Range<Int>, under dataKey: DataKey,
        deliver: @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        try await dataKey.confirmLease()
        if let body = try openInline(reference, range: range, under: dataKey) {
            if body.readableBytes > 0 { try await deliver(body) }
            return
        }
        try checkKey(dataKey)
        let range = range.clamped(to: 0..<reference.plaintextBytes)
        guard !range.isEmpty else { return }
        var reader = try ExtentReader(core: core, reference: reference, dataKey: dataKey)
        let chunkBytes = reader.format.chunkBytes
        let chunksPerRead = max(1, Self.readBytes / chunkBytes)
        var chunk = range.lowerBound / chunkBytes
        let end = (range.upperBound - 1) / chunkBytes + 1
        while chunk < end {
            try await dataKey.confirmLease()
            let next = min(chunk + chunksPerRead, end)
            var piece = try await reader.open(chunk..<next)
            let start = chunk * chunkBytes
            piece.moveReaderIndex(forwardBy: max(0, range.lowerBound - start))
            if let excess = Optional(min(next * chunkBytes, reference.plaintextBytes) - range.upperBound), excess > 0 {
                piece.moveWriterIndex(to: piece.writerIndex - excess)
            }
            try await deliver(piece)
            chunk = next
        }
    }

    /// Gives back an extent that `finish` returned and no commit took. Does nothing for an inline or a linked one.
    public func discard(_ reference: ExtentReference) async {
        guard !reference.isInline else { return }
        let location = ExtentLocation(reference.location)
        guard core.unlinked.take(location) else { return }
        // What cannot be deleted now is an orphan, which the next start's mark and sweep deletes.
        try? await core.deleteExtent(location)
    }
}

/// Reads chunks of one extent: a range is arithmetic, and all its chunks are verified before the first byte leaves.
struct ExtentReader {
    let format: ExtentFormat
    private let core: StoreCore
    private let reference: ExtentReference
    private var cipher: ChunkCipher

    init(core: StoreCore, reference: ExtentReference, dataKey: DataKey) throws(SealedStoreError) {
        self.core = core
        self.reference = reference
        format = ExtentFormat(
            account: dataKey.account, domainID: dataKey.domainID, extentID: reference.extentID,
            log2ChunkBytes: reference.log2ChunkBytes)
        cipher = ChunkCipher(
            format: format,
            aead: try WrappedExtentKey.open(reference.wrappedKey, of: reference.extentID, under: dataKey))
    }

    /// The plaintext of whole chunks, one after the other. With chunk 0 the header is read and compared too.
    mutating func open(_ chunks: Range<Int>) async throws(SealedStoreError) -> ByteBuffer {
        let count = format.chunkCount(plaintextBytes: reference.plaintextBytes)
        let sealed = format.sealedChunkBytes
        let start = chunks.lowerBound == 0 ? 0 : ExtentFormat.headerBytes + chunks.lowerBound * sealed
        let end =
            chunks.upperBound == count
            ? format.sealedBytes(plaintextBytes: reference.plaintextBytes)
            : ExtentFormat.headerBytes + chunks.upperBound * sealed
        var buffer = try await read(start..<end)
        if start == 0 {
            guard buffer.readBytes(length: ExtentFormat.headerBytes) == format.header else {
                throw SealedStoreError(.corrupt, "An extent's header is not the one its reference asks for.")
            }
        }
        try open(&buffer, chunks, count)
        return buffer
    }

    private func read(_ range: Range<Int>) async throws(SealedStoreError) -> ByteBuffer {
        let buffer: ByteBuffer
        do { buffer = try await core.extents.read(ExtentLocation(reference.location), range: range) } catch {
            throw SealedStoreError(error)
        }
        guard buffer.readableBytes == range.count else {
            throw SealedStoreError(
                .corrupt, "The engine gave \(buffer.readableBytes) bytes of an extent instead of \(range.count).")
        }
        return buffer
    }

    /// Decrypts in place, then closes the gaps the tags leave, so that one contiguous piece goes on.
    private mutating func open(_ buffer: inout ByteBuffer, _ chunks: Range<Int>, _ count: Int) throws(SealedStoreError)
    {
        let sealed = format.sealedChunkBytes
        let chunkBytes = format.chunkBytes
        let totalBytes = reference.plaintextBytes
        let plaintextBytes = buffer.withUnsafeMutableReadableBytes { bytes -> Int? in
            var read = 0
            var written = 0
            for chunk in chunks {
                let isLast = chunk == count - 1
                let length = isLast ? totalBytes - chunk * chunkBytes + AEAD.tagBytes : sealed
                let source = bytes.baseAddress!.advanced(by: read)
                let isAuthentic = cipher.open(
                    UnsafeRawBufferPointer(start: source, count: length), index: UInt32(chunk),
                    totalBytes: isLast ? totalBytes : nil,
                    to: source)
                guard isAuthentic else { return nil }
                if written != read {
                    bytes.baseAddress!.advanced(by: written).copyMemory(from: source, byteCount: length - AEAD.tagBytes)
                }
                read += length
                written += length - AEAD.tagBytes
            }
            return written
        }
        guard let plaintextBytes else {
            throw SealedStoreError(.corrupt, "An extent does not open: its bytes are damaged, moved or missing.")
        }
        buffer.moveWriterIndex(to: buffer.readerIndex + plaintextBytes)
    }
}
