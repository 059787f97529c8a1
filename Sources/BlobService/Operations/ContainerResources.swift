internal import CofferCore
internal import EncryptionAtRest
internal import Logging
public import ResourceProviders
public import StorageAccount

/// Containers as resources of Microsoft.Storage: Blob Containers – List, – Create, – Update, – Get and – Delete of the
/// Storage resource provider (2025-01-01). The same containers as the data plane's, by the same operations.
extension BlobService {
    /// Serves `…/blobServices/default/containers[/{name}]`, and nothing below it. The storage account has authorized
    /// the caller for the action at the request's path.
    public func containerResources(
        _ request: ControlRequest, _ account: StorageAccountView
    ) async throws(ControlError) -> ControlResponse {
        do {
            guard request.path.names.count == 3 else {
                guard request.method == .get else { throw Self.methodNotAllowed("the list of blob containers") }
                return try await listResources(request, account)
            }
            let name = try BlobAddress.containerName(request.path.names[2])
            switch request.method {
            case .get, .head: return try await getResource(name, account, hasBody: request.method == .get)
            case .put: return try await putResource(name, request.body, account)
            case .patch: return try await patchResource(name, request.body, account)
            case .delete: return try await deleteResource(name, account)
            case .post: throw Self.methodNotAllowed("a blob container")
            }
        } catch let error as ControlError {
            throw error
        } catch {
            let refusal = wireError(error)
            if refusal.status >= 500 {
                logger.error("A container's resource failed", metadata: ["code": "\(refusal.code)"])
            }
            throw ControlError(status: refusal.status, code: refusal.code, message: refusal.message)
        }
    }

    private static func methodNotAllowed(_ what: String) -> ControlError {
        ControlError(status: 405, code: "MethodNotAllowed", message: "The method is not allowed on \(what).")
    }

    /// `$filter` is a prefix of the name. There are no soft-deleted containers to include.
    private func listResources(
        _ request: ControlRequest, _ account: StorageAccountView
    ) async throws -> ControlResponse {
        let filter = request.query["$filter"] ?? ""
        var maximum = BlobLimits.listPage
        if let text = request.query["$maxpagesize"] {
            guard let value = Int(text), value > 0 else {
                throw ControlError.invalidValue("$maxpagesize", "It is a number of containers, 1 or more.")
            }
            maximum = min(value, maximum)
        }
        if let include = request.query["$include"], !include.isEmpty, include.lowercased() != "deleted" {
            throw ControlError.invalidValue("$include", "It is deleted, or left out.")
        }
        let page = try await containerPage(
            of: account, prefix: filter, marker: request.query["$skiptoken"], maximum: maximum, includesSystem: false)
        let now = clock.now()
        var list: JSONValue = ["value": .array(page.items.map { resource($0.name, $0.record, account, at: now) })]
        if let next = page.next {
            list["nextLink"] = .string(
                request.nextLink(skipToken: ListMarker.encode(next), repeating: ["$filter", "$maxpagesize"]))
        }
        return .json(200, list)
    }

    private func getResource(
        _ name: String, _ account: StorageAccountView, hasBody: Bool
    ) async throws -> ControlResponse {
        guard let handle = try await container(name, of: account) else { throw StorageError.containerNotFound }
        let value = resource(name, handle.record, account, at: clock.now())
        return hasBody ? .json(200, value) : .empty(200)
    }

    /// 201 for a container that was not there. One that is there takes over what the body says, as with every PUT of
    /// Resource Manager.
    private func putResource(
        _ name: String, _ body: JSONValue?, _ account: StorageAccountView
    ) async throws -> ControlResponse {
        let change = try ContainerChange(body, account)
        let now = clock.now()
        if try await readContainer(name, of: account) == nil {
            do {
                let encryption = try change.encryption()
                try await requireAvailable(encryption, in: account)
                let record = try await makeContainer(
                    name, publicAccess: change.publicAccess ?? nil, metadata: change.metadata ?? [], encryption,
                    in: account, at: now)
                return .json(201, resource(name, record, account, at: now))
            } catch let error as StorageError where error.code == StorageError.containerAlreadyExists.code {
                // Somebody else's came between.
            }
        }
        return .json(200, try await update(name, by: change, account, at: now))
    }

    private func patchResource(
        _ name: String, _ body: JSONValue?, _ account: StorageAccountView
    ) async throws -> ControlResponse {
        .json(200, try await update(name, by: try ContainerChange(body, account), account, at: clock.now()))
    }

    private func update(
        _ name: String, by change: ContainerChange, _ account: StorageAccountView, at now: Timestamp
    ) async throws -> JSONValue {
        let (record, _) = try await updateContainer(account, name) { record in
            try change.requireSameEncryption(record)
            if change.apply(to: &record) { record.touch(at: now) }
        }
        return resource(name, record, account, at: now)
    }

    private func deleteResource(_ name: String, _ account: StorageAccountView) async throws -> ControlResponse {
        let now = clock.now()
        do {
            try await removeContainer(name, of: account) { record in
                try Conditions.none.checkLeaseForWrite(record.lease, of: .container, at: now)
            }
            return .empty(200)
        } catch let error as StorageError where error.code == StorageError.containerNotFound.code {
            return .empty(204)
        }
    }

    private func resource(
        _ name: String, _ record: ContainerRecord, _ account: StorageAccountView, at now: Timestamp
    ) -> JSONValue {
        let encryption = ContainerEncryption(record)
        var properties: JSONValue = [
            "deleted": false, "remainingRetentionDays": 0,
            "defaultEncryptionScope": .string(encryption.wireName),
            "denyEncryptionScopeOverride": .bool(encryption.deniesOverride),
            "publicAccess": .string(record.publicAccess?.rawValue.beginningUpperCase ?? "None"),
            "lastModifiedTime": .string(record.modified.iso8601WithTicks),
            "leaseStatus": record.lease.isActive(at: now) ? "Locked" : "Unlocked",
            "leaseState": .string(record.lease.state(at: now).rawValue.beginningUpperCase),
            "hasImmutabilityPolicy": false, "hasLegalHold": false,
        ]
        properties["leaseDuration"] = record.lease.durationKind(at: now).map { .string($0.beginningUpperCase) }
        if !record.metadata.isEmpty {
            properties["metadata"] = .object(
                Dictionary(record.metadata.map { ($0.name, .string($0.value)) }, uniquingKeysWith: { _, last in last }))
        }
        let id = account.resourceID.appending("blobServices", "default", "containers", name)
        return [
            "id": .string(id.description), "name": .string(name),
            "type": "Microsoft.Storage/storageAccounts/blobServices/containers", "etag": .string(record.etag.quoted),
            "properties": properties,
        ]
    }
}

extension String {
    /// The data plane's `leased` is Resource Manager's `Leased`.
    fileprivate var beginningUpperCase: String { prefix(1).uppercased() + dropFirst() }
}

/// What the body of a PUT or PATCH asks of a container; what it does not name stays.
private struct ContainerChange {
    /// nil leaves the level; `.some(nil)` is `None`.
    var publicAccess: ContainerRecord.PublicAccess??
    var metadata: [ContainerRecord.Pair]?
    /// `$account-encryption-key` names the account's key.
    var scopeName: String?
    var deniesOverride: Bool?

    /// Throws 400 or 409 for what is malformed, forbidden by the account, or would promise what this server does not
    /// do.
    init(_ body: JSONValue?, _ account: StorageAccountView) throws {
        let properties = body?.member("properties") ?? [:]
        if let level = try properties.choice("publicAccess", ["None", "Blob", "Container"]) {
            let access = ContainerRecord.PublicAccess(rawValue: level.lowercased())
            guard access == nil || account.allowsBlobPublicAccess else { throw StorageError.publicAccessNotPermitted }
            publicAccess = .some(access)
        }
        if let value = properties.member("metadata"), !value.isNull {
            let malformed = ControlError.invalidValue("metadata", "It is an object of texts.")
            guard let members = value.objectValue else { throw malformed }
            let pairs = try members.map { name, value in
                guard let text = value.stringValue else { throw malformed }
                return (name, text)
            }
            metadata = try checkedMetadata(pairs.sorted { $0.0 < $1.0 }).map {
                ContainerRecord.Pair(name: $0.0, value: $0.1)
            }
        }
        if let value = properties.member("defaultEncryptionScope"), !value.isNull {
            guard let text = value.stringValue, !text.isEmpty else {
                throw ControlError.invalidValue("defaultEncryptionScope", "It is the name of an encryption scope.")
            }
            scopeName = text
        }
        deniesOverride = try properties.bool("denyEncryptionScopeOverride")
        for name in ["enableNfsV3RootSquash", "enableNfsV3AllSquash"] where try properties.bool(name) == true {
            throw ControlError.featureNotSupported(name)
        }
        if try properties.member("immutableStorageWithVersioning")?.bool("enabled") == true {
            throw ControlError.featureNotSupported("immutableStorageWithVersioning")
        }
    }

    /// That of a new container.
    func encryption() throws(StorageError) -> ContainerEncryption {
        try ContainerEncryption(
            wireName: scopeName, deniesOverride: deniesOverride == true,
            StorageError(
                400, "InvalidRequestPropertyValue",
                "denyEncryptionScopeOverride needs a defaultEncryptionScope beside it."))
    }

    /// A container's encryption is chosen when it is made; to repeat any of it changes nothing.
    func requireSameEncryption(_ record: ContainerRecord) throws(StorageError) {
        let current = ContainerEncryption(record)
        guard
            (scopeName ?? current.wireName) != current.wireName
                || (deniesOverride ?? current.deniesOverride) != current.deniesOverride
        else { return }
        throw StorageError(
            400, "ContainerEncryptionScopeCannotBeUpdated",
            "The default encryption scope of a container and whether it may be overridden are chosen when the container "
                + "is made. Make another container.")
    }

    /// Whether anything is another than before.
    func apply(to record: inout ContainerRecord) -> Bool {
        let before = (record.publicAccess, record.metadata)
        if let publicAccess { record.publicAccess = publicAccess }
        if let metadata { record.metadata = metadata }
        return before != (record.publicAccess, record.metadata)
    }
}
