/// Reads one JSON document (RFC 8259) into a `JSONValue`: UTF-8, no comments; a comma before a closing bracket is let
/// pass, as JSONDecoder lets it. The bodies of all requests come through here; JSONDecoder would try one type after the
/// other for each value, and throw at each.
struct JSONParser {
    /// Deepest nesting of arrays and objects.
    static let depthLimit = 512

    private let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0
    private var depth = 0

    private init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws -> JSONValue {
        var parser = JSONParser(bytes)
        // RFC 8259 §8.1 lets a reader ignore a byte order mark.
        if bytes.starts(with: [0xef, 0xbb, 0xbf]) { parser.position = 3 }
        let value = try parser.value()
        parser.skipSpace()
        guard parser.position == bytes.count else { throw parser.malformed("text after the value") }
        return value
    }

    private func malformed(_ what: String) -> DecodingError {
        .dataCorrupted(
            DecodingError.Context(codingPath: [], debugDescription: "Not JSON at byte \(position): \(what)."))
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { position += 1 }
    }
    private mutating func skip(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        position += 1
        return true
    }
    private mutating func skip(_ word: StaticString) throws {
        let end = position + word.utf8CodeUnitCount
        let isHere =
            end <= bytes.count && word.withUTF8Buffer { bytes[position..<end].elementsEqual($0) }
        guard isHere else { throw malformed("an unknown word") }
        position = end
    }

    private mutating func value() throws -> JSONValue {
        skipSpace()
        switch next {
        case 0x22: return .string(try string())
        case 0x7b: return try nested { parser in .object(try parser.members()) }
        case 0x5b: return try nested { parser in .array(try parser.elements()) }
        case 0x74:
            try skip("true")
            return .bool(true)
        case 0x66:
            try skip("false")
            return .bool(false)
        case 0x6e:
            try skip("null")
            return .null
        case 0x2d, .some(0x30...0x39): return try number()
        default: throw malformed("no value")
        }
    }

    private mutating func nested(_ read: (inout JSONParser) throws -> JSONValue) throws -> JSONValue {
        position += 1
        depth += 1
        guard depth <= Self.depthLimit else { throw malformed("too deeply nested") }
        let value = try read(&self)
        depth -= 1
        return value
    }

    /// After `{`. A name that comes twice counts the first time, as JSONDecoder counts it.
    private mutating func members() throws -> [String: JSONValue] {
        var members: [String: JSONValue] = [:]
        skipSpace()
        if skip(0x7d) { return members }
        while true {
            guard next == 0x22 else { throw malformed("no member name") }
            let name = try string()
            skipSpace()
            guard skip(0x3a) else { throw malformed("no colon") }
            let value = try value()
            if members[name] == nil { members[name] = value }
            skipSpace()
            let hasComma = skip(0x2c)
            skipSpace()
            if skip(0x7d) { return members }
            guard hasComma else { throw malformed("no comma") }
        }
    }

    /// After `[`.
    private mutating func elements() throws -> [JSONValue] {
        var elements: [JSONValue] = []
        skipSpace()
        if skip(0x5d) { return elements }
        while true {
            elements.append(try value())
            skipSpace()
            let hasComma = skip(0x2c)
            skipSpace()
            if skip(0x5d) { return elements }
            guard hasComma else { throw malformed("no comma") }
        }
    }

    // MARK: Strings

    private mutating func string() throws -> String {
        position += 1
        let start = position
        while let byte = next {
            switch byte {
            case 0x22:
                position += 1
                return try text(bytes[start..<position - 1])
            case 0x5c:
                return try escapedString(from: start)
            case 0..<0x20: throw malformed("a control character in a string")
            default: position += 1
            }
        }
        throw malformed("a string without an end")
    }

    /// From the first escape on: what lies before it is taken over.
    private mutating func escapedString(from start: Int) throws -> String {
        var read = Array(bytes[start..<position])
        while let byte = next {
            position += 1
            switch byte {
            case 0x22: return try text(read)
            case 0x5c: try appendEscape(to: &read)
            case 0..<0x20: throw malformed("a control character in a string")
            default: read.append(byte)
            }
        }
        throw malformed("a string without an end")
    }

    private func text(_ read: some Collection<UInt8>) throws -> String {
        guard let text = String(validating: read, as: UTF8.self) else { throw malformed("a string that is not UTF-8") }
        return text
    }

    /// After the backslash.
    private mutating func appendEscape(to read: inout [UInt8]) throws {
        let kind = next
        position += 1
        switch kind {
        case 0x22, 0x5c, 0x2f: read.append(kind!)
        case 0x62: read.append(0x08)
        case 0x66: read.append(0x0c)
        case 0x6e: read.append(0x0a)
        case 0x72: read.append(0x0d)
        case 0x74: read.append(0x09)
        case 0x75:
            var code = try hexadecimal()
            if (0xd800..<0xdc00).contains(code) {
                // A pair of surrogates stands for one character (RFC 8259 §7); half a pair for none.
                guard skip(0x5c), skip(0x75) else { throw malformed("half a surrogate pair") }
                let low = try hexadecimal()
                guard (0xdc00..<0xe000).contains(low) else { throw malformed("half a surrogate pair") }
                code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw malformed("half a surrogate pair") }
            read.append(contentsOf: UTF8.encode(scalar)!)
        default: throw malformed("an unknown escape")
        }
    }

    private mutating func hexadecimal() throws -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt8
            switch next {
            case let byte? where (0x30...0x39).contains(byte): digit = byte - 0x30
            case let byte? where (0x61...0x66).contains(byte | 0x20): digit = (byte | 0x20) - 0x57
            default: throw malformed("an escape without four digits")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }

    // MARK: Numbers

    private mutating func number() throws -> JSONValue {
        let start = position
        let isNegative = skip(0x2d)
        let leading = next
        var magnitude: Int64 = 0
        var isExact = true
        let digits = skipDigits { digit in
            let (ten, overflow) = magnitude.multipliedReportingOverflow(by: 10)
            // Towards the sign, so that the least Int64 is read as well.
            let (sum, overflow2) =
                isNegative ? ten.subtractingReportingOverflow(digit) : ten.addingReportingOverflow(digit)
            magnitude = sum
            if overflow || overflow2 { isExact = false }
        }
        guard digits > 0, digits == 1 || leading != 0x30 else { throw malformed("no number") }
        var isWhole = true
        if skip(0x2e) {
            isWhole = false
            guard skipDigits() > 0 else { throw malformed("no digits after the point") }
        }
        if next == 0x65 || next == 0x45 {
            isWhole = false
            position += 1
            if !skip(0x2b) { _ = skip(0x2d) }
            guard skipDigits() > 0 else { throw malformed("no digits in the exponent") }
        }
        if isWhole, isExact { return .integer(magnitude) }
        guard let value = Double(String(decoding: bytes[start..<position], as: UTF8.self)), value.isFinite else {
            throw malformed("a number out of range")
        }
        return isWhole ? .number(value) : Int64(exactly: value).map { .integer($0) } ?? .number(value)
    }

    /// How many there were.
    private mutating func skipDigits(_ use: (Int64) -> Void = { _ in }) -> Int {
        let start = position
        while let byte = next, (0x30...0x39).contains(byte) {
            use(Int64(byte - 0x30))
            position += 1
        }
        return position - start
    }
}
