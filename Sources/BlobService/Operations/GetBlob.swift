internal import CofferCore
internal import Crypto
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount
internal import Synchronization

extension BlobService {
    /// Answers of up to this many bytes are opened before the head is sent, so that a failure still is a status.
    private static let bufferedBytes: UInt64 = 256 << 10

    /// Get Blob: the content, or a range of it, of a blob or a snapshot.
    func getBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        // No byte has left yet when a look at the pages comes too late.
        try await retryingPages { try await getBlobOnce(call, containerName, name) }
    }

    private func getBlobOnce(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .readBlob)
        let conditions = try Conditions(call.request)
        let customerKey = try CustomerKeyHeaders.read(call.request, isWrite: false)
        let snapshot = try snapshotParameter(call)
        let row = try await existingBlob(call, container, name, snapshot: snapshot)
        let record = row.record
        try conditions.checkRead(etag: record.etag, modified: record.modified)
        if snapshot == nil { try conditions.checkLeaseForRead(record.lease, of: .blob, at: call.now) }
        try CustomerKeyHeaders.check(customerKey, against: record.customerKeySHA256)

        let key = try await readKey(call, customerKey, record)
        let secrets = try await open(row, call, container, under: key)
        let asked = (call.header("x-ms-range") ?? call.header("Range")).flatMap(ByteRange.init(header:))
        let range = try asked?.resolve(length: record.length) ?? 0..<record.length
        let wantsMD5 = call.header("x-ms-range-get-content-md5")?.lowercased() == "true"
        let wantsCRC64 = call.header("x-ms-range-get-content-crc64")?.lowercased() == "true"
        if wantsMD5 || wantsCRC64 {
            guard asked != nil, !(wantsMD5 && wantsCRC64) else {
                throw StorageError.invalidHeader("x-ms-range-get-content-md5", "true")
            }
            guard UInt64(range.count) <= BlobLimits.rangeHashBytes else {
                throw StorageError.invalidHeader(
                    "x-ms-range-get-content-md5", reason: "The range is larger than 4 MiB.")
            }
        }

        var response = Response(status: asked == nil ? .ok : .partialContent)
        response.headers.add(blob: record, snapshot: snapshot, secrets: secrets, at: call.now)
        if asked != nil {
            response.headers.add(
                name: "Content-Range", value: "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(record.length)")
            if let md5 = secrets.md5 { response.headers.add(name: "x-ms-blob-content-md5", value: md5.base64) }
        } else if let md5 = secrets.md5 {
            response.headers.add(name: "Content-MD5", value: md5.base64)
        }
        let content = content(of: row, secrets, call, container, under: key)
        let segment = try await content.segment(of: range)
        if UInt64(range.count) <= Self.bufferedBytes || wantsMD5 || wantsCRC64 {
            let bytes = try await read(segment, of: content, count: range.count)
            var hash = BodyHash(md5: wantsMD5, crc64: wantsCRC64)
            hash.update(bytes)
            if let md5 = hash.md5 { response.headers.add(name: "Content-MD5", value: md5.base64) }
            if let crc64 = hash.crc64 { response.headers.add(name: "x-ms-content-crc64", value: crc64.base64) }
            response.body = bytes.readableBytes == 0 ? .empty : .bytes(bytes)
        } else {
            response.body = .stream(length: range.count) { writer in
                try await content.read(segment) { try await writer.write($0) }
            }
        }
        response.headers.override(by: call.caller)
        return response
    }

    /// Opens `count` bytes of a content into one buffer.
    private func read(
        _ first: ContentReader.Segment, of content: ContentReader, count: Int
    ) async throws -> ByteBuffer {
        let collector = Collector(capacity: count)
        try await content.read(first) { collector.append($0) }
        return collector.bytes
    }

    private final class Collector: Sendable {
        private let buffer: Mutex<ByteBuffer>
        private let capacity: Int
        init(capacity: Int) {
            buffer = Mutex(ByteBuffer())
            self.capacity = capacity
        }
        func append(_ part: ByteBuffer) {
            buffer.withLock { whole in
                if whole.readableBytes == 0, part.readableBytes == capacity {
                    whole = part
                    return
                }
                whole.reserveCapacity(capacity)
                whole.writeImmutableBuffer(part)
            }
        }
        var bytes: ByteBuffer { buffer.withLock { $0 } }
    }

    /// Get Blob Properties (HEAD) and Get Blob Metadata.
    func getBlobProperties(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .readBlob)
        let conditions = try Conditions(call.request)
        let customerKey = try CustomerKeyHeaders.read(call.request, isWrite: false)
        let snapshot = try snapshotParameter(call)
        let row = try await existingBlob(call, container, name, snapshot: snapshot)
        let record = row.record
        try conditions.checkRead(etag: record.etag, modified: record.modified)
        if snapshot == nil { try conditions.checkLeaseForRead(record.lease, of: .blob, at: call.now) }
        try CustomerKeyHeaders.check(customerKey, against: record.customerKeySHA256)
        let key = try await readKey(call, customerKey, record)
        let secrets = try await open(row, call, container, under: key)

        var response = Response(status: .ok)
        if call.parameters["comp"] == "metadata" {
            response.headers.add(etag: record.etag, modified: record.modified)
            response.headers.add(metadata: secrets.metadata)
            return response
        }
        response.headers.add(blob: record, snapshot: snapshot, secrets: secrets, at: call.now)
        if let md5 = secrets.md5 { response.headers.add(name: "Content-MD5", value: md5.base64) }
        if record.type == .block {
            response.headers.add(name: "x-ms-access-tier", value: (record.tier ?? .hot).rawValue)
            if record.tier == nil { response.headers.add(name: "x-ms-access-tier-inferred", value: "true") }
            if let changed = record.tierChanged {
                response.headers.add(name: "x-ms-access-tier-change-time", value: changed.rfc1123)
            }
        }
        response.headers.override(by: call.caller)
        response.body = .omitted(length: Int(record.length))
        return response
    }
}

extension AccountVolume {
    private static let zeroBytes = 64 << 10

    /// Opens pieces in order; zeros come as zeros. The last piece's extent stays while the first is read, even when the
    /// blob is replaced meanwhile.
    func read(
        _ pieces: [Manifest.Piece], under key: DataKey, _ consume: @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        try await whileReading(pieces.compactMap(\.extent)) { try await readEach(pieces, under: key, consume) }
    }

    private func readEach(
        _ pieces: [Manifest.Piece], under key: DataKey, _ consume: @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        for piece in pieces {
            if let extent = piece.extent {
                try await readExtent(extent, range: piece.range, under: key, deliver: consume)
                continue
            }
            let zeros = ByteBuffer(repeating: 0, count: min(piece.range.count, Self.zeroBytes))
            var left = piece.range.count
            while left > 0 {
                try await consume(zeros.getSlice(at: 0, length: min(left, Self.zeroBytes)) ?? zeros)
                left -= min(left, Self.zeroBytes)
            }
        }
    }
}
