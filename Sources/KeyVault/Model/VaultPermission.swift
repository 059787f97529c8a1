import CofferCore

/// One right over a vault's objects, under its two names: the access policy's and the role's data action.
struct VaultPermission: Sendable, Equatable {
    enum Area: String, Sendable { case keys, secrets }
    let area: Area
    let policyName: String
    /// Below `Microsoft.KeyVault/vaults/`.
    let actionName: String

    var action: Action { .data("Microsoft.KeyVault/vaults/\(actionName)") }

    private static func keys(_ policyName: String, _ actionName: String) -> VaultPermission {
        VaultPermission(area: .keys, policyName: policyName, actionName: actionName)
    }
    private static func secrets(_ policyName: String, _ actionName: String) -> VaultPermission {
        VaultPermission(area: .secrets, policyName: policyName, actionName: actionName)
    }

    static let createKey = keys("create", "keys/create/action")
    static let importKey = keys("import", "keys/import/action")
    static let getKey = keys("get", "keys/read")
    static let listKeys = keys("list", "keys/read")
    static let updateKey = keys("update", "keys/update/action")
    static let rotateKey = keys("rotate", "keys/rotate/action")
    static let getRotationPolicy = keys("getrotationpolicy", "keyrotationpolicies/read")
    static let setRotationPolicy = keys("setrotationpolicy", "keyrotationpolicies/write")
    static let setSecret = secrets("set", "secrets/setSecret/action")
    static let getSecret = secrets("get", "secrets/getSecret/action")
    static let listSecrets = secrets("list", "secrets/readMetadata/action")
    static let updateSecret = secrets("set", "secrets/update/action")

    static func cryptography(_ operation: KeyOperation) -> VaultPermission {
        switch operation {
        case .wrapKey: keys("wrapKey", "keys/wrap/action")
        case .unwrapKey: keys("unwrapKey", "keys/unwrap/action")
        default: keys(operation.rawValue, "keys/\(operation.rawValue)/action")
        }
    }
    static func list(_ kind: ObjectKind) -> VaultPermission { kind == .key ? listKeys : listSecrets }
    static func getDeleted(_ kind: ObjectKind) -> VaultPermission {
        kind == .key ? getKey : secrets("get", "secrets/readMetadata/action")
    }
    static func delete(_ kind: ObjectKind) -> VaultPermission {
        kind == .key ? keys("delete", "keys/delete") : secrets("delete", "secrets/delete")
    }
    /// `recover`, `purge`, `backup`, `restore`: named alike for keys and secrets.
    static func lifecycle(_ name: String, _ kind: ObjectKind) -> VaultPermission {
        kind == .key ? keys(name, "keys/\(name)/action") : secrets(name, "secrets/\(name)/action")
    }
}
