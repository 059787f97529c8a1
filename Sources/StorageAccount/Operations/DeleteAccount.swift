internal import CofferCore
internal import EncryptionAtRest
internal import Logging
internal import ResourceProviders

extension StorageAccountService {
    /// Storage Accounts – Delete: the account, its identity, its key, and with the key every byte. Returns false when
    /// there was none.
    func deleteAccount(_ id: ResourceID, as caller: Caller) async throws(ControlError) -> Bool {
        try require(caller, Self.action("delete"), at: id)
        let name = id.name.lowercased()
        return try await change(name) { records, stored in
            guard let stored, stored.account.resourceID == id else { return false }
            let account = stored.account
            let deletion = AccountRecords.Deletion(
                id: account.id, identityOf: account.identity == nil ? nil : account.resourceID)
            // The account's end and the duty to destroy its bytes and its identity become durable together: a crash
            // from here on only delays the rest.
            let result = try await records.records.commit(
                checks: [.unchanged(AccountRecords.accountKey(name), stored.accountVersion)],
                [
                    .delete(AccountRecords.accountKey(name)), .delete(AccountRecords.secretsKey(name)),
                    .delete(AccountRecords.blobServiceKey(name)), records.begin(deletion),
                ])
            guard result != .conflict else { throw ControlError.conflict }
            try await self.directory.finish(deletion)
            self.logger.info("Deleted a storage account.", metadata: ["account": "\(name)"])
            return true
        }
    }
}
