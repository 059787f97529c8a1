internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

extension StorageAccountService {
    /// Storage Accounts – List Keys. `expand=kerb` adds Kerberos keys where there are any; here there are none.
    func listKeys(_ id: ResourceID, as caller: Caller, expand: String?) async throws(ControlError) -> ControlResponse {
        if let expand, expand.lowercased() != "kerb" { throw .badRequest("$expand is kerb.") }
        let account = try await account(id, as: caller, Self.action("listKeys/action"))
        return keys(account.keys)
    }

    /// Storage Accounts – Regenerate Key: what the old key signed ends before this answers.
    func regenerateKey(_ id: ResourceID, _ body: JSONValue?, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        try require(caller, Self.action("regenerateKey/action"), at: id)
        guard let name = body?.member("keyName")?.stringValue else {
            throw .badRequest("The body needs a keyName.", code: "InvalidRequestContent")
        }
        guard let index = AccountSecrets.keyNames.firstIndex(of: name.lowercased()) else {
            throw .invalidValue("keyName", "It is key1 or key2.")
        }
        let secrets = try await change(id.name.lowercased()) { records, stored in
            guard let stored, stored.account.resourceID == id else { throw ControlError.resourceNotFound(id) }
            var secrets = stored.secrets
            secrets.keys[index] = AccountSecrets.Key(
                name: AccountSecrets.keyNames[index], created: self.clock.now(),
                secret: self.randomness.secret(AccountSecrets.keyByteCount))
            try await self.commit(secrets, stored, records)
            return secrets
        }
        logger.info("Renewed a storage account's key.", metadata: ["account": "\(id.name)", "key": "\(name)"])
        return keys(secrets)
    }

    /// Storage Accounts – Revoke User Delegation Keys: every such key, and what it signed, ends.
    func revokeUserDelegationKeys(_ id: ResourceID, as caller: Caller) async throws(ControlError) -> ControlResponse {
        try require(caller, Self.action("revokeUserDelegationKeys/action"), at: id)
        try await change(id.name.lowercased()) { records, stored in
            guard let stored, stored.account.resourceID == id else { throw ControlError.resourceNotFound(id) }
            var secrets = stored.secrets
            secrets.delegationSecret = self.randomness.secret(32)
            try await self.commit(secrets, stored, records)
        }
        return .empty(200)
    }

    private func commit(
        _ secrets: AccountSecrets, _ stored: AccountRecords.Stored, _ records: AccountRecords
    ) async throws {
        let result = try await records.records.commit(
            checks: [
                .unchanged(AccountRecords.secretsKey(stored.account.name), stored.secretsVersion),
                .unchanged(AccountRecords.accountKey(stored.account.name), stored.accountVersion),
            ], [try records.put(secrets, of: stored.account.name)])
        guard result != .conflict else { throw ControlError.conflict }
    }

    private func keys(_ secrets: AccountSecrets) -> ControlResponse {
        .json(
            200,
            [
                "keys": .array(
                    secrets.keys.map { key in
                        [
                            "keyName": .string(key.name),
                            "value": .string(key.secret.withUnsafeBytes { Array($0).base64 }),
                            "permissions": "FULL", "creationTime": .string(key.created.iso8601WithTicks),
                        ]
                    })
            ])
    }
}
