internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import StorageAccount

/// What a write asks its content to answer to: the account's key, an encryption scope's, or one that it brings.
///
/// The scope comes from `x-ms-encryption-scope`, else from the SAS (`ses`), else from the container
/// (encryption-scope-overview; recorded errors in specs/recorded/encryption-errors.json).
struct RequestedEncryption: Sendable {
    /// How requests name the account's own key where a scope could stand.
    static let accountKeyName = "$account-encryption-key"

    let customerKey: CustomerKeyHeaders?
    /// nil: the account's key, unless the request brings one.
    let scope: String?

    /// Throws 400 for a scope beside a key or another than the SAS names, 403 for what else the SAS or the container
    /// forbids.
    init(_ call: BlobCall, in container: ContainerRecord) throws(StorageError) {
        customerKey = try CustomerKeyHeaders.read(call.request, isWrite: true)
        let header = call.header("x-ms-encryption-scope").flatMap { $0.isEmpty ? nil : $0 }
        if header != nil, customerKey != nil {
            throw .invalidHeader(
                "x-ms-encryption-scope", reason: "A request names an encryption scope or brings a key, not both.")
        }
        let signed = call.signedEncryptionScope
        if let signed {
            // "Create a service SAS": another scope in the header is a bad request.
            guard header == nil || header == signed else {
                throw .invalidHeader(
                    "x-ms-encryption-scope",
                    reason: "The shared access signature allows writes under the encryption scope '\(signed)' alone.")
            }
            guard customerKey == nil else {
                throw StorageError(
                    403, "AuthorizationFailure",
                    "This request is not authorized to perform this operation: the shared access signature allows "
                        + "writes under the encryption scope '\(signed)' alone.")
            }
        }
        let wanted = header ?? signed
        let own = container.defaultEncryptionScope ?? Self.accountKeyName
        if container.deniesEncryptionScopeOverride == true {
            guard customerKey == nil, wanted == nil || wanted == own else { throw .forbiddenByContainerEncryption }
        }
        let chosen = customerKey == nil ? wanted ?? own : Self.accountKeyName
        scope = chosen == Self.accountKeyName ? nil : chosen
    }

    /// 409 of one of three kinds unless this is what the blob or block answers to already.
    func check(customerKeySHA256: String?, scope kept: String?) throws(StorageError) {
        try CustomerKeyHeaders.check(customerKey, against: customerKeySHA256)
        switch (scope, kept) {
        case (nil, _?) where customerKey == nil: throw .usesCustomerKey
        case (_?, nil) where customerKeySHA256 == nil: throw .doesNotUseCustomerKey
        case (let scope?, let kept?) where scope != kept: throw .customerKeyMismatch
        default: return
        }
    }
    func check(_ record: BlobRecord) throws(StorageError) {
        try check(customerKeySHA256: record.customerKeySHA256, scope: record.encryptionScope)
    }
}

extension BlobCall {
    /// `ses` of the SAS the request came with.
    fileprivate var signedEncryptionScope: String? {
        guard case .sharedAccess(let grant) = caller, let scope = grant.encryptionScope, !scope.isEmpty else {
            return nil
        }
        return scope
    }
}
