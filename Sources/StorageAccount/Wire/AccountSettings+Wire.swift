public import CofferCore
public import ResourceProviders

extension AccountSettings {
    /// Takes over the members of `properties` that are present; an absent member keeps its value. Throws 400 for a
    /// value Azure refuses, and 400 `FeatureNotSupported` for switching on what this server does not do: a setting
    /// never answers success without effect.
    mutating func apply(_ properties: JSONValue, kind: String, tier: String) throws(ControlError) {
        try Self.refuseUnsupported(properties)
        if let value = properties.member("accessTier"), !value.isNull {
            accessTier = try Self.accessTier(value, kind: kind, tier: tier)
        }
        if let value = try properties.bool("supportsHttpsTrafficOnly") { requiresHTTPS = value }
        if let value = try properties.choice("minimumTlsVersion", ["TLS1_0", "TLS1_1", "TLS1_2", "TLS1_3"]) {
            // The edge speaks TLS 1.2 and 1.3 only; an older minimum is kept as the client spells it and refuses nobody
            // else.
            minimumTLSVersion = value
        }
        if let value = try properties.bool("allowSharedKeyAccess") { allowsSharedKeyAccess = value }
        if let value = try properties.bool("allowBlobPublicAccess") { allowsBlobPublicAccess = value }
        if let value = try properties.bool("allowCrossTenantReplication") { allowsCrossTenantReplication = value }
        if let value = try properties.bool("defaultToOAuthAuthentication") { defaultToOAuthAuthentication = value }
        if let value = try properties.choice("publicNetworkAccess", ["Enabled", "Disabled"]) {
            publicNetworkAccess = value
        }
        if let value = properties.member("networkAcls"), !value.isNull { try networkACLs.apply(value) }
        if let value = properties.member("keyPolicy"), !value.isNull {
            guard let days = value.member("keyExpirationPeriodInDays")?.intValue, (0...3_650).contains(days) else {
                throw .invalidValue("keyPolicy.keyExpirationPeriodInDays", "It is a number of days.")
            }
            keyExpirationPeriodInDays = days
        }
        if let value = properties.member("sasPolicy"), !value.isNull {
            guard let period = value.member("sasExpirationPeriod")?.stringValue, let length = seconds(ofPeriod: period),
                length > 0
            else {
                throw .invalidValue("sasPolicy.sasExpirationPeriod", "It is of the form d.hh:mm:ss.")
            }
            let action = try value.choice("expirationAction", ["Log", "Block"]) ?? "Log"
            sasPolicy = SASPolicy(expirationPeriod: period, expirationAction: action)
        }
    }

    private static func accessTier(_ value: JSONValue, kind: String, tier: String) throws(ControlError) -> String? {
        let allowed = tier == "Premium" ? ["Premium", "Hot"] : ["Hot", "Cool", "Cold"]
        guard let text = value.stringValue, let name = allowed.first(where: { $0.lowercased() == text.lowercased() })
        else {
            throw .invalidValue("accessTier", "It is one of \(allowed.joined(separator: ", ")).")
        }
        guard kind == "StorageV2" || kind == "BlobStorage" || tier == "Premium" else {
            throw ControlError(
                status: 400, code: "AccountPropertyCannotBeUpdated",
                message: "An account of kind '\(kind)' has no access tier.")
        }
        return name
    }

    /// Members that would promise something this server does not do.
    private static func refuseUnsupported(_ properties: JSONValue) throws(ControlError) {
        for name in ["isHnsEnabled", "isNfsV3Enabled", "isSftpEnabled", "isLocalUserEnabled", "enableExtendedGroups"]
        where try properties.bool(name) == true {
            throw .featureNotSupported(name)
        }
        if try properties.choice("largeFileSharesState", ["Enabled", "Disabled"]) == "Enabled" {
            throw .featureNotSupported("largeFileSharesState")
        }
        if let value = try properties.choice("dnsEndpointType", ["Standard", "AzureDnsZone"]), value != "Standard" {
            throw .featureNotSupported("dnsEndpointType")
        }
        for name in ["allowedCopyScope", "immutableStorageWithVersioning"] {
            if let value = properties.member(name), !value.isNull, value.member("enabled")?.boolValue != false {
                throw .featureNotSupported(name)
            }
        }
        if let domain = properties.member("customDomain")?.member("name")?.stringValue, !domain.isEmpty {
            throw .featureNotSupported("customDomain")
        }
        if let option = properties.member("azureFilesIdentityBasedAuthentication")?.member("directoryServiceOptions")?
            .stringValue,
            option.lowercased() != "none"
        {
            throw .featureNotSupported("azureFilesIdentityBasedAuthentication")
        }
        if let routing = properties.member("routingPreference") {
            guard try routing.bool("publishMicrosoftEndpoints") != true,
                try routing.bool("publishInternetEndpoints") != true,
                try routing.choice("routingChoice", ["MicrosoftRouting", "InternetRouting"]) != "InternetRouting"
            else { throw .featureNotSupported("routingPreference") }
        }
    }
}

extension NetworkACLs {
    mutating func apply(_ value: JSONValue) throws(ControlError) {
        if let action = try value.choice("defaultAction", ["Allow", "Deny"]) { defaultAction = action }
        if let text = value.member("bypass")?.stringValue {
            let known = ["None", "Logging", "Metrics", "AzureServices"]
            var parts: [String] = []
            for part in text.split(separator: ",") {
                let part = part.filter { $0 != " " }
                guard let name = known.first(where: { $0.lowercased() == part.lowercased() }) else {
                    throw .invalidValue("networkAcls.bypass", "It holds some of \(known.joined(separator: ", ")).")
                }
                parts.append(name)
            }
            bypass = parts.joined(separator: ", ")
        }
        if let rules = value.member("ipRules")?.arrayValue {
            guard rules.count <= Self.ruleLimit else {
                throw .invalidValue("networkAcls.ipRules", "At most \(Self.ruleLimit) rules.")
            }
            var addresses: [String] = []
            for rule in rules {
                guard let text = rule.member("value")?.stringValue, IPv4Range(text) != nil else {
                    throw .invalidValue(
                        "networkAcls.ipRule[*].value", "It is an IPv4 address or block such as 203.0.113.0/24.")
                }
                guard try rule.choice("action", ["Allow"]) != nil || rule.member("action") == nil else {
                    throw .invalidValue("networkAcls.ipRule[*].action", "It is Allow.")
                }
                if !addresses.contains(text) { addresses.append(text) }
            }
            ipRules = addresses
        }
        for name in ["virtualNetworkRules", "resourceAccessRules"] {
            if let rules = value.member(name)?.arrayValue, !rules.isEmpty {
                throw .featureNotSupported("networkAcls.\(name)")
            }
        }
    }

    /// Azure's own limit (Microsoft, "Configure Azure Storage firewalls").
    static let ruleLimit = 400
}

extension JSONValue {
    /// A Boolean member; nil when absent or null. Throws 400 for anything else.
    public func bool(_ name: String) throws(ControlError) -> Bool? {
        guard let value = member(name), !value.isNull else { return nil }
        guard let flag = value.boolValue else { throw .invalidValue(name, "It is true or false.") }
        return flag
    }
    /// A member that is one of `choices`, in any case; nil when absent or null. Throws 400 for anything else.
    public func choice(_ name: String, _ choices: [String]) throws(ControlError) -> String? {
        guard let value = member(name), !value.isNull else { return nil }
        guard let text = value.stringValue, let choice = choices.first(where: { $0.lowercased() == text.lowercased() })
        else {
            throw .invalidValue(name, "It is one of \(choices.joined(separator: ", ")).")
        }
        return choice
    }
}

extension ControlError {
    public static func featureNotSupported(_ name: String) -> ControlError {
        ControlError(
            status: 400, code: "FeatureNotSupported",
            message: "'\(name)' cannot be switched on: this server does not support it. See docs/compatibility.md.")
    }
}
