internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

/// The conditional headers of a request ("Specifying conditional headers for Blob service operations") and its lease
/// identifier.
struct Conditions: Sendable {
    enum Match: Sendable, Equatable {
        case any
        case tags([String])
        func matches(_ etag: ETag?) -> Bool {
            guard let etag else { return false }
            switch self {
            case .any: return true
            case .tags(let tags): return tags.contains(etag.text)
            }
        }
    }
    var ifMatch: Match?
    var ifNoneMatch: Match?
    var ifModifiedSince: Timestamp?
    var ifUnmodifiedSince: Timestamp?
    var leaseID: String?
    /// `x-ms-if-tags` was sent; `blobRow` asks it of a blob that is there.
    var asksForTags = false

    static let none = Conditions()
    init() {}

    /// `prefix` is `x-ms-source-` for the conditions on a copy's source. A date that does not parse is ignored (RFC
    /// 9110 §13.1.3).
    init(_ request: Request, prefix: String = "") throws(StorageError) {
        ifMatch = request.header(prefix + "If-Match").map(Self.match)
        ifNoneMatch = request.header(prefix + "If-None-Match").map(Self.match)
        ifModifiedSince = request.header(prefix + "If-Modified-Since").flatMap { Timestamp(rfc1123: $0) }
        ifUnmodifiedSince = request.header(prefix + "If-Unmodified-Since").flatMap { Timestamp(rfc1123: $0) }
        asksForTags = prefix.isEmpty && request.headers.contains(name: "x-ms-if-tags")
        if prefix.isEmpty, let id = request.header("x-ms-lease-id") {
            guard let canonical = leaseIdentifier(id) else { throw .invalidHeader("x-ms-lease-id", id) }
            leaseID = canonical
        }
    }

    private static func match(_ header: String) -> Match {
        if header == "*" { return .any }
        return .tags(
            header.split(separator: ",").map { part in
                var tag = part.drop { $0 == " " }
                while tag.last == " " { tag = tag.dropLast() }
                if tag.hasPrefix("W/") { tag = tag.dropFirst(2) }
                if tag.first == "\"", tag.last == "\"", tag.count >= 2 { tag = tag.dropFirst().dropLast() }
                return String(tag)
            })
    }

    /// Whether nothing can meet them where there is no blob.
    var needABlob: Bool { ifMatch != nil || asksForTags || leaseID != nil }

    /// For reads: 412 when a precondition fails, 304 when the reader has what there is.
    func checkRead(etag: ETag, modified: Timestamp) throws(StorageError) {
        if ifNoneMatch == .any { throw .unsatisfiableCondition }
        try checkPreconditions(etag: etag, modified: modified)
        if isUnchanged(etag: etag, modified: modified) { throw .notModified }
    }

    /// For writes, against what stands there now (nil: nothing). 412, or 409 for `If-None-Match: *` where the operation
    /// says so.
    func checkWrite(etag: ETag?, modified: Timestamp?, existing: StorageError = .conditionNotMet) throws(StorageError) {
        guard let etag, let modified else {
            if ifMatch != nil || asksForTags { throw .conditionNotMet }
            return
        }
        if ifNoneMatch == .any { throw existing }
        try checkPreconditions(etag: etag, modified: modified)
        if isUnchanged(etag: etag, modified: modified) { throw .conditionNotMet }
    }

    private func checkPreconditions(etag: ETag, modified: Timestamp) throws(StorageError) {
        if let ifMatch, !ifMatch.matches(etag) { throw .conditionNotMet }
        if let ifUnmodifiedSince, modified.unixSeconds > ifUnmodifiedSince.unixSeconds { throw .conditionNotMet }
    }
    /// Both `If-None-Match` and `If-Modified-Since`, where given, must say "unchanged" (RFC 2616 §14.26, which Azure
    /// follows).
    private func isUnchanged(etag: ETag, modified: Timestamp) -> Bool {
        let sameTag = ifNoneMatch.map { $0.matches(etag) }
        let notLater = ifModifiedSince.map { modified.unixSeconds <= $0.unixSeconds }
        switch (sameTag, notLater) {
        case (nil, nil): return false
        case (let tag?, nil): return tag
        case (nil, let time?): return time
        case (let tag?, let time?): return tag && time
        }
    }

    // MARK: Leases

    enum LeasedResource: String { case blob = "Blob", container = "Container" }

    /// For writes: an active lease must be named; a named one must be held. 412.
    func checkLeaseForWrite(_ lease: Lease, of resource: LeasedResource, at now: Timestamp) throws(StorageError) {
        if leaseID == nil, lease.isActive(at: now) {
            throw StorageError(
                412, "LeaseIdMissing",
                "There is currently a lease on the \(resource.rawValue.lowercased()) and no lease ID was specified in the request."
            )
        }
        try checkLeaseForRead(lease, of: resource, at: now)
    }
    /// For reads: only a lease identifier that was sent is checked. 412.
    func checkLeaseForRead(_ lease: Lease, of resource: LeasedResource, at now: Timestamp) throws(StorageError) {
        guard let leaseID else { return }
        let what = resource.rawValue.lowercased()
        switch lease.state(at: now) {
        case .available:
            throw StorageError(
                412, "LeaseNotPresentWith\(resource.rawValue)Operation", "There is currently no lease on the \(what).")
        case .expired, .broken:
            guard lease.holds(leaseID) else { throw Self.mismatch(resource) }
            throw StorageError(412, "LeaseLost", "A lease ID was specified, but the lease for the \(what) has expired.")
        case .leased, .breaking:
            guard lease.holds(leaseID) else { throw Self.mismatch(resource) }
        }
    }
    private static func mismatch(_ resource: LeasedResource) -> StorageError {
        StorageError(
            412, "LeaseIdMismatchWith\(resource.rawValue)Operation",
            "The lease ID specified did not match the lease ID for the \(resource.rawValue.lowercased()).")
    }
}

/// A GUID in any of the spellings Azure takes (with or without hyphens, in braces), as lower case with hyphens; nil for
/// anything else.
func leaseIdentifier(_ text: String) -> String? {
    var body = Substring(text)
    if (body.first == "{" && body.last == "}") || (body.first == "(" && body.last == ")") {
        body = body.dropFirst().dropLast()
    }
    let digits = body.utf8.filter { $0 != 0x2d }
    guard digits.count == 32, body.utf8.count == 32 || body.utf8.count == 36,
        [UInt8](hex: String(decoding: digits, as: UTF8.self)) != nil
    else { return nil }
    let lower = Array(String(decoding: digits, as: UTF8.self).lowercased().utf8)
    let parts = [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(decoding: lower[$0], as: UTF8.self) }
    let canonical = parts.joined(separator: "-")
    // With hyphens where a GUID has them, or with none.
    return body.utf8.count == 32 || body.lowercased() == canonical ? canonical : nil
}
