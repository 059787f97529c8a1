internal import Foundation

/// A route as ASP.NET Core writes it: literals and `{parameters}` with constraints, optional ones, defaults, and a
/// catch-all at the end.
///
/// A segment is either a literal or one parameter; mixed segments (`a{b}c`) are refused, and the function is reported
/// as unsupported.
struct RouteTemplate: Sendable, Equatable {
    enum Constraint: Sendable, Equatable {
        case int, long, bool, datetime, decimal, double, guid, alpha
        case minLength(Int), maxLength(Int), length(ClosedRange<Int>)
        case min(Int64), max(Int64), range(ClosedRange<Int64>)
        case regex(String)
        case required
    }
    enum Segment: Sendable, Equatable {
        case literal(String)
        case parameter(name: String, constraints: [Constraint], isOptional: Bool, defaultValue: String?)
        case catchAll(name: String, constraints: [Constraint])
    }
    struct Malformed: Error, Equatable {
        let message: String
        init(_ message: String) { self.message = message }
    }
    static let segmentsLimit = 64

    let text: String
    let segments: [Segment]

    init(_ text: String) throws(Malformed) {
        self.text = text
        var segments: [Segment] = []
        var names = Set<String>()
        for raw in try Self.split(text) {
            let segment = try Self.segment(raw)
            if case .catchAll = segments.last { throw Malformed("a catch-all parameter must be the last segment") }
            switch segment {
            case .literal: break
            case .parameter(let name, _, _, _), .catchAll(let name, _):
                guard names.insert(name.lowercased()).inserted else {
                    throw Malformed("the parameter '\(name)' appears twice")
                }
            }
            segments.append(segment)
        }
        guard segments.count <= Self.segmentsLimit else {
            throw Malformed("a route has at most \(Self.segmentsLimit) segments")
        }
        // What follows an optional segment would never be reached without it.
        var sawOptional = false
        for segment in segments {
            switch segment {
            case .literal: if sawOptional { throw Malformed("an optional parameter must be at the end") }
            case .parameter(_, _, let isOptional, let defaultValue):
                if isOptional {
                    sawOptional = true
                } else if sawOptional, defaultValue == nil {
                    throw Malformed("an optional parameter must be at the end")
                }
            case .catchAll: break
            }
        }
        self.segments = segments
    }

    /// Splits at `/` outside braces, so that a regular expression may hold one.
    private static func split(_ text: String) throws(Malformed) -> [String] {
        var parts: [String] = []
        var current = ""
        var depth = 0
        for character in text {
            switch character {
            case "{": depth += 1
            case "}": depth -= 1
            default: break
            }
            guard depth >= 0 else { throw Malformed("a brace is closed that was never opened") }
            if character == "/", depth == 0 {
                if !current.isEmpty { parts.append(current) }
                current = ""
            } else {
                current.append(character)
            }
        }
        guard depth == 0 else { throw Malformed("a brace is not closed") }
        if !current.isEmpty { parts.append(current) }
        return parts
    }

    private static func segment(_ raw: String) throws(Malformed) -> Segment {
        guard raw.contains("{") else { return .literal(raw) }
        guard raw.hasPrefix("{"), raw.hasSuffix("}"), !raw.dropFirst().dropLast().contains("}{") else {
            throw Malformed("segments that mix text and parameters ('\(raw.prefix(64))') are not supported")
        }
        var body = String(raw.dropFirst().dropLast())
        var isCatchAll = false
        while body.hasPrefix("*") {
            isCatchAll = true
            body.removeFirst()
        }
        var isOptional = false
        if body.hasSuffix("?") {
            isOptional = true
            body.removeLast()
        }
        var defaultValue: String?
        var parts = constraintParts(body)
        if let last = parts.last, let equals = last.firstIndex(of: "="), !last.contains("(") {
            defaultValue = String(last[last.index(after: equals)...])
            parts[parts.count - 1] = String(last[..<equals])
        }
        let name = parts[0]
        guard !name.isEmpty, name.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" || $0 == "-" }) else {
            throw Malformed("'\(name.prefix(64))' is not a parameter name")
        }
        var constraints: [Constraint] = []
        for part in parts.dropFirst() { constraints.append(try constraint(part)) }
        if isCatchAll { return .catchAll(name: name, constraints: constraints) }
        return .parameter(name: name, constraints: constraints, isOptional: isOptional, defaultValue: defaultValue)
    }

    /// Splits at `:` outside parentheses.
    private static func constraintParts(_ text: String) -> [String] {
        var parts = [""]
        var depth = 0
        for character in text {
            if character == "(" { depth += 1 }
            if character == ")" { depth -= 1 }
            if character == ":", depth <= 0 { parts.append("") } else { parts[parts.count - 1].append(character) }
        }
        return parts
    }

    private static func constraint(_ text: String) throws(Malformed) -> Constraint {
        let name = text.prefix { $0 != "(" }.lowercased()
        var argument = ""
        if let open = text.firstIndex(of: "(") {
            guard text.hasSuffix(")") else { throw Malformed("the constraint '\(name)' is not closed") }
            argument = String(text[text.index(after: open)...].dropLast())
        }
        let numbers = argument.split(separator: ",").map { Int64($0.trimmed) }
        switch (name, numbers.count) {
        case ("int", 0): return .int
        case ("long", 0): return .long
        case ("bool", 0): return .bool
        case ("datetime", 0): return .datetime
        case ("decimal", 0): return .decimal
        case ("double", 0), ("float", 0): return .double
        case ("guid", 0): return .guid
        case ("alpha", 0): return .alpha
        case ("required", 0): return .required
        case ("regex", _) where (1...512).contains(argument.utf8.count):
            let pattern = argument.replacing("{{", with: "{").replacing("}}", with: "}")
            guard (try? NSRegularExpression(pattern: pattern)) != nil else {
                throw Malformed("the regular expression is malformed")
            }
            return .regex(pattern)
        case ("min", 1): if let value = numbers[0] { return .min(value) }
        case ("max", 1): if let value = numbers[0] { return .max(value) }
        case ("minlength", 1):
            if let value = numbers[0], let count = Int(exactly: value), count >= 0 { return .minLength(count) }
        case ("maxlength", 1):
            if let value = numbers[0], let count = Int(exactly: value), count >= 0 { return .maxLength(count) }
        case ("length", 1):
            if let value = numbers[0], let count = Int(exactly: value), count >= 0 { return .length(count...count) }
        case ("length", 2):
            if let low = numbers[0], let high = numbers[1], low >= 0, low <= high {
                return .length(Int(low)...Int(high))
            }
        case ("range", 2): if let low = numbers[0], let high = numbers[1], low <= high { return .range(low...high) }
        default: break
        }
        throw Malformed("the route constraint '\(text.prefix(64))' is unknown or malformed")
    }

    // MARK: Matching

    /// The parameters' values when `path` (decoded segments) matches; an optional parameter that is absent has a nil
    /// value.
    func match(_ path: [String]) -> [String: String?]? {
        var values: [String: String?] = [:]
        var index = 0
        for segment in segments {
            switch segment {
            case .literal(let text):
                guard index < path.count, path[index].lowercased() == text.lowercased() else { return nil }
                index += 1
            case .parameter(let name, let constraints, let isOptional, let defaultValue):
                if index < path.count {
                    guard constraints.allSatisfy({ $0.allows(path[index]) }) else { return nil }
                    values[name] = .some(path[index])
                    index += 1
                } else if let defaultValue {
                    values[name] = .some(defaultValue)
                } else if isOptional {
                    values[name] = .some(nil)
                } else {
                    return nil
                }
            case .catchAll(let name, let constraints):
                let rest = path[index...].joined(separator: "/")
                guard rest.isEmpty || constraints.allSatisfy({ $0.allows(rest) }) else { return nil }
                values[name] = .some(rest.isEmpty ? nil : rest)
                index = path.count
            }
        }
        return index == path.count ? values : nil
    }

    /// Which template wins when several match: segment by segment, literal before constrained parameter before
    /// parameter before catch-all (ASP.NET Core, "Route template precedence"). Smaller wins.
    var precedence: [Int] {
        segments.map { segment in
            switch segment {
            case .literal: 1
            case .parameter(_, let constraints, _, _): constraints.isEmpty ? 3 : 2
            case .catchAll(_, let constraints): constraints.isEmpty ? 5 : 4
            }
        }
    }
}

extension RouteTemplate.Constraint {
    func allows(_ text: String) -> Bool {
        switch self {
        case .int: Int32(text) != nil
        case .long: Int64(text) != nil
        case .bool: ["true", "false"].contains(text.lowercased())
        case .decimal:
            Decimal(string: text, locale: Locale(identifier: "en_US_POSIX")) != nil && isNumeric(text, exponent: false)
        case .double: Double(text) != nil && isNumeric(text, exponent: true)
        case .guid: UUID(uuidString: text) != nil
        case .alpha: !text.isEmpty && text.utf8.allSatisfy { (65...90).contains($0) || (97...122).contains($0) }
        case .datetime: isDate(text)
        case .minLength(let count): text.count >= count
        case .maxLength(let count): text.count <= count
        case .length(let range): range.contains(text.count)
        case .min(let low): Int64(text).map { $0 >= low } ?? false
        case .max(let high): Int64(text).map { $0 <= high } ?? false
        case .range(let range): Int64(text).map { range.contains($0) } ?? false
        case .regex(let pattern): matches(pattern, text)
        case .required: !text.isEmpty
        }
    }

    /// An app's expression may go through the ways to match one after the other, and there are exponentially many:
    /// given up after so many reports, some tens of milliseconds, and then no match. Each place where it does not begin
    /// to match is reported, too.
    private static let progressReports = 64

    private func matches(_ pattern: String, _ text: String) -> Bool {
        guard let expression = try? NSRegularExpression(pattern: pattern, options: .caseInsensitive) else {
            return false
        }
        var found = false
        var reports = 0
        let whole = NSRange(text.startIndex..., in: text)
        let mostReports = whole.length + Self.progressReports
        expression.enumerateMatches(in: text, options: .reportProgress, range: whole) { match, flags, stop in
            found = match != nil
            reports += 1
            if found || reports >= mostReports { stop.pointee = true }
        }
        return found
    }

    private func isNumeric(_ text: String, exponent: Bool) -> Bool {
        text.utf8.allSatisfy { byte in
            (48...57).contains(byte) || [0x2b, 0x2d, 0x2e].contains(byte) || (exponent && [0x45, 0x65].contains(byte))
        }
    }
    /// The invariant culture's common forms: `YYYY-MM-DD`, with a time after `T` or a space.
    private func isDate(_ text: String) -> Bool {
        text.range(
            of:
                #"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"#
                + #"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,7})?)?(Z|[+-]\d\d:\d\d)?)?$"#,
            options: .regularExpression) != nil
    }
}
