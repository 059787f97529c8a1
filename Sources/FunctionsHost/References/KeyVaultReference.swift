internal import CofferCore
internal import Foundation

/// A setting whose whole value is `@Microsoft.KeyVault(…)` (Azure App Service, "Use Key Vault references").
struct KeyVaultReference: Sendable, Hashable {
    let vault: String
    let secret: String
    /// nil follows the newest version.
    let version: String?

    enum Parsed: Sendable, Equatable {
        case notAReference
        case malformed(String)
        case reference(KeyVaultReference)
    }
    private static let prefix = "@microsoft.keyvault("
    static let lengthLimit = 4_096

    /// `names` are the families whose vault hosts are accepted. A missing closing parenthesis makes it malformed, not a
    /// literal.
    static func parse(_ text: String, names: HostNames) -> Parsed {
        let text = text.trimmed
        guard text.utf8.count >= prefix.utf8.count, text.prefix(prefix.count).lowercased() == prefix else {
            return .notAReference
        }
        guard text.utf8.count <= lengthLimit else {
            return .malformed("the reference is longer than \(lengthLimit) bytes")
        }
        guard text.hasSuffix(")") else { return .malformed("the closing parenthesis is missing") }
        var members: [String: String] = [:]
        for pair in text.dropFirst(prefix.count).dropLast().split(separator: ";", omittingEmptySubsequences: true) {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { return .malformed("'\(pair.prefix(32))' is not of the form Name=value") }
            let name = parts[0].trimmed.lowercased()
            guard ["secreturi", "vaultname", "secretname", "secretversion"].contains(name), members[name] == nil else {
                return .malformed("'\(name.prefix(32))' is unknown or given twice")
            }
            members[name] = parts[1].trimmed
        }
        if let uri = members["secreturi"] {
            guard members.count == 1 else { return .malformed("SecretUri stands alone") }
            return parse(uri: uri, names: names)
        }
        guard let vault = members["vaultname"], let secret = members["secretname"] else {
            return .malformed("either SecretUri or both VaultName and SecretName are needed")
        }
        guard isName(vault), isName(secret) else {
            return .malformed("a name holds a character that names in vaults cannot have")
        }
        let version = members["secretversion"].flatMap { $0.isEmpty ? nil : $0 }
        guard version.map(isName) ?? true else { return .malformed("the version is malformed") }
        return .reference(KeyVaultReference(vault: vault.lowercased(), secret: secret, version: version))
    }

    private static func parse(uri: String, names: HostNames) -> Parsed {
        guard let parts = URLComponents(string: uri), parts.scheme?.lowercased() == "https", let host = parts.host,
            parts.query == nil,
            parts.user == nil, parts.fragment == nil
        else { return .malformed("SecretUri is not an https URI of a secret") }
        guard case .vault(let vault)? = names.match(host)?.endpoint, isName(vault) else {
            return .malformed("'\(host.prefix(128))' is not the host of a vault on this server")
        }
        let path = parts.path.parts(at: UInt8(ascii: "/"))
        guard path.count == 2 || path.count == 3, path[0].lowercased() == "secrets", path.dropFirst().allSatisfy(isName)
        else {
            return .malformed("SecretUri is not of the form https://{vault}/secrets/{name}[/{version}]")
        }
        return .reference(KeyVaultReference(vault: vault, secret: path[1], version: path.count == 3 ? path[2] : nil))
    }

    private static func isName(_ text: String) -> Bool {
        (1...127).contains(text.utf8.count)
            && text.utf8.allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 0x2d
            }
    }
}
