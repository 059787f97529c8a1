internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    static func checkPageBlobLength(_ length: UInt64) throws(StorageError) {
        guard length % BlobLimits.pageBytes == 0, length <= BlobLimits.pageBlobBytes else {
            throw .invalidHeader(
                "x-ms-blob-content-length", String(length),
                reason: "A page blob's length is a multiple of 512, up to 8 TiB.")
        }
    }
    /// Sequence numbers go from 0 to 2^63 - 1.
    static func sequenceNumber(_ call: BlobCall, _ name: String) throws(StorageError) -> UInt64? {
        guard let number = try call.number(name) else { return nil }
        guard number <= UInt64(Int64.max) else { throw .invalidHeader(name, String(number)) }
        return number
    }

    /// Put Page and Put Page From URL: writes or clears whole pages of 512 bytes. All or nothing of a request is seen,
    /// and its cost does not depend on how much the blob holds.
    func putPage(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .writeBlob)
        let conditions = try Conditions(call.request)
        try call.refuseUnsupportedWriteHeaders()
        let encryption = try RequestedEncryption(call, in: container.record)
        let clears = try Self.isClear(call)
        let range = try Self.pageRange(call)
        try checkPageChange(call, conditions, try await existingBlob(call, container, name).record, encryption, range)
        let key = try await dataKey(call, encryption)
        let body = clears ? nil : try await ingestPages(call, count: range.count, under: key)
        let record = try await linking(body?.extents ?? [], call) {
            try await turnstile(container, name).pass {
                try await retryingPages { () -> BlobRecord? in
                    let row = try await existingBlob(call, container, name)
                    var record = row.record
                    try checkPageChange(call, conditions, record, encryption, range)
                    record.touch(at: call.now)
                    let change = try await changePages(
                        range, to: body?.extent, of: row, name, stamp: record.etag.number, call, container, under: key)
                    return try await commit(change, record, row, call, container) ? record : nil
                }
            }
        }
        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.add(name: "x-ms-blob-sequence-number", value: String(record.sequenceNumber))
        if let body { response.headers.add(hashesOf: body) }
        response.headers.addWriteEncryption(record)
        return response
    }

    private static func isClear(_ call: BlobCall) throws(StorageError) -> Bool {
        switch call.header("x-ms-page-write")?.lowercased() {
        case "update": return false
        case "clear":
            guard (call.request.body.declaredLength ?? 0) == 0 else {
                throw .invalidHeader("Content-Length", reason: "Clearing pages takes no body.")
            }
            return true
        case let value?: throw .invalidHeader("x-ms-page-write", value)
        case nil: throw .missingHeader("x-ms-page-write")
        }
    }

    private static func pageRange(_ call: BlobCall) throws(StorageError) -> Range<UInt64> {
        guard let text = call.header("x-ms-range") ?? call.header("Range") else { throw .missingHeader("x-ms-range") }
        guard case .bounded(let first, let last)? = ByteRange(header: text), last < BlobLimits.pageBlobBytes else {
            throw .invalidHeader("x-ms-range", text)
        }
        guard first % BlobLimits.pageBytes == 0, (last + 1) % BlobLimits.pageBytes == 0 else { throw .invalidPageRange }
        return first..<last + 1
    }

    private func ingestPages(_ call: BlobCall, count: Int, under key: DataKey) async throws -> IngestedBody {
        guard count <= BlobLimits.putPageBytes else { throw StorageError.bodyTooLarge }
        guard !call.request.headers.contains(name: "x-ms-copy-source") else {
            let body = try await ingestSource(call, under: key, limit: BlobLimits.putPageBytes)
            guard body.length == count else {
                for extent in body.extents { await call.volume.discard(extent) }
                throw StorageError.invalidHeader("x-ms-source-range", reason: "It is not as long as x-ms-range.")
            }
            return body
        }
        guard let declared = call.request.body.declaredLength else { throw StorageError.missingContentLength }
        guard declared == count else {
            throw StorageError.invalidHeader(
                "Content-Length", String(declared), reason: "x-ms-range has another length.")
        }
        let hasMD5 = call.request.headers.contains(name: "Content-MD5")
        return try await ingest(
            call, under: key, limit: BlobLimits.putPageBytes, mayBeInline: false, computingMD5: hasMD5,
            computingCRC64: true)
    }

    private func checkPageChange(
        _ call: BlobCall, _ conditions: Conditions, _ record: BlobRecord, _ encryption: RequestedEncryption,
        _ range: Range<UInt64>
    ) throws(StorageError) {
        guard record.type == .page else { throw .invalidBlobType }
        try checkChange(call, conditions, record)
        let bounds: [(String, (UInt64, UInt64) -> Bool)] = [
            ("x-ms-if-sequence-number-le", { $0 <= $1 }), ("x-ms-if-sequence-number-lt", { $0 < $1 }),
            ("x-ms-if-sequence-number-eq", { $0 == $1 }),
        ]
        for (name, holds) in bounds {
            guard let bound = try call.number(name), !holds(record.sequenceNumber, bound) else { continue }
            throw StorageError(
                412, "SequenceNumberConditionNotMet", "The sequence number condition specified was not met.")
        }
        guard range.upperBound <= record.length else { throw .invalidPageRange }
        try encryption.check(record)
    }

    /// `retrying`, also where a look at the pages came too late for the look at the blob.
    func retryingPages<Result>(
        attempts: Int = BlobService.attemptsOfCommits, _ attempt: () async throws -> Result?
    ) async throws -> Result {
        try await retrying(attempts: attempts) {
            do {
                return try await attempt()
            } catch is ContentChanged {
                return nil
            }
        }
    }

    /// Get Page Ranges: the pages that were written and not cleared, in order. Needs no customer-provided key.
    func getPageRanges(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .readBlob)
        let conditions = try Conditions(call.request)
        if call.parameters["prevsnapshot"] != nil || call.header("x-ms-previous-snapshot-url") != nil {
            throw StorageError.notImplemented("differences between page blob snapshots")
        }
        let snapshot = try snapshotParameter(call)
        let row = try await existingBlob(call, container, name, snapshot: snapshot)
        let record = row.record
        guard record.type == .page else { throw StorageError.invalidBlobType }
        try conditions.checkRead(etag: record.etag, modified: record.modified)
        if snapshot == nil { try conditions.checkLeaseForRead(record.lease, of: .blob, at: call.now) }
        let asked = (call.header("x-ms-range") ?? call.header("Range")).flatMap(ByteRange.init(header:))
        var range = try asked?.resolve(length: record.length) ?? 0..<record.length
        if let marker = call.parameters["marker"], !marker.isEmpty {
            guard let start = UInt64(marker), range.contains(start) else {
                throw StorageError.invalidQuery("marker", marker)
            }
            range = start..<range.upperBound
        }
        var maximum = Self.pageRangesPage
        if let text = call.parameters["maxresults"] {
            guard let value = Int(text), value > 0 else { throw StorageError.outOfRange("maxresults", text) }
            maximum = min(maximum, value)
        }
        let pages = call.parameters["maxresults"] != nil || call.parameters["marker"] != nil
        let found = try await writtenRanges(
            of: row, in: range, call, container, maximum: maximum, leaves: pages ? Self.leavesWalked : .max)
        var xml = XMLDocumentWriter()
        xml.open("PageList")
        for range in found.ranges {
            xml.open("PageRange")
            xml.element("Start", String(range.lowerBound))
            xml.element("End", String(range.upperBound - 1))
            xml.close("PageRange")
        }
        if let next = found.next { xml.element("NextMarker", String(next)) }
        xml.close("PageList")
        var response = Response.xml(.ok, xml)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.add(name: "x-ms-blob-content-length", value: String(record.length))
        return response
    }
    /// "Get Page Ranges": up to 10,000 ranges an answer.
    private static let pageRangesPage = 10_000
    /// 64 GiB of written pages are a second's walk. Who asks for pages of an answer gets a marker then; who does not
    /// might not know what to do with one.
    private static let leavesWalked = 1 << 16

    /// Up to `maximum` written ranges, and where to go on when there is more to look at. What is written while a long
    /// walk goes on may be in it: who must know asks for a snapshot's.
    private func writtenRanges(
        of row: BlobRow, in range: Range<UInt64>, _ call: BlobCall, _ container: ContainerHandle, maximum: Int,
        leaves limit: Int
    ) async throws -> (ranges: [Range<UInt64>], next: UInt64?) {
        let key = try await keptKey(call, scope: row.record.encryptionScope)
        guard let map = pageMap(of: row, call.volume, container.partition, takesLaterWrites: true) else {
            throw RecordError.malformed
        }
        var ranges: [Range<UInt64>] = []
        var rest = PageMapRoot.leaves(touching: range)
        var walked = 0
        while !rest.isEmpty {
            try Task.checkCancellation()
            guard walked < limit else {
                return (ranges, PageMapRoot.range(of: rest.lowerBound).lowerBound)
            }
            let (found, behind) = try await map.window(rest)
            try await map.confirmContainer()
            for leaf in found {
                let whole = PageMapRoot.range(of: leaf.index)
                let part = whole.clamped(to: range)
                let layout = try await map.layout(of: leaf, under: key)
                for written in layout.pageRanges(
                    in: part.lowerBound - whole.lowerBound..<part.upperBound - whole.lowerBound)
                {
                    let start = whole.lowerBound + written.lowerBound
                    let end = whole.lowerBound + written.upperBound
                    if let last = ranges.last, last.upperBound == start {
                        ranges[ranges.count - 1] = last.lowerBound..<end
                    } else if ranges.count == maximum {
                        return (ranges, start)
                    } else {
                        ranges.append(start..<end)
                    }
                }
            }
            // What was looked at, not what was found: later rows may lie before those of an early snapshot.
            walked += behind.isEmpty ? found.count : map.limits.windowRows
            rest = behind
        }
        return (ranges, nil)
    }

    /// What Set Blob Properties says of a page blob alone: its length and its sequence number.
    struct PageBlobChange: Sendable {
        var length: UInt64?
        var action: String?
        var sequenceNumber: UInt64?
    }

    /// nil when the request has none of these headers.
    func pageBlobChange(_ call: BlobCall) throws(StorageError) -> PageBlobChange? {
        let change = PageBlobChange(
            length: try call.number("x-ms-blob-content-length"),
            action: call.header("x-ms-sequence-number-action")?.lowercased(),
            sequenceNumber: try Self.sequenceNumber(call, "x-ms-blob-sequence-number"))
        guard change.length != nil || change.action != nil || change.sequenceNumber != nil else { return nil }
        if let length = change.length { try Self.checkPageBlobLength(length) }
        switch (change.action, change.sequenceNumber) {
        case (nil, nil), ("max", _?), ("update", _?), ("increment", nil): return change
        case ("increment", _?): throw .invalidHeader("x-ms-blob-sequence-number")
        case ("max", nil), ("update", nil): throw .missingHeader("x-ms-blob-sequence-number")
        case (nil, _?): throw .missingHeader("x-ms-sequence-number-action")
        case (let action?, _): throw .invalidHeader("x-ms-sequence-number-action", action)
        }
    }

    /// Set Blob Properties with headers of page blobs. Without content headers those stay as they are; a resize answers
    /// to the blob's key.
    func setPageBlobProperties(
        _ change: PageBlobChange, _ call: BlobCall, _ container: ContainerHandle, _ name: String,
        content: ContentHeaders?, md5: [UInt8]?
    ) async throws -> BlobRecord {
        let conditions = try Conditions(call.request)
        let encryption = try RequestedEncryption(call, in: container.record)
        return try await retryingPages { () -> BlobRecord? in
            let row = try await existingBlob(call, container, name)
            var record = row.record
            guard record.type == .page else { throw StorageError.invalidBlobType }
            try checkChange(call, conditions, record)
            switch (change.action, change.sequenceNumber) {
            case ("max", let number?): record.sequenceNumber = max(record.sequenceNumber, number)
            case ("update", let number?): record.sequenceNumber = number
            case ("increment", _):
                guard record.sequenceNumber < UInt64(Int64.max) else {
                    throw StorageError(
                        409, "SequenceNumberIncrementTooLarge", "The sequence number increment cannot be performed.")
                }
                record.sequenceNumber += 1
            default: break
            }
            record.touch(at: call.now)
            if let content { record.content = content }
            var sealed: SealedPart?
            if content != nil {
                sealed = try await changeAccountPart(row, &record, call, container) { $0.md5 = md5 }
            }
            guard let length = change.length, length != record.length else {
                let write = VolumeWrite.put(row.key, visible: record.encoded(), sealed: sealed ?? row.sealed)
                let checks = [VolumeCheck.unchanged(row.key, row.version)]
                return try await commit(call, container, checks: checks, writes: [write]) ? record : nil
            }
            try encryption.check(record)
            let key = try await dataKey(call, encryption)
            let pages = try await resized(row, to: length, name, record.etag, call, container, under: key)
            record.length = length
            return try await commit(pages, record, row, sealed: sealed, call, container) ? record : nil
        }
    }

    /// What is cut off is cleared, so that it is zeros when the blob is lengthened again.
    private func resized(
        _ row: BlobRow, to length: UInt64, _ name: String, _ etag: ETag, _ call: BlobCall,
        _ container: ContainerHandle, under key: DataKey
    ) async throws -> PageMapChange {
        guard let root = row.record.pages else { throw RecordError.malformed }
        guard length < row.record.length else { return PageMapChange(root: root) }
        // Behind its end a blob holds nothing, so its last leaf goes as a whole.
        let end = PageMapRoot.range(of: PageMapRoot.leaves(touching: 0..<row.record.length).upperBound).lowerBound
        return try await changePages(
            length..<end, to: nil, of: row, name, stamp: etag.number, call, container, under: key)
    }
}
