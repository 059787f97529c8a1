public import CofferCore
public import EncryptionAtRest
public import HTTPEdge

/// One account as a data plane sees it: a snapshot, taken afresh for each request.
public struct StorageAccountView: Sendable {
    /// Lower case, as in the host name.
    public let name: String
    public let id: AccountID
    public let resourceID: ResourceID
    public let kind: String
    public let skuName: String
    public let allowsSharedKeyAccess: Bool
    public let allowsBlobPublicAccess: Bool
    /// `supportsHttpsTrafficOnly`.
    public let requiresHTTPS: Bool
    public let created: Timestamp
    /// The account's store.
    public let volume: AccountVolume
}

/// Who asks a data plane, and what it may do. Made only by `StorageAccountService.authenticate`.
public enum StorageCaller: Sendable {
    /// Whoever signed with an account key: everything.
    case accountKey
    /// A shared access signature that has been verified: signature, times, addresses, protocol.
    case sharedAccess(SharedAccessGrant)
    /// A token's principal: each operation asks the roles.
    case principal(Caller)
    /// No credentials: only what a container's public access allows.
    case anonymous
}

/// What a verified SAS allows; operations check it against what they do.
public struct SharedAccessGrant: Sendable {
    public enum Scope: Sendable, Equatable {
        /// Account SAS: resource types (`s`, `c`, `o`).
        case account(resourceTypes: LetterSet)
        case container(String)
        case blob(container: String, blob: String)
        case snapshot(container: String, blob: String, snapshot: String)

        /// nil for an account SAS.
        public var container: String? {
            switch self {
            case .account: nil
            case .container(let name): name
            case .blob(let container, _), .snapshot(let container, _, _): container
            }
        }
    }
    public let scope: Scope
    /// Letters of `sp` (after a stored access policy was merged in).
    public let permissions: LetterSet
    /// Response header overrides: `rscc`, `rscd`, `rsce`, `rscl`, `rsct`.
    public let responseHeaders: [String: String]
    /// `ses`, the encryption scope writes must use.
    public let encryptionScope: String?
    /// A user delegation SAS carries its principal: roles are asked as well.
    public let delegatingPrincipal: Caller?
}

/// A refusal on a storage wire: status, `x-ms-error-code`, and a message that says what to do.
public struct StorageError: Error, Sendable {
    public let status: Int
    public let code: String
    public let message: String
    /// Further headers (`WWW-Authenticate`, `Content-Range`) and XML elements (`AuthenticationErrorDetail`).
    public var headers: [(String, String)] = []
    public var details: [(String, String)] = []
    public init(_ status: Int, _ code: String, _ message: String) {
        self.status = status
        self.code = code
        self.message = message
    }
}

/// What a service tells about a container's stored access policies, when a SAS names one (`si`).
public protocol StoredAccessPolicies: Sendable {
    /// The policy `identifier` of a container: start, expiry, permissions; nil when there is none.
    func storedAccessPolicy(_ identifier: String, container: String, account: StorageAccountView)
        async throws(StorageError) -> StoredAccessPolicy?
}
public struct StoredAccessPolicy: Sendable, Codable, Equatable {
    public var start: Timestamp?
    public var expiry: Timestamp?
    public var permissions: String?
    public init(start: Timestamp?, expiry: Timestamp?, permissions: String?) {
        self.start = start
        self.expiry = expiry
        self.permissions = permissions
    }
}

/// What the data planes share. They hold it and call these; the rest of the room is the control plane.
public protocol StorageAccounts: Sendable {
    /// The account of a host name; throws 404-like `StorageError` when there is none.
    func account(named name: String) async throws(StorageError) -> StorageAccountView

    /// Network rules, HTTPS-only, then SharedKey, SAS, bearer token or nothing: who asks. Throws what the wire answers
    /// for bad credentials.
    func authenticate(
        _ request: Request, account: StorageAccountView, service: StorageService, policies: any StoredAccessPolicies
    ) async throws(StorageError) -> StorageCaller

    /// For `.principal`: whether the roles grant the data action at the account or the container below it. Throws 403
    /// `AuthorizationPermissionMismatch`.
    func requireRole(
        _ caller: Caller, _ action: Action, account: StorageAccountView, container: String?
    ) throws(StorageError)

    /// Get User Delegation Key, for a `.principal` caller. `start` (nil: now) and `expiry` are the request's spellings;
    /// `version` is `x-ms-version`.
    func userDelegationKey(
        start: String?, expiry: String, delegatedTenantID: String?, version: String, as caller: StorageCaller,
        account: StorageAccountView
    ) async throws(StorageError) -> UserDelegationKey

    /// Throws 409 `EncryptionScopeNotAvailable` unless the account has an enabled encryption scope of the name.
    func requireEncryptionScope(_ name: String, of account: StorageAccountView) async throws(StorageError)

    /// The account's Blob service properties: one record, whether Resource Manager or the data plane sets them.
    func blobServiceProperties(of account: StorageAccountView) async throws(StorageError) -> BlobServiceProperties
    /// Durable when it returns. `change` sees the present properties and may be called again.
    func updateBlobServiceProperties(
        of account: StorageAccountView, _ change: @Sendable (inout BlobServiceProperties) throws(StorageError) -> Void
    ) async throws(StorageError)

    /// 401 `NoAuthenticationInformation` with the challenge, for refusing an anonymous caller.
    func noAuthenticationInformation(_ request: Request) -> StorageError
}
