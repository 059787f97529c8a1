internal import CofferCore

/// Keys as secrets of a vault, one each (`AzureWebJobsSecretStorageType=keyvault`): `host--masterKey--master`,
/// `host--functionKey--NAME`, `host--systemKey--NAME`, `function--FUNCTION--NAME`.
///
/// Differs from the original on purpose: writing one function's keys leaves those of a function whose name begins alike
/// untouched, and only keys that changed get a new version.
struct VaultKeyRepository: KeyRepository {
    let vault: String
    let vaults: any VaultSecrets
    /// Who asks the vault: the app's identity, or the service principal whose secret the app holds.
    let caller: @Sendable () async throws(FunctionsError) -> Caller

    var encryptsValues: Bool { false }
    var location: String { "vault:\(vault)" }
    private static let masterPrefix = "host--masterKey--"
    private static let hostFunctionPrefix = "host--functionKey--"
    private static let systemPrefix = "host--systemKey--"
    private static func functionPrefix(_ function: String) -> String { "function--\(normalized(function))--" }

    /// Letters and digits stay; any other character becomes `-` and its code in at least three digits.
    static func normalized(_ name: String) -> String {
        var text = ""
        for unit in name.utf16 {
            if let scalar = Unicode.Scalar(unit), scalar.isASCII,
                scalar.properties.isAlphabetic || (48...57).contains(scalar.value)
            {
                text.unicodeScalars.append(scalar)
            } else {
                let code = String(unit)
                text += "-" + String(repeating: "0", count: max(0, 3 - code.count)) + code
            }
        }
        return text
    }
    static func denormalized(_ text: some StringProtocol) -> String {
        var units: [UInt16] = []
        var rest = Array(text.utf16)[...]
        while let unit = rest.popFirst() {
            let digits = rest.prefix(3)
            if unit == 0x2d, digits.count == 3, digits.allSatisfy({ (48...57).contains($0) }),
                let code = UInt16(String(decoding: digits, as: UTF16.self))
            {
                units.append(code)
                rest = rest.dropFirst(3)
            } else {
                units.append(unit)
            }
        }
        return String(decoding: units, as: UTF16.self)
    }

    func read(_ scope: SecretsScope) async throws(FunctionsError) -> StoredSecrets? {
        let names = try await names(of: scope)
        var document = SecretsDocument()
        for name in names {
            guard let value = try await value(of: name) else { continue }
            func entry(_ prefix: String) -> SecretsDocument.Entry {
                SecretsDocument.Entry(
                    name: Self.denormalized(name.dropFirst(prefix.count)), value: value, encrypted: false)
            }
            switch scope {
            case .host where name.lowercased().hasPrefix(Self.masterPrefix.lowercased()):
                document.master = entry(Self.masterPrefix)
            case .host where name.lowercased().hasPrefix(Self.systemPrefix.lowercased()):
                document.systemKeys.append(entry(Self.systemPrefix))
            case .host: document.keys.append(entry(Self.hostFunctionPrefix))
            case .function(let function): document.keys.append(entry(Self.functionPrefix(function)))
            }
        }
        if scope == .host { return document.master == nil ? nil : StoredSecrets(document: document) }
        return document.keys.isEmpty ? nil : StoredSecrets(document: document)
    }

    func write(_ scope: SecretsScope, _ document: SecretsDocument, replacing old: StoredSecrets?)
        async throws(FunctionsError)
    {
        let caller = try await caller()
        let before = secrets(of: old?.document ?? SecretsDocument(), scope)
        let after = secrets(of: document, scope)
        do {
            for (name, value) in after where before[name] != value {
                try await vaults.setSecret(name, to: value, inVault: vault, as: caller)
            }
            for name in before.keys where after[name] == nil {
                try await vaults.deleteSecret(name, inVault: vault, as: caller)
            }
        } catch { throw unavailable(error) }
    }

    func keepUndecryptable(_ scope: SecretsScope, _ stored: StoredSecrets) async throws(FunctionsError) {
        throw FunctionsError(
            .secretStoreUnavailable, "Keys in a vault are not encrypted by the host and cannot be undecryptable.")
    }

    private func secrets(of document: SecretsDocument, _ scope: SecretsScope) -> [String: RedactedString] {
        var secrets: [String: RedactedString] = [:]
        switch scope {
        case .host:
            if let master = document.master { secrets[Self.masterPrefix + SecretsDocument.masterName] = master.value }
            for key in document.keys { secrets[Self.hostFunctionPrefix + Self.normalized(key.name)] = key.value }
            for key in document.systemKeys { secrets[Self.systemPrefix + Self.normalized(key.name)] = key.value }
        case .function(let function):
            for key in document.keys { secrets[Self.functionPrefix(function) + Self.normalized(key.name)] = key.value }
        }
        return secrets
    }

    private func names(of scope: SecretsScope) async throws(FunctionsError) -> [String] {
        let prefixes: [String] =
            switch scope {
            case .host: [Self.masterPrefix, Self.hostFunctionPrefix, Self.systemPrefix]
            case .function(let function): [Self.functionPrefix(function)]
            }
        let caller = try await caller()
        do {
            return try await vaults.secretNames(inVault: vault, as: caller).filter { name in
                prefixes.contains { name.lowercased().hasPrefix($0.lowercased()) }
            }.sorted()
        } catch { throw unavailable(error) }
    }

    /// nil when the secret went away since the names were listed.
    private func value(of name: String) async throws(FunctionsError) -> RedactedString? {
        let caller = try await caller()
        do {
            return try await vaults.secret(name, version: nil, inVault: vault, as: caller).value
        } catch {
            if error.reason == .secretNotFound { return nil }
            throw unavailable(error)
        }
    }

    private func unavailable(_ error: VaultSecretsError) -> FunctionsError {
        let hint =
            error.reason == .accessDenied
            ? " Give the app's identity (or service principal) the secret permissions get, list, set and delete, or the role 'Key Vault "
                + "Secrets Officer'."
            : ""
        return FunctionsError(
            .secretStoreUnavailable, "The access keys in vault '\(vault)' cannot be reached: \(error.message)\(hint)")
    }
}
