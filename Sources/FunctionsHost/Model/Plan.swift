public import CofferCore

/// An App Service plan (`Microsoft.Web/serverfarms`). Coffer runs every plan on the one machine; the plan is kept for
/// what it tells clients.
public struct Plan: Sendable, Codable, Equatable {
    public let id: ResourceID
    public var name: String { id.name }
    public var kind: String
    public var location: String
    public var tags: [String: String]
    /// `{name, tier, size, family, capacity}`: `Y1`/`Dynamic`, `FC1`/`FlexConsumption`, `B1`/`Basic`, …
    public var sku: [String: JSONValue]
    /// Linux.
    public var reserved: Bool
    public var otherProperties: [String: JSONValue]
    public var created: Timestamp

    public init(
        id: ResourceID, kind: String, location: String, tags: [String: String] = [:], sku: [String: JSONValue],
        reserved: Bool,
        otherProperties: [String: JSONValue] = [:], created: Timestamp
    ) {
        self.id = id
        self.kind = kind
        self.location = location
        self.tags = tags
        self.sku = sku
        self.reserved = reserved
        self.otherProperties = otherProperties
        self.created = created
    }

    public var skuName: String { sku["name"]?.stringValue ?? "Y1" }
    public var tier: String { sku["tier"]?.stringValue ?? "Dynamic" }
}
