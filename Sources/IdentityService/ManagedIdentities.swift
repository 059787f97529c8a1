public import CofferCore
internal import EncryptionAtRest
public import ResourceProviders

extension IdentityService: ManagedIdentities {
    public func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity {
        let key = DirectoryRecords.identityOfKey(resource)
        return try await directory.retrying {
            if let id = try await directory.text(key), let known = try await directory.principal(id)?.value {
                return identity(known)
            }
            var principal = ServicePrincipal(
                id: randomness.uuidString(), appID: randomness.uuidString(), kind: .managedIdentity,
                displayName: displayName,
                created: clock.now())
            principal.resource = resource
            let isCommitted = try await directory.commit(
                [.absent(key)],
                [
                    DirectoryRecords.put(key, text: principal.id),
                    DirectoryRecords.put(DirectoryRecords.principalKey(principal.id), principal),
                    DirectoryRecords.put(DirectoryRecords.principalOfKey(principal.appID), text: principal.id),
                ])
            return isCommitted ? identity(principal) : nil
        }
    }

    public func removeSystemAssignedIdentity(of resource: ResourceID) async throws {
        let key = DirectoryRecords.identityOfKey(resource)
        try await directory.retrying {
            guard let id = try await directory.text(key) else { return () }
            var writes: [RecordWrite] = [.delete(key), .delete(DirectoryRecords.principalKey(id))]
            if let principal = try await directory.principal(id)?.value {
                writes.append(.delete(DirectoryRecords.principalOfKey(principal.appID)))
            }
            return try await directory.commit([.present(key)], writes) ? () : nil
        }
    }

    /// Throws `IdentityRefusal` for a removed identity and for an audience no resource here has.
    public func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken {
        guard let principal = try await directory.principal(identity.principalID)?.value, principal.isEnabled else {
            throw IdentityRefusal.identityNotFound
        }
        guard let resolved = try await resource(audience) else { throw IdentityRefusal.unknownResource(audience) }
        return try await issue(to: principal, audience: resolved.audience, names: names.own)
    }

    public func servicePrincipal(
        applicationID: String, secret: RedactedString, tenantID: String
    ) async throws -> Caller {
        guard tenantID.lowercased() == installation.tenantID.lowercased() else {
            throw LoginError.applicationNotFound(applicationID, tenant: tenantID)
        }
        let principal = try await authenticate(applicationID, secret: secret.reveal())
        return Caller(
            kind: .servicePrincipal, objectID: principal.id, tenantID: installation.tenantID,
            applicationID: principal.appID)
    }

    private func identity(_ principal: ServicePrincipal) -> ManagedIdentity {
        ManagedIdentity(principalID: principal.id, clientID: principal.appID, tenantID: installation.tenantID)
    }

    /// The `aud` claim for a requested resource: one of Azure's, or an application of the tenant by identifier or
    /// identifier URI.
    func resource(_ requested: String) async throws -> (audience: String, version: Int)? {
        if let audience = audiences.audience(requested) { return (audience, 1) }
        let text = requested.lowercased()
        let appID = text.hasPrefix("api://") ? String(text.dropFirst(6)) : text
        if let application = try await directory.application(appID)?.value {
            return (requested, application.requestedAccessTokenVersion ?? 1)
        }
        let owner = try await directory.applications().first { $0.identifierURIs.contains { $0.lowercased() == text } }
        return owner.map { (requested, $0.requestedAccessTokenVersion ?? 1) }
    }
}

/// Why the identity endpoint issues no token.
public enum IdentityRefusal: Error, Sendable, Equatable {
    case identityNotFound
    case unknownResource(String)
}

extension IdentityService: PrincipalDirectory {
    public func principal(_ objectID: String) async throws -> DirectoryPrincipal? {
        try await directory.principal(objectID).map {
            DirectoryPrincipal(
                objectID: $0.value.id, displayName: $0.value.displayName, principalType: "ServicePrincipal")
        }
    }
}
