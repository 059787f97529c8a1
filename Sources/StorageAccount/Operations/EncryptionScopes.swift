internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

/// Encryption Scopes – List, – Get, – Put and – Patch (2025-01-01). There is no delete: a scope is disabled, and what
/// lies under it goes dark until it is enabled again.
extension StorageAccountService {
    /// "Azure Storage scalability targets": scopes of an account.
    static let encryptionScopesLimit = 10_000

    func encryptionScopes(_ request: ControlRequest, _ id: ResourceID, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        let isWrite = request.method == .put || request.method == .patch
        try require(caller, Self.action("encryptionScopes/\(isWrite ? "write" : "read")"), at: request.path)
        guard request.path.names.count > 1 else {
            guard request.method == .get else { throw methodNotAllowed(request) }
            return try await listEncryptionScopes(request, try await existing(id))
        }
        let name = request.path.names[1]
        switch request.method {
        case .get, .head:
            let account = try await existing(id)
            guard let scope = try Self.find(name, in: account.scopes) else { throw .resourceNotFound(request.path) }
            let value = try await resource(scope, of: account.record)
            return request.method == .get ? .json(200, value) : .empty(200)
        case .put:
            guard EncryptionScopeRecord.isValid(name: name) else {
                throw .invalidValue(
                    "encryptionScopeName", "It has 3 to 63 lower-case letters, digits and single dashes between them.")
            }
            return try await changeEncryptionScope(request, id, name, mayCreate: true)
        case .patch: return try await changeEncryptionScope(request, id, name, mayCreate: false)
        case .delete, .post: throw methodNotAllowed(request)
        }
    }

    // MARK: Read

    /// `$filter` is `startswith(name, 'prefix')`, or the prefix itself.
    private func listEncryptionScopes(
        _ request: ControlRequest, _ account: LoadedAccount
    ) async throws(ControlError) -> ControlResponse {
        let page = try EncryptionScopePage(request)
        let scopes = account.scopes.readable.values.filter(page.includes).sorted { $0.name < $1.name }
        var list: [JSONValue] = []
        for scope in scopes.prefix(page.maximum) {
            list.append(try await resource(scope, of: account.record, looksForRotation: false))
        }
        var answer: JSONValue = ["value": .array(list)]
        if scopes.count > page.maximum {
            answer["nextLink"] = .string(
                request.nextLink(
                    skipToken: scopes[page.maximum - 1].name, repeating: ["$filter", "$maxpagesize", "$include"]))
        }
        return .json(200, answer)
    }

    private static func find(
        _ name: String, in scopes: EncryptionScopes
    ) throws(ControlError) -> EncryptionScopeRecord? {
        do { return try scopes.find(name) } catch { throw ControlError(error) }
    }

    private func resource(
        _ scope: EncryptionScopeRecord, of account: AccountRecord, looksForRotation: Bool = true
    ) async throws(ControlError) -> JSONValue {
        let status: AccountKeyStatus
        do {
            status = try await store.accountKeys.status(
                account.id, scope: scope.name, looksForRotation: looksForRotation)
        } catch {
            throw ControlError(error)
        }
        var properties: JSONValue = [
            "state": .string(scope.state.rawValue), "creationTime": .string(scope.created.iso8601WithTicks),
            "lastModifiedTime": .string(scope.modified.iso8601WithTicks),
        ]
        switch status.source {
        case .platform: properties["source"] = "Microsoft.Storage"
        case .customer(let reference, let current, let lastRotation):
            properties["source"] = "Microsoft.KeyVault"
            properties["keyVaultProperties"] = [
                "keyUri": .string(reference.keyURI), "currentVersionedKeyIdentifier": .string(current),
                "lastKeyRotationTimestamp": .string(lastRotation.iso8601WithTicks),
            ]
        }
        return [
            "id": .string(account.resourceID.appending("encryptionScopes", scope.name).description),
            "name": .string(scope.name), "type": "Microsoft.Storage/storageAccounts/encryptionScopes",
            "properties": properties,
        ]
    }

    // MARK: Change

    /// 201 for a scope that was not there. The key is made, or moved, before the record says so: a refusal by the vault
    /// changes nothing.
    private func changeEncryptionScope(
        _ request: ControlRequest, _ id: ResourceID, _ name: String, mayCreate: Bool
    ) async throws(ControlError) -> ControlResponse {
        let wanted = try EncryptionScopeChange(request.body)
        // Also when the change throws: its outcome may be unknown.
        var disabledOf: AccountID?
        defer { if let disabledOf { store.accountKeys.withdraw(disabledOf, scope: name) } }
        return try await change(id.name.lowercased()) { records, stored in
            guard let stored, stored.account.resourceID == id else { throw ControlError.resourceNotFound(id) }
            let account = stored.account
            let known = try Self.find(name, in: stored.scopes)
            guard known != nil || mayCreate else { throw ControlError.resourceNotFound(request.path) }
            if known == nil { try await self.makeKey(of: name, in: account, wanted) }
            let status = try await self.store.accountKeys.status(account.id, scope: name)
            // A key that is left of a scope whose making was refused may lie in a vault.
            let target = try wanted.target(current: status.source) ?? (known == nil ? .platform : nil)
            try await self.moveKey(of: account, scope: name, from: status, to: target)
            let now = self.clock.now()
            var scope =
                known ?? EncryptionScopeRecord(name: name, state: .enabled, created: now, modified: now)
            scope.state = wanted.state ?? scope.state
            scope.modified = now
            if scope.state == .disabled { disabledOf = account.id }
            // The account's record is checked, so that no scope is written behind its deletion.
            let result = try await records.records.commit(
                checks: [.unchanged(AccountRecords.accountKey(account.name), stored.accountVersion)],
                [try records.put(scope, of: account.id)])
            guard result != .conflict else { throw ControlError.conflict }
            return .json(known == nil ? 201 : 200, try await self.resource(scope, of: account))
        }
    }

    /// Everything that can be refused is asked first: a key that is made stays.
    private func makeKey(
        of scope: String, in account: AccountRecord, _ wanted: EncryptionScopeChange
    ) async throws {
        if case .customer(let reference)? = try wanted.target(current: .platform) {
            _ = try await eligibleIdentity(of: account, for: reference)
        }
        guard try await store.accountKeys.scopeCount(account.id) < Self.encryptionScopesLimit else {
            throw ControlError(
                status: 409, code: "EncryptionScopeLimitReached",
                message: "A storage account has at most \(Self.encryptionScopesLimit) encryption scopes.")
        }
        try await store.accountKeys.create(account.id, scope: scope)
    }

    // MARK: For data planes

    public func requireEncryptionScope(_ name: String, of account: StorageAccountView) async throws(StorageError) {
        let scopes = try await loadedAccount(account).scopes
        let found: EncryptionScopeRecord?
        do { found = try scopes.find(name) } catch { throw StorageError(error) }
        guard let scope = found else {
            throw .encryptionScopeNotAvailable("there is no encryption scope '\(name)' in this account")
        }
        guard scope.state == .enabled else {
            throw .encryptionScopeNotAvailable("the encryption scope '\(name)' is disabled")
        }
    }
}

extension StorageError {
    /// Disabled or unknown: the concept's documentation says 403, the service answers 409 with this code.
    public static func encryptionScopeNotAvailable(_ why: String) -> StorageError {
        StorageError(
            409, "EncryptionScopeNotAvailable", "The encryption scope is not available to use: \(why).")
    }
}

/// What a list of scopes asks for.
private struct EncryptionScopePage {
    let maximum: Int
    private let prefix: String
    private let after: String
    private let state: EncryptionScopeRecord.State?

    /// "Encryption Scopes – List": at most 5,000 in an answer.
    private static let largestPage = 5_000

    init(_ request: ControlRequest) throws(ControlError) {
        var maximum = Self.largestPage
        if let text = request.query["$maxpagesize"] {
            guard let value = Int(text), value > 0 else {
                throw .invalidValue("$maxpagesize", "It is a number of encryption scopes, 1 or more.")
            }
            maximum = min(value, maximum)
        }
        self.maximum = maximum
        let filter = request.query["$filter"] ?? ""
        if filter.lowercased().hasPrefix("startswith(") {
            let parts = filter.split(separator: "'", omittingEmptySubsequences: false)
            guard parts.count == 3 else { throw .invalidValue("$filter", "It is startswith(name, 'prefix').") }
            prefix = String(parts[1])
        } else {
            prefix = filter
        }
        after = request.query["$skiptoken"] ?? ""
        switch request.query["$include"]?.lowercased() {
        case nil, "", "all": state = nil
        case "enabled": state = .enabled
        case "disabled": state = .disabled
        default: throw .invalidValue("$include", "It is All, Enabled or Disabled.")
        }
    }

    func includes(_ scope: EncryptionScopeRecord) -> Bool {
        scope.name.hasPrefix(prefix) && scope.name > after && (state == nil || scope.state == state)
    }
}
