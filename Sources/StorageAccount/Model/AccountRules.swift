internal import CofferCore
internal import ResourceProviders

/// What may be in a name, a stock keeping unit, a kind, a set of tags. Source: Microsoft, "Storage account overview"
/// and the Storage resource provider's reference.
enum AccountRules {
    static let nameMessage =
        "Storage account name must be between 3 and 24 characters in length and use numbers and lower-case "
        + "letters only."

    static func isName(_ name: String) -> Bool {
        (3...24).contains(name.utf8.count)
            && name.utf8.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) }
    }

    static let kinds = ["Storage", "StorageV2", "BlobStorage", "FileStorage", "BlockBlobStorage"]

    /// Every unit Azure sells, and the kinds it goes with. Here they are labels: the bytes lie where the server's
    /// engine puts them.
    static let skus: [(name: String, kinds: Set<String>)] = [
        ("Standard_LRS", ["Storage", "StorageV2", "BlobStorage"]),
        ("Standard_GRS", ["Storage", "StorageV2", "BlobStorage"]),
        ("Standard_RAGRS", ["Storage", "StorageV2", "BlobStorage"]), ("Standard_ZRS", ["StorageV2", "Storage"]),
        ("Standard_GZRS", ["StorageV2"]), ("Standard_RAGZRS", ["StorageV2"]),
        ("Premium_LRS", ["Storage", "StorageV2", "BlockBlobStorage", "FileStorage"]),
        ("Premium_ZRS", ["BlockBlobStorage", "FileStorage"]),
    ]

    /// The unit's exact spelling. Throws 400 for an unknown one or one that does not go with the kind.
    static func sku(_ name: String, kind: String) throws(ControlError) -> String {
        guard let sku = skus.first(where: { $0.name.lowercased() == name.lowercased() }) else {
            throw .invalidValue("sku.name", "It is one of \(skus.map(\.name).joined(separator: ", ")).")
        }
        guard sku.kinds.contains(kind) else {
            throw ControlError(
                status: 400, code: "InvalidSkuForKind",
                message: "The sku '\(sku.name)' cannot be used with an account of kind '\(kind)'.")
        }
        return sku.name
    }

    /// Up to 50 tags, names of 1…128 and values of at most 256 characters.
    static func tags(_ value: JSONValue?) throws(ControlError) -> [String: String]? {
        guard let value, !value.isNull else { return nil }
        guard let members = value.objectValue else { throw .invalidValue("tags", "It is an object of texts.") }
        guard members.count <= 50 else { throw .invalidValue("tags", "At most 50 tags.") }
        var tags: [String: String] = [:]
        for (name, value) in members {
            guard let text = value.stringValue ?? (value.isNull ? "" : nil), (1...128).contains(name.count),
                text.count <= 256
            else {
                throw .invalidValue("tags", "A name has 1 to 128 characters, a value at most 256.")
            }
            tags[name] = text
        }
        return tags
    }

    /// `East US` and `eastus` are one place.
    static func location(_ value: JSONValue?) throws(ControlError) -> String {
        guard let text = value?.stringValue else {
            throw .badRequest("The location property is required for this definition.", code: "LocationRequired")
        }
        let name = text.lowercased().filter { $0 != " " }
        guard (1...64).contains(name.utf8.count),
            name.utf8.allSatisfy({ (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) })
        else {
            throw ControlError(
                status: 400, code: "LocationNotAvailableForResourceType",
                message:
                    "The provided location '\(text)' is not available for resource type "
                    + "'Microsoft.Storage/storageAccounts'."
            )
        }
        return name
    }
}
