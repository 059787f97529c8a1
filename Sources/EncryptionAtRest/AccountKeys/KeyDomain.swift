/// What one key of the platform's keeping governs: an account, but for its encryption scopes, or one of those.
struct KeyDomain: Sendable, Hashable {
    let account: AccountID
    /// The scope's name, which is its for good: encryption scopes are never deleted. nil: the account's own domain.
    let scope: String?

    init(_ account: AccountID, scope: String? = nil) {
        self.account = account
        self.scope = scope
    }

    /// The fields that bind a message to this domain: one for an account, two for a scope.
    var fields: [[UInt8]] { scope.map { [account.bytes, Array($0.utf8)] } ?? [account.bytes] }
}
