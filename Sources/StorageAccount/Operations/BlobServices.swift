internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

extension StorageAccountService {
    /// Blob Services – List, – Get and – Set Service Properties.
    func blobServices(_ request: ControlRequest, _ id: ResourceID, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        let serviceName = request.path.names.count > 1 ? request.path.names[1] : nil
        guard serviceName == nil || serviceName?.lowercased() == "default" else {
            throw .resourceNotFound(request.path)
        }
        switch (request.method, serviceName) {
        case (.get, nil):
            let account = try await account(id, as: caller, Self.action("blobServices/read"))
            return .json(200, ["value": [blobServiceResource(account, try await properties(account))]])
        case (.get, _):
            let account = try await account(id, as: caller, Self.action("blobServices/read"))
            return .json(200, blobServiceResource(account, try await properties(account)))
        case (.put, _?), (.patch, _?):
            let account = try await account(id, as: caller, Self.action("blobServices/write"))
            let body = request.body?.member("properties") ?? [:]
            // Parsed before anything is read: the closure may run again.
            let change = try BlobServiceChange(body)
            do {
                try await updateBlobServiceProperties(of: account.view) { properties in change.apply(to: &properties) }
            } catch {
                throw ControlError(status: error.status, code: error.code, message: error.message)
            }
            return .json(200, blobServiceResource(account, try await properties(account)))
        default: throw methodNotAllowed(request)
        }
    }

    /// `blobServices/default/containers`: authorized here, served by the data plane that the composition root attached.
    func containers(_ request: ControlRequest, _ id: ResourceID, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        let action =
            switch request.method {
            case .get, .head: "read"
            case .put, .patch, .post: "write"
            case .delete: "delete"
            }
        try require(caller, Self.action("blobServices/containers/\(action)"), at: request.path)
        guard request.path.names[1].lowercased() == "default" else { throw .resourceNotFound(request.path) }
        let account = try await existing(id)
        guard let containerResources else {
            throw .notImplemented("Microsoft.Storage/storageAccounts/blobServices/containers")
        }
        return try await containerResources(request, account.view)
    }

    private func properties(_ account: LoadedAccount) async throws(ControlError) -> BlobServiceProperties {
        do {
            return try await blobServiceProperties(of: account.view)
        } catch {
            throw ControlError(status: error.status, code: error.code, message: error.message)
        }
    }

    private func blobServiceResource(_ account: LoadedAccount, _ properties: BlobServiceProperties) -> JSONValue {
        func retention(_ policy: BlobServiceProperties.RetentionPolicy) -> JSONValue {
            var value: JSONValue = ["enabled": .bool(policy.isEnabled), "allowPermanentDelete": false]
            value["days"] = policy.days.map { .integer(Int64($0)) }
            return value
        }
        var members: JSONValue = [
            "cors": ["corsRules": .array(properties.corsRules.compactMap { try? JSONValue(encoding: $0) })],
            "deleteRetentionPolicy": retention(properties.deleteRetentionPolicy),
            "containerDeleteRetentionPolicy": retention(properties.containerDeleteRetentionPolicy),
            "isVersioningEnabled": false, "changeFeed": ["enabled": false], "restorePolicy": ["enabled": false],
        ]
        members["containerDeleteRetentionPolicy"]?["allowPermanentDelete"] = nil
        members["defaultServiceVersion"] = properties.defaultServiceVersion.map { .string($0) }
        return [
            "id": .string(account.record.resourceID.appending("blobServices", "default").description),
            "name": "default",
            "type": "Microsoft.Storage/storageAccounts/blobServices",
            "sku": ["name": .string(account.record.skuName), "tier": .string(account.record.tier)],
            "properties": members,
        ]
    }

    // MARK: Shared with the data plane

    public func blobServiceProperties(of account: StorageAccountView) async throws(StorageError)
        -> BlobServiceProperties
    {
        try await loadedAccount(account).blobService
    }

    public func updateBlobServiceProperties(
        of account: StorageAccountView, _ change: @Sendable (inout BlobServiceProperties) throws(StorageError) -> Void
    ) async throws(StorageError) {
        do {
            try await directory.change(account.name) { records, stored in
                guard let stored, stored.account.id == account.id else {
                    throw StorageError(404, "ResourceNotFound", "The specified account does not exist: it was deleted.")
                }
                var properties = stored.blobService
                try change(&properties)
                let result = try await records.records.commit(
                    checks: [.unchanged(AccountRecords.accountKey(account.name), stored.accountVersion)],
                    [try records.put(properties, of: account.name)])
                guard result != .conflict else {
                    throw StorageError(409, "OperationTimedOut", "Another change came between. Try again.")
                }
            }
        } catch let error as StorageError {
            throw error
        } catch let error as SealedStoreError {
            throw StorageError(error)
        } catch {
            throw StorageError(500, "InternalError", "The server encountered an internal error.")
        }
    }
}

/// The members a request sets; the others stay.
private struct BlobServiceChange: Sendable {
    var corsRules: [BlobServiceProperties.CORSRule]?
    var defaultServiceVersion: String?
    var deleteRetentionPolicy: BlobServiceProperties.RetentionPolicy?
    var containerDeleteRetentionPolicy: BlobServiceProperties.RetentionPolicy?

    init(_ properties: JSONValue) throws(ControlError) {
        if try properties.bool("isVersioningEnabled") == true { throw .featureNotSupported("isVersioningEnabled") }
        if try properties.bool("automaticSnapshotPolicyEnabled") == true {
            throw .featureNotSupported("automaticSnapshotPolicyEnabled")
        }
        for name in ["changeFeed", "restorePolicy"] where try properties.member(name)?.bool("enabled") == true {
            throw .featureNotSupported(name)
        }
        if try properties.member("lastAccessTimeTrackingPolicy")?.bool("enable") == true {
            throw .featureNotSupported("lastAccessTimeTrackingPolicy")
        }
        if let rules = properties.member("cors")?.member("corsRules")?.arrayValue { corsRules = try Self.rules(rules) }
        if let version = properties.member("defaultServiceVersion")?.stringValue {
            guard version.utf8.count == 10, Timestamp(iso8601: version) != nil else {
                throw .invalidValue("defaultServiceVersion", "It is a version such as 2020-10-02.")
            }
            defaultServiceVersion = version
        }
        deleteRetentionPolicy = try Self.retention(properties, "deleteRetentionPolicy")
        containerDeleteRetentionPolicy = try Self.retention(properties, "containerDeleteRetentionPolicy")
    }

    func apply(to properties: inout BlobServiceProperties) {
        if let corsRules { properties.corsRules = corsRules }
        if let defaultServiceVersion { properties.defaultServiceVersion = defaultServiceVersion }
        if let deleteRetentionPolicy { properties.deleteRetentionPolicy = deleteRetentionPolicy }
        if let containerDeleteRetentionPolicy {
            properties.containerDeleteRetentionPolicy = containerDeleteRetentionPolicy
        }
    }

    private static func retention(
        _ properties: JSONValue, _ name: String
    ) throws(ControlError) -> BlobServiceProperties.RetentionPolicy? {
        guard let value = properties.member(name), !value.isNull, let isEnabled = try value.bool("enabled") else {
            return nil
        }
        if try value.bool("allowPermanentDelete") == true { throw .featureNotSupported("\(name).allowPermanentDelete") }
        // Nothing deleted is kept, so a policy that promises it is refused.
        guard !isEnabled else { throw .featureNotSupported(name) }
        return BlobServiceProperties.RetentionPolicy(isEnabled: false, days: nil)
    }

    private static func rules(_ rules: [JSONValue]) throws(ControlError) -> [BlobServiceProperties.CORSRule] {
        guard rules.count <= BlobServiceProperties.corsRuleLimit else {
            throw .invalidValue("cors.corsRules", "At most five rules.")
        }
        let methods: Set = ["DELETE", "GET", "HEAD", "MERGE", "POST", "OPTIONS", "PUT", "PATCH", "CONNECT", "TRACE"]
        var result: [BlobServiceProperties.CORSRule] = []
        for rule in rules {
            func texts(_ name: String) throws(ControlError) -> [String] {
                guard let list = rule.member(name)?.arrayValue else {
                    throw .invalidValue("cors.corsRules.\(name)", "It is a list.")
                }
                let texts = list.compactMap(\.stringValue)
                guard texts.count == list.count, texts.count <= 64, texts.allSatisfy({ $0.utf8.count <= 256 }) else {
                    throw .invalidValue("cors.corsRules.\(name)", "At most 64 texts of at most 256 characters.")
                }
                return texts
            }
            guard let age = rule.member("maxAgeInSeconds")?.intValue, (0...Int64(Int32.max)).contains(age) else {
                throw .invalidValue("cors.corsRules.maxAgeInSeconds", "It is a number of seconds.")
            }
            let allowed = try texts("allowedMethods")
            guard !allowed.isEmpty, methods.isSuperset(of: allowed) else {
                throw .invalidValue(
                    "cors.corsRules.allowedMethods", "It holds some of \(methods.sorted().joined(separator: ", ")).")
            }
            result.append(
                BlobServiceProperties.CORSRule(
                    allowedOrigins: try texts("allowedOrigins"), allowedMethods: allowed,
                    allowedHeaders: try texts("allowedHeaders"),
                    exposedHeaders: try texts("exposedHeaders"), maxAgeInSeconds: Int(age)))
        }
        return result
    }
}
