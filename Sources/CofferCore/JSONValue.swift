internal import Foundation

/// A JSON document whose members are not all known: resource bodies keep what a newer client wrote.
public enum JSONValue: Sendable, Hashable, Codable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Deepest nesting read: what Azure's own services take (Json.NET, `MaxDepth`).
    public static let depthLimit = 64
    /// Most values read, each counted once for every level it lies at: so much does decoding it cost.
    public static let costLimit = 1 << 22

    /// Throws `DecodingError` for anything that is not JSON (RFC 8259), for what is nested deeper than `depthLimit`,
    /// and for more values than `costLimit`.
    public init(parsing bytes: some Sequence<UInt8>) throws {
        let data = Data(bytes)
        try data.withUnsafeBytes { try Self.checkCost(of: $0) }
        self = try JSONDecoder().decode(JSONValue.self, from: data)
    }

    /// Before anything is decoded: whoever sends a document should not choose how deep we recurse or how long we take.
    private static func checkCost(of bytes: UnsafeRawBufferPointer) throws {
        var depth = 0
        var cost = 1
        var isText = false
        var isEscaped = false
        for byte in bytes {
            // The decoder would read UTF-16 and UTF-32 as well, where what counts here stands between other bytes. Both
            // hold zeros wherever JSON has its brackets and quotes; JSON in UTF-8 holds none (RFC 8259 §7).
            guard byte != 0 else { throw refusal("The document is not UTF-8, or holds a NUL.") }
            if isText {
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isText = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): isText = true
            case UInt8(ascii: "["), UInt8(ascii: "{"):
                depth += 1
                cost += depth
            case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
            case UInt8(ascii: ","): cost += depth
            default: break
            }
            guard (0...depthLimit).contains(depth), cost <= costLimit else {
                throw refusal("The document is nested too deep, or holds too many values.")
            }
        }
    }

    private static func refusal(_ text: String) -> DecodingError {
        .dataCorrupted(.init(codingPath: [], debugDescription: text))
    }

    /// Members in the order of their names, so that equal values have equal bytes.
    public func serialized() -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // A JSONValue holds nothing JSONEncoder refuses but a non-finite number, which no initializer here makes.
        return (try? encoder.encode(self)).map { [UInt8]($0) } ?? Array("null".utf8)
    }

    /// Encodes any Codable into the same shape.
    public init(encoding value: some Encodable) throws {
        self = try JSONDecoder().decode(JSONValue.self, from: JSONEncoder().encode(value))
    }
    public func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        try JSONDecoder().decode(type, from: JSONEncoder().encode(self))
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        // The frequent kinds first: each miss costs the making of an error.
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .integer(let value): try container.encode(value)
        case .number(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }
}

extension JSONValue {
    /// A member by its exact name. Setting one on anything but an object makes it an object.
    public subscript(name: String) -> JSONValue? {
        get { objectValue?[name] }
        set {
            var members = objectValue ?? [:]
            members[name] = newValue
            self = .object(members)
        }
    }
    /// A member by its name without regard to ASCII case, as Azure Resource Manager reads bodies.
    public func member(_ name: String) -> JSONValue? {
        guard let members = objectValue else { return nil }
        return members[name] ?? members.first { $0.key.lowercased() == name.lowercased() }?.value
    }
    public var objectValue: [String: JSONValue]? { if case .object(let value) = self { value } else { nil } }
    public var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    public var isNull: Bool { self == .null }
    /// Also reads `"true"` and `"false"`, which az sends for generic updates.
    public var boolValue: Bool? {
        switch self {
        case .bool(let value): value
        case .string(let text) where text.lowercased() == "true": true
        case .string(let text) where text.lowercased() == "false": false
        default: nil
        }
    }
    /// Also reads decimal text, which az sends for priorities.
    public var intValue: Int64? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value)
        case .string(let text): Int64(text)
        default: nil
        }
    }

    /// RFC 7396 (JSON Merge Patch): objects merge member by member, null deletes, all else replaces.
    public func merged(with patch: JSONValue) -> JSONValue {
        guard case .object(let changes) = patch else { return patch }
        var members = objectValue ?? [:]
        for (name, change) in changes {
            if change.isNull {
                members.removeValue(forKey: name)
            } else {
                members[name] = (members[name] ?? .null).merged(with: change)
            }
        }
        return .object(members)
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByStringInterpolation
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(elements) { _, last in last })
    }
}
