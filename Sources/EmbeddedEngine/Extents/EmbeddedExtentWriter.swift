internal import NIOCore
internal import StorageEngine
internal import Synchronization

/// Holds an extent back while it is small, so that it goes into a segment in one write; moves into a file of its own
/// when it grows.
final class EmbeddedExtentWriter: ExtentWriter {
    /// Extents up to this many bytes go into segments: what seals one MiB of plaintext is among them.
    static let segmentLimit = (1 << 20) + (64 << 10)

    private enum State {
        case gathering([ByteBuffer], byteCount: Int)
        case writing(ExtentFiles.Unfinished)
        case ended
    }
    private let segments: SegmentStore
    private let files: ExtentFiles
    private let expectedBytes: Int?
    private let state: Mutex<State>

    init(segments: SegmentStore, files: ExtentFiles, expectedBytes: Int?) throws(StorageEngineError) {
        self.segments = segments
        self.files = files
        self.expectedBytes = expectedBytes
        if let expectedBytes, expectedBytes > Self.segmentLimit {
            state = Mutex(.writing(try files.create(expectedBytes: expectedBytes)))
        } else {
            state = Mutex(.gathering([], byteCount: 0))
        }
    }

    func append(_ bytes: ByteBuffer) async throws(StorageEngineError) {
        // Taken out and put back: appends do not overlap, and one that fails leaves the writer at its end.
        switch take() {
        case .gathering(var pieces, let byteCount):
            if bytes.readableBytes > 0 { pieces.append(bytes) }
            let total = byteCount + bytes.readableBytes
            guard total > Self.segmentLimit else { return put(.gathering(pieces, byteCount: total)) }
            let file = try files.create(expectedBytes: nil)
            for piece in pieces { try await files.append(piece, to: file) }
            put(.writing(file))
        case .writing(let file):
            try await files.append(bytes, to: file)
            put(.writing(file))
        case .ended:
            throw Self.ended
        }
    }

    func finish() async throws(StorageEngineError) -> ExtentLocation {
        switch take() {
        case .gathering(let pieces, let byteCount):
            let result = await withCheckedContinuation { continuation in
                segments.submit(
                    SegmentStore.Job(pieces: pieces, byteCount: byteCount) { continuation.resume(returning: $0) })
            }
            return try result.get().location
        case .writing(let file):
            return try await files.finish(file).location
        case .ended:
            throw Self.ended
        }
    }

    func abort() async { _ = take() }

    private func take() -> State {
        state.withLock { state in
            let taken = state
            state = .ended
            return taken
        }
    }
    private func put(_ next: State) { state.withLock { $0 = next } }

    private static let ended = StorageEngineError(
        .unavailable, "The extent's writer has ended: it finished, was aborted, or failed.")
}
