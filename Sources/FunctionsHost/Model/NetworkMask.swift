internal import Glibc
internal import HTTPEdge

/// How access restrictions name addresses.
enum NetworkMask {
    /// Whether the text is an address or a CIDR block to the gate, which is who reads it later. A range is neither.
    static func isNetwork(_ text: some StringProtocol) -> Bool { !text.contains("-") && IPNetwork(text) != nil }

    /// The prefix length of a dotted mask such as `255.255.255.0`; nil when it is none.
    static func prefixLength(of mask: String) -> Int? {
        var address = in_addr()
        guard !mask.utf8.contains(0), inet_pton(AF_INET, mask, &address) == 1 else { return nil }
        let bits = UInt32(bigEndian: address.s_addr)
        let length = (~bits).leadingZeroBitCount
        return bits == (length == 0 ? 0 : ~UInt32(0) << UInt32(32 - length)) ? length : nil
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
