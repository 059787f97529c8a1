internal import CofferCore
internal import Foundation
internal import Logging
internal import ResourceProviders

/// Chooses a site's key repository by its settings, as the original does: `AzureWebJobsSecretStorageType`, then a SAS,
/// then `AzureWebJobsStorage`.
struct KeyringFactory: Sendable {
    private static let featureFlags = "AzureWebJobsFeatureFlags"
    let services: HostServices

    func make(
        _ site: Site, _ settings: ResolvedSettings, platformKey: RedactedString, after predecessor: Keyring?
    ) throws(FunctionsError) -> Keyring {
        guard let ring = DataProtectionKeyRing(settings: settings.values, platformKey: platformKey) else {
            throw FunctionsError(
                .secretStoreUnavailable,
                "An AzureWebEncryptionKey setting is malformed: keys are hexadecimal, AzureWebPrimaryEncryptionKey "
                    + "names one by its GUID."
            )
        }
        // Unknown means no: flags that cannot be read could ask for strict keys.
        if let status = settings.failure(of: Self.featureFlags) { throw unresolved(Self.featureFlags, status) }
        let own = settings.value("AzureWebEncryptionKey")
        let decryptionKeyID = DataProtectionKeyRing.decryptionKeyID(
            own == nil ? "MACHINEKEY_DecryptionKey" : "AzureWebEncryptionKey", own ?? platformKey)
        return Keyring(
            hostName: services.hostName(of: site), repository: try repository(site, settings),
            ring: ring, decryptionKeyID: decryptionKeyID,
            mode: IdentifiableKeysMode(featureFlags: settings.value(Self.featureFlags)),
            clock: services.clock, randomness: services.randomness, logger: services.logger,
            predecessor: predecessor)
    }

    func repository(_ site: Site, _ settings: ResolvedSettings) throws(FunctionsError) -> any KeyRepository {
        switch settings.value("AzureWebJobsSecretStorageType")?.reveal().lowercased() {
        case "keyvault": return try vaultRepository(site, settings)
        case "files":
            throw unusable(
                "AzureWebJobsSecretStorageType=files is not supported: keys in clear on a disk. Use Blob storage "
                    + "(the default) "
                    + "or keyvault.")
        case "kubernetes", "containerapps":
            throw unusable("This AzureWebJobsSecretStorageType is not supported; use Blob storage or keyvault.")
        default: return try blobRepository(site, settings)
        }
    }

    private func vaultRepository(_ site: Site, _ settings: ResolvedSettings) throws(FunctionsError) -> any KeyRepository
    {
        let uri = settings.value("AzureWebJobsSecretStorageKeyVaultUri")?.reveal() ?? ""
        guard let host = URL(string: uri)?.host,
            case .vault(let vault)? = services.configuration.names.match(host)?.endpoint
        else {
            throw unusable("AzureWebJobsSecretStorageKeyVaultUri is missing or not the URI of a vault on this server.")
        }
        return VaultKeyRepository(vault: vault, vaults: services.vaults, caller: try vaultCaller(site, settings))
    }

    /// All three of client, secret and tenant name a service principal; none of them means the app's own identity.
    private func vaultCaller(
        _ site: Site, _ settings: ResolvedSettings
    ) throws(FunctionsError) -> @Sendable () async throws(FunctionsError) -> Caller {
        let prefix = "AzureWebJobsSecretStorageKeyVault"
        let names = ["ClientId", "ClientSecret", "TenantId"].map { prefix + $0 }
        let given = names.map { settings.value($0) }
        if let client = given[0], let secret = given[1], let tenant = given[2] {
            for name in names {
                if let status = settings.failure(of: name) { throw unresolved(name, status) }
            }
            let (identities, logger) = (services.identities, services.logger)
            return { () async throws(FunctionsError) in
                do {
                    return try await identities.servicePrincipal(
                        applicationID: client.reveal(), secret: secret, tenantID: tenant.reveal())
                } catch {
                    logger.warning(
                        "a service principal for access keys cannot sign in",
                        metadata: ["site": "\(site.name)", "reason": "\(error)"])
                    // Whoever calls the app may read this.
                    throw FunctionsError(
                        .secretStoreUnavailable,
                        "The service principal of \(names[0]) cannot sign in; the server's log says why.")
                }
            }
        }
        guard given.allSatisfy({ $0 == nil }) else {
            throw unusable(
                "\(names[0]), \(names[1]) and \(names[2]) name a service principal together. Set all three, or none "
                    + "for the app's system-assigned identity; user-assigned identities are not supported.")
        }
        guard let identity = site.identity else {
            throw unusable("Keys in a vault need the app's system-assigned identity; assign one.")
        }
        return { () async throws(FunctionsError) in identity.caller }
    }

    private func blobRepository(_ site: Site, _ settings: ResolvedSettings) throws(FunctionsError) -> any KeyRepository
    {
        let folder = site.name.lowercased()
        if let sas = settings.value("AzureWebJobsSecretStorageSas") {
            if let status = settings.failure(of: "AzureWebJobsSecretStorageSas") {
                throw unresolved("AzureWebJobsSecretStorageSas", status)
            }
            let parts = sas.reveal().split(separator: "?", maxSplits: 1)
            guard parts.count == 2, parts[0].lowercased().hasPrefix("https://") else {
                throw unusable("AzureWebJobsSecretStorageSas is not the https URL of a container with a SAS.")
            }
            let container = parts[0].hasSuffix("/") ? String(parts[0].dropLast()) : String(parts[0])
            return BlobKeyRepository(
                containerURL: container, credential: .sharedAccessSignature(RedactedString(String(parts[1]))),
                makesContainer: false,
                folder: folder, http: services.http, clock: services.clock)
        }
        if let status = settings.failure(of: "AzureWebJobsStorage") { throw unresolved("AzureWebJobsStorage", status) }
        do throws(BlobServiceConnection.Malformed) {
            let connection = try connection(site, settings)
            return BlobKeyRepository(
                containerURL: connection.endpoint + "/" + BlobKeyRepository.containerName,
                credential: connection.credential,
                makesContainer: true, folder: folder, http: services.http, clock: services.clock)
        } catch { throw unusable(error.message) }
    }

    private func unusable(_ message: String) -> FunctionsError { FunctionsError(.secretStoreUnavailable, message) }

    private func unresolved(_ setting: String, _ status: KeyVaultReferenceStatus) -> FunctionsError {
        unusable(
            "The Key Vault reference in \(setting) is not resolved (\(status.status.rawValue)). \(status.details)")
    }

    private func connection(_ site: Site, _ settings: ResolvedSettings) throws(BlobServiceConnection.Malformed)
        -> BlobServiceConnection
    {
        if let text = settings.value("AzureWebJobsStorage") {
            do throws(BlobServiceConnection.Malformed) {
                return try BlobServiceConnection(connectionString: text)
            } catch {
                throw .init(message: "The app setting AzureWebJobsStorage cannot be used: \(error.message).")
            }
        }
        let account = settings.value("AzureWebJobsStorage__accountName")?.reveal()
        let names = services.configuration.names
        let explicit = settings.value("AzureWebJobsStorage__blobServiceUri")?.reveal()
        guard
            let endpoint = explicit
                ?? account.map({ names.own.url(of: .storage(account: $0.lowercased(), service: .blob)) })
        else {
            throw .init(
                message:
                    "Secret initialization from Blob storage failed due to missing both an Azure Storage connection "
                    + "string and a SAS "
                    + "connection uri. Set AzureWebJobsStorage or AzureWebJobsSecretStorageSas.")
        }
        guard let identity = site.identity else {
            throw .init(
                message: "AzureWebJobsStorage__accountName needs the app's system-assigned identity; assign one.")
        }
        let identities = services.identities
        return BlobServiceConnection(
            endpoint: endpoint,
            credential: .bearer {
                try await identities.issueToken(for: identity, audience: "https://storage.azure.com/").token
            })
    }
}
