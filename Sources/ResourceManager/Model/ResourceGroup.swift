internal import CofferCore
internal import ResourceProviders

/// A resource group as the tree keeps it.
struct ResourceGroup: Sendable, Codable, Equatable {
    enum State: String, Sendable, Codable { case succeeded = "Succeeded", deleting = "Deleting" }
    let name: String
    let location: String
    var tags: [String: String]
    var managedBy: String?
    var state: State
    let created: Timestamp

    static let nameCharactersLimit = 90

    /// Letters and digits of any script, `-`, `_`, `(`, `)` and `.`, the last not at the end ("Naming rules and
    /// restrictions for Azure resources").
    static func isValidName(_ name: String) -> Bool {
        (1...nameCharactersLimit).contains(name.count) && !name.hasSuffix(".")
            && name.allSatisfy { $0.isLetter || $0.isNumber || "-_().".contains($0) }
    }

    func json(subscription: String) -> JSONValue {
        var value: JSONValue = [
            "id": "/subscriptions/\(subscription)/resourceGroups/\(name)", "name": .string(name),
            "type": "Microsoft.Resources/resourceGroups",
            "location": .string(location), "tags": .object(tags.mapValues { .string($0) }),
            "properties": ["provisioningState": .string(state.rawValue)],
        ]
        if let managedBy { value["managedBy"] = .string(managedBy) }
        return value
    }
}

/// The limits of tags ("Use tags to organize your Azure resources", limitations).
enum Tags {
    static let countLimit = 50
    static let nameCharactersLimit = 512
    static let valueCharactersLimit = 256

    /// Reads a `tags` member; nil when it is absent or null. Throws for anything Resource Manager refuses.
    static func parse(_ value: JSONValue?) throws(ControlError) -> [String: String]? {
        guard let value, !value.isNull else { return nil }
        guard let members = value.objectValue else {
            throw .badRequest("The tags must be an object of texts.", code: "InvalidRequestContent")
        }
        guard members.count <= countLimit else {
            throw .badRequest(
                "The request has \(members.count) tags; at most \(countLimit) are allowed.", code: "TooManyTags")
        }
        var tags: [String: String] = [:]
        for (name, member) in members {
            guard let text = member.stringValue ?? (member.isNull ? "" : nil) else {
                throw .badRequest("The value of tag '\(name)' must be a text.", code: "InvalidRequestContent")
            }
            guard (1...nameCharactersLimit).contains(name.count), !name.contains(where: { "<>%&\\?/".contains($0) })
            else {
                throw .badRequest(
                    "The tag name '\(name.prefix(64))' is not valid: 1 to \(nameCharactersLimit) characters without "
                        + "<>%&\\?/.",
                    code: "InvalidTagName")
            }
            guard text.count <= valueCharactersLimit else {
                throw .badRequest(
                    "The value of tag '\(name)' is longer than \(valueCharactersLimit) characters.",
                    code: "InvalidTagValueLength")
            }
            tags[name] = text
        }
        return tags
    }
}
