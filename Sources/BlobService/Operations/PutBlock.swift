internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Put Block and Put Block From URL: content that a later Put Block List may name.
    func putBlock(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        guard let id = call.parameters["blockid"] else { throw StorageError.missingQuery("blockid") }
        guard let idBytes = [UInt8](base64: id), (1...BlobLimits.blockIDBytes).contains(idBytes.count) else {
            throw StorageError.invalidQuery("blockid", id)
        }
        let current = try await blobRow(call, container, name)
        try checkStaging(call, conditions, current)
        // Before the body comes; the commit asks again.
        let beside = try await call.volume.get(
            container.partition, [BlobKeys.stagedBlocks(name), BlobKeys.block(name, idBytes)])
        var staged = try await stagedBlocks(beside[0], beside: current, name, call.volume, container.partition)
        try staged.add(idBytes: idBytes.count, isNew: beside[1] == nil)

        let key = try await dataKey(call, encryption)
        let body: IngestedBody
        if call.request.headers.contains(name: "x-ms-copy-source") {
            body = try await ingestSource(call, under: key, limit: BlobLimits.putBlockBytes)
        } else {
            let hasMD5 = call.request.headers.contains(name: "Content-MD5")
            body = try await ingest(
                call, under: key, limit: BlobLimits.putBlockBytes, mayBeInline: false, computingMD5: hasMD5,
                computingCRC64: true)
            guard body.length > 0 else { throw StorageError.invalidHeader("Content-Length", "0") }
        }
        try await linking(body.extents, call) {
            try await stage(call, container, name, id, idBytes, body, conditions, key)
        }

        var response = Response(status: .created)
        response.headers.add(hashesOf: body)
        response.headers.addWriteEncryption(
            customerKeySHA256: encryption.customerKey?.sha256, scope: encryption.scope)
        return response
    }

    private func stage(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ id: String, _ idBytes: [UInt8],
        _ body: IngestedBody,
        _ conditions: Conditions, _ key: DataKey
    ) async throws {
        let blockKey = BlobKeys.block(name, idBytes)
        let baseKey = BlobKeys.base(name)
        let stagedKey = BlobKeys.stagedBlocks(name)
        let extents = body.extents
        let block = BlockRecord(
            id: id, length: UInt64(body.length), uploaded: call.now, customerKeySHA256: key.customerProvidedKeySHA256,
            encryptionScope: key.scope, releasable: extents.compactMap(\.withoutKey))
        let sealed = try await call.volume.seal(
            body.extent.map(BlockRecord.encodeExtent) ?? [], of: extents, at: blockKey, in: container.partition,
            under: key)
        func attempt() async throws -> Bool? {
            let rows = try await call.volume.get(container.partition, [baseKey, stagedKey, blockKey])
            let base = try rows[0].map(BlobRow.init)
            try checkStaging(call, conditions, base)
            var staged = try await stagedBlocks(rows[1], beside: base, name, call.volume, container.partition)
            try staged.add(idBytes: idBytes.count, isNew: rows[2] == nil)
            // The base blob's row says that blocks lie beside it; a blob never committed gets a row that only says so.
            var writes = [
                VolumeWrite.put(stagedKey, visible: staged.encoded(), sealed: .none),
                VolumeWrite.put(blockKey, visible: block.encoded(), sealed: sealed),
            ]
            if base?.record.hasStagedBlocks != true {
                var record = base?.record ?? BlobRecord(etag: ETag(at: call.now, after: nil), at: call.now)
                if base == nil { record.isUncommitted = true }
                record.hasStagedBlocks = true
                writes.append(.put(baseKey, visible: record.encoded(), sealed: base?.sealed ?? .none))
            }
            let checks: [VolumeCheck] = [
                base.map { .unchanged(baseKey, $0.version) } ?? .absent(baseKey),
                rows[1].map { .unchanged(stagedKey, $0.version) } ?? .absent(stagedKey),
            ]
            let replaced = try rows[2].map { try BlockRecord(decoding: $0.visible).releasable } ?? []
            let done = try await commit(
                call, container, checks: checks, writes: writes, linking: extents, releasing: replaced)
            return done ? true : nil
        }
        _ = try await turnstile(container, name).pass { try await retrying(attempt) }
    }

    func turnstile(_ container: ContainerHandle, _ name: String) -> Turnstile {
        var hasher = Hasher()
        hasher.combine(container.record.id)
        hasher.combine(name)
        return turnstiles[Int(UInt(bitPattern: hasher.finalize()) % UInt(turnstiles.count))]
    }

    private func checkStaging(_ call: BlobCall, _ conditions: Conditions, _ base: BlobRow?) throws(StorageError) {
        guard let base, !base.record.isUncommitted else { return }
        guard base.record.type == .block else { throw .invalidBlobType }
        try conditions.checkLeaseForWrite(base.record.lease, of: .blob, at: call.now)
    }
}
