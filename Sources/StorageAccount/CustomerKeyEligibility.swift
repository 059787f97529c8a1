public import CofferCore
public import EncryptionAtRest
public import ResourceProviders

/// The vaults, as a storage account asks them before it takes a customer's key. KeyVault keeps the promise; the
/// composition root joins them.
public protocol CustomerKeyEligibility: Sendable {
    /// Throws unless the reference names an enabled RSA key of 2048, 3072 or 4096 bits, within its times, in a vault
    /// with soft delete and purge protection, that `caller` (the account's identity) may get, wrap and unwrap with.
    ///
    /// The codes are Microsoft.Storage's: `KeyVaultPolicyError` (vault not recoverable, key of another kind),
    /// `KeyVaultAuthenticationFailure` (access refused, key disabled or outside its times), `KeyVaultVaultNotFound`,
    /// `KeyVaultEncryptionKeyNotFound`.
    func customerKeyEligibility(_ reference: CustomerKeyReference, as caller: Caller) async throws(ControlError)
}
