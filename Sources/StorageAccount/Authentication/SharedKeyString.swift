internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1

/// What SharedKey and SharedKeyLite sign, rebuilt from the request as it came over the wire.
///
/// Source: Microsoft, "Authorize with Shared Key" (blob, queue and file; table has a short form of its own).
struct SharedKeyString {
    enum Scheme { case sharedKey, sharedKeyLite }
    /// How the `x-ms-` headers are ordered. Most clients sort by bytes; the service itself sorts by words, with hyphens
    /// ignored at first, and the newest SDKs follow it. The set of signed headers is the same either way.
    enum HeaderOrder: CaseIterable { case bytes, words }

    let request: Request
    let account: String
    let service: StorageService

    /// Upper-case verb to resource: the bytes the client signed.
    func bytes(_ scheme: Scheme, order: HeaderOrder, query: [(name: String, value: String)]) -> [UInt8] {
        var text = SignedText()
        let fields = SignedHeaders(request.headers)
        if service == .table {
            if scheme == .sharedKey {
                text.line(request.method.rawValue)
                text.line(fields.contentMD5)
                text.line(fields.contentType)
            }
            text.line(fields.msDate ?? fields.date)
            shortResource(into: &text, query)
            return text.bytes
        }
        text.line(request.method.rawValue)
        switch scheme {
        case .sharedKey:
            text.line(fields.contentEncoding)
            text.line(fields.contentLanguage)
            // From version 2015-02-21 on an empty body signs an empty string.
            text.line(fields.contentLength == "0" && fields.version ?? "" >= "2015-02-21" ? "" : fields.contentLength)
            text.line(fields.contentMD5)
            text.line(fields.contentType)
            text.line(fields.msDate == nil ? fields.date : "")
            text.line(fields.ifModifiedSince)
            text.line(fields.ifMatch)
            text.line(fields.ifNoneMatch)
            text.line(fields.ifUnmodifiedSince)
            text.line(fields.range)
            headers(fields.ms, into: &text, order)
            fullResource(into: &text, query)
        case .sharedKeyLite:
            text.line(fields.contentMD5)
            text.line(fields.contentType)
            text.line(fields.msDate == nil ? fields.date : "")
            headers(fields.ms, into: &text, order)
            shortResource(into: &text, query)
        }
        return text.bytes
    }

    private func headers(_ headers: [(name: String, value: String)], into text: inout SignedText, _ order: HeaderOrder)
    {
        let sorted =
            switch order {
            // Equal names keep the order sent, so that their values join as the client joined them.
            case .bytes: headers.enumerated().sorted { ($0.element.name, $0.offset) < ($1.element.name, $1.offset) }
            case .words:
                headers.enumerated().sorted {
                    wordOrder($0.element.name, $0.offset) < wordOrder($1.element.name, $1.offset)
                }
            }
        var last: String?
        for (_, header) in sorted {
            if header.name == last {
                text.append(",")
                text.append(header.value)
            } else {
                if last != nil { text.newline() }
                text.append(header.name)
                text.append(":")
                text.append(header.value)
                last = header.name
            }
        }
        if last != nil { text.newline() }
    }

    /// Letters and digits decide first, an underscore before both; among equals a hyphen comes last: the
    /// weights that azure-storage-blob for Python sorts by, for the characters a metadata name can have.
    private func wordOrder(_ name: String, _ offset: Int) -> (String, String, Int) {
        let letters = name.utf8.lazy.filter { $0 != 0x2d }.map { $0 == 0x5f ? 0x20 : $0 }
        let hyphensLast = name.utf8.lazy.map { $0 == 0x2d ? 0x7f : $0 }
        return (String(decoding: letters, as: UTF8.self), String(decoding: hyphensLast, as: UTF8.self), offset)
    }

    /// `/account/path` and one line `name:value[,value…]` for each query parameter, in the order of lower-case names.
    private func fullResource(into text: inout SignedText, _ query: [(name: String, value: String)]) {
        text.append("/")
        text.append(account)
        text.append(request.rawPath)
        let sorted = query.map { (name: $0.name.lowercased(), value: $0.value) }
            .sorted { ($0.name, $0.value) < ($1.name, $1.value) }
        var last: String?
        for pair in sorted {
            if pair.name == last {
                text.append(",")
            } else {
                text.newline()
                text.append(pair.name)
                text.append(":")
                last = pair.name
            }
            text.append(pair.value)
        }
    }

    /// `/account/path` and, of the query, only `?comp=value`.
    private func shortResource(into text: inout SignedText, _ query: [(name: String, value: String)]) {
        text.append("/")
        text.append(account)
        text.append(request.rawPath)
        // The one the operation reads.
        if let comp = query.first(where: { $0.name.lowercased() == "comp" })?.value {
            text.append("?comp=")
            text.append(comp)
        }
    }
}

/// Text to sign under construction.
struct SignedText {
    private(set) var bytes: [UInt8] = []
    init() { bytes.reserveCapacity(768) }
    mutating func append(_ text: some StringProtocol) { bytes.append(contentsOf: text.utf8) }
    mutating func newline() { bytes.append(0x0a) }
    mutating func line(_ text: String?) {
        append(text ?? "")
        newline()
    }
}

/// The headers a shared key signature covers, gathered in one pass.
struct SignedHeaders {
    private(set) var contentEncoding, contentLanguage, contentLength, contentMD5, contentType, date: String?
    private(set) var ifModifiedSince, ifMatch, ifNoneMatch, ifUnmodifiedSince, range, version, msDate: String?
    /// Every `x-ms-` header under its lower-case name, white space trimmed.
    var ms: [(name: String, value: String)] = []

    init(_ headers: HTTPHeaders) {
        ms.reserveCapacity(8)
        // Of a header sent twice the first counts, here as where the operations read it: another one before it would
        // otherwise go along with a signature it has no part in.
        func first(_ field: inout String?, _ value: String) { field = field ?? value }
        for (name, value) in headers {
            let folded = name.utf8.contains { (0x41...0x5a).contains($0) } ? name.lowercased() : name
            let value = Self.trimmed(value)
            if folded.utf8.starts(with: "x-ms-".utf8) {
                ms.append((folded, value))
                if folded == "x-ms-date" { first(&msDate, value) }
                if folded == "x-ms-version" { first(&version, value) }
                continue
            }
            switch folded {
            case "content-encoding": first(&contentEncoding, value)
            case "content-language": first(&contentLanguage, value)
            case "content-length": first(&contentLength, value)
            case "content-md5": first(&contentMD5, value)
            case "content-type": first(&contentType, value)
            case "date": first(&date, value)
            case "if-modified-since": first(&ifModifiedSince, value)
            case "if-match": first(&ifMatch, value)
            case "if-none-match": first(&ifNoneMatch, value)
            case "if-unmodified-since": first(&ifUnmodifiedSince, value)
            case "range": first(&range, value)
            default: break
            }
        }
    }

    private static func trimmed(_ value: String) -> String {
        var bytes = Substring(value).utf8
        while let first = bytes.first, isSpace(first) { bytes.removeFirst() }
        while let last = bytes.last, isSpace(last) { bytes.removeLast() }
        return bytes.count == value.utf8.count ? value : String(Substring(bytes))
    }
    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
}
