internal import HTTPEdge

/// The query of one request, decoded in one pass over its bytes: names and values in the order sent.
///
/// Reads what `Request.query` reads (RFC 3986 escapes, `+` stays `+`, a malformed escape stays as sent), without its
/// intermediate strings: every authenticated request pays for it.
struct QueryParameters {
    let pairs: [(name: String, value: String)]

    init(_ rawQuery: String) {
        guard !rawQuery.isEmpty else {
            pairs = []
            return
        }
        var pairs: [(name: String, value: String)] = []
        pairs.reserveCapacity(16)
        for pair in rawQuery.utf8.split(separator: 0x26) {
            let name: Substring.UTF8View
            let value: Substring.UTF8View
            if let equals = pair.firstIndex(of: 0x3d) {
                name = pair[..<equals]
                value = pair[pair.index(after: equals)...]
            } else {
                name = pair
                value = pair[pair.endIndex...]
            }
            pairs.append((Self.decoded(name), Self.decoded(value)))
        }
        self.pairs = pairs
    }

    private static func decoded(_ part: Substring.UTF8View) -> String {
        let text = Substring(part)
        guard part.contains(0x25) else { return String(text) }
        return percentDecoded(text) ?? String(text)
    }

    /// The first value under `name` (exact spelling).
    func first(_ name: String) -> String? { pairs.first { $0.name == name }?.value }
}
