import CofferCore
import HTTPEdge
import NIOCore
import NIOHTTP1

/// The JSON shapes of the data plane (Key Vault REST API 7.6).
extension StoredObject {
    /// `https://vault/keys/name/version`.
    func identifier(_ names: NameFamily) -> String { baseIdentifier(names) + "/" + version.id }
    func baseIdentifier(_ names: NameFamily) -> String { "\(vaultURL(names))/\(kind.plural)/\(header.name)" }
    private func vaultURL(_ names: NameFamily) -> String { names.url(of: .vault(vault.name.lowercased())) }

    /// A KeyBundle, or DeletedKeyBundle when the key is deleted.
    func keyBundle(_ names: NameFamily) -> JSONValue {
        var bundle: [String: JSONValue] = ["attributes": attributes]
        if let key = version.key {
            var web: [String: JSONValue] = [
                "kid": .string(identifier(names)), "kty": .string(key.type.name),
                "key_ops": .array(key.operations.map { .string($0.rawValue) }),
            ]
            switch key.publicPart {
            case .rsa(let modulus, let exponent):
                web["n"] = .string(modulus.base64URL)
                web["e"] = .string(exponent.base64URL)
            case .ec(let x, let y):
                if case .ec(let curve) = key.type { web["crv"] = .string(curve.rawValue) }
                web["x"] = .string(x.base64URL)
                web["y"] = .string(y.base64URL)
            }
            bundle["key"] = .object(web)
        }
        addCommon(to: &bundle, names)
        return .object(bundle)
    }

    /// A SecretBundle; `value` only in answers that carry it.
    func secretBundle(_ names: NameFamily, value: String? = nil) -> JSONValue {
        var bundle: [String: JSONValue] = ["id": .string(identifier(names)), "attributes": attributes]
        if let value { bundle["value"] = .string(value) }
        if let contentType = version.contentType { bundle["contentType"] = .string(contentType) }
        addCommon(to: &bundle, names)
        return .object(bundle)
    }

    func bundle(_ names: NameFamily) -> JSONValue { kind == .key ? keyBundle(names) : secretBundle(names) }

    /// An item of a list: the identifier without version in the list of objects, with it in the list of versions.
    func listItem(_ names: NameFamily, isVersion: Bool) -> JSONValue {
        var item: [String: JSONValue] = ["attributes": attributes]
        item[kind == .key ? "kid" : "id"] = .string(isVersion ? identifier(names) : baseIdentifier(names))
        if let contentType = version.contentType { item["contentType"] = .string(contentType) }
        addCommon(to: &item, names)
        return .object(item)
    }

    private func addCommon(to members: inout [String: JSONValue], _ names: NameFamily) {
        if !version.tags.isEmpty { members["tags"] = .object(version.tags.mapValues { .string($0) }) }
        guard let deletion = header.deletion else { return }
        members["recoveryId"] = .string("\(vaultURL(names))/\(kind.deletedPlural)/\(header.name)")
        members["deletedDate"] = .integer(deletion.date.unixSeconds)
        members["scheduledPurgeDate"] = .integer(deletion.scheduledPurge.unixSeconds)
    }

    private var attributes: JSONValue {
        let a = version.attributes
        var members: [String: JSONValue] = [
            "enabled": .bool(a.isEnabled), "created": .integer(a.created.unixSeconds),
            "updated": .integer(a.updated.unixSeconds),
            "recoveryLevel": .string(vault.recoveryLevel), "recoverableDays": .integer(Int64(vault.retentionDays)),
        ]
        if let notBefore = a.notBefore { members["nbf"] = .integer(notBefore.unixSeconds) }
        if let expires = a.expires { members["exp"] = .integer(expires.unixSeconds) }
        if kind == .key {
            members["exportable"] = false
            members["hsmPlatform"] = "0"
        }
        return .object(members)
    }

    func rotationPolicyBody(_ names: NameFamily) -> JSONValue {
        let policy = header.rotationPolicy ?? .initial
        let actions = policy.lifetimeActions.map { action -> JSONValue in
            let trigger: JSONValue =
                switch action.trigger {
                case .afterCreate(let period): ["timeAfterCreate": .string(period.iso8601)]
                case .beforeExpiry(let period): ["timeBeforeExpiry": .string(period.iso8601)]
                }
            return ["trigger": trigger, "action": ["type": .string(action.action.rawValue)]]
        }
        var attributes: [String: JSONValue] = [:]
        if let expiryTime = policy.expiryTime { attributes["expiryTime"] = .string(expiryTime.iso8601) }
        if let created = policy.created { attributes["created"] = .integer(created.unixSeconds) }
        if let updated = policy.updated { attributes["updated"] = .integer(updated.unixSeconds) }
        return [
            "id": .string(baseIdentifier(names) + "/rotationpolicy"), "lifetimeActions": .array(actions),
            "attributes": .object(attributes),
        ]
    }
}

extension VaultError {
    var body: JSONValue {
        var error: [String: JSONValue] = ["code": .string(code), "message": .string(message)]
        if let innerCode { error["innererror"] = ["code": .string(innerCode)] }
        return ["error": .object(error)]
    }
}

extension ByteBuffer {
    /// Appends a JSON string (RFC 8259 §7).
    mutating func writeJSONString(_ text: String) {
        guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x22 && $0 != 0x5c }) else {
            writeBytes(JSONValue.string(text).serialized())
            return
        }
        writeStaticString("\"")
        writeString(text)
        writeStaticString("\"")
    }
}
