internal import CofferCore
internal import ResourceProviders

/// App settings and connection strings as the worker and the host see them: every Key Vault reference replaced by the
/// secret, read as the app's own identity.
struct ResolvedSettings: Sendable, Equatable {
    /// A reference that did not resolve keeps its literal text, as on App Service.
    var values: [String: RedactedString]
    var connectionStrings: [String: ConnectionString] = [:]
    var references = KeyVaultReferences()

    /// In any case, as environment variables are read on the original's platforms.
    func value(_ name: String) -> RedactedString? {
        values[name] ?? values.first { $0.key.lowercased() == name.lowercased() }?.value
    }
    /// Why a setting that is a reference has no value; nil when it is plain or resolved.
    func failure(of name: String) -> KeyVaultReferenceStatus? {
        let settings = references.appSettings
        let status = settings[name] ?? settings.first { $0.key.lowercased() == name.lowercased() }?.value
        return status?.status == .resolved ? nil : status
    }
    func hasSameValues(as other: ResolvedSettings) -> Bool {
        values == other.values && connectionStrings == other.connectionStrings
    }
    /// Whether every reference that had a value before has one now.
    func hasAllValues(of earlier: ResolvedSettings) -> Bool {
        func hasAll(_ list: KeyPath<KeyVaultReferences, [String: KeyVaultReferenceStatus]>) -> Bool {
            earlier.references[keyPath: list].allSatisfy { name, status in
                status.status != .resolved || references[keyPath: list][name]?.status == .resolved
            }
        }
        return hasAll(\.appSettings) && hasAll(\.connectionStrings)
    }
}

struct SettingsResolver: Sendable {
    let vaults: any VaultSecrets
    let names: HostNames

    /// The same secret is read once, however many settings name it.
    func resolve(_ site: Site) async -> ResolvedSettings {
        var result = ResolvedSettings(
            values: site.secrets.appSettings, connectionStrings: site.secrets.connectionStrings)
        var known: [KeyVaultReference: Result<VaultSecret, VaultSecretsError>] = [:]
        for (name, value) in site.secrets.appSettings.sorted(by: { $0.key < $1.key }) {
            guard let (status, secret) = await resolve(value, of: site, &known) else { continue }
            result.references.appSettings[name] = status
            if let secret { result.values[name] = secret }
        }
        for (name, string) in site.secrets.connectionStrings.sorted(by: { $0.key < $1.key }) {
            guard let (status, secret) = await resolve(string.value, of: site, &known) else { continue }
            result.references.connectionStrings[name] = status
            if let secret { result.connectionStrings[name]?.value = secret }
        }
        return result
    }

    /// nil for a value that is no reference.
    private func resolve(
        _ value: RedactedString, of site: Site,
        _ known: inout [KeyVaultReference: Result<VaultSecret, VaultSecretsError>]
    ) async -> (KeyVaultReferenceStatus, RedactedString?)? {
        let text = value.reveal()
        let reference: KeyVaultReference
        switch KeyVaultReference.parse(text, names: names) {
        case .notAReference: return nil
        case .malformed(let reason):
            let details = "Reference was not able to be parsed: \(reason)."
            return (status(text, .invalidSyntax, nil, details: details), nil)
        case .reference(let parsed): reference = parsed
        }
        guard let identity = identity(of: site) else {
            let details = "Reference was not able to be resolved because site Managed Identity not enabled."
            return (status(text, .msiNotEnabled, reference, details: details), nil)
        }
        let answer: Result<VaultSecret, VaultSecretsError>
        if let earlier = known[reference] {
            answer = earlier
        } else {
            answer = await read(reference, as: identity.caller)
            known[reference] = answer
        }
        switch answer {
        case .success(let secret):
            let resolved = status(
                text, .resolved, reference, activeVersion: secret.version,
                details: "Reference has been successfully resolved.")
            return (resolved, secret.value)
        case .failure(let error):
            return (status(text, Self.status(error.reason), reference, details: error.message), nil)
        }
    }

    /// The system-assigned identity, unless the site asks for another, which does not exist here.
    private func identity(of site: Site) -> ManagedIdentity? {
        let wanted = site.keyVaultReferenceIdentity?.lowercased()
        return wanted == nil || wanted == "" || wanted == "systemassigned" ? site.identity : nil
    }

    private func read(_ reference: KeyVaultReference, as caller: Caller) async -> Result<VaultSecret, VaultSecretsError>
    {
        do {
            return .success(
                try await vaults.secret(
                    reference.secret, version: reference.version, inVault: reference.vault, as: caller))
        } catch { return .failure(error) }
    }

    private static func status(_ reason: VaultSecretsError.Reason) -> KeyVaultReferenceStatus.Status {
        switch reason {
        case .vaultNotFound: .vaultNotFound
        case .secretNotFound: .secretNotFound
        case .versionNotFound: .secretVersionNotFound
        case .accessDenied: .accessToKeyVaultDenied
        case .timedOut: .fetchTimedOut
        case .unavailable: .otherReasons
        }
    }

    private func status(
        _ text: String, _ status: KeyVaultReferenceStatus.Status, _ reference: KeyVaultReference?,
        activeVersion: String? = nil,
        details: String
    ) -> KeyVaultReferenceStatus {
        KeyVaultReferenceStatus(
            reference: text, status: status, vaultName: reference?.vault, secretName: reference?.secret,
            secretVersion: reference?.version, activeVersion: activeVersion, details: details)
    }
}
