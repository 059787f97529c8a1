internal import CofferCore
public import NIOCore
internal import StorageEngine

/// Making and reading extents.
extension AccountVolume {
    /// Most bytes of an extent asked of the engine at once, about; and so most plaintext handed over at once.
    private static let readBytes = 1 << 20

    /// Starts an extent under a fresh data encryption key, wrapped under `dataKey`. `expectedBytes` is the plaintext
    /// length if known: it chooses the chunk size and the place. `mayBeInline`: a body of at most 16 KiB comes sealed
    /// with its reference; not for one of many that a row will refer to, for they would all lie in it.
    public func createExtent(
        under dataKey: DataKey, expectedBytes: Int?, mayBeInline: Bool = true
    ) async throws -> ExtentSealer {
        try await confirmKey(dataKey)
        return ExtentSealer(core: core, dataKey: dataKey, expectedBytes: expectedBytes, mayBeInline: mayBeInline)
    }

    /// Seals a body of at most 16 KiB that comes with its reference. Longer is a mistake in the program.
    public func sealInline(_ plaintext: ByteBuffer, under dataKey: DataKey) async throws -> ExtentReference {
        try await confirmKey(dataKey)
        precondition(plaintext.readableBytes <= InlineExtent.plaintextBytesLimit)
        return plaintext.withUnsafeReadableBytes { InlineExtent.seal($0, under: dataKey, randomness: core.randomness) }
    }

    /// Opens `range` of an inline body. nil when the reference is an extent's: then `readExtent`
    /// reads it.
    public func openInline(_ reference: ExtentReference, range: Range<Int>, under dataKey: DataKey) async throws
        -> ByteBuffer?
    {
        guard reference.isInline else { return nil }
        try await confirmKey(dataKey)
        let range = range.clamped(to: 0..<reference.plaintextBytes)
        var body = try InlineExtent.open(reference, under: dataKey)
        body.moveReaderIndex(forwardBy: range.lowerBound)
        return body.readSlice(length: range.count)!
    }

    /// Opens `range` (clamped to the extent) of the extent's plaintext and hands it over in order, in pieces of up to
    /// about 1 MiB, each verified before it leaves. Checks the lease as it goes and throws `KeyUnavailable` in the
    /// middle when it died. The extent outlives its last holder until the read ends. Throws `SealedStoreError.corrupt`
    /// for bytes that are not authentic, `.keyMismatch` for another key.
    public func readExtent(
        _ reference: ExtentReference, range: Range<Int>, under dataKey: DataKey,
        deliver: @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        try await confirmKey(dataKey)
        if let body = try await openInline(reference, range: range, under: dataKey) {
            if body.readableBytes > 0 { try await deliver(body) }
            return
        }
        let range = range.clamped(to: 0..<reference.plaintextBytes)
        guard !range.isEmpty else { return }
        try await whileReading([reference]) { try await read(reference, range, under: dataKey, deliver) }
    }

    /// Keeps the extents of `references` for as long as `body` runs, whatever commits release meanwhile: a long
    /// download of many pieces holds the last while it reads the first. A container or account that is destroyed
    /// takes its extents with it all the same.
    public func whileReading<Result>(
        _ references: [ExtentReference], _ body: () async throws -> Result
    ) async rethrows -> Result {
        let locations = references.filter { !$0.isInline }.map { ExtentLocation($0.location) }
        core.readers.enter(locations)
        defer { core.readers.leave(locations) }
        return try await body()
    }

    /// `range` is not empty and lies in the extent.
    private func read(
        _ reference: ExtentReference, _ range: Range<Int>, under dataKey: DataKey,
        _ deliver: @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        let reader = try ExtentReader(core: core, reference: reference, dataKey: dataKey)
        let chunkBytes = reader.format.chunkBytes
        let chunksPerRead = max(1, Self.readBytes / chunkBytes)
        let end = (range.upperBound - 1) / chunkBytes + 1
        var chunks = range.lowerBound / chunkBytes..<min(range.lowerBound / chunkBytes + chunksPerRead, end)
        var sealed = try await reader.read(chunks)
        while true {
            try await dataKey.confirmLease()
            // Handed over, so that it is decrypted where it lies and not copied first.
            let piece = try reader.open(consume sealed, chunks, clampedTo: range)
            let next = chunks.upperBound..<min(chunks.upperBound + chunksPerRead, end)
            guard !next.isEmpty else { return try await deliver(piece) }
            // The engine reads on while this piece goes out.
            async let ahead = reader.read(next)
            try await deliver(piece)
            sealed = try await ahead
            chunks = next
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
struct ExtentReader: Sendable {
    let format: ExtentFormat
    private let core: StoreCore
    private let reference: ExtentReference
    private let cipher: ChunkCipher

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

    private var chunkCount: Int { format.chunkCount(plaintextBytes: reference.plaintextBytes) }

    /// The sealed bytes of whole chunks; with chunk 0, the header before them.
    func read(_ chunks: Range<Int>) async throws(SealedStoreError) -> ByteBuffer {
        let sealed = format.sealedChunkBytes
        let start = chunks.lowerBound == 0 ? 0 : ExtentFormat.headerBytes + chunks.lowerBound * sealed
        let end =
            chunks.upperBound == chunkCount
            ? format.sealedBytes(plaintextBytes: reference.plaintextBytes)
            : ExtentFormat.headerBytes + chunks.upperBound * sealed
        let buffer: ByteBuffer
        do { buffer = try await core.extents.read(ExtentLocation(reference.location), range: start..<end) } catch {
            throw SealedStoreError(error)
        }
        guard buffer.readableBytes == end - start else {
            throw SealedStoreError(
                .corrupt, "The engine gave \(buffer.readableBytes) bytes of an extent instead of \(end - start).")
        }
        return buffer
    }

    /// Opens what `read` gave for the same chunks. Decrypts in place, then closes the gaps the tags leave, so that one
    /// contiguous piece goes on; cut to the part of `range` that lies in it.
    func open(
        _ sealed: consuming ByteBuffer, _ chunks: Range<Int>, clampedTo range: Range<Int>
    ) throws(SealedStoreError) -> ByteBuffer {
        var buffer = sealed
        if chunks.lowerBound == 0 {
            guard buffer.readBytes(length: ExtentFormat.headerBytes) == format.header else {
                throw SealedStoreError(.corrupt, "An extent's header is not the one its reference asks for.")
            }
        }
        guard let plaintextBytes = buffer.withUnsafeMutableReadableBytes({ decrypt($0, chunks) }) else {
            throw SealedStoreError(.corrupt, "An extent does not open: its bytes are damaged, moved or missing.")
        }
        let start = chunks.lowerBound * format.chunkBytes
        buffer.moveWriterIndex(to: buffer.readerIndex + min(plaintextBytes, range.upperBound - start))
        buffer.moveReaderIndex(forwardBy: max(0, range.lowerBound - start))
        return buffer
    }

    /// The plaintext of whole chunks.
    func open(_ chunks: Range<Int>) async throws(SealedStoreError) -> ByteBuffer {
        try open(try await read(chunks), chunks, clampedTo: 0..<reference.plaintextBytes)
    }

    /// The plaintext's length; nil when a chunk is not authentic.
    private func decrypt(_ bytes: UnsafeMutableRawBufferPointer, _ chunks: Range<Int>) -> Int? {
        var cipher = cipher
        let last = chunkCount - 1
        var read = 0
        var written = 0
        for chunk in chunks {
            let plaintextBytes = min(format.chunkBytes, reference.plaintextBytes - chunk * format.chunkBytes)
            let source = bytes.baseAddress!.advanced(by: read)
            let isAuthentic = cipher.open(
                UnsafeRawBufferPointer(start: source, count: plaintextBytes + AEAD.tagBytes), index: UInt32(chunk),
                totalBytes: chunk == last ? reference.plaintextBytes : nil, to: source)
            guard isAuthentic else { return nil }
            if written != read {
                bytes.baseAddress!.advanced(by: written).copyMemory(from: source, byteCount: plaintextBytes)
            }
            read += plaintextBytes + AEAD.tagBytes
            written += plaintextBytes
        }
        return written
    }
}
