internal import CofferCore

/// Writes the fields of a row in order: numbers as LEB128, strings and byte strings behind their length.
struct RecordWriter {
    private(set) var bytes: [UInt8] = []

    init(reserving capacity: Int = 256) { bytes.reserveCapacity(capacity) }

    mutating func byte(_ value: UInt8) { bytes.append(value) }
    mutating func flag(_ value: Bool) { bytes.append(value ? 1 : 0) }
    mutating func number(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
    mutating func timestamp(_ value: Timestamp) { number(UInt64(bitPattern: value.microseconds)) }
    mutating func byteString(_ value: [UInt8]) {
        number(UInt64(value.count))
        bytes.append(contentsOf: value)
    }
    mutating func string(_ value: String) {
        number(UInt64(value.utf8.count))
        bytes.append(contentsOf: value.utf8)
    }
    mutating func optional<Value>(_ value: Value?, _ write: (inout RecordWriter, Value) -> Void) {
        flag(value != nil)
        if let value { write(&self, value) }
    }
    mutating func optional(_ value: String?) { optional(value) { $0.string($1) } }
    mutating func pairs(_ values: [(String, String)]) {
        number(UInt64(values.count))
        for (name, value) in values {
            string(name)
            string(value)
        }
    }
}

enum RecordError: Error { case malformed }

/// Reads what `RecordWriter` wrote. Throws on anything shorter, longer or out of range; never traps.
struct RecordReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func byte() throws(RecordError) -> UInt8 {
        guard position < bytes.count else { throw .malformed }
        defer { position += 1 }
        return bytes[position]
    }
    mutating func flag() throws(RecordError) -> Bool {
        switch try byte() {
        case 0: false
        case 1: true
        default: throw .malformed
        }
    }
    mutating func number() throws(RecordError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let next = try byte()
            guard shift < 63 || next <= 1 else { throw .malformed }
            value |= UInt64(next & 0x7f) << shift
            if next < 0x80 { return value }
            shift += 7
            guard shift <= 63 else { throw .malformed }
        }
    }
    mutating func int() throws(RecordError) -> Int {
        guard let value = Int(exactly: try number()) else { throw .malformed }
        return value
    }
    mutating func timestamp() throws(RecordError) -> Timestamp {
        Timestamp(microseconds: Int64(bitPattern: try number()))
    }
    mutating func byteString() throws(RecordError) -> [UInt8] {
        let count = try int()
        guard count <= bytes.count - position else { throw .malformed }
        defer { position += count }
        return Array(bytes[position..<position + count])
    }
    mutating func string() throws(RecordError) -> String {
        let count = try int()
        guard count <= bytes.count - position else { throw .malformed }
        defer { position += count }
        guard let text = String(validating: bytes[position..<position + count], as: UTF8.self) else { throw .malformed }
        return text
    }
    mutating func optionalString() throws(RecordError) -> String? { try flag() ? try string() : nil }
    mutating func pairs() throws(RecordError) -> [(String, String)] {
        let count = try int()
        guard count <= bytes.count - position else { throw .malformed }
        var values: [(String, String)] = []
        values.reserveCapacity(count)
        for _ in 0..<count { values.append((try string(), try string())) }
        return values
    }
    /// Bytes not yet read, for bounding a count before memory is set aside for it.
    var remaining: Int { bytes.count - position }
    func finish() throws(RecordError) { if position != bytes.count { throw .malformed } }
}
