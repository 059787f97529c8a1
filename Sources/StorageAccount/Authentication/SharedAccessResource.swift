internal import HTTPEdge

/// What a request's path names, as a service SAS signs it: decoded, with the root container spelled out.
struct SharedAccessResource {
    let container: String
    /// nil for the container itself.
    let blob: String?

    /// Throws 400 `InvalidUri` when the path does not decode.
    init(_ request: Request, _ query: [(name: String, value: String)]) throws(StorageError) {
        guard let path = percentDecoded(request.rawPath.dropFirst()) else {
            throw StorageError(400, "InvalidUri", "The request URI is invalid: its path holds a malformed escape.")
        }
        let bytes = path.utf8
        if let slash = bytes.firstIndex(of: 0x2f) {
            container = String(Substring(bytes[..<slash]))
            let rest = String(Substring(bytes[bytes.index(after: slash)...]))
            blob = rest.isEmpty ? nil : rest
        } else if path.isEmpty || query.contains(where: { $0.name == "restype" }) || path == "$root" || path == "$logs"
            || path == "$web"
        {
            container = path
            blob = nil
        } else {
            // `/name` without `restype` is a blob in the root container.
            container = "$root"
            blob = path
        }
    }
}

/// The addresses of `sip` or of a network rule: one IPv4 address, a range `a-b`, or a block `a/bits`.
struct IPv4Range: Sendable, Equatable {
    let first: UInt32
    let last: UInt32

    func contains(_ address: UInt32) -> Bool { (first...last).contains(address) }

    /// nil for anything else, IPv6 included: Azure's storage rules know IPv4 only.
    init?(_ text: some StringProtocol) {
        if let dash = text.utf8.firstIndex(of: 0x2d) {
            guard let first = Self.address(text[..<dash]),
                let last = Self.address(text[text.utf8.index(after: dash)...]), first <= last
            else { return nil }
            self.first = first
            self.last = last
        } else if let slash = text.utf8.firstIndex(of: 0x2f) {
            let digits = text[text.utf8.index(after: slash)...].utf8
            guard let base = Self.address(text[..<slash]), (1...2).contains(digits.count),
                digits.allSatisfy({ (0x30...0x39).contains($0) }),
                let bits = UInt32(String(decoding: digits, as: UTF8.self)),
                bits <= 32
            else { return nil }
            let mask: UInt32 = bits == 0 ? 0 : ~0 << (32 - bits)
            first = base & mask
            last = base | ~mask
        } else {
            guard let address = Self.address(text) else { return nil }
            first = address
            last = address
        }
    }

    /// Dotted decimal, each part 0…255 without leading zeros; an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) counts as
    /// its IPv4 address.
    static func address(_ text: some StringProtocol) -> UInt32? {
        var bytes = Substring(text).utf8
        if bytes.count > 7,
            bytes.prefix(7).elementsEqual("::ffff:".utf8) || bytes.prefix(7).elementsEqual("::FFFF:".utf8)
        {
            bytes = bytes.dropFirst(7)
        }
        var value: UInt32 = 0
        var part: UInt32?
        var digits = 0
        var parts = 0
        for byte in bytes {
            if byte == 0x2e {
                guard let octet = part, parts < 3 else { return nil }
                value = value << 8 | octet
                parts += 1
                part = nil
                digits = 0
                continue
            }
            guard (0x30...0x39).contains(byte), digits < 3, digits == 0 || part != 0 else { return nil }
            let next = (part ?? 0) * 10 + UInt32(byte - 0x30)
            guard next <= 255 else { return nil }
            part = next
            digits += 1
        }
        guard parts == 3, let octet = part else { return nil }
        return value << 8 | octet
    }
}
