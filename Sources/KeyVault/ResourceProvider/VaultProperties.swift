import CofferCore
import HTTPEdge
import ResourceProviders

/// Reads a vault's body as Resource Manager sends it, and refuses what Azure refuses (Microsoft.KeyVault 2024-11-01).
struct VaultProperties {
    private let body: JSONValue
    private let properties: JSONValue
    private let installation: Installation

    init(_ body: JSONValue, installation: Installation) {
        self.body = body
        self.properties = body.member("properties") ?? [:]
        self.installation = installation
    }

    private func value(_ name: String) -> JSONValue? { properties.member(name).flatMap { $0.isNull ? nil : $0 } }
    private func flag(_ name: String) throws(ControlError) -> Bool? {
        guard let value = value(name) else { return nil }
        guard let flag = value.boolValue else { throw .badRequest("The property '\(name)' must be true or false.") }
        return flag
    }

    func apply(to vault: inout Vault, isNew: Bool, isPatch: Bool) throws(ControlError) {
        try applyIdentity(to: &vault, isNew: isNew)
        try applyTags(to: &vault, isPatch: isPatch)
        try applyProtection(to: &vault, isNew: isNew)
        if let usesRoles = try flag("enableRbacAuthorization") { vault.usesRoles = usesRoles }
        if let policies = value("accessPolicies") {
            vault.accessPolicies = try AccessPolicy.list(policies, installation: installation)
        } else if isNew, !vault.usesRoles {
            throw .badRequest("The parameter accessPolicies is not specified.")
        }
        try applyNetwork(to: &vault)
        if let flag = try flag("enabledForDeployment") { vault.enabledForDeployment = flag }
        if let flag = try flag("enabledForDiskEncryption") { vault.enabledForDiskEncryption = flag }
        if let flag = try flag("enabledForTemplateDeployment") { vault.enabledForTemplateDeployment = flag }
    }

    private func applyIdentity(to vault: inout Vault, isNew: Bool) throws(ControlError) {
        if let tenant = value("tenantId")?.stringValue {
            guard tenant.lowercased() == installation.tenantID.lowercased() else {
                throw .badRequest(
                    "The property 'tenantId' must be this installation's tenant '\(installation.tenantID)'.")
            }
            vault.tenantID = installation.tenantID
        } else if isNew {
            throw .badRequest("The parameter tenantId is not specified.")
        }
        if let sku = value("sku") {
            guard let name = sku.member("name")?.stringValue?.lowercased(), ["standard", "premium"].contains(name),
                (sku.member("family")?.stringValue ?? "A").uppercased() == "A"
            else { throw .badRequest("The property 'sku' must be of family A and named standard or premium.") }
            vault.skuName = name
        } else if isNew {
            throw .badRequest("The parameter sku is not specified.")
        }
    }

    private func applyTags(to vault: inout Vault, isPatch: Bool) throws(ControlError) {
        guard let given = body.member("tags"), !given.isNull else {
            if !isPatch { vault.tags = [:] }
            return
        }
        guard let members = given.objectValue, members.count <= 50 else {
            throw .badRequest("Tags must be an object of at most 50 names.")
        }
        vault.tags = members.compactMapValues(\.stringValue)
    }

    private func applyProtection(to vault: inout Vault, isNew: Bool) throws(ControlError) {
        if try flag("enableSoftDelete") == false {
            throw .badRequest(
                "The property \"enableSoftDelete\" cannot be set to false. Soft delete is always on, and enabling it "
                    + "is an irreversible action."
            )
        }
        if let value = value("softDeleteRetentionInDays") {
            guard let days = value.intValue, (7...90).contains(days) else {
                throw .badRequest("The property \"softDeleteRetentionInDays\" must be between 7 and 90.")
            }
            guard isNew || Int(days) == vault.retentionDays else {
                throw .badRequest(
                    "The property \"softDeleteRetentionInDays\" has been set already and it can't be modified.")
            }
            vault.retentionDays = Int(days)
        }
        switch try flag("enablePurgeProtection") {
        case true?: vault.isPurgeProtected = true
        case false?:
            throw .badRequest(
                "The property \"enablePurgeProtection\" cannot be set to false. Enabling the purge protection for a "
                    + "vault is an irreversible "
                    + "action.")
        case nil: break
        }
    }

    private func applyNetwork(to vault: inout Vault) throws(ControlError) {
        if let text = value("publicNetworkAccess")?.stringValue {
            guard ["enabled", "disabled"].contains(text.lowercased()) else {
                throw .badRequest("The property 'publicNetworkAccess' must be Enabled or Disabled.")
            }
            vault.network.isPublicAccessEnabled = text.lowercased() == "enabled"
        }
        guard let rules = value("networkAcls") else { return }
        var network = vault.network
        network.isConfigured = true
        if let action = rules.member("defaultAction")?.stringValue {
            guard ["allow", "deny"].contains(action.lowercased()) else {
                throw .badRequest("networkAcls.defaultAction must be Allow or Deny.")
            }
            network.allowsByDefault = action.lowercased() == "allow"
        }
        if let bypass = rules.member("bypass")?.stringValue {
            guard ["azureservices", "none"].contains(bypass.lowercased()) else {
                throw .badRequest("networkAcls.bypass must be AzureServices or None.")
            }
            network.trustedServicesBypass = bypass.lowercased() == "azureservices"
        }
        if let given = rules.member("ipRules"), !given.isNull {
            let values = (given.arrayValue ?? [.null]).map { $0.member("value")?.stringValue ?? "" }
            guard values.count <= KeyVaultService.Limits.ipRules else {
                throw .badRequest("networkAcls.ipRules holds at most \(KeyVaultService.Limits.ipRules) rules.")
            }
            for value in values where IPNetwork(value) == nil || value.contains("-") {
                throw .badRequest("The IP rule '\(value.prefix(64))' is neither an address nor a CIDR block.")
            }
            network.ipRules = values
        }
        if let given = rules.member("virtualNetworkRules")?.arrayValue { network.virtualNetworkRules = given }
        vault.network = network
    }
}

// MARK: - Answers

extension Vault {
    func body(_ names: NameFamily) -> JSONValue {
        var properties: [String: JSONValue] = [
            "tenantId": .string(tenantID), "sku": ["family": "A", "name": .string(skuName)],
            "accessPolicies": .array(accessPolicies.map(\.body)),
            "enabledForDeployment": .bool(enabledForDeployment ?? false),
            "enabledForDiskEncryption": .bool(enabledForDiskEncryption ?? false),
            "enabledForTemplateDeployment": .bool(enabledForTemplateDeployment ?? false), "enableSoftDelete": true,
            "softDeleteRetentionInDays": .integer(Int64(retentionDays)), "enableRbacAuthorization": .bool(usesRoles),
            "vaultUri": .string(names.url(of: .vault(name.lowercased())) + "/"), "provisioningState": "Succeeded",
            "publicNetworkAccess": .string(network.isPublicAccessEnabled ? "Enabled" : "Disabled"),
        ]
        if isPurgeProtected { properties["enablePurgeProtection"] = true }
        if network.isConfigured {
            properties["networkAcls"] = [
                "bypass": .string(network.trustedServicesBypass ? "AzureServices" : "None"),
                "defaultAction": .string(network.allowsByDefault ? "Allow" : "Deny"),
                "ipRules": .array(network.ipRules.map { ["value": .string($0)] }),
                "virtualNetworkRules": .array(network.virtualNetworkRules),
            ]
        }
        return [
            "id": .string(resourceID.description), "name": .string(name), "type": "Microsoft.KeyVault/vaults",
            "location": .string(location), "tags": .object(tags.mapValues { .string($0) }),
            "properties": .object(properties),
            "systemData": [
                "createdBy": .string(createdBy), "createdByType": "Application", "createdAt": .string(created.iso8601),
                "lastModifiedBy": .string(modifiedBy), "lastModifiedByType": "Application",
                "lastModifiedAt": .string(modified.iso8601),
            ],
        ]
    }

    var deletedBody: JSONValue {
        let id =
            "/subscriptions/\(resourceID.subscription ?? "")/providers/Microsoft.KeyVault/locations/\(location)/"
            + "deletedVaults/\(name)"
        var properties: [String: JSONValue] = [
            "vaultId": .string(resourceID.description), "location": .string(location),
            "tags": .object(tags.mapValues { .string($0) }),
        ]
        if let deletion {
            properties["deletionDate"] = .string(deletion.date.iso8601)
            properties["scheduledPurgeDate"] = .string(deletion.scheduledPurge.iso8601)
        }
        if isPurgeProtected { properties["purgeProtectionEnabled"] = true }
        return [
            "id": .string(id), "name": .string(name), "type": "Microsoft.KeyVault/deletedVaults",
            "properties": .object(properties),
        ]
    }
}
