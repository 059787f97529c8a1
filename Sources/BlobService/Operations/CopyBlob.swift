internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount
internal import Synchronization

/// A blob to copy from, opened: its content can be read.
struct CopySource: Sendable {
    let url: String
    let account: StorageAccountView
    let container: ContainerHandle
    let row: BlobRow
    let secrets: BlobSecrets
    let key: DataKey
    let content: ContentReader
}

extension AccountVolume {
    /// A content in one new extent under `target`, cut as it was; none for a content of zeros alone, which stay zeros.
    func seal(
        _ content: Manifest, of volume: AccountVolume, under key: DataKey, mayBeInline: Bool, to target: DataKey
    ) async throws -> (manifest: Manifest, fresh: [ExtentReference]) {
        let held = content.slices.filter { $0.extent != nil && $0.length > 0 }
        guard !held.isEmpty else { return (content, []) }
        let sealer = try await createExtent(
            under: target, expectedBytes: held.reduce(0) { $0 + $1.length }, mayBeInline: mayBeInline)
        do {
            let pieces = held.map { ($0.extent, $0.offset..<$0.offset + $0.length) }
            try await volume.read(pieces, under: key) { try await sealer.append($0) }
        } catch {
            await sealer.abort()
            throw error
        }
        let extent = try await sealer.finish()
        var slices: [Manifest.Slice] = []
        var offset = 0
        for slice in content.slices {
            guard slice.extent != nil else {
                slices.append(slice)
                continue
            }
            slices.append(Manifest.Slice(blockID: slice.blockID, extent: extent, offset: offset, length: slice.length))
            offset += slice.length
        }
        return (Manifest(slices: slices), [extent])
    }
}

extension BlobService {
    /// Each may read and seal the whole source once more: of a page blob that is written all the time, a snapshot is
    /// what can be copied.
    private static let copyAttempts = 8

    /// Copy Blob and Copy Blob From URL. The source is a blob of this server; the copy is done when the answer leaves
    /// (`x-ms-copy-status: success`).
    ///
    /// Inside one container and under one key of the account both blobs hold the same extents; else the content is
    /// opened and sealed again.
    func copyBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        guard encryption.customerKey == nil else { throw StorageError.unsupportedHeader("x-ms-encryption-key") }
        let isSynchronous = call.header("x-ms-requires-sync")?.lowercased() == "true"
        let (record, md5) = try await retryingPages(attempts: Self.copyAttempts) { () -> (BlobRecord, [UInt8]?)? in
            do {
                return try await copyOnce(
                    call, container, name, conditions, encryption, isSynchronous: isSynchronous)
            } catch let error as SealedStoreError where error.code == .extentGone {
                // The source was replaced after it was read: what stands there now is copied.
                return nil
            }
        }
        var response = Response(status: .accepted)
        response.headers.add(etag: record.etag, modified: record.modified)
        if let copy = record.copy { response.headers.add(name: "x-ms-copy-id", value: copy.id) }
        response.headers.add(name: "x-ms-copy-status", value: "success")
        if isSynchronous, let md5 { response.headers.add(name: "Content-MD5", value: md5.base64) }
        if let scope = record.encryptionScope { response.headers.add(name: "x-ms-encryption-scope", value: scope) }
        return response
    }

    /// The new blob, and the MD5 that came with its source. Throws `extentGone` when both were to hold the same
    /// extents, and the source let go of them meanwhile.
    private func copyOnce(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ conditions: Conditions,
        _ encryption: RequestedEncryption, isSynchronous: Bool
    ) async throws -> (BlobRecord, md5: [UInt8]?) {
        let tier = try call.accessTier()
        let metadata = try call.metadata()
        let tags = try call.tagsHeader()
        let replaced = try await checkedReplacement(call, container, name, conditions)

        let source = try await openSource(call, isAsynchronousCopy: !isSynchronous)
        if isSynchronous, let wanted = try call.md5Header("x-ms-source-content-md5"), let have = source.secrets.md5,
            wanted != have
        {
            throw StorageError.md5Mismatch
        }
        let key = try await dataKey(call, encryption)
        let pages = try await stagePages(of: source, to: container, name, call, under: key)
        let copied = try await copyContent(of: source, to: container, call, under: key)
        var secrets = BlobSecrets()
        secrets.metadata = metadata.isEmpty ? source.secrets.metadata : metadata
        secrets.tags = tags
        secrets.md5 = source.secrets.md5
        secrets.manifest = copied.manifest
        var template = BlobRecord(etag: ETag(number: 0), at: call.now)
        template.type = source.row.record.type
        template.length = source.row.record.length
        template.content = source.row.record.content
        template.blockCount = source.row.record.blockCount
        template.sequenceNumber = source.row.record.sequenceNumber
        template.pages = pages?.root
        template.tier = tier
        if tier != nil { template.tierChanged = call.now }
        template.copy = CopyRecord(
            id: randomness.uuidString(), source: source.url, completed: call.now, bytes: template.length)
        let fixed = (template, secrets)
        let record = try await linking(copied.fresh, call) {
            try await replaceBlob(
                call, container, name, replacing: replaced, conditions: conditions, under: key,
                beside: pages?.completion ?? Unlinking()
            ) { _ in fixed }
        }
        // Until now nobody but this operation held the map.
        withExtendedLifetime(pages) {}
        return (record, secrets.md5)
    }

    /// Put Blob From URL: a new block blob with another blob's content, in one extent, under the request's key.
    func putBlobFromURL(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .putBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        let tier = try call.accessTier()
        let metadata = try call.metadata()
        let tags = try call.tagsHeader()
        let content = call.contentHeaders(fallbacks: false)
        let replaced = try await checkedReplacement(call, container, name, conditions)

        let key = try await dataKey(call, encryption)
        let (source, body) = try await retryingPages(attempts: Self.copyAttempts) { () -> (CopySource, IngestedBody)? in
            let source = try await openSource(call)
            let body = try await ingest(
                source, 0..<source.row.record.length, call, under: key, limit: BlobLimits.putBlobBytes,
                mayBeInline: true)
            return (source, body)
        }
        let copiesProperties = call.header("x-ms-copy-source-blob-properties")?.lowercased() != "false"
        var secrets = BlobSecrets()
        secrets.metadata = metadata.isEmpty && copiesProperties ? source.secrets.metadata : metadata
        secrets.tags = tags
        secrets.md5 = body.md5
        secrets.manifest = body.manifest
        var template = BlobRecord(etag: ETag(number: 0), at: call.now)
        template.length = UInt64(body.length)
        template.content = copiesProperties && content == ContentHeaders() ? source.row.record.content : content
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

    /// Abort Copy Blob: a copy is never pending here.
    func abortCopy(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        _ = try await existingBlob(call, container, name)
        throw StorageError(409, "NoPendingCopyOperation", "There is currently no pending copy operation.")
    }

    /// The body of Put Block From URL and Append Block From URL: `x-ms-source-range` of the source.
    func ingestSource(_ call: BlobCall, under key: DataKey, limit: Int) async throws -> IngestedBody {
        guard (call.request.body.declaredLength ?? 0) == 0 else { throw StorageError.invalidHeader("Content-Length") }
        return try await retryingPages(attempts: Self.copyAttempts) { () -> IngestedBody? in
            try await ingestSourceOnce(call, under: key, limit: limit)
        }
    }

    private func ingestSourceOnce(_ call: BlobCall, under key: DataKey, limit: Int) async throws -> IngestedBody {
        let source = try await openSource(call)
        let length = source.row.record.length
        var range = 0..<length
        if let asked = call.header("x-ms-source-range") {
            guard let parsed = ByteRange(header: asked) else {
                throw StorageError.invalidHeader("x-ms-source-range", asked)
            }
            range = try parsed.resolve(length: length)
        }
        guard !range.isEmpty else {
            throw StorageError.invalidHeader("x-ms-copy-source", reason: "A block needs bytes; the source has none.")
        }
        return try await ingest(source, range, call, under: key, limit: limit, mayBeInline: false)
    }

    private func ingest(
        _ source: CopySource, _ range: Range<UInt64>, _ call: BlobCall, under key: DataKey, limit: Int,
        mayBeInline: Bool
    ) async throws -> IngestedBody {
        guard range.count <= limit else { throw StorageError.bodyTooLarge }
        let wantedMD5 = try call.md5Header("x-ms-source-content-md5")
        let wantedCRC64 = call.header("x-ms-source-content-crc64").flatMap { [UInt8](base64: $0) }
        let hash = SharedBodyHash(md5: true, crc64: true)
        guard !range.isEmpty else {
            try hash.value.check(md5: wantedMD5, crc64: wantedCRC64)
            return IngestedBody(extent: nil, length: 0, md5: hash.value.md5, crc64: hash.value.crc64)
        }
        let sealer = try await call.volume.createExtent(
            under: key, expectedBytes: range.count, mayBeInline: mayBeInline)
        do {
            try await source.content.read(range) { bytes in
                hash.update(bytes)
                try await sealer.append(bytes)
            }
            try hash.value.check(md5: wantedMD5, crc64: wantedCRC64)
        } catch {
            await sealer.abort()
            throw error
        }
        let extent = try await sealer.finish()
        return IngestedBody(extent: extent, length: range.count, md5: hash.value.md5, crc64: hash.value.crc64)
    }

    /// The same extents where they can be shared; else one new extent, sliced as the source was, so that blocks keep
    /// their identifiers.
    private func copyContent(
        of source: CopySource, to container: ContainerHandle, _ call: BlobCall, under key: DataKey
    ) async throws -> (manifest: Manifest, fresh: [ExtentReference]) {
        if isSharable(source, container, call, under: key) { return (source.secrets.manifest, []) }
        return try await call.volume.seal(
            source.secrets.manifest, of: source.account.volume, under: source.key, mayBeInline: true, to: key)
    }

    /// Whether a copy under `key` may hold the source's own extents.
    func isSharable(
        _ source: CopySource, _ container: ContainerHandle, _ call: BlobCall, under key: DataKey
    ) -> Bool {
        source.account.id == call.account.id && source.container.record.id == container.record.id
            && source.row.record.customerKeySHA256 == nil && source.row.record.encryptionScope == key.scope
    }

    // MARK: Source

    /// Finds and opens the blob that `x-ms-copy-source` names, with the rights its URL or
    /// `x-ms-copy-source-authorization` brings. Only Copy Blob lets the request's own authorization count for a source
    /// in the same account; all the others read a source that brings none as anyone would.
    private func openSource(_ call: BlobCall, isAsynchronousCopy: Bool = false) async throws -> CopySource {
        guard let url = call.header("x-ms-copy-source"), let location = SourceLocation(url), url.utf8.count <= 2_048,
            let (endpoint, family) = names.match(location.authority)
        else {
            throw StorageError.invalidHeader("x-ms-copy-source", reason: "It must be the URL of a blob of this server.")
        }
        guard case .storage(let accountName, .blob) = endpoint else {
            throw StorageError.invalidHeader("x-ms-copy-source", reason: "It must be the URL of a blob of this server.")
        }
        let account = try await accounts.account(named: accountName)
        var headers = HTTPHeaders()
        if let authorization = call.header("x-ms-copy-source-authorization") {
            headers.add(name: "Authorization", value: authorization)
        }
        if let version = call.header("x-ms-version") { headers.add(name: "x-ms-version", value: version) }
        for name in ["key", "key-sha256", "algorithm"] {
            if let value = call.header("x-ms-source-encryption-" + name) {
                headers.add(name: "x-ms-encryption-" + name, value: value)
            }
        }
        for name in ["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"] {
            if let value = call.header("x-ms-source-" + name) { headers.add(name: "x-ms-source-" + name, value: value) }
        }
        if let tags = call.header("x-ms-source-if-tags") { headers.add(name: "x-ms-if-tags", value: tags) }
        let request = Request(
            id: call.request.id, method: .GET, rawPath: location.path, rawQuery: location.query, headers: headers,
            endpoint: endpoint,
            names: family, transport: call.request.transport, body: .empty)
        let brings = headers.contains(name: "Authorization") || QueryParameters(request)["sig"] != nil
        var caller = call.caller
        do {
            if brings || account.id != call.account.id || !isAsynchronousCopy {
                caller = try await accounts.authenticate(request, account: account, service: .blob, policies: self)
            }
            let sourceCall = BlobCall(
                request: request, parameters: QueryParameters(request), account: account, caller: caller, now: call.now)
            return try await openSource(sourceCall, location.withoutQuery)
        } catch let error as StorageError {
            throw Self.sourceError(error, isAsynchronousCopy: isAsynchronousCopy)
        }
    }

    private func openSource(_ call: BlobCall, _ url: String) async throws -> CopySource {
        guard
            case .blob(let containerName, let name) = try BlobAddress(rawPath: call.request.rawPath, isContainer: false)
        else {
            throw StorageError.invalidHeader("x-ms-copy-source")
        }
        let container = try await enter(call, containerName, blob: name, .readBlob)
        let customerKey = try CustomerKeyHeaders.read(call.request, isWrite: false)
        let row = try await existingBlob(call, container, name, snapshot: try snapshotParameter(call))
        try CustomerKeyHeaders.check(customerKey, against: row.record.customerKeySHA256)
        try sourceConditions(call).checkWrite(etag: row.record.etag, modified: row.record.modified)
        let key = try await readKey(call, customerKey, row.record)
        let secrets = try await open(row, call, container, under: key)
        return CopySource(
            url: url, account: call.account, container: container, row: row, secrets: secrets, key: key,
            content: content(of: row, secrets, call, container, under: key))
    }
    private func sourceConditions(_ call: BlobCall) throws(StorageError) -> Conditions {
        try Conditions(call.request, prefix: "x-ms-source-")
    }

    /// Refusals of the source are told as such, with its own status and code in headers; 409 for a key that does not
    /// fit (recorded behaviour). Copy Blob passes some on as they are.
    private static func sourceError(_ error: StorageError, isAsynchronousCopy: Bool) -> StorageError {
        var refusal: StorageError
        switch error.status {
        case 404, 401:
            refusal = isAsynchronousCopy ? error : StorageError(error.status, "CannotVerifyCopySource", error.message)
        case 412 where isAsynchronousCopy:
            refusal = StorageError(
                412, "SourceConditionNotMet",
                "The source condition specified using HTTP conditional header(s) is not met.")
        case 403, 409, 412: refusal = StorageError(error.status, "CannotVerifyCopySource", error.message)
        default: return error
        }
        refusal.headers += [
            ("x-ms-copy-source-status-code", String(error.status)), ("x-ms-copy-source-error-code", error.code),
        ]
        return refusal
    }
}

/// A copy source's URL in parts, percent-encoding untouched.
private struct SourceLocation {
    let authority: String
    let path: String
    let query: String
    let withoutQuery: String

    init?(_ url: String) {
        let lower = url.lowercased()
        guard let scheme = ["https://", "http://"].first(where: lower.hasPrefix) else { return nil }
        let rest = url.dropFirst(scheme.count)
        guard let slash = rest.firstIndex(of: "/"), !rest.contains("#") else { return nil }
        authority = String(rest[..<slash])
        let target = rest[slash...]
        let mark = target.firstIndex(of: "?") ?? target.endIndex
        path = String(target[..<mark])
        query = mark == target.endIndex ? "" : String(target[target.index(after: mark)...])
        withoutQuery = String(url.prefix { $0 != "?" })
    }
}

/// A running hash that a reader's sendable closure can feed.
private final class SharedBodyHash: Sendable {
    private let hash: Mutex<BodyHash>
    init(md5: Bool, crc64: Bool) { hash = Mutex(BodyHash(md5: md5, crc64: crc64)) }
    func update(_ buffer: ByteBuffer) { hash.withLock { $0.update(buffer) } }
    var value: BodyHash { hash.withLock { $0 } }
}
