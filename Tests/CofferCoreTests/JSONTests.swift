import CofferCore
import Testing

/// The same throws every time (Knuth's linear congruential generator).
private struct Dice {
    var state: UInt64
    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }
}

/// Whoever sends a document chooses neither how deep it is read nor how long that takes.
struct JSONTests {
    private func nested(_ depth: Int, _ inner: String = "") -> String {
        String(repeating: "[", count: depth) + inner + String(repeating: "]", count: depth)
    }

    @Test func depthHasALimit() throws {
        _ = try JSONValue(parsing: nested(JSONValue.depthLimit).utf8)
        #expect(throws: DecodingError.self) { try JSONValue(parsing: nested(JSONValue.depthLimit + 1).utf8) }
        let objects = String(repeating: #"{"a":"#, count: JSONValue.depthLimit + 1)
        #expect(throws: DecodingError.self) { try JSONValue(parsing: objects.utf8) }
        // What looks like nesting inside a text is none.
        let text = #""\#(String(repeating: #"[{\"\\"#, count: 500))""#
        #expect(try JSONValue(parsing: text.utf8) == .string(String(repeating: #"[{"\"#, count: 500)))
    }

    /// The decoder would read other encodings, in which U+2200 holds the byte of a quote.
    @Test func otherEncodingsAreRefused() {
        let deep = "[\"\u{2200}\"," + nested(200) + "]"
        for isBigEndian in [true, false] {
            for mark in ["", "\u{feff}"] {
                var wide: [UInt8] = []
                for unit in (mark + deep).utf16 {
                    let halves = [UInt8(unit >> 8), UInt8(unit & 255)]
                    wide += isBigEndian ? halves : halves.reversed()
                }
                #expect(throws: DecodingError.self) { try JSONValue(parsing: wide) }
            }
        }
        #expect(throws: DecodingError.self) { try JSONValue(parsing: "[1]\0".utf8) }
        #expect(throws: DecodingError.self) { try JSONValue(parsing: "]]][[[".utf8) }
    }

    /// The deeper a value lies, the more it counts.
    @Test func valuesHaveALimit() throws {
        let deep = Array(repeating: "1", count: JSONValue.costLimit / JSONValue.depthLimit).joined(separator: ",")
        #expect(throws: DecodingError.self) { try JSONValue(parsing: nested(JSONValue.depthLimit, deep).utf8) }
        let flat = Array(repeating: "1", count: 5_000).joined(separator: ",")
        #expect(try JSONValue(parsing: "[\(flat)]".utf8).arrayValue?.count == 5_000)
    }

    @Test func anyValueComesBack() throws {
        var random = Dice(state: 7)
        for _ in 0..<300 {
            var bytes = random.bytes(64)[...]
            let value = Self.value(&bytes, depth: 0)
            #expect(try JSONValue(parsing: value.serialized()) == value)
        }
    }

    /// A document cut short or changed by a byte is read as what it says, or refused.
    @Test func damagedDocumentsAreReadOrRefused() throws {
        let document = Array(#"{"a":[1,-2.5e3,true,null,"x\u00e9\n"],"b":{"c":{},"d":[]}}"#.utf8)
        for end in 0..<document.count {
            #expect(throws: DecodingError.self) { try JSONValue(parsing: document[..<end]) }
        }
        var random = Dice(state: 8)
        for _ in 0..<3_000 {
            var changed = document
            let dice = random.bytes(2)
            changed[Int(dice[0]) % changed.count] = dice[1]
            guard let value = try? JSONValue(parsing: changed) else { continue }
            #expect(try JSONValue(parsing: value.serialized()) == value)
        }
    }

    private static func value(_ bytes: inout ArraySlice<UInt8>, depth: Int) -> JSONValue {
        guard let kind = bytes.popFirst() else { return .null }
        switch kind % 7 {
        case 0: return .bool(kind > 127)
        case 1: return .integer(Int64(kind) - 128)
        case 2: return .number(Double(kind) + 0.5)
        case 3: return .string(String(decoding: bytes.prefix(5), as: UTF8.self))
        case 4 where depth < 5: return .array((0..<Int(kind % 4)).map { _ in value(&bytes, depth: depth + 1) })
        case 5 where depth < 5:
            let count = Int(kind % 4)
            return .object(
                Dictionary((0..<count).map { ("\($0)\"\\", value(&bytes, depth: depth + 1)) }) { $1 })
        default: return .null
        }
    }
}
