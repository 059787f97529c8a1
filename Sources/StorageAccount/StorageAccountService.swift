public import AccessControl
public import CofferCore
public import EncryptionAtRest
public import Logging
public import ResourceProviders
internal import Synchronization

/// The resource provider Microsoft.Storage, and what its data planes share: accounts, their keys, their encryption, and
/// who may ask them.
///
/// `StorageAccountRoutes.swift` has the control plane's routes, `Operations/` what they do, `Authentication/` what a
/// data plane's request proves.
public final class StorageAccountService: StorageAccounts, ResourceProvider {
    let store: SealedStore
    let access: AccessController
    let tokens: TokenVerifier
    let identities: any ManagedIdentities
    let eligibility: any CustomerKeyEligibility
    let installation: Installation
    /// In lower case, as tokens and identities are compared.
    let tenantID: String
    let hostNames: HostNames
    let clock: any WallClock
    let randomness: any Randomness
    let logger: Logger
    let directory: AccountDirectory
    private let containers = Mutex<ContainerResources?>(nil)

    /// `store` needs its customer keys attached before the first account takes one. Reads nothing yet.
    public init(
        store: SealedStore, access: AccessController, tokens: TokenVerifier, identities: any ManagedIdentities,
        eligibility: any CustomerKeyEligibility, installation: Installation, hostNames: HostNames, clock: any WallClock,
        randomness: any Randomness, logger: Logger
    ) {
        self.store = store
        self.access = access
        self.tokens = tokens
        self.identities = identities
        self.eligibility = eligibility
        self.installation = installation
        tenantID = installation.tenantID.lowercased()
        self.hostNames = hostNames
        self.clock = clock
        self.randomness = randomness
        self.logger = logger
        directory = AccountDirectory(store: store, identities: identities, logger: logger)
    }

    /// Serves `blobServices/default/containers[/{name}]` of the control plane; the request has been authorized. Set
    /// once by the composition root; until then those resources answer 501.
    public typealias ContainerResources =
        @Sendable (ControlRequest, StorageAccountView) async throws(ControlError) -> ControlResponse
    public func attachContainers(_ resources: @escaping ContainerResources) { containers.withLock { $0 = resources } }
    var containerResources: ContainerResources? { containers.withLock { $0 } }

    // MARK: StorageAccounts

    public func account(named name: String) async throws(StorageError) -> StorageAccountView {
        if let account = try await loadedAccount(named: name) { return account.view }
        if name.hasSuffix(Self.secondarySuffix),
            let account = try await loadedAccount(named: String(name.dropLast(Self.secondarySuffix.count))),
            account.record.allowsSecondaryReads
        {
            return account.view
        }
        throw StorageError(
            404, "ResourceNotFound", "The specified account does not exist: no storage account is named '\(name)'.")
    }

    public func requireRole(
        _ caller: Caller, _ action: Action, account: StorageAccountView, container: String?
    ) throws(StorageError) {
        let scope =
            container.map { account.resourceID.appending("blobServices", "default", "containers", $0) }
            ?? account.resourceID
        guard access.decide(caller, action, at: scope).isAllowed else {
            throw StorageError(
                403, "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission: "
                    + "'\(caller.objectID)' has no role that grants "
                    + "'\(action)' at '\(scope)'.")
        }
    }

    // MARK: In memory

    static let secondarySuffix = "-secondary"

    func loadedAccount(named name: String) async throws(StorageError) -> LoadedAccount? {
        do {
            return try await directory.account(named: name)
        } catch {
            throw StorageError(error)
        }
    }

    /// The account behind a view. A view outlives the account only for the length of its request.
    func loadedAccount(_ view: StorageAccountView) async throws(StorageError) -> LoadedAccount {
        guard let account = try await loadedAccount(named: view.name), account.view.id == view.id else {
            throw StorageError(404, "ResourceNotFound", "The specified account does not exist: it was deleted.")
        }
        return account
    }
}

extension StorageError {
    init(_ error: SealedStoreError) {
        switch error.code {
        case .unavailable, .outcomeUnknown, .full, .extentGone:
            self.init(503, "ServerBusy", "The server is busy: \(error.message)")
        case .corrupt, .keyMismatch, .limitExceeded:
            self.init(500, "InternalError", "The server encountered an internal error: \(error.message)")
        }
    }
}
