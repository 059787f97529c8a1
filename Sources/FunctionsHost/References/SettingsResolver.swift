internal import CofferCore
internal import ResourceProviders

/// App settings as the worker and the host see them: every Key Vault reference replaced by the secret, read as the
/// app's own identity.
struct ResolvedSettings: Sendable, Equatable {
    /// A reference that did not resolve keeps its literal text, as on App Service.
    var values: [String: RedactedString]
    /// By the setting's name, for those that are references.
    var references: [String: KeyVaultReferenceStatus]

    /// In any case, as environment variables are read on the original's platforms.
    func value(_ name: String) -> RedactedString? {
        values[name] ?? values.first { $0.key.lowercased() == name.lowercased() }?.value
    }
    /// Why a setting that is a reference has no value; nil when it is plain or resolved.
    func failure(of name: String) -> KeyVaultReferenceStatus? {
        let status = references[name] ?? references.first { $0.key.lowercased() == name.lowercased() }?.value
        return status?.status == .resolved ? nil : status
    }
    /// Whether every reference that had a value before has one now.
    func hasAllValues(of earlier: ResolvedSettings) -> Bool {
        earlier.references.allSatisfy { name, status in
            status.status != .resolved || references[name]?.status == .resolved
        }
    }
}

struct SettingsResolver: Sendable {
    let vaults: any VaultSecrets
    let names: HostNames

    /// The same secret is read once, however many settings name it.
    func resolve(_ site: Site) async -> ResolvedSettings {
        var result = ResolvedSettings(values: site.secrets.appSettings, references: [:])
        var known: [KeyVaultReference: Result<VaultSecret, VaultSecretsError>] = [:]
        for (name, value) in site.secrets.appSettings.sorted(by: { $0.key < $1.key }) {
            let text = value.reveal()
            switch KeyVaultReference.parse(text, names: names) {
            case .notAReference: continue
            case .malformed(let reason):
                result.references[name] = status(
                    text, .invalidSyntax, nil, details: "Reference was not able to be parsed: \(reason).")
            case .reference(let reference):
                guard let identity = identity(of: site) else {
                    result.references[name] = status(
                        text, .msiNotEnabled, reference,
                        details: "Reference was not able to be resolved because site Managed Identity not enabled.")
                    continue
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
                    result.values[name] = secret.value
                    result.references[name] = status(
                        text, .resolved, reference, activeVersion: secret.version,
                        details: "Reference has been successfully resolved.")
                case .failure(let error):
                    result.references[name] = status(
                        text, Self.status(error.reason), reference, details: error.message)
                }
            }
        }
        return result
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
