public import CofferCore
internal import EncryptionAtRest

/// The administrator service principal, as the composition root hands it to the operator and to Resource Manager.
public struct Administrator: Sendable {
    /// The application (client) identifier.
    public let clientID: String
    /// What role assignments name.
    public let objectID: String
    /// Present only when it was made by this very call; it cannot be read again.
    public let secret: RedactedString?
}

private struct AdministratorRecord: Codable, Sendable {
    let clientID: String
    let objectID: String
}

extension IdentityService {
    /// The administrator's secret lives this long, in seconds (ten years): `resetAdministratorSecret` is the way to
    /// change it.
    private static let administratorSecretLifetimeSeconds: Int64 = 10 * 365 * 86_400

    /// Makes the signing key and the administrator at the first start, loads them at later ones, and publishes the keys
    /// to the verifier.
    ///
    /// The secret is returned once. When the process dies before it is kept, the next start returns none: then
    /// `resetAdministratorSecret`.
    public func bootstrap() async throws -> Administrator {
        try await directory.retrying {
            if let keys = try await directory.read(DirectoryRecords.signingKeysKey, as: [SigningKeyRecord].self),
                let known = try await directory.read(DirectoryRecords.administratorKey, as: AdministratorRecord.self)
            {
                try await adopt(keys.value)
                return Administrator(clientID: known.value.clientID, objectID: known.value.objectID, secret: nil)
            }
            return try await firstStart()
        }
    }

    private func firstStart() async throws -> Administrator? {
        let now = clock.now()
        let key = try SigningKeyRecord.generate(at: now)
        let (secret, record) = newAdministratorSecret(at: now)
        let application = Application(
            id: randomness.uuidString(), appID: randomness.uuidString(), displayName: "coffer-administrator",
            created: now, secrets: [record])
        var principal = ServicePrincipal(
            id: randomness.uuidString(), appID: application.appID, kind: .application,
            displayName: application.displayName, created: now)
        principal.isAdministrator = true
        let checks: [RecordCheck] = [
            .absent(DirectoryRecords.signingKeysKey), .absent(DirectoryRecords.administratorKey),
        ]
        let isCommitted = try await directory.commit(
            checks,
            [
                DirectoryRecords.put(DirectoryRecords.signingKeysKey, [key]),
                DirectoryRecords.put(
                    DirectoryRecords.administratorKey,
                    AdministratorRecord(clientID: application.appID, objectID: principal.id)),
                DirectoryRecords.put(DirectoryRecords.applicationKey(application.appID), application),
                DirectoryRecords.put(DirectoryRecords.principalKey(principal.id), principal),
                DirectoryRecords.put(DirectoryRecords.principalOfKey(application.appID), text: principal.id),
            ])
        guard isCommitted else { return nil }
        try await adopt([key])
        return Administrator(clientID: application.appID, objectID: principal.id, secret: secret)
    }

    /// Gives the administrator a new secret and drops every older one. Makes the application again if it was deleted.
    public func resetAdministratorSecret() async throws -> Administrator {
        try await directory.retrying {
            guard
                let known = try await directory.read(DirectoryRecords.administratorKey, as: AdministratorRecord.self)?
                    .value
            else {
                throw SealedStoreError(.unavailable, "The directory has no administrator yet: start the server once.")
            }
            let now = clock.now()
            let (secret, record) = newAdministratorSecret(at: now)
            let stored = try await directory.application(known.clientID)
            var application =
                stored?.value
                ?? Application(
                    id: randomness.uuidString(), appID: known.clientID, displayName: "coffer-administrator",
                    created: now)
            application.secrets = [record]
            var principal =
                try await directory.principal(known.objectID)?.value
                ?? ServicePrincipal(
                    id: known.objectID, appID: known.clientID, kind: .application, displayName: application.displayName,
                    created: now)
            principal.isAdministrator = true
            principal.isEnabled = true
            principal.secrets = []
            let key = DirectoryRecords.applicationKey(known.clientID)
            let isCommitted = try await directory.commit(
                [stored.map { .unchanged(key, $0.version) } ?? .absent(key)],
                [
                    DirectoryRecords.put(key, application),
                    DirectoryRecords.put(DirectoryRecords.principalKey(principal.id), principal),
                    DirectoryRecords.put(DirectoryRecords.principalOfKey(known.clientID), text: principal.id),
                ])
            return isCommitted ? Administrator(clientID: known.clientID, objectID: known.objectID, secret: secret) : nil
        }
    }

    /// Makes a new signing key. Tokens signed with the one before stay valid until they expire; older ones do not.
    public func rollSigningKey() async throws {
        let records = try await directory.retrying { () -> [SigningKeyRecord]? in
            guard let stored = try await directory.read(DirectoryRecords.signingKeysKey, as: [SigningKeyRecord].self)
            else {
                throw SigningKeyMissing()
            }
            let records = Array(
                (stored.value + [try SigningKeyRecord.generate(at: clock.now())]).suffix(SigningKeys.keptLimit))
            let isCommitted = try await directory.commit(
                [.unchanged(DirectoryRecords.signingKeysKey, stored.version)],
                [DirectoryRecords.put(DirectoryRecords.signingKeysKey, records)])
            return isCommitted ? records : nil
        }
        try await adopt(records)
    }

    private func newAdministratorSecret(at now: Timestamp) -> (RedactedString, ClientSecret) {
        ClientSecret.generate(
            displayName: "first start", start: now, end: now.adding(seconds: Self.administratorSecretLifetimeSeconds),
            rounds: secretRounds,
            randomness: randomness)
    }
}
