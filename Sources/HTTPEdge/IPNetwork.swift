import Glibc

/// An IPv4 or IPv6 address. An IPv4 address in IPv6 clothes (`::ffff:1.2.3.4`, RFC 4291 §2.5.5.2) is the IPv4 address.
public struct IPAddress: Sendable, Hashable, Comparable, CustomStringConvertible {
    public enum Family: Sendable, Hashable { case v4, v6 }
    public let family: Family
    /// The address as a number: 32 bits of it for IPv4.
    let value: UInt128

    init(family: Family, value: UInt128) {
        self.family = family
        self.value = value
    }

    /// Dotted decimal without leading zeros, or any RFC 4291 §2.2 text form without a zone; nil otherwise.
    public init?(_ text: some StringProtocol) {
        var octets = [UInt8](repeating: 0, count: 16)
        // A NUL would end the text early for inet_pton.
        guard (2...45).contains(text.utf8.count), !text.utf8.contains(0) else { return nil }
        let text = String(text)
        if inet_pton(AF_INET, text, &octets) == 1 {
            self.init(family: .v4, value: Self.number(octets.prefix(4)))
        } else if inet_pton(AF_INET6, text, &octets) == 1 {
            let value = Self.number(octets[...])
            if value >> 32 == 0xffff {
                self.init(family: .v4, value: value & 0xffff_ffff)
            } else {
                self.init(family: .v6, value: value)
            }
        } else {
            return nil
        }
    }

    private static func number(_ octets: ArraySlice<UInt8>) -> UInt128 { octets.reduce(0) { $0 << 8 | UInt128($1) } }

    /// All IPv4 before all IPv6, then by number.
    public static func < (left: IPAddress, right: IPAddress) -> Bool {
        left.family == right.family ? left.value < right.value : left.family == .v4
    }

    /// 127.0.0.0/8 or ::1.
    public var isLoopback: Bool { family == .v4 ? value >> 24 == 127 : value == 1 }

    /// The canonical text (RFC 5952 for IPv6).
    public var description: String {
        let width = family == .v4 ? 4 : 16
        let octets = (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt128(8 * (width - 1 - $0))) }
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        guard inet_ntop(family == .v4 ? AF_INET : AF_INET6, octets, &text, socklen_t(text.count)) != nil else {
            return ""
        }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A set of addresses as firewall rules name it: one address, a CIDR block (RFC 4632 §3.1, RFC 4291 §2.3), or a range
/// `a-b`, both ends included.
public struct IPNetwork: Sendable, Hashable, CustomStringConvertible {
    public let first: IPAddress
    public let last: IPAddress

    /// Spaces around a range's hyphen are allowed. A CIDR block's host bits may be set; they count as zero, as in
    /// Azure's rules. nil for anything else: a mixed or reversed range, a prefix length out of bounds.
    public init?(_ text: some StringProtocol) {
        if let slash = text.firstIndex(of: "/") {
            let digits = text[text.index(after: slash)...]
            let head = text[..<slash]
            guard let address = IPAddress(head), (1...3).contains(digits.utf8.count),
                digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let prefix = Int(digits)
            else { return nil }
            // An IPv4 address in IPv6 clothes would have to have its prefix translated as well: ask for the plain
            // spelling.
            guard address.family == .v6 || !head.contains(":") else { return nil }
            let width = address.family == .v4 ? 32 : 128
            guard prefix <= width else { return nil }
            let hostBits = prefix == 0 && width == 128 ? UInt128.max : (UInt128(1) << UInt128(width - prefix)) - 1
            first = IPAddress(family: address.family, value: address.value & ~hostBits)
            last = IPAddress(family: address.family, value: address.value | hostBits)
        } else if let hyphen = text.firstIndex(of: "-") {
            func trimmed(_ part: some StringProtocol) -> String {
                String(String(part.drop { $0 == " " }.reversed()).drop { $0 == " " }.reversed())
            }
            guard let low = IPAddress(trimmed(text[..<hyphen])),
                let high = IPAddress(trimmed(text[text.index(after: hyphen)...])),
                low.family == high.family, low <= high
            else { return nil }
            first = low
            last = high
        } else {
            guard let address = IPAddress(text) else { return nil }
            first = address
            last = address
        }
    }

    public func contains(_ address: IPAddress) -> Bool {
        address.family == first.family && first <= address && address <= last
    }
    /// Unreadable means no.
    public func contains(_ address: some StringProtocol) -> Bool { IPAddress(address).map(contains) ?? false }

    public var description: String { first == last ? first.description : "\(first)-\(last)" }
}
