/// An OData `$filter` expression, as far as Resource Manager, Graph and the services read it.
///
/// `a eq 'b'`, `ne`, `gt`, `ge`, `lt`, `le`, `and`, `or`, `not`, parentheses, `in (…)`, `startswith(a,'b')`,
/// `endswith`, `substringof('b',a)`, `contains(a,'b')`, bare calls such as `atScope()` and `assignedTo('x')`, and
/// `list/any(x:x eq 'b')`. Source: OData 4.01, URL Conventions §5.1.1.
public indirect enum Filter: Sendable, Equatable {
    public enum Comparison: String, Sendable { case eq, ne, gt, ge, lt, le }
    case comparison(path: String, Comparison, String)
    /// A function by its lower-cased name, with its arguments: paths and literals alike as text.
    case call(String, [String])
    /// `list/any(x:x op 'literal')` or `list/any(x:startswith(x,'literal'))`: the inner filter's path is `x`'s name.
    case any(list: String, variable: String, Filter)
    case and(Filter, Filter)
    case or(Filter, Filter)
    case not(Filter)

    /// Longest expression read, in bytes.
    public static let bytesLimit = 8_192
    /// Deepest nesting read.
    public static let depthLimit = 32
    /// Most comparisons and calls read, each value of an `in` counted: a chain of them is a tree as deep as it is long.
    public static let termsLimit = 256

    /// nil when the text is not such an expression, too long, too deep or of too many terms.
    public init?(parsing text: String) {
        guard text.utf8.count <= Self.bytesLimit, let tokens = FilterToken.scan(text) else { return nil }
        var parser = FilterParser(tokens: tokens)
        guard let filter = parser.disjunction(depth: 0), parser.isAtEnd else { return nil }
        self = filter
    }

    /// Evaluates over an object's values. Text compares without regard to ASCII case, as the services do.
    ///
    /// `values` returns a property's values (one for a plain property, many for a list, none when absent) or nil for a
    /// property that cannot be filtered on; `call` decides functions other than the string functions, nil for an
    /// unknown one. Returns nil when any part is unknown, so that a filter that is not understood is refused and never
    /// ignored.
    public func evaluate(values: (String) -> [String]?, call: (String, [String]) -> Bool? = { _, _ in nil }) -> Bool? {
        switch self {
        case .and(let left, let right):
            guard let a = left.evaluate(values: values, call: call), let b = right.evaluate(values: values, call: call)
            else { return nil }
            return a && b
        case .or(let left, let right):
            guard let a = left.evaluate(values: values, call: call), let b = right.evaluate(values: values, call: call)
            else { return nil }
            return a || b
        case .not(let inner):
            return inner.evaluate(values: values, call: call).map { !$0 }
        case .comparison(let path, let comparison, let literal):
            guard let found = values(path) else { return nil }
            return Self.compare(found.first, comparison, literal)
        case .any(let list, let variable, let inner):
            guard let found = values(list) else { return nil }
            // Understood even when the list is empty: probe the inner filter once.
            guard inner.evaluate(values: { $0 == variable ? [""] : nil }) != nil else { return nil }
            return found.contains { element in inner.evaluate(values: { $0 == variable ? [element] : nil }) == true }
        case .call(let name, let arguments):
            guard ["startswith", "endswith", "contains", "substringof"].contains(name), arguments.count == 2 else {
                return call(name, arguments)
            }
            let isReversed = name == "substringof"
            guard let found = values(arguments[isReversed ? 1 : 0]) else { return nil }
            let wanted = arguments[isReversed ? 0 : 1].lowercased()
            return found.contains { value in
                let value = value.lowercased()
                return name == "startswith"
                    ? value.hasPrefix(wanted) : name == "endswith" ? value.hasSuffix(wanted) : value.contains(wanted)
            }
        }
    }

    private static func compare(_ value: String?, _ comparison: Comparison, _ literal: String) -> Bool {
        guard let value = value?.lowercased() else { return comparison == .ne }
        let literal = literal.lowercased()
        return switch comparison {
        case .eq: value == literal
        case .ne: value != literal
        case .gt: value > literal
        case .ge: value >= literal
        case .lt: value < literal
        case .le: value <= literal
        }
    }

    /// The literal that `path eq 'literal'` demands in every way the filter can hold, or nil: lets a caller look up
    /// instead of walking all.
    public func requiredValue(of path: String) -> String? {
        switch self {
        case .comparison(let found, .eq, let literal): found.lowercased() == path.lowercased() ? literal : nil
        case .and(let left, let right): left.requiredValue(of: path) ?? right.requiredValue(of: path)
        default: nil
        }
    }
}

private enum FilterToken: Equatable {
    case word(String)
    case literal(String)
    case open, close, comma, colon

    static func scan(_ text: String) -> [FilterToken]? {
        var tokens: [FilterToken] = []
        let bytes = Array(text.utf8)
        var i = 0
        func isWord(_ byte: UInt8) -> Bool {
            switch byte {
            case 48...57, 65...90, 97...122, 0x5f, 0x2f, 0x2e, 0x2d, 0x24, 0x40: true
            default: byte >= 0x80
            }
        }
        while i < bytes.count {
            switch bytes[i] {
            case 0x20, 0x09: i += 1
            case 0x28:
                tokens.append(.open)
                i += 1
            case 0x29:
                tokens.append(.close)
                i += 1
            case 0x2c:
                tokens.append(.comma)
                i += 1
            case 0x3a:
                tokens.append(.colon)
                i += 1
            case 0x27:
                // A doubled quote is a quote.
                var literal: [UInt8] = []
                i += 1
                while true {
                    guard i < bytes.count else { return nil }
                    if bytes[i] == 0x27 {
                        guard i + 1 < bytes.count, bytes[i + 1] == 0x27 else { break }
                        i += 1
                    }
                    literal.append(bytes[i])
                    i += 1
                }
                i += 1
                guard let value = String(validating: literal, as: UTF8.self) else { return nil }
                tokens.append(.literal(value))
            case let byte where isWord(byte):
                let start = i
                while i < bytes.count, isWord(bytes[i]) { i += 1 }
                guard let value = String(validating: bytes[start..<i], as: UTF8.self) else { return nil }
                tokens.append(.word(value))
            default: return nil
            }
        }
        return tokens
    }
}

private struct FilterParser {
    let tokens: [FilterToken]
    private var position = 0
    private var terms = 0
    init(tokens: [FilterToken]) { self.tokens = tokens }

    var isAtEnd: Bool { position == tokens.count }
    private var next: FilterToken? { position < tokens.count ? tokens[position] : nil }

    private mutating func take(_ token: FilterToken) -> Bool {
        guard next == token else { return false }
        position += 1
        return true
    }
    private mutating func takeKeyword(_ word: String) -> Bool {
        guard case .word(let found)? = next, found.lowercased() == word else { return false }
        position += 1
        return true
    }
    private mutating func takeWord() -> String? {
        guard case .word(let word)? = next else { return nil }
        position += 1
        return word
    }
    private mutating func takeOperand() -> String? {
        switch next {
        case .word(let text)?, .literal(let text)?:
            position += 1
            return text
        default: return nil
        }
    }

    /// false once there are more than are read.
    private mutating func count(_ more: Int) -> Bool {
        terms += more
        return terms <= Filter.termsLimit
    }

    mutating func disjunction(depth: Int) -> Filter? {
        guard depth < Filter.depthLimit, var left = conjunction(depth: depth) else { return nil }
        while takeKeyword("or") {
            guard let right = conjunction(depth: depth) else { return nil }
            left = .or(left, right)
        }
        return left
    }
    private mutating func conjunction(depth: Int) -> Filter? {
        guard var left = term(depth: depth) else { return nil }
        while takeKeyword("and") {
            guard let right = term(depth: depth) else { return nil }
            left = .and(left, right)
        }
        return left
    }
    private mutating func term(depth: Int) -> Filter? {
        guard depth < Filter.depthLimit else { return nil }
        if takeKeyword("not") { return term(depth: depth + 1).map(Filter.not) }
        if take(.open) {
            guard let inner = disjunction(depth: depth + 1), take(.close) else { return nil }
            return inner
        }
        guard count(1), let word = takeWord() else { return nil }
        if take(.open) {
            if word.lowercased().hasSuffix("/any") { return lambda(list: String(word.dropLast(4)), depth: depth) }
            guard let arguments = operands() else { return nil }
            return .call(word.lowercased(), arguments)
        }
        if takeKeyword("in") {
            guard take(.open), let values = operands(), let first = values.first, count(values.count) else {
                return nil
            }
            return values.dropFirst().reduce(.comparison(path: word, .eq, first)) {
                .or($0, .comparison(path: word, .eq, $1))
            }
        }
        guard let name = takeWord(), let comparison = Filter.Comparison(rawValue: name.lowercased()),
            let literal = takeOperand()
        else {
            return nil
        }
        return .comparison(path: word, comparison, literal)
    }
    private mutating func lambda(list: String, depth: Int) -> Filter? {
        guard let variable = takeWord(), take(.colon), let inner = disjunction(depth: depth + 1), take(.close) else {
            return nil
        }
        return .any(list: list, variable: variable, inner)
    }
    /// Operands up to and including the closing parenthesis.
    private mutating func operands() -> [String]? {
        if take(.close) { return [] }
        var values: [String] = []
        repeat {
            guard let value = takeOperand() else { return nil }
            values.append(value)
        } while take(.comma)
        return take(.close) ? values : nil
    }
}
