internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
public import ResourceProviders

extension StorageAccountService {
    static func action(_ name: String) -> Action { .control("Microsoft.Storage/storageAccounts/\(name)") }

    /// Storage Accounts – Get Properties.
    func getAccount(_ id: ResourceID, as caller: Caller, names: NameFamily) async throws(ControlError)
        -> ControlResponse
    {
        let account = try await readable(id, as: caller)
        return .json(200, try await resource(account.record, account.keys, names: names))
    }

    /// Storage Accounts – List and – List By Resource Group: those the caller may read.
    func listAccounts(below scope: ResourceID, as caller: Caller, names: NameFamily) async throws(ControlError)
        -> ControlResponse
    {
        var list: [JSONValue] = []
        for account in try await allAccounts() where scope.contains(account.record.resourceID) {
            guard access.decide(caller, Self.action("read"), at: account.record.resourceID).isAllowed else { continue }
            do throws(ControlError) {
                list.append(try await resource(account.record, account.keys, names: names))
            } catch {
                // Deleted since the list was taken: its key is gone, and so is it.
                guard try await isGone(account) else { throw error }
            }
        }
        return .json(200, ["value": .array(list)])
    }

    // MARK: Shared by the operations

    func require(_ caller: Caller, _ action: Action, at scope: ResourceID) throws(ControlError) {
        guard access.decide(caller, action, at: scope).isAllowed else {
            throw .authorizationFailed(caller, action, scope)
        }
    }

    /// The account of an identifier, for a caller who may do `action` there; 403 before 404.
    func account(_ id: ResourceID, as caller: Caller, _ action: Action) async throws(ControlError) -> LoadedAccount {
        try require(caller, action, at: id)
        return try await existing(id)
    }
    func readable(_ id: ResourceID, as caller: Caller) async throws(ControlError) -> LoadedAccount {
        try await account(id, as: caller, Self.action("read"))
    }

    func existing(_ id: ResourceID) async throws(ControlError) -> LoadedAccount {
        let account: LoadedAccount?
        do {
            account = try await directory.account(named: id.name.lowercased())
        } catch {
            throw ControlError(error)
        }
        guard let account, account.record.resourceID == id else { throw .resourceNotFound(id) }
        return account
    }

    private func isGone(_ account: LoadedAccount) async throws(ControlError) -> Bool {
        try await !allAccounts().contains { $0.record.id == account.record.id }
    }

    func allAccounts() async throws(ControlError) -> [LoadedAccount] {
        do {
            return try await directory.all()
        } catch {
            throw ControlError(error)
        }
    }

    func resource(_ record: AccountRecord, _ keys: AccountSecrets, names: NameFamily) async throws(ControlError)
        -> JSONValue
    {
        let status: AccountKeyStatus
        do {
            status = try await store.accountKeys.status(record.id)
        } catch {
            throw ControlError(error)
        }
        return AccountResource(
            record: record, keys: keys.keys.map { ($0.name, $0.created) }, encryption: status, names: names
        ).json
    }

    /// Runs a change of one account; whatever it throws arrives as a `ControlError`.
    func change<Result: Sendable>(
        _ name: String, _ body: (AccountRecords, AccountRecords.Stored?) async throws -> Result
    ) async throws(ControlError) -> Result {
        do {
            return try await directory.change(name, body)
        } catch {
            throw ControlError(anyError: error)
        }
    }
}

extension ControlError {
    init(_ error: SealedStoreError) {
        switch error.code {
        case .unavailable, .outcomeUnknown, .full, .extentGone:
            self.init(status: 503, code: "ServiceUnavailable", message: error.message)
        case .corrupt, .keyMismatch, .limitExceeded:
            self.init(status: 500, code: "InternalServerError", message: error.message)
        }
    }

    init(anyError error: any Error) {
        switch error {
        case let error as ControlError: self = error
        case let error as SealedStoreError: self.init(error)
        case let error as KeyUnavailable: self.init(error)
        default:
            self.init(status: 500, code: "InternalServerError", message: "The server encountered an internal error.")
        }
    }

    public static func invalidValue(_ parameter: String, _ why: String) -> ControlError {
        ControlError(
            status: 400, code: "InvalidValuesForRequestParameters",
            message: "Values for request parameters are invalid: \(parameter). \(why)")
    }
    static let conflict = ControlError(
        status: 409, code: "StorageAccountOperationInProgress",
        message:
            "An operation is currently performing on this storage account that requires exclusive access. Try again.")
}
