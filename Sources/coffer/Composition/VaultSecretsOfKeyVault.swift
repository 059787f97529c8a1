import CofferCore
import FunctionsHost
import KeyVault

/// Joins an app's need for secrets to the vaults. Each call is the caller's own and is authorized there.
struct VaultSecretsOfKeyVault: VaultSecrets {
    let vaults: KeyVaultService

    func secret(
        _ name: String, version: String?, inVault vault: String, as caller: Caller
    ) async throws(VaultSecretsError) -> VaultSecret {
        let address = VaultAddress(name: vault)
        do throws(VaultError) {
            let found = try await vaults.getSecret(as: caller, name, version: version, in: address)
            return VaultSecret(value: found.value, version: found.version)
        } catch {
            // The vault says "not found" for both; the newest version tells which of the two is missing.
            if version != nil, error.status == 404, error.code != "VaultNotFound",
                (try? await vaults.getSecret(as: caller, name, in: address)) != nil
            {
                throw VaultSecretsError(.versionNotFound, error.message)
            }
            throw Self.refusal(error)
        }
    }

    func secretNames(inVault vault: String, as caller: Caller) async throws(VaultSecretsError) -> [String] {
        do throws(VaultError) {
            return try await vaults.listSecrets(as: caller, in: VaultAddress(name: vault)).map(\.name)
        } catch { throw Self.refusal(error) }
    }

    func setSecret(
        _ name: String, to value: RedactedString, inVault vault: String, as caller: Caller
    ) async throws(VaultSecretsError) {
        do throws(VaultError) {
            _ = try await vaults.setSecret(as: caller, name, value, in: VaultAddress(name: vault))
        } catch { throw Self.refusal(error) }
    }

    func deleteSecret(_ name: String, inVault vault: String, as caller: Caller) async throws(VaultSecretsError) {
        do throws(VaultError) {
            try await vaults.deleteSecret(as: caller, name, in: VaultAddress(name: vault))
        } catch {
            let isGone = error.status == 404 && error.code != "VaultNotFound"
            if !isGone { throw Self.refusal(error) }
        }
    }

    private static func refusal(_ error: VaultError) -> VaultSecretsError {
        let reason: VaultSecretsError.Reason =
            switch (error.status, error.code) {
            case (404, "VaultNotFound"): .vaultNotFound
            case (404, _): .secretNotFound
            case (401, _), (403, _): .accessDenied
            default: .unavailable
            }
        return VaultSecretsError(reason, error.message)
    }
}
