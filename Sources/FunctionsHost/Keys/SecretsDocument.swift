internal import CofferCore

/// Whose keys a document holds.
enum SecretsScope: Sendable, Hashable {
    case host
    /// Lower case.
    case function(String)

    /// `host.json` or `<function>.json`.
    var fileName: String {
        switch self {
        case .host: "host.json"
        case .function(let name): name.lowercased() + ".json"
        }
    }
}

/// The keys of one scope as they are stored: values still encrypted where the entry says so. Read from the original's
/// formats "V0" and "V1", written as V1.
struct SecretsDocument: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        var name: String
        var value: RedactedString
        var encrypted: Bool
    }
    static let masterName = "master"
    static let entriesLimit = 1_000

    /// Host scope only.
    var master: Entry?
    /// The host's function keys, or the keys of the function.
    var keys: [Entry]
    /// Host scope only.
    var systemKeys: [Entry]
    var hostName: String?
    var instanceID: String?
    var source = "runtime"
    var decryptionKeyID: String?

    init(master: Entry? = nil, keys: [Entry] = [], systemKeys: [Entry] = []) {
        self.master = master
        self.keys = keys
        self.systemKeys = systemKeys
    }

    struct Malformed: Error {}

    init(parsing bytes: [UInt8], scope: SecretsScope) throws(Malformed) {
        guard let json = try? JSONValue(parsing: bytes), json.objectValue != nil else { throw Malformed() }
        self.init()
        hostName = json["hostName"]?.stringValue
        instanceID = json["instanceId"]?.stringValue
        source = json["source"]?.stringValue ?? "external"
        decryptionKeyID = json["decryptionKeyId"]?.stringValue
        switch scope {
        case .host:
            switch json["masterKey"] {
            case .string(let value)?:
                master = Entry(name: Self.masterName, value: RedactedString(value), encrypted: false)
                if let value = json["functionKey"]?.stringValue {
                    keys = [Entry(name: "default", value: RedactedString(value), encrypted: false)]
                }
            case .some(let entry) where entry.objectValue != nil:
                guard json["functionKeys"]?.arrayValue != nil else { throw Malformed() }
                master = try Self.entry(entry)
                keys = try Self.entries(json["functionKeys"])
                systemKeys = try Self.entries(json["systemKeys"])
            default: throw Malformed()
            }
        case .function:
            if let list = json["keys"], list.arrayValue != nil {
                keys = try Self.entries(list)
            } else if let value = json["key"] {
                if let text = value.stringValue {
                    keys = [Entry(name: "default", value: RedactedString(text), encrypted: false)]
                }
                guard value.isNull || value.stringValue != nil else { throw Malformed() }
            } else {
                throw Malformed()
            }
        }
    }

    private static func entries(_ list: JSONValue?) throws(Malformed) -> [Entry] {
        guard let list, !list.isNull else { return [] }
        guard let elements = list.arrayValue, elements.count <= entriesLimit else { throw Malformed() }
        var entries: [Entry] = []
        for element in elements { entries.append(try entry(element)) }
        return entries
    }
    private static func entry(_ json: JSONValue) throws(Malformed) -> Entry {
        guard let name = json["name"]?.stringValue, let value = json["value"]?.stringValue else { throw Malformed() }
        return Entry(name: name, value: RedactedString(value), encrypted: json["encrypted"]?.boolValue ?? false)
    }

    func serialized(scope: SecretsScope) -> [UInt8] {
        var json: [String: JSONValue] = [
            "hostName": hostName.map { .string($0) } ?? .null, "instanceId": instanceID.map { .string($0) } ?? .null,
            "source": .string(source), "decryptionKeyId": decryptionKeyID.map { .string($0) } ?? .null,
        ]
        func json(of entry: Entry) -> JSONValue {
            ["name": .string(entry.name), "value": .string(entry.value.reveal()), "encrypted": .bool(entry.encrypted)]
        }
        switch scope {
        case .host:
            json["masterKey"] = master.map(json(of:)) ?? .null
            json["functionKeys"] = .array(keys.map(json(of:)))
            json["systemKeys"] = .array(systemKeys.map(json(of:)))
        case .function:
            json["keys"] = .array(keys.map(json(of:)))
        }
        return JSONValue.object(json).serialized()
    }
}
