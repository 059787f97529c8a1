/// Who asks, once proven: a verified token's principal, or a managed identity in whose name a service acts inside the
/// process.
///
/// Operations take it first. There is no "system" caller: a service that needs a vault acts as its own managed identity
/// and can be refused. Only a verifier makes one from outside bytes (`AccessControl.TokenVerifier`).
public struct Caller: Sendable, Hashable, Codable {
    public enum Kind: String, Sendable, Codable { case servicePrincipal, managedIdentity, user }
    public let kind: Kind
    /// The directory object: what role assignments and access policies name. A lower-case GUID.
    public let objectID: String
    public let tenantID: String
    /// The application (client) identifier, when there is one. A lower-case GUID.
    public let applicationID: String?

    public init(kind: Kind, objectID: String, tenantID: String, applicationID: String? = nil) {
        self.kind = kind
        self.objectID = objectID.lowercased()
        self.tenantID = tenantID.lowercased()
        self.applicationID = applicationID?.lowercased()
    }
}

/// One thing that can be allowed: an Azure operation name such as `Microsoft.KeyVault/vaults/write`.
public struct Action: Sendable, Hashable, CustomStringConvertible {
    public let name: String
    /// Whether roles grant it by `dataActions` rather than by `actions`.
    public let isDataAction: Bool
    public static func control(_ name: String) -> Action { Action(name: name, isDataAction: false) }
    public static func data(_ name: String) -> Action { Action(name: name, isDataAction: true) }
    public var description: String { name }
}

/// An answer about access. Unknown means no.
public enum AccessDecision: Sendable, Equatable {
    case allowed
    case refused(reason: String)
    public var isAllowed: Bool { self == .allowed }
}

/// The names one installation answers to: made at first start, kept for good.
public struct Installation: Sendable, Codable, Equatable {
    public let tenantID: String
    public let subscriptionID: String
    public let subscriptionName: String
    public init(tenantID: String, subscriptionID: String, subscriptionName: String) {
        self.tenantID = tenantID
        self.subscriptionID = subscriptionID
        self.subscriptionName = subscriptionName
    }
}
