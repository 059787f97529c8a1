internal import CofferCore
public import NIOCore
internal import StorageEngine
internal import Synchronization

/// Seals one extent as bytes come in. Memory: at most 256 KiB of it (1 MiB above 8 MiB expected). One call at a time.
///
/// A body that ends within 16 KiB, and may be inline, never reaches the extent store: `finish` returns it sealed with
/// its reference. A sealer dropped before `finish` leaves nothing behind.
public final class ExtentSealer: Sendable {
    private struct State {
        /// Plaintext held back until it is clear whether the body is a small one.
        var head = ByteBuffer()
        var chunks: ChunkSealer?
        var writer: (any ExtentWriter)?
        var isEnded = false
    }
    private let core: StoreCore
    private let dataKey: DataKey
    private let expectedBytes: Int?
    private let mayBeInline: Bool
    private let state: Mutex<State>

    init(core: StoreCore, dataKey: DataKey, expectedBytes: Int?, mayBeInline: Bool) {
        self.core = core
        self.dataKey = dataKey
        self.expectedBytes = expectedBytes
        self.mayBeInline = mayBeInline
        state = Mutex(State())
    }

    private enum Step {
        case done
        case start
        case write(ByteBuffer, any ExtentWriter)
    }

    /// Throws `KeyUnavailable` when the key's lease died, `SealedStoreError` when the engine cannot take the bytes.
    public func append(_ plaintext: ByteBuffer) async throws {
        try await dataKey.confirmLease()
        var input = plaintext
        while true {
            let step = state.withLock { state -> Step in
                precondition(!state.isEnded, "append after finish or abort")
                guard let writer = state.writer else {
                    let isSmall = state.head.readableBytes + input.readableBytes <= InlineExtent.plaintextBytesLimit
                    guard mayBeInline, isSmall, (expectedBytes ?? 0) <= InlineExtent.plaintextBytesLimit else {
                        return .start
                    }
                    state.head.writeBuffer(&input)
                    return .done
                }
                return state.chunks!.absorb(&input).map { .write($0, writer) } ?? .done
            }
            switch step {
            case .done: return
            case .start: try await start()
            case .write(let batch, let writer): try await write(batch, to: writer)
            }
        }
    }

    /// Durable when it returns (an inline body: once the commit that holds the reference is). The reference counts once
    /// a commit links it; `AccountVolume.discard` gives an unwanted one back.
    public func finish() async throws -> ExtentReference {
        try await dataKey.confirmLease()
        let last = state.withLock { state -> (ChunkSealer, any ExtentWriter)? in
            precondition(!state.isEnded, "finish after finish or abort")
            state.isEnded = true
            guard let writer = state.writer else { return nil }
            return (state.chunks!, writer)
        }
        guard case (var chunks, let writer)? = last else {
            return state.withLock { state in
                state.head.withUnsafeReadableBytes {
                    InlineExtent.seal($0, under: dataKey, randomness: core.randomness)
                }
            }
        }
        try await write(chunks.finish(), to: writer)
        let location: ExtentLocation
        do { location = try await writer.finish() } catch { throw SealedStoreError(error) }
        core.unlinked.add(location, at: core.clock.now())
        return chunks.reference(at: location)
    }

    public func abort() async {
        let writer = state.withLock { state -> (any ExtentWriter)? in
            defer { state = State(isEnded: true) }
            return state.isEnded ? nil : state.writer
        }
        await writer?.abort()
    }

    private func start() async throws {
        let chunks = ChunkSealer(dataKey: dataKey, expectedBytes: expectedBytes, randomness: core.randomness)
        let writer: any ExtentWriter
        do {
            writer = try await core.extents.create(
                expectedBytes: expectedBytes.map(chunks.cipher.format.sealedBytes(plaintextBytes:)))
        } catch { throw SealedStoreError(error) }
        state.withLock { state in
            state.chunks = chunks
            // At most 16 KiB: never a whole batch.
            let batch = state.chunks!.absorb(&state.head)
            precondition(batch == nil && state.head.readableBytes == 0)
            state.head = ByteBuffer()
            state.writer = writer
        }
    }

    private func write(_ batch: ByteBuffer, to writer: any ExtentWriter) async throws {
        do { try await writer.append(batch) } catch { throw SealedStoreError(error) }
    }
}

/// Turns plaintext into header and sealed chunks, batch by batch, without I/O.
struct ChunkSealer: Sendable {
    private(set) var cipher: ChunkCipher
    private let wrappedKey: [UInt8]
    private let batchBytes: Int
    /// Sealed bytes ready for the engine, then `pending` bytes of plaintext of the chunk that is not full, or not known
    /// not to be the last.
    private var output: ByteBuffer
    private var pending = 0
    private var index: UInt32 = 0
    private var totalBytes = 0

    init(dataKey: DataKey, expectedBytes: Int?, randomness: any Randomness) {
        let extentID = randomness.bytes(16)
        let (wrapped, aead) = WrappedExtentKey.make(for: extentID, under: dataKey, randomness: randomness)
        wrappedKey = wrapped
        let format = ExtentFormat(
            account: dataKey.account, domainID: dataKey.domainID, extentID: extentID,
            log2ChunkBytes: ExtentFormat.log2ChunkBytes(expectedBytes: expectedBytes))
        cipher = ChunkCipher(format: format, aead: aead)
        batchBytes = 16 * format.sealedChunkBytes
        let capacity = min(
            expectedBytes.map(format.sealedBytes(plaintextBytes:)) ?? .max, batchBytes + format.sealedChunkBytes)
        output = ByteBufferAllocator().buffer(capacity: capacity)
        output.writeBytes(format.header)
    }

    /// Takes from `input` until it is empty (nil) or a batch is full (which goes to the engine; then call again).
    mutating func absorb(_ input: inout ByteBuffer) -> ByteBuffer? {
        let chunkBytes = cipher.format.chunkBytes
        while input.readableBytes > 0 {
            if pending == chunkBytes {
                sealPending(totalBytes: nil)
                if let batch = takeBatch() { return batch }
            }
            if pending == 0, input.readableBytes > chunkBytes {
                // A whole chunk that cannot be the last: sealed from where it lies.
                sealDirectly(&input)
                if let batch = takeBatch() { return batch }
                continue
            }
            let count = min(chunkBytes - pending, input.readableBytes)
            var slice = input.readSlice(length: count)!
            output.writeBuffer(&slice)
            pending += count
            totalBytes += count
        }
        return nil
    }

    /// The last batch; the last chunk is the pending one, which may be full or, in an empty extent, empty.
    mutating func finish() -> ByteBuffer {
        sealPending(totalBytes: totalBytes)
        return output
    }

    func reference(at location: ExtentLocation) -> ExtentReference {
        ExtentReference(
            location: location.bytes, extentID: cipher.format.extentID, plaintextBytes: totalBytes,
            log2ChunkBytes: cipher.format.log2ChunkBytes, wrappedKey: wrappedKey)
    }

    private mutating func takeBatch() -> ByteBuffer? {
        guard output.readableBytes >= batchBytes else { return nil }
        let batch = output
        output = ByteBufferAllocator().buffer(capacity: batchBytes + cipher.format.sealedChunkBytes)
        return batch
    }

    private mutating func sealDirectly(_ input: inout ByteBuffer) {
        let chunkBytes = cipher.format.chunkBytes
        let sealedBytes = cipher.format.sealedChunkBytes
        let index = index
        input.readWithUnsafeReadableBytes { source in
            output.writeWithUnsafeMutableBytes(minimumWritableBytes: sealedBytes) { target in
                cipher.seal(
                    .init(rebasing: source[..<chunkBytes]), index: index, totalBytes: nil, to: target.baseAddress!)
                return sealedBytes
            }
            return chunkBytes
        }
        totalBytes += chunkBytes
        advance()
    }

    private mutating func sealPending(totalBytes: Int?) {
        let count = pending
        let index = index
        output.reserveCapacity(minimumWritableBytes: AEAD.tagBytes)
        output.moveWriterIndex(forwardBy: AEAD.tagBytes)
        output.withUnsafeMutableReadableBytes { bytes in
            let start = bytes.count - AEAD.tagBytes - count
            let chunk = UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])
            cipher.seal(chunk, index: index, totalBytes: totalBytes, to: bytes.baseAddress!.advanced(by: start))
        }
        pending = 0
        advance()
    }

    private mutating func advance() {
        precondition(index < .max, "an extent has at most 2^32 chunks")
        index += 1
    }
}
