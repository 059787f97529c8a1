import CofferCore
import EncryptionAtRest
import ResourceProviders

/// Keys and secrets as resources of the control plane, as templates make them. Roles decide by control actions; values
/// and private keys are never answered.
extension KeyVaultService {
    func serveVaultObjects(_ request: ControlRequest, _ types: [String], as caller: Caller) async throws
        -> ControlResponse
    {
        let path = request.path
        let kind: ObjectKind = types[1] == "keys" ? .key : .secret
        let area = "vaults/\(kind.plural)"
        let isVersions = types.count == 3
        let name = path.names.count > 1 ? path.names[1] : nil
        let writes = request.method == .put || request.method == .patch
        guard writes || request.method == .get else {
            throw ControlError(
                status: 405, code: "MethodNotAllowed",
                message: "Keys and secrets are deleted through the vault itself, not as resources.")
        }
        let action = isVersions ? "\(area)/versions/read" : writes ? "\(area)/write" : "\(area)/read"
        try require(caller, action, at: path)
        let ticket = handles.ticket()
        guard let vault = try await liveVault(path.vaultID)?.vault else {
            throw ControlError.resourceNotFound(path.vaultID)
        }
        let opened = openVault(vault, as: caller, ticket)
        if writes {
            guard let name, !isVersions, isValidObjectName(name) else {
                throw ControlError.badRequest("The name is invalid.")
            }
            let written =
                kind == .key
                ? try await putKey(name, in: opened, request.body ?? [:])
                : try await putSecret(name, in: opened, request)
            return .json(200, written.resourceBody(request.names, isVersion: false))
        }
        if let name, isVersions {
            let page = try await opened.listVersions(kind, name, after: nil, limit: .max)
            if path.names.count == 3 {
                let found = try await opened.find(kind, name, version: path.names[2])
                return .json(200, found.resourceBody(request.names, isVersion: true))
            }
            return .json(200, ["value": .array(page.items.map { $0.resourceBody(request.names, isVersion: true) })])
        }
        if let name {
            return .json(
                200, try await opened.find(kind, name, version: nil).resourceBody(request.names, isVersion: false))
        }
        let page = try await opened.list(kind, isDeleted: false, after: nil, limit: .max)
        return .json(200, ["value": .array(page.items.map { $0.resourceBody(request.names, isVersion: false) })])
    }

    /// Makes the first version only; a key that is there is answered as it is (Keys, Create If Not Exist).
    private func putKey(_ name: String, in vault: OpenVault, _ body: JSONValue) async throws -> StoredObject {
        if let header = try await vault.objects.header(.key, name), header.value.deletion == nil {
            return try await vault.find(.key, name, version: nil)
        }
        let properties = body.member("properties") ?? [:]
        var wire: [String: JSONValue] = [:]
        for (from, to) in [
            ("kty", "kty"), ("keySize", "key_size"), ("curveName", "crv"), ("keyOps", "key_ops"),
            ("attributes", "attributes"),
        ] {
            wire[to] = properties.member(from)
        }
        wire["tags"] = body.member("tags")
        let creation = try VaultBody(JSONValue.object(wire).serialized()).keyCreation()
        return try await addKey(name, in: vault, creation, "created") { try AsymmetricKey.generate(creation.type) }
    }

    private func putSecret(_ name: String, in vault: OpenVault, _ request: ControlRequest) async throws -> StoredObject
    {
        let properties = request.body?.member("properties") ?? [:]
        var wire: [String: JSONValue] = [:]
        for member in ["value", "contentType", "attributes"] { wire[member] = properties.member(member) }
        wire["tags"] = request.body?.member("tags")
        let body = try VaultBody(JSONValue.object(wire).serialized())
        if wire["value"] == nil, request.method == .patch {
            let (attributes, contentType, tags) = (
                try body.attributes(), try body.contentType(), try body.tags(.secret)
            )
            let updated = try await vault.update(.secret, name, version: nil) { found in
                attributes.apply(to: &found.attributes, at: clock.now())
                if let tags { found.tags = tags }
                if let contentType { found.contentType = contentType }
            }
            changed(.secret, name, in: vault, "updated")
            return updated
        }
        return try await addSecret(name, in: vault, try body.secretCreation())
    }
}

extension StoredObject {
    func resourceBody(_ names: NameFamily, isVersion: Bool) -> JSONValue {
        let a = version.attributes
        var attributes: [String: JSONValue] = [
            "enabled": .bool(a.isEnabled), "created": .integer(a.created.unixSeconds),
            "updated": .integer(a.updated.unixSeconds),
        ]
        if let notBefore = a.notBefore { attributes["nbf"] = .integer(notBefore.unixSeconds) }
        if let expires = a.expires { attributes["exp"] = .integer(expires.unixSeconds) }
        var properties: [String: JSONValue] = ["attributes": .object(attributes)]
        if let key = version.key {
            properties["kty"] = .string(key.type.name)
            properties["keyOps"] = .array(key.operations.map { .string($0.rawValue) })
            switch key.type {
            case .rsa(let bits): properties["keySize"] = .integer(Int64(bits))
            case .ec(let curve): properties["curveName"] = .string(curve.rawValue)
            }
            properties["keyUri"] = .string(baseIdentifier(names))
            properties["keyUriWithVersion"] = .string(identifier(names))
        } else {
            properties["secretUri"] = .string(baseIdentifier(names))
            properties["secretUriWithVersion"] = .string(identifier(names))
            if let contentType = version.contentType { properties["contentType"] = .string(contentType) }
        }
        var id = vault.resourceID.appending(kind.plural, header.name)
        if isVersion { id = id.appending("versions", version.id) }
        return [
            "id": .string(id.description), "name": .string(isVersion ? version.id : header.name),
            "type": .string("Microsoft.KeyVault/vaults/\(kind.plural)" + (isVersion ? "/versions" : "")),
            "location": .string(vault.location), "tags": .object(version.tags.mapValues { .string($0) }),
            "properties": .object(properties),
        ]
    }
}
