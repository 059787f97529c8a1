import CofferCore
import EncryptionAtRest
import Logging

extension KeyVaultService {
    func rotationPolicy(as caller: Caller, _ name: String, in address: VaultAddress) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.getRotationPolicy, object: name)
        return try await vault.find(.key, name, version: nil)
    }

    /// Replaces the policy. It holds for versions made from now on; `performDueWork` carries it out.
    func setRotationPolicy(
        as caller: Caller, _ name: String, in address: VaultAddress, _ policy: RotationPolicy
    ) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.setRotationPolicy, object: name)
        let updated = try await retryingConflicts { () async throws -> StoredObject? in
            var newest = try await vault.read(.key, name, version: nil)
            let now = clock.now()
            var policy = policy
            policy.created = newest.header.value.rotationPolicy?.created ?? now
            policy.updated = now
            newest.header.value.rotationPolicy = policy
            guard try await vault.objects.replace(.key, newest.header) else { return nil }
            return StoredObject(
                vault: vault.vault, kind: .key, header: newest.header.value, version: newest.version.value)
        }
        changed(.key, name, in: vault, "rotation policy set")
        return updated
    }

    /// Rotates every key whose policy says so by now, and purges what was deleted so long ago that its retention is
    /// over. Called from a timer; an hour between calls is plenty. What fails is logged, holds up nothing else, and is
    /// tried again at the next call.
    public func performDueWork() async {
        await loggingFailure("scheduled vault work stopped") {
            let ticket = handles.ticket()
            for vault in try await index.all() where !Task.isCancelled {
                await loggingFailure("scheduled work of a vault failed", vault) {
                    try await performDueWork(on: vault, ticket)
                }
            }
        }
    }

    /// Frees the private keys that nothing used for a while. Called from a timer.
    public func forgetIdleKeys() {
        handles.drop(unusedSince: clock.now().adding(seconds: -Limits.keyHandleIdleSeconds))
    }

    private func performDueWork(on vault: Vault, _ ticket: KeyHandles.Ticket) async throws {
        if let deletion = vault.deletion {
            if deletion.scheduledPurge <= clock.now() { try await purgeVault(named: vault.name) }
            return
        }
        // Nobody asks for this work but the policies; no permission is checked for the caller named here.
        let caller = Caller(kind: .servicePrincipal, objectID: "scheduled", tenantID: vault.tenantID)
        let opened = openVault(vault, as: caller, ticket)
        for kind in ObjectKind.allCases {
            for (_, header) in try await opened.objects.headers(kind, after: nil, limit: .max)
            where !Task.isCancelled {
                await loggingFailure("scheduled work of a \(kind.rawValue) failed", vault) {
                    try await performDueWork(on: kind, header, in: opened)
                }
            }
        }
    }

    private func performDueWork(on kind: ObjectKind, _ header: ObjectHeader, in vault: OpenVault) async throws {
        let now = clock.now()
        if let deletion = header.deletion {
            guard deletion.scheduledPurge <= now, let read = try await vault.objects.header(kind, header.name),
                read.value.deletion == deletion, try await vault.objects.purge(kind, read)
            else { return }
            changed(kind, header.name, in: vault, "purged at the end of its retention")
        } else if let policy = header.rotationPolicy,
            let newest = try await vault.objects.version(kind, header.name, sequence: header.latestSequence),
            let due = policy.rotationDue(newest.value.attributes), due <= now
        {
            _ = try await rotate(header.name, in: vault)
        }
    }

    private func loggingFailure(_ what: String, _ vault: Vault? = nil, _ work: () async throws -> Void) async {
        do { try await work() } catch {
            var metadata: Logger.Metadata = ["error": "\(error)"]
            if let vault { metadata["vault"] = "\(vault.name)" }
            logger.error("\(what)", metadata: metadata)
        }
    }
}
