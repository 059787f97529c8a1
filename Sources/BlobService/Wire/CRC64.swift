/// CRC-64/NVME (polynomial 0x9A6C9329AC4BC9B5 reflected, initial value and final XOR all ones): what
/// `x-ms-content-crc64` carries, as eight little-endian bytes in base64.
struct CRC64 {
    private var state: UInt64 = .max

    /// Eight tables: byte `n` of an eight-byte word through the remaining `n` bytes ("slicing by eight").
    private static let tables: [UInt64] = {
        var tables = [UInt64](repeating: 0, count: 8 * 256)
        for index in 0..<256 {
            var value = UInt64(index)
            for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ 0x9a6c_9329_ac4b_c9b5 : value >> 1 }
            tables[index] = value
        }
        for table in 1..<8 {
            for index in 0..<256 {
                let previous = tables[(table - 1) * 256 + index]
                tables[table * 256 + index] = tables[Int(previous & 0xff)] ^ previous >> 8
            }
        }
        return tables
    }()

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        var crc = state
        Self.tables.withUnsafeBufferPointer { tables in
            var index = 0
            while index + 8 <= bytes.count {
                crc ^= UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self))
                crc =
                    tables[7 * 256 + Int(crc & 0xff)] ^ tables[6 * 256 + Int(crc >> 8 & 0xff)]
                    ^ tables[5 * 256 + Int(crc >> 16 & 0xff)] ^ tables[4 * 256 + Int(crc >> 24 & 0xff)]
                    ^ tables[3 * 256 + Int(crc >> 32 & 0xff)] ^ tables[2 * 256 + Int(crc >> 40 & 0xff)]
                    ^ tables[256 + Int(crc >> 48 & 0xff)] ^ tables[Int(crc >> 56)]
                index += 8
            }
            while index < bytes.count {
                crc = tables[Int((crc ^ UInt64(bytes[index])) & 0xff)] ^ crc >> 8
                index += 1
            }
        }
        state = crc
    }
    var value: UInt64 { ~state }
    var bytes: [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
}
