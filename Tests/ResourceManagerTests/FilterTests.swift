import ResourceProviders
import Testing

@Suite struct FilterTests {
    private func holds(_ text: String, _ values: [String: [String]]) -> Bool? {
        Filter(parsing: text)?.evaluate(values: { values[$0] })
    }

    @Test func evaluates() {
        let values = ["name": ["Alpha"], "type": ["a/b"], "names": ["x", "O'Neil"], "none": []]
        let cases: [(String, Bool?)] = [
            ("name eq 'alpha'", true), ("name ne 'alpha'", false), ("none eq 'x'", false), ("none ne 'x'", true),
            ("name eq 'alpha' and type eq 'A/B'", true), ("name eq 'x' or type eq 'a/b'", true),
            ("not (name eq 'x')", true),
            ("name eq 'x' or name eq 'y' and type eq 'a/b'", false),
            ("(name eq 'x' or name eq 'alpha') and type eq 'a/b'", true),
            ("startswith(name,'al')", true), ("endswith(name, 'HA')", true), ("substringof('lph', name)", true),
            ("contains(name,'z')", false),
            ("names/any(c:c eq 'O''Neil')", true), ("names/any(c:startswith(c,'o'))", true),
            ("names/any(c:c eq 'y')", false),
            ("name in ('beta', 'ALPHA')", true), ("name eq alpha", true), ("unknown eq 'x'", nil),
            ("names/any(c:d eq 'x')", nil),
            ("none/any(c:d eq 'x')", nil), ("name eq 'alpha' or unknown eq 'x'", nil), ("atScope()", nil),
        ]
        for (text, expected) in cases { #expect(holds(text, values) == expected, "\(text)") }
    }

    @Test(arguments: [
        "", "name", "name eq", "name eq 'x", "eq 'x'", "name eq 'x' and", "(name eq 'x'", "name eq 'x')", "name ~ 'x'",
        "f('x'", "a/any(c)",
        "a/any(c:c eq 'x'", "name eq 'x' name eq 'y'", "name in ()", "not", "'x' eq name",
    ])
    func refusesWhatIsNotAnExpression(text: String) { #expect(Filter(parsing: text) == nil) }

    @Test func functionsReachTheirCaller() {
        let filter = Filter(parsing: "atScope() and assignedTo('X')")
        #expect(
            filter?.evaluate(values: { _ in nil }) { name, arguments in name == "atscope" ? true : arguments == ["X"] }
                == true)
        #expect(Filter(parsing: "type eq 'a' and name eq 'b'")?.requiredValue(of: "NAME") == "b")
        #expect(Filter(parsing: "type eq 'a' or name eq 'b'")?.requiredValue(of: "name") == nil)
    }

    /// A chain of terms is a tree as deep as it is long.
    @Test(arguments: [" or ", " and "])
    func longChainsAreRefused(joint: String) {
        let most = Array(repeating: "a eq 'b'", count: Filter.termsLimit).joined(separator: joint)
        #expect(holds(most, ["a": ["b"]]) == true)
        #expect(Filter(parsing: most + joint + "a eq 'b'") == nil)
        let values = Array(repeating: "b", count: Filter.termsLimit - 1).joined(separator: ",")
        #expect(holds("a in (\(values))", ["a": ["b"]]) == true)
        #expect(Filter(parsing: "a in (\(values),b)") == nil)
    }

    @Test func hostileTextNeverCrashes() {
        #expect(Filter(parsing: String(repeating: "(", count: 8_000)) == nil)
        #expect(Filter(parsing: String(repeating: "not ", count: 2_000) + "a eq 'b'") == nil)
        #expect(Filter(parsing: String(repeating: "a", count: Filter.bytesLimit + 1)) == nil)
        let pieces = [
            "name", " ", "eq", "'x'", "'", "(", ")", ",", ":", "and", "or", "not", "/any(", "in", "startswith(",
            "\u{e9}", "%", "\0", "''",
        ]
        var state: UInt64 = 1
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<12 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                text += pieces[Int((state >> 33) % UInt64(pieces.count))]
            }
            _ = Filter(parsing: text)?.evaluate(values: { _ in ["x"] })
        }
    }
}
