/// A compiled action name pattern: `*` stands for any run of characters, letters compare without regard to ASCII case.
///
/// Compiled once per published book, so that a decision allocates nothing.
struct ActionPattern: Sendable {
    private let bytes: [UInt8]
    private let isExact: Bool

    init(_ text: String) {
        bytes = text.utf8.map(asciiLowercased)
        isExact = !bytes.contains(0x2a)
    }

    func matches(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
        bytes.withUnsafeBufferPointer { pattern in
            if isExact, pattern.count != name.count { return false }
            var p = 0
            var n = 0
            var starPattern = -1
            var starName = 0
            while n < name.count {
                if p < pattern.count, pattern[p] == 0x2a {
                    starPattern = p
                    starName = n
                    p += 1
                } else if p < pattern.count, pattern[p] == asciiLowercased(name[n]) {
                    p += 1
                    n += 1
                } else if starPattern >= 0 {
                    p = starPattern + 1
                    starName += 1
                    n = starName
                } else {
                    return false
                }
            }
            while p < pattern.count, pattern[p] == 0x2a { p += 1 }
            return p == pattern.count
        }
    }

    func matches(_ name: String) -> Bool {
        var name = name
        return name.withUTF8 { matches($0) }
    }
}

@inline(__always)
func asciiLowercased(_ byte: UInt8) -> UInt8 { byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte }
