internal import CofferCore
internal import Crypto
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

/// A body that was sealed into an extent; `extent` is nil for an empty one.
struct IngestedBody: Sendable {
    var extent: ExtentReference?
    var length: Int
    var md5: [UInt8]?
    var crc64: [UInt8]?
    var manifest: Manifest { extent.map { Manifest($0) } ?? .empty }
    var extents: [ExtentReference] { extent.map { [$0] } ?? [] }
}

extension BlobService {
    /// Put Blob, for a block blob: the whole content in one request.
    func putBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        let tier = try call.accessTier()
        var secrets = BlobSecrets()
        secrets.metadata = try call.metadata()
        secrets.tags = try call.tagsHeader()
        let givenMD5 = try call.md5Header("x-ms-blob-content-md5")
        let isSmall = (call.request.body.declaredLength ?? .max) <= NewNames.bodyBytes
        let replaced = try await checkedReplacement(call, container, name, conditions, mayPresume: isSmall)

        let key = try await dataKey(call, encryption)
        let body = try await ingest(
            call, under: key, limit: BlobLimits.putBlobBytes, mayBeInline: true, computingMD5: true)
        if let givenMD5, givenMD5 != body.md5 {
            for extent in body.extents { await call.volume.discard(extent) }
            throw StorageError.md5Mismatch
        }
        secrets.md5 = body.md5
        secrets.manifest = body.manifest
        var template = BlobRecord(etag: ETag(number: 0), at: call.now)
        template.length = UInt64(body.length)
        template.content = call.contentHeaders(fallbacks: true)
        template.tier = tier
        if tier != nil { template.tierChanged = call.now }
        let fixed = (template, secrets)
        let record = try await linking(body.extents, call) {
            try await replaceBlob(
                call, container, name, replacing: replaced, conditions: conditions, under: key
            ) { _ in fixed }
        }

        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        if let md5 = body.md5 { response.headers.add(name: "Content-MD5", value: md5.base64) }
        if let crc64 = body.crc64 { response.headers.add(name: "x-ms-content-crc64", value: crc64.base64) }
        response.headers.addWriteEncryption(record)
        return response
    }

    /// Seals the request's body into an extent and checks it against `Content-Length`, `Content-MD5` and
    /// `x-ms-content-crc64`. Nothing stays of a body that ends early, is too long or does not match. `mayBeInline`:
    /// not for one of many in its blob: they would fill the blob's row.
    func ingest(
        _ call: BlobCall, under key: DataKey, limit: Int, mayBeInline: Bool, computingMD5: Bool,
        computingCRC64: Bool = false
    ) async throws -> IngestedBody {
        guard let declared = call.request.body.declaredLength else { throw StorageError.missingContentLength }
        guard declared <= limit else { throw StorageError.bodyTooLarge }
        let wantedMD5 = try call.md5Header("Content-MD5")
        let wantedCRC64 = try call.header("x-ms-content-crc64").map { text throws(StorageError) in
            guard let bytes = [UInt8](base64: text), bytes.count == 8 else {
                throw .invalidHeader("x-ms-content-crc64", text)
            }
            return bytes
        }
        guard wantedMD5 == nil || wantedCRC64 == nil else {
            throw StorageError(400, "InvalidInput", "Content-MD5 and x-ms-content-crc64 must not both be given.")
        }
        var hash = BodyHash(md5: computingMD5 || wantedMD5 != nil, crc64: computingCRC64 || wantedCRC64 != nil)
        guard declared > 0 else {
            try hash.check(md5: wantedMD5, crc64: wantedCRC64)
            return IngestedBody(extent: nil, length: 0, md5: hash.md5, crc64: hash.crc64)
        }
        let sealer = try await call.volume.createExtent(under: key, expectedBytes: declared, mayBeInline: mayBeInline)
        do {
            var received = 0
            for try await buffer in call.request.body {
                received += buffer.readableBytes
                guard received <= declared else { throw StorageError.bodyTooLarge }
                hash.update(buffer)
                try await sealer.append(buffer)
            }
            guard received == declared else {
                throw StorageError(400, "InvalidInput", "The request's body is shorter than its Content-Length.")
            }
            try hash.check(md5: wantedMD5, crc64: wantedCRC64)
        } catch {
            await sealer.abort()
            throw error
        }
        let extent = try await sealer.finish()
        return IngestedBody(extent: extent, length: declared, md5: hash.md5, crc64: hash.crc64)
    }
}

/// The digests a body is asked for, taken as it passes.
struct BodyHash {
    private var md5State: Insecure.MD5?
    private var crcState: CRC64?

    init(md5: Bool, crc64: Bool) {
        md5State = md5 ? Insecure.MD5() : nil
        crcState = crc64 ? CRC64() : nil
    }
    mutating func update(_ buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { bytes in
            md5State?.update(bufferPointer: bytes)
            crcState?.update(bytes)
        }
    }
    var md5: [UInt8]? { md5State.map { Array($0.finalize()) } }
    var crc64: [UInt8]? { crcState?.bytes }

    func check(md5 wantedMD5: [UInt8]?, crc64 wantedCRC64: [UInt8]?) throws(StorageError) {
        if let wantedMD5, wantedMD5 != md5 { throw .md5Mismatch }
        if let wantedCRC64, wantedCRC64 != crc64 { throw .crc64Mismatch }
    }
}
