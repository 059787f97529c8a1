internal import CofferCore

/// Where a site's key documents lie: blobs or a vault.
protocol KeyRepository: Sendable {
    /// Names the store: two repositories with one location hold the same documents. Not a secret.
    var location: String { get }
    /// Whether values are encrypted before they go there. A vault encrypts by itself.
    var encryptsValues: Bool { get }
    /// nil when the scope has no document yet. Throws `.secretStoreUnavailable`.
    func read(_ scope: SecretsScope) async throws(FunctionsError) -> StoredSecrets?
    /// Throws `.conflict` when the document is no longer the one read (`replacing`; nil: when there is one).
    func write(_ scope: SecretsScope, _ document: SecretsDocument, replacing old: StoredSecrets?)
        async throws(FunctionsError)
    /// Keeps a copy of a document that cannot be decrypted. Throws when there are too many already.
    func keepUndecryptable(_ scope: SecretsScope, _ stored: StoredSecrets) async throws(FunctionsError)
}

struct StoredSecrets: Sendable {
    var document: SecretsDocument
    /// The entity tag, for stores that have one.
    var tag: String?
}
