internal import CofferCore

/// A refusal on the vault's wire: `{"error":{"code","message","innererror":{"code"}}}`. The message says what to do and
/// never holds a secret.
public struct VaultError: Error, Sendable, Equatable {
    public let status: Int
    public let code: String
    public let innerCode: String?
    public let message: String
    /// Seconds for `Retry-After`, where waiting helps.
    public let retryAfterSeconds: Int?

    public init(_ status: Int, _ code: String, inner: String? = nil, _ message: String, retryAfterSeconds: Int? = nil) {
        self.status = status
        self.code = code
        self.innerCode = inner
        self.message = message
        self.retryAfterSeconds = retryAfterSeconds
    }

    static func badParameter(_ message: String) -> VaultError { VaultError(400, "BadParameter", message) }
    static func forbidden(_ inner: String?, _ message: String) -> VaultError {
        VaultError(403, "Forbidden", inner: inner, message)
    }
    static func conflict(_ inner: String?, _ message: String) -> VaultError {
        VaultError(409, "Conflict", inner: inner, message)
    }
    static func notSupported(_ what: String) -> VaultError {
        VaultError(501, "NotSupported", "\(what) not supported by this server. See docs/compatibility.md.")
    }

    static func vaultNotFound(_ name: String) -> VaultError {
        VaultError(
            404, "VaultNotFound",
            "The vault '\(name)' was not found. If it was deleted recently, bring it back with 'az keyvault recover'; "
                + "otherwise create it with 'az keyvault create'.")
    }
    static func objectNotFound(_ kind: ObjectKind, _ identifier: String) -> VaultError {
        VaultError(
            404, "\(kind.title)NotFound",
            "A \(kind.rawValue) with (name/id) \(identifier) was not found in this key vault. If you recently "
                + "deleted this \(kind.rawValue) you "
                + "may be able to recover it using the correct recovery command. For help resolving this issue, "
                + "please see "
                + "https://go.microsoft.com/fwlink/?linkid=2125182")
    }
    static func deletedObjectNotFound(_ kind: ObjectKind, _ name: String) -> VaultError {
        VaultError(404, "\(kind.title)NotFound", "Deleted \(kind.title) not found: \(name)")
    }
    /// The name belongs to a deleted object, which can be recovered or is past that.
    static func nameTaken(_ kind: ObjectKind, _ name: String, by deletion: Deletion, at now: Timestamp) -> VaultError {
        guard deletion.scheduledPurge > now else { return beingPurged(kind, name) }
        return .conflict(
            "ObjectIsDeletedButRecoverable",
            "\(kind.title) \(name) is currently in a deleted but recoverable state, and its name cannot be reused; "
                + "in this state, the "
                + "\(kind.rawValue) can only be recovered or purged.")
    }
    static func beingPurged(_ kind: ObjectKind, _ name: String) -> VaultError {
        .conflict(
            "ObjectIsBeingDeleted",
            "\(kind.title) \(name) is being purged: its retention is over. It cannot be recovered, and its name is free "
                + "within the hour.")
    }
    static let busy = VaultError(
        429, "Throttled",
        "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached",
        retryAfterSeconds: 1)
}
