internal import AccessControl
internal import CofferCore
internal import HTTPEdge
internal import StorageAccount

/// What an operation needs of its caller, in the three languages callers speak: SAS letters, role actions, public
/// access.
struct Access: Sendable {
    /// SAS permissions, any of which suffices ("Create a service SAS", "Create an account SAS": permissions by
    /// operation).
    var letters: LetterSet
    /// Account SAS resource type: `s`, `c` or `o`.
    var resourceType: LetterSet
    /// Role actions, any of which suffices ("Permissions for calling blob and queue data operations").
    var actions: [Action]
    /// Which service SAS scopes reach the operation.
    var takesContainerSAS = true
    var takesBlobSAS = false
    /// The public access level a container must have for anonymous callers; nil keeps them out.
    var publicAccess: ContainerRecord.PublicAccess?

    private static let root = "Microsoft.Storage/storageAccounts/blobServices"
    private static let read = Action.data(root + "/containers/blobs/read")
    private static let write = Action.data(root + "/containers/blobs/write")
    private static let add = Action.data(root + "/containers/blobs/add/action")
    private static let delete = Action.data(root + "/containers/blobs/delete")

    static let overwriteActions = [write]

    static let readBlob = Access(
        letters: "r", resourceType: "o", actions: [read], takesBlobSAS: true, publicAccess: .blob)
    /// Writes that create: `c` alone allows it while nothing stands there (`mayOverwrite`).
    static let putBlob = Access(letters: "wc", resourceType: "o", actions: [write, add], takesBlobSAS: true)
    static let writeBlob = Access(letters: "w", resourceType: "o", actions: [write], takesBlobSAS: true)
    static let appendBlob = Access(letters: "aw", resourceType: "o", actions: [write, add], takesBlobSAS: true)
    static let snapshotBlob = Access(
        letters: "cw", resourceType: "o", actions: [write, add], takesBlobSAS: true)
    static let deleteBlob = Access(letters: "d", resourceType: "o", actions: [delete], takesBlobSAS: true)
    static let leaseBlob = Access(letters: "wd", resourceType: "o", actions: [write], takesBlobSAS: true)
    static let readTags = Access(
        letters: "t", resourceType: "o", actions: [.data(root + "/containers/blobs/tags/read")], takesBlobSAS: true)
    static let writeTags = Access(
        letters: "t", resourceType: "o", actions: [.data(root + "/containers/blobs/tags/write")], takesBlobSAS: true)

    static let listBlobs = Access(letters: "l", resourceType: "c", actions: [read], publicAccess: .container)
    /// Get Account Information at a container.
    static let containerInformation = Access(letters: "rl", resourceType: "c", actions: [read])
    static let readContainer = Access(
        letters: "r", resourceType: "c", actions: [.control(root + "/containers/read")], takesContainerSAS: false,
        publicAccess: .container)
    static let createContainer = Access(
        letters: "cw", resourceType: "c", actions: [.control(root + "/containers/write")],
        takesContainerSAS: false)
    static let writeContainer = Access(
        letters: "w", resourceType: "c", actions: [.control(root + "/containers/write")], takesContainerSAS: false)
    static let leaseContainer = Access(
        letters: "wd", resourceType: "c", actions: [.control(root + "/containers/write")],
        takesContainerSAS: false)
    static let deleteContainer = Access(
        letters: "d", resourceType: "c", actions: [.control(root + "/containers/delete")], takesContainerSAS: false)
    /// Access policies are never read or written with a SAS: its holder could extend its own rights.
    static let readACL = Access(
        letters: "", resourceType: "c", actions: [.control(root + "/containers/getAcl/action")],
        takesContainerSAS: false)
    static let writeACL = Access(
        letters: "", resourceType: "c", actions: [.control(root + "/containers/setAcl/action")],
        takesContainerSAS: false)

    static let listContainers = Access(
        letters: "l", resourceType: "s", actions: [.control(root + "/containers/read")], takesContainerSAS: false)
    static let readService = Access(
        letters: "r", resourceType: "s", actions: [.control(root + "/read")], takesContainerSAS: false)
    static let writeService = Access(
        letters: "w", resourceType: "s", actions: [.control(root + "/write")], takesContainerSAS: false)
    static let delegateKey = Access(
        letters: "", resourceType: "s", actions: [.control(root + "/generateUserDelegationKey/action")],
        takesContainerSAS: false)
}

extension BlobService {
    /// Throws unless the caller may. Anonymous callers pass here only where the operation is open to some; `enter` asks
    /// the container.
    func authorize(_ call: BlobCall, _ access: Access, container: String? = nil, blob: String? = nil)
        throws(StorageError)
    {
        switch call.caller {
        case .accountKey: return
        case .sharedAccess(let grant): try authorize(call, grant, access, container, blob)
        case .principal(let caller): try requireAny(access.actions, caller, call, container)
        case .anonymous:
            guard access.publicAccess != nil, container != nil else { throw noAuthentication(call) }
        }
    }

    private func authorize(
        _ call: BlobCall, _ grant: SharedAccessGrant, _ access: Access, _ container: String?, _ blob: String?
    ) throws(StorageError) {
        switch grant.scope {
        case .account(let types):
            guard types.contains(access.resourceType) else { throw .resourceTypeMismatch }
        case .container(let name):
            guard access.takesContainerSAS, name == container else { throw .authorizationFailure }
        case .blob(let grantedContainer, let grantedBlob):
            guard access.takesBlobSAS, grantedContainer == container, grantedBlob == blob,
                (call.parameters["snapshot"] ?? "").isEmpty
            else { throw .authorizationFailure }
        case .snapshot(let grantedContainer, let grantedBlob, let snapshot):
            guard access.takesBlobSAS, grantedContainer == container, grantedBlob == blob,
                call.parameters["snapshot"] == snapshot
            else { throw .authorizationFailure }
        }
        guard !access.letters.isDisjoint(with: grant.permissions) else { throw .permissionMismatch }
        // A user delegation SAS gives no more than its principal has.
        if let principal = grant.delegatingPrincipal { try requireAny(access.actions, principal, call, container) }
    }

    private func requireAny(
        _ actions: [Action], _ caller: Caller, _ call: BlobCall, _ container: String?
    ) throws(StorageError) {
        var refusal = StorageError.permissionMismatch
        for action in actions {
            do throws(StorageError) {
                try accounts.requireRole(caller, action, account: call.account, container: container)
                return
            } catch {
                refusal = error
            }
        }
        throw refusal
    }

    /// Whether the caller may replace what stands there, not only create.
    func mayOverwrite(_ call: BlobCall, container: String) -> Bool {
        switch call.caller {
        case .accountKey: return true
        case .anonymous: return false
        case .principal(let caller): return (try? requireAny(Access.overwriteActions, caller, call, container)) != nil
        case .sharedAccess(let grant):
            guard grant.permissions.contains("w") else { return false }
            guard let principal = grant.delegatingPrincipal else { return true }
            return (try? requireAny(Access.overwriteActions, principal, call, container)) != nil
        }
    }

    /// Authorizes, then finds the container. What does not exist is told only to those who may know.
    func enter(_ call: BlobCall, _ container: String, blob: String? = nil, _ access: Access) async throws
        -> ContainerHandle
    {
        try authorize(call, access, container: container, blob: blob)
        if case .anonymous = call.caller {
            guard call.account.allowsBlobPublicAccess else { throw StorageError.publicAccessNotPermitted }
            guard let handle = try await self.container(container, of: call.account),
                let level = handle.record.publicAccess,
                level == .container || access.publicAccess == .blob
            else { throw noAuthentication(call) }
            return handle
        }
        guard let handle = try await self.container(container, of: call.account) else {
            throw StorageError.containerNotFound
        }
        return handle
    }

    /// 401 with a challenge for clients that name a version which knows it (2019-12-12), 404 for others, as Azure
    /// answers.
    func noAuthentication(_ call: BlobCall) -> StorageError {
        guard let version = call.request.header("x-ms-version"), version >= "2019-12-12" else {
            return .resourceNotFound
        }
        return accounts.noAuthenticationInformation(call.request)
    }
}
