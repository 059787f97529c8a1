internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

/// A storage account as Resource Manager answers it (Storage Accounts – Get Properties, 2025-01-01). Holds no key.
struct AccountResource {
    let record: AccountRecord
    let keys: [(name: String, created: Timestamp)]
    let encryption: AccountKeyStatus
    let names: NameFamily

    var json: JSONValue {
        var value: JSONValue = [
            "id": .string(record.resourceID.description), "name": .string(record.name),
            "type": "Microsoft.Storage/storageAccounts",
            "location": .string(record.location), "kind": .string(record.kind),
            "sku": ["name": .string(record.skuName), "tier": .string(record.tier)],
            "tags": .object(record.tags.mapValues { .string($0) }),
            "properties": properties,
        ]
        if let identity = record.identity {
            value["identity"] = [
                "type": "SystemAssigned", "principalId": .string(identity.principalID),
                "tenantId": .string(identity.tenantID),
            ]
        }
        return value
    }

    private var properties: JSONValue {
        let settings = record.settings
        var value: JSONValue = [
            "provisioningState": "Succeeded", "creationTime": .string(record.created.iso8601WithTicks),
            "keyCreationTime": .object(
                Dictionary(uniqueKeysWithValues: keys.map { ($0.name, .string($0.created.iso8601WithTicks)) })),
            "primaryEndpoints": endpoints(of: record.name), "primaryLocation": .string(record.location),
            "statusOfPrimary": "available",
            "supportsHttpsTrafficOnly": .bool(settings.requiresHTTPS),
            "minimumTlsVersion": .string(settings.minimumTLSVersion),
            "allowBlobPublicAccess": .bool(settings.allowsBlobPublicAccess),
            "allowCrossTenantReplication": .bool(settings.allowsCrossTenantReplication),
            "networkAcls": networkACLs, "encryption": encryptionBlock, "privateEndpointConnections": [],
        ]
        value["accessTier"] = settings.accessTier.map { .string($0) }
        value["allowSharedKeyAccess"] = settings.allowsSharedKeyAccess.map { .bool($0) }
        value["publicNetworkAccess"] = settings.publicNetworkAccess.map { .string($0) }
        value["defaultToOAuthAuthentication"] = settings.defaultToOAuthAuthentication.map { .bool($0) }
        value["keyPolicy"] = settings.keyExpirationPeriodInDays.map { ["keyExpirationPeriodInDays": .integer($0)] }
        value["sasPolicy"] = settings.sasPolicy.map {
            ["sasExpirationPeriod": .string($0.expirationPeriod), "expirationAction": .string($0.expirationAction)]
        }
        if record.hasSecondary {
            value["secondaryLocation"] = .string(record.location)
            value["statusOfSecondary"] = "available"
        }
        if record.allowsSecondaryReads {
            value["secondaryEndpoints"] = endpoints(of: record.name + StorageAccountService.secondarySuffix)
        }
        return value
    }

    /// URLs of the family the question came in by; those services the kind has.
    private func endpoints(of name: String) -> JSONValue {
        let services: [StorageService] =
            switch record.kind {
            case "BlobStorage": [.blob, .table, .dfs]
            case "BlockBlobStorage": [.blob, .dfs, .web]
            case "FileStorage": [.file]
            case "Storage": [.blob, .queue, .table, .file]
            default: [.blob, .queue, .table, .file, .dfs, .web]
            }
        return .object(
            Dictionary(
                uniqueKeysWithValues: services.map { service in
                    (service.rawValue, .string(names.url(of: .storage(account: name, service: service)) + "/"))
                }))
    }

    private var networkACLs: JSONValue {
        let acls = record.settings.networkACLs
        return [
            "bypass": .string(acls.bypass), "defaultAction": .string(acls.defaultAction), "virtualNetworkRules": [],
            "ipRules": .array(acls.ipRules.map { ["action": "Allow", "value": .string($0)] }),
        ]
    }

    /// The member names in lower case are Azure's own spelling on this wire.
    private var encryptionBlock: JSONValue {
        func service(_ keyType: String) -> JSONValue {
            [
                "enabled": true, "keyType": .string(keyType),
                "lastEnabledTime": .string(record.encryptionEnabled.iso8601WithTicks),
            ]
        }
        var services: JSONValue = ["blob": service("Account"), "file": service("Account")]
        if record.queueKeyType == "Account" { services["queue"] = service("Account") }
        if record.tableKeyType == "Account" { services["table"] = service("Account") }
        var block: JSONValue = ["services": services]
        switch encryption.source {
        case .platform: block["keySource"] = "Microsoft.Storage"
        case .customer(let reference, let current, let lastRotation):
            block["keySource"] = "Microsoft.Keyvault"
            var key: JSONValue = [
                "keyname": .string(reference.keyName), "keyvaulturi": .string(reference.vaultURI),
                "currentVersionedKeyIdentifier": .string(current),
                "lastKeyRotationTimestamp": .string(lastRotation.iso8601WithTicks),
            ]
            key["keyversion"] = reference.keyVersion.map { .string($0) }
            block["keyvaultproperties"] = key
        }
        return block
    }
}
