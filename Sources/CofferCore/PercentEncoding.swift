/// RFC 3986 percent-encoding of everything but letters, digits and `keeping`.
public func percentEncoded(_ text: String, keeping: String) -> String {
    let kept = Set(keeping.utf8)
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: bytes.append(byte)
        case _ where kept.contains(byte): bytes.append(byte)
        default: bytes.append(contentsOf: [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]])
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}
