public import CofferCore
internal import Crypto

/// The answer to Get User Delegation Key: a key that signs shared access signatures in its holder's name, for a while.
///
/// It is derived from a secret of the account and from its own terms, so nothing needs to be kept: a signature brings
/// the terms along. Source: Microsoft, "Get User Delegation Key".
public struct UserDelegationKey: Sendable {
    /// `SignedOid`, `SignedTid`, `SignedStart`, `SignedExpiry`, `SignedService`, `SignedVersion`,
    /// `SignedDelegatedUserTid`, as the answer spells them.
    public let signedObjectID: String
    public let signedTenantID: String
    public let signedStart: String
    public let signedExpiry: String
    public let signedService: String
    public let signedVersion: String
    public let signedDelegatedUserTenantID: String?
    /// base64 of 32 bytes.
    public let value: RedactedString

    struct Terms {
        let objectID: String, tenantID: String, start: String, expiry: String, service: String, version: String
        let delegatedTenantID: String?
    }
}

extension LoadedAccount {
    /// HMAC-SHA256(account secret, the terms one on a line): another term is another key.
    func userDelegationKey(_ terms: UserDelegationKey.Terms) -> SymmetricKey {
        var text = SignedText()
        text.line("user-delegation-key/v1")
        // Refused elsewhere when they hold a line break; each is one line here.
        for term in [
            terms.objectID, terms.tenantID, terms.start, terms.expiry, terms.service, terms.version,
            terms.delegatedTenantID ?? "",
        ] {
            text.line(term)
        }
        return SymmetricKey(data: Array(HMAC<SHA256>.authenticationCode(for: text.bytes, using: delegationSecret)))
    }
}

extension StorageAccountService {
    /// Makes a user delegation key for a token's principal. `start` and `expiry` are the request's own spellings (ISO
    /// 8601), at most seven days apart; `start` nil is now. `version` is `x-ms-version`.
    ///
    /// Throws 403 `AuthorizationPermissionMismatch` without the role action, 400 `InvalidXmlNodeValue` for times out of
    /// bounds, and 403 `AuthenticationFailed` for any caller that is not a principal: keys and signatures cannot
    /// delegate.
    public func userDelegationKey(
        start: String?, expiry: String, delegatedTenantID: String?, version: String, as caller: StorageCaller,
        account: StorageAccountView
    ) async throws(StorageError) -> UserDelegationKey {
        guard case .principal(let principal) = caller else {
            throw .authenticationFailed(detail: "Only a bearer token can ask for a user delegation key.")
        }
        try requireRole(
            principal, .control("Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"),
            account: account,
            container: nil)
        let now = clock.now()
        let start = start ?? now.iso8601
        func invalid(_ what: String) -> StorageError {
            StorageError(400, "InvalidXmlNodeValue", "The value of \(what)")
        }
        guard let from = Timestamp(iso8601: start) else {
            throw invalid("Start is no time such as 2026-11-25T00:00:00Z.")
        }
        guard let until = Timestamp(iso8601: expiry) else {
            throw invalid("Expiry is no time such as 2026-11-25T00:00:00Z.")
        }
        guard until > now, until > from, until <= now.adding(seconds: Self.userDelegationKeyMaximumSeconds),
            from <= now.adding(seconds: Self.userDelegationKeyMaximumSeconds)
        else { throw invalid("Start or Expiry is out of bounds: a key ends in the future, within seven days of now.") }
        let loaded = try await loadedAccount(account)
        let terms = UserDelegationKey.Terms(
            objectID: principal.objectID, tenantID: principal.tenantID, start: from.iso8601, expiry: until.iso8601,
            service: "b",
            version: version, delegatedTenantID: delegatedTenantID)
        let key = loaded.userDelegationKey(terms)
        return UserDelegationKey(
            signedObjectID: terms.objectID, signedTenantID: terms.tenantID, signedStart: terms.start,
            signedExpiry: terms.expiry,
            signedService: terms.service, signedVersion: terms.version, signedDelegatedUserTenantID: delegatedTenantID,
            value: RedactedString(key.withUnsafeBytes { Array($0).base64 }))
    }

    static let userDelegationKeyMaximumSeconds: Int64 = 7 * 86_400
}
