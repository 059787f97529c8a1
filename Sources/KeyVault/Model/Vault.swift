import CofferCore

/// One vault: what Resource Manager sees of it, and what decides about access to its objects.
struct Vault: Sendable, Codable, Equatable {
    /// Where the next Coffer finds out how to read this record.
    var schema = 1
    /// 32 hexadecimal digits made at creation: a later vault of the same name has another, and another partition.
    var incarnation: String
    var name: String
    var resourceID: ResourceID
    var location: String
    var tags: [String: String] = [:]
    var tenantID: String
    var skuName = "standard"
    var accessPolicies: [AccessPolicy] = []
    var usesRoles = false
    var retentionDays = 90
    var isPurgeProtected = false
    var network = VaultNetworkRules()
    var enabledForDeployment: Bool?
    var enabledForDiskEncryption: Bool?
    var enabledForTemplateDeployment: Bool?
    var created: Timestamp
    var createdBy: String
    var modified: Timestamp
    var modifiedBy: String
    var deletion: Deletion?

    /// `name;location=eastus`, as messages call it.
    var label: String { "\(name);location=\(location)" }

    /// `recoveryLevel` of every object, by the vault's settings (Key Vault soft-delete overview).
    var recoveryLevel: String {
        (retentionDays == 90 ? "Recoverable" : "CustomizedRecoverable") + (isPurgeProtected ? "" : "+Purgeable")
    }
    func deletion(at now: Timestamp) -> Deletion {
        Deletion(date: now, scheduledPurge: now.adding(seconds: Int64(retentionDays) * 86_400))
    }
}

/// Soft deletion: recoverable until the purge date.
struct Deletion: Sendable, Codable, Equatable {
    var date: Timestamp
    var scheduledPurge: Timestamp
}

/// What one identity may do in a vault of the access policy model. Permission names keep the spelling they were given.
struct AccessPolicy: Sendable, Codable, Equatable {
    var tenantID: String
    var objectID: String
    /// Set: only this application on behalf of the object.
    var applicationID: String?
    var keys: [String] = []
    var secrets: [String] = []
    var certificates: [String] = []
    var storage: [String] = []

    func names(_ caller: Caller) -> Bool {
        guard tenantID.lowercased() == caller.tenantID, objectID.lowercased() == caller.objectID else { return false }
        guard let applicationID else { return true }
        return caller.kind == .user && caller.applicationID == applicationID.lowercased()
    }
    func grants(_ permission: VaultPermission) -> Bool {
        let granted = permission.area == .keys ? keys : secrets
        return granted.contains { $0.lowercased() == "all" || $0.lowercased() == permission.policyName.lowercased() }
    }
    func isSameIdentity(as other: AccessPolicy) -> Bool {
        tenantID.lowercased() == other.tenantID.lowercased() && objectID.lowercased() == other.objectID.lowercased()
            && applicationID?.lowercased() == other.applicationID?.lowercased()
    }
}

/// The vault's firewall. `publicNetworkAccess` and `defaultAction` are two gates, both must open.
struct VaultNetworkRules: Sendable, Codable, Equatable {
    var isPublicAccessEnabled = true
    /// Whether a `networkAcls` block was ever set: then answers show it.
    var isConfigured = false
    var allowsByDefault = true
    var trustedServicesBypass = true
    var ipRules: [String] = []
    var virtualNetworkRules: [JSONValue] = []
}

/// From where a call comes: the network, or a service of this process acting as its own identity.
public enum CallOrigin: Sendable, Equatable {
    case network(peerAddress: String)
    /// What Azure's firewall calls a trusted service.
    case trustedService
}
