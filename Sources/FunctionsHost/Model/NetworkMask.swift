internal import Glibc

/// Whether a text names an address or a CIDR block (RFC 4632, RFC 4291 §2.3).
enum NetworkMask {
    static func isNetwork(_ text: some StringProtocol) -> Bool {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = parts.first.map({ String($0) }) else { return false }
        let bits: Int
        if isAddress(address, AF_INET) {
            bits = 32
        } else if isAddress(address, AF_INET6) {
            bits = 128
        } else {
            return false
        }
        guard parts.count == 2 else { return true }
        guard parts[1].utf8.allSatisfy({ (48...57).contains($0) }), let length = Int(parts[1]) else { return false }
        return length <= bits
    }

    /// The prefix length of a dotted mask such as `255.255.255.0`; nil when it is none.
    static func prefixLength(of mask: String) -> Int? {
        var address = in_addr()
        guard inet_pton(AF_INET, mask, &address) == 1 else { return nil }
        let bits = UInt32(bigEndian: address.s_addr)
        let length = (~bits).leadingZeroBitCount
        return bits == (length == 0 ? 0 : ~UInt32(0) << UInt32(32 - length)) ? length : nil
    }

    private static func isAddress(_ text: String, _ family: Int32) -> Bool {
        var storage = in6_addr()
        return inet_pton(family, text, &storage) == 1
    }
}

extension StringProtocol {
    /// Without leading and trailing ASCII spaces and tabs.
    var trimmed: String {
        var bytes = Array(utf8)[...]
        while let first = bytes.first, first == 0x20 || first == 0x09 { bytes.removeFirst() }
        while let last = bytes.last, last == 0x20 || last == 0x09 { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }
}
