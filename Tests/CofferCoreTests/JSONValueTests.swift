import CofferCore
import Foundation
import Testing

/// Our reader and writer against Foundation's, which wrote what lies on disks already.
struct JSONValueTests {
    private func foundation(_ text: some Sequence<UInt8>) -> JSONValue? {
        try? JSONDecoder().decode(JSONValue.self, from: Data(text))
    }
    private func written(_ value: JSONValue) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return [UInt8](try encoder.encode(value))
    }

    @Test func readsWhatIsJSON() throws {
        for text in [
            "null", "true", "false", "0", "-0", "1", "-1", "9223372036854775807", "-9223372036854775808",
            "9223372036854775808", "-9223372036854775809", "123456789012345678901234567890", "1.0", "1.5", "-1.5e-3",
            "1e3", "1E+3", "0.1", "1.0e400", "1e-400", "\"\"", "\"a\"", #""\"\\\/\b\f\n\r\t""#,
            #""\u0041\u00e9\u20AC""#,
            #""\ud83d\ude00 x""#, "\"é€😀\"", "[]", "[1]", " [ 1 , 2 ] ", "{}", #"{"a":1}"#, #" { "a" : [ {} ] } "#,
            #"{"a":1,"a":2}"#, #"{"":""}"#, "\u{feff}[]", "[[[[[]]]]]", "\t\r\n 1 \n",
            "[1,]", "[[],]", "[1 , ]", "{\"a\":1,}", "{\"a\":1 , }",
        ] {
            #expect((try? JSONValue(parsing: text.utf8)) == foundation(text.utf8), "\(text)")
        }
    }

    @Test func refusesWhatIsNot() {
        for text in [
            "", " ", "nul", "nulll", "True", "tru", "01", "-", "-a", "+1", "1.", ".1", "1e", "1e+", "1 2", "0x10",
            "NaN",
            "Infinity", "1e999", "\"", "\"a", "'a'", "\"\u{1}\"", "\"\n\"", #""\x""#, #""\u12""#, #""\u12g4""#,
            #""\ud83d""#, #""\ud83dx""#, #""\ud83d\u0041""#, #""\ude00""#, "\"\\", "\"\\u", "[", "[1", "[1,", "[1,,]",
            "[,]", "[,1]", "[1 2]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,,}", "{a:1}", "{1:1}",
            "{\"a\" 1}", "{,}", "]", "}", "[1]]", "// x\n1", "/* x */ 1", "\u{a0}1",
        ] {
            #expect(throws: DecodingError.self, "\(text)") { try JSONValue(parsing: text.utf8) }
        }
        for bytes: [UInt8] in [
            [0x22, 0xff, 0x22], [0x22, 0xc0, 0x80, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0xe2, 0x82, 0x22],
            [0x22, 0x5c, 0x6e, 0xff, 0x22], [0xff], [0x00], [0xef, 0xbb],
        ] {
            #expect(throws: DecodingError.self, "\(bytes)") { try JSONValue(parsing: bytes) }
        }
    }

    @Test func nestingHasALimit() throws {
        func nested(_ depth: Int) -> [UInt8] {
            Array(String(repeating: "[", count: depth).utf8) + Array(String(repeating: "]", count: depth).utf8)
        }
        _ = try JSONValue(parsing: nested(512))
        #expect(throws: DecodingError.self) { try JSONValue(parsing: nested(513)) }
        #expect(throws: DecodingError.self) { try JSONValue(parsing: nested(1_000_000)) }
    }

    /// Mutations of documents: both readers say the same. (Foundation also reads UTF-16, which is not JSON.)
    @Test func agreesWithFoundationOnMutations() {
        let seeds = [
            #"{"alg":"RSA-OAEP-256","value":"abc_-","n":[1,-2.5,3e2,null,true],"o":{"x":"\u00e9\n\ud83d\ude00"}}"#,
            #"[{"a":{"b":[[],{}]}},"é€😀",0.1,-0,12345678]"#,
        ].map { Array($0.utf8) }
        let alphabet = Array("{}[]\":,\\u0123456789-+.eEtrufalsn d8\u{1}\n/é".utf8)
        var state: UInt64 = 42
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
        for round in 0..<20_000 {
            var bytes = seeds[round % seeds.count]
            for _ in 0...random(3) {
                let place = random(bytes.count)
                switch random(3) {
                case 0: bytes[place] = alphabet[random(alphabet.count)]
                case 1: bytes.remove(at: place)
                default: bytes.insert(alphabet[random(alphabet.count)], at: place)
                }
            }
            let ours = try? JSONValue(parsing: bytes)
            #expect(ours == foundation(bytes), "\(String(decoding: bytes, as: UTF8.self))")
            if let ours { #expect((try? JSONValue(parsing: ours.serialized())) == ours) }
        }
    }

    @Test func writesWhatFoundationWrites() throws {
        let controls = String(String.UnicodeScalarView((0..<0x80).compactMap { Unicode.Scalar($0) }))
        let values: [JSONValue] = [
            .null, true, false, 0, -1, .integer(.max), .integer(.min), .number(0.1), .number(1.5e300), .number(1e20),
            .number(-2.5e-9), .number(1e16), "", .string(controls), "é€😀 /", [], [1, [2], [:]], [:],
            ["b": 1, "a": ["d": "x", "c": .null], "A": 2, "é": 3, "aa": 4, "\"": 5, "": 6, "a/b": 7, "Z": 8, "_": 9],
        ]
        for value in values {
            let ours = value.serialized()
            #expect(ours == (try written(value)), "\(String(decoding: ours, as: UTF8.self))")
            #expect(try JSONValue(parsing: ours) == foundation(ours))
        }
        #expect(JSONValue.array([.number(.nan)]).serialized() == Array("null".utf8))
    }

    @Test func base64IsFoundationsForEveryLength() {
        for count in 0..<70 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ count) }
            let padded = Data(bytes).base64EncodedString()
            #expect(bytes.base64 == padded)
            #expect([UInt8](base64: padded) == bytes)
            let url = padded.replacing("+", with: "-").replacing("/", with: "_")
            let bare = url.replacing("=", with: "")
            #expect(bytes.base64URL == bare)
            #expect(bytes.dropFirst(0).base64URL == bare && AnyCollection(bytes).base64URL == bare)
            #expect([UInt8](base64URL: bare) == bytes && [UInt8](base64URL: url) == bytes)
            #expect([UInt8](base64URL: bare + "=") == (url == bare + "=" ? bytes : nil))
            if padded.contains("=") { #expect([UInt8](base64: padded.replacing("=", with: "")) == nil) }
        }
        for text in [
            "A", "AAAAA", "=", "==", "====", "A===", "AA=A", "AA= ", "A A=", "AAAA\n", "AAA é", "AAAA=", "AAAA==",
            "AA=",
        ] {
            #expect([UInt8](base64: text) == nil, "\(text)")
            #expect([UInt8](base64URL: text) == nil, "\(text)")
        }
    }
}
