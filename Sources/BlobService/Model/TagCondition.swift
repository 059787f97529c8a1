internal import StorageAccount

/// The condition of `x-ms-if-tags` ("Specifying conditional headers for Blob service operations"): comparisons of tags
/// with `=`, `<>`, `<`, `<=`, `>`, `>=`, joined by `AND`, `OR` and parentheses, such as
/// `"state" = 'open' AND "size" <> 'large'`. Names stand in double quotes or bare, values in single quotes; values
/// compare as strings do. A blob without the tag meets no comparison with it.
struct TagCondition: Sendable, Equatable {
    indirect enum Term: Sendable, Equatable {
        case comparison(name: String, sign: String, value: String)
        case all(Term, Term)
        case any(Term, Term)
    }
    let term: Term

    /// Throws 400 for a text that is no such expression, or nests or runs on beyond all use.
    init(_ text: String) throws(StorageError) {
        guard text.utf8.count <= 4_096, var parser = TagConditionParser(text), let term = parser.expression(depth: 0),
            parser.isAtEnd
        else {
            throw .invalidHeader("x-ms-if-tags", text)
        }
        self.term = term
    }

    func holds(for tags: [(String, String)]) -> Bool { Self.holds(term, tags) }
    private static func holds(_ term: Term, _ tags: [(String, String)]) -> Bool {
        switch term {
        case .all(let left, let right): return holds(left, tags) && holds(right, tags)
        case .any(let left, let right): return holds(left, tags) || holds(right, tags)
        case .comparison(let name, let sign, let value):
            guard let actual = tags.first(where: { $0.0 == name })?.1 else { return false }
            let isLess = actual.utf8.lexicographicallyPrecedes(value.utf8)
            switch sign {
            case "=": return actual == value
            case "<>": return actual != value
            case "<": return isLess
            case "<=": return isLess || actual == value
            case ">": return !isLess && actual != value
            default: return !isLess
            }
        }
    }
}

/// Recursive descent over the words of an expression.
private struct TagConditionParser {
    private enum Word: Equatable {
        case name(String)
        case value(String)
        case sign(String)
    }
    private static let deepest = 16
    private var words: [Word] = []
    private var position = 0
    var isAtEnd: Bool { position == words.count }

    /// nil when the text does not fall into words.
    init?(_ text: String) {
        var rest = Substring(text)
        while let first = rest.first {
            if first == " " {
                rest.removeFirst()
            } else if first == "\"" || first == "'" {
                rest.removeFirst()
                guard let end = rest.firstIndex(of: first) else { return nil }
                words.append(first == "'" ? .value(String(rest[..<end])) : .name(String(rest[..<end])))
                rest = rest[rest.index(after: end)...]
            } else if let sign = ["<>", "<=", ">=", "<", ">", "=", "(", ")"].first(where: rest.hasPrefix) {
                words.append(.sign(sign))
                rest.removeFirst(sign.count)
            } else {
                let word = rest.prefix { !" \"'<>=()".contains($0) }
                let isJoin = ["AND", "OR"].contains(word.uppercased())
                words.append(isJoin ? .sign(word.uppercased()) : .name(String(word)))
                rest = rest[word.endIndex...]
            }
        }
    }

    mutating func expression(depth: Int) -> TagCondition.Term? {
        guard depth < Self.deepest, var left = conjunction(depth: depth) else { return nil }
        while take(.sign("OR")) {
            guard let right = conjunction(depth: depth) else { return nil }
            left = .any(left, right)
        }
        return left
    }
    private mutating func conjunction(depth: Int) -> TagCondition.Term? {
        guard var left = comparison(depth: depth) else { return nil }
        while take(.sign("AND")) {
            guard let right = comparison(depth: depth) else { return nil }
            left = .all(left, right)
        }
        return left
    }
    private mutating func comparison(depth: Int) -> TagCondition.Term? {
        if take(.sign("(")) {
            guard let inner = expression(depth: depth + 1), take(.sign(")")) else { return nil }
            return inner
        }
        guard position + 2 < words.count, case .name(let name) = words[position],
            case .sign(let sign) = words[position + 1], ["=", "<>", "<", "<=", ">", ">="].contains(sign),
            case .value(let value) = words[position + 2]
        else { return nil }
        position += 3
        return .comparison(name: name, sign: sign, value: value)
    }
    private mutating func take(_ word: Word) -> Bool {
        guard position < words.count, words[position] == word else { return false }
        position += 1
        return true
    }
}
