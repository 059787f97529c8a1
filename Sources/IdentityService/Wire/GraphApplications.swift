internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import HTTPEdge
internal import NIOHTTP1

extension GraphService {
    /// Secrets one application or service principal may have at a time.
    static let secretsLimit = 50
    /// Lifetime of a secret when the request names no end, in seconds: two years, as Graph.
    private static let secretLifetimeSeconds: Int64 = 2 * 365 * 86_400

    func applications(_ call: GraphCall) async throws -> Response {
        guard call.path.count > 1 else {
            switch call.method {
            case .GET: return try await listApplications(call)
            case .POST: return try await createApplication(call)
            default: throw GraphError.badRequest("The method is not allowed on applications.")
            }
        }
        let application = try await findApplication(call.path[1])
        switch (call.method, call.path.dropFirst(2).map { $0.lowercased() }) {
        case (.GET, []): return .json(.ok, json(application).serialized())
        case (.GET, ["owners"]):
            // No owners are recorded.
            return Self.list([], context: "directoryObjects")
        case (.PATCH, []): return try await updateApplication(application.appID, call)
        case (.DELETE, []): return try await deleteApplication(application)
        case (.POST, ["addpassword"]), (.POST, ["removepassword"]):
            return try await changePassword(call) { change in
                try await self.changeApplication(application.appID) { change(&$0.secrets) }
            }
        default: throw GraphError.badRequest("Resource not found for the segment '\(call.path.last ?? "")'.")
        }
    }

    private func findApplication(_ key: String) async throws -> Application {
        let found =
            key.lowercased().hasPrefix("appid=")
            ? try await identity.directory.application(String(key.dropFirst(6)))?.value
            : try await application(byObjectID: key)
        guard let found else { throw GraphError.notFound(key) }
        return found
    }

    private func listApplications(_ call: GraphCall) async throws -> Response {
        let found = try filtered(try await identity.directory.applications(), call) { application, path in
            switch path.lowercased() {
            case "id": [application.id]
            case "appid": [application.appID]
            case "displayname": [application.displayName]
            case "identifieruris": application.identifierURIs
            default: nil
            }
        }
        return Self.list(found.map { json($0) }, context: "applications")
    }

    private func createApplication(_ call: GraphCall) async throws -> Response {
        guard let name = call.body?.member("displayName")?.stringValue, (1...256).contains(name.count) else {
            throw GraphError.badRequest("The property 'displayName' is required, with 1 to 256 characters.")
        }
        try Self.refuseKeys(call.body)
        var application = Application(
            id: identity.randomness.uuidString(), appID: identity.randomness.uuidString(), displayName: name,
            created: identity.clock.now())
        try await apply(call.body ?? [:], to: &application)
        let key = DirectoryRecords.applicationKey(application.appID)
        guard try await identity.directory.commit([.absent(key)], [DirectoryRecords.put(key, application)]) else {
            throw GraphError.unavailable
        }
        return .json(.created, json(application).serialized())
    }

    private func updateApplication(_ appID: String, _ call: GraphCall) async throws -> Response {
        try Self.refuseKeys(call.body)
        try await changeApplication(appID) { try await self.apply(call.body ?? [:], to: &$0) }
        return Response(status: .noContent)
    }

    private static func refuseKeys(_ body: JSONValue?) throws(GraphError) {
        for name in ["keyCredentials", "passwordCredentials"] where body?.member(name)?.arrayValue?.isEmpty == false {
            throw .badRequest("'\(name)' cannot be written on this server; use addPassword for a client secret.")
        }
    }

    private func apply(_ body: JSONValue, to application: inout Application) async throws {
        if let name = body.member("displayName")?.stringValue {
            guard (1...256).contains(name.count) else {
                throw GraphError.badRequest("'displayName' has 1 to 256 characters.")
            }
            application.displayName = name
        }
        if let version = body.member("api")?.member("requestedAccessTokenVersion")?.intValue {
            guard [1, 2].contains(version) else {
                throw GraphError.badRequest("'requestedAccessTokenVersion' is 1 or 2.")
            }
            application.requestedAccessTokenVersion = Int(version)
        }
        if let uris = body.member("identifierUris")?.arrayValue {
            let uris = uris.compactMap(\.stringValue)
            // An identifier URI must not pass for one of Azure's own resources: a token for it would open them.
            for uri in uris {
                guard uri.utf8.count <= 255, uri.contains("://"), identity.audiences.audience(uri) == nil else {
                    throw GraphError.badRequest("The identifier URI '\(uri.prefix(100))' is not valid.")
                }
                let isTaken = try await identity.directory.applications().contains { other in
                    other.appID != application.appID
                        && other.identifierURIs.contains { $0.lowercased() == uri.lowercased() }
                }
                guard !isTaken else {
                    throw GraphError.badRequest("The identifier URI '\(uri)' belongs to another application.")
                }
            }
            application.identifierURIs = uris
        }
    }

    private func deleteApplication(_ application: Application) async throws -> Response {
        var writes: [RecordWrite] = [.delete(DirectoryRecords.applicationKey(application.appID))]
        if let principal = try await identity.directory.principal(ofApplication: application.appID)?.value {
            writes += [
                .delete(DirectoryRecords.principalKey(principal.id)),
                .delete(DirectoryRecords.principalOfKey(application.appID)),
            ]
        }
        _ = try await identity.directory.commit([], writes)
        return Response(status: .noContent)
    }

    private func changeApplication(_ appID: String, _ change: (inout Application) async throws -> Void) async throws {
        try await identity.directory.retrying { () -> Void? in
            guard let stored = try await identity.directory.application(appID) else { throw GraphError.notFound(appID) }
            var application = stored.value
            try await change(&application)
            let key = DirectoryRecords.applicationKey(appID)
            return try await identity.directory.commit(
                [.unchanged(key, stored.version)], [DirectoryRecords.put(key, application)]) ? () : nil
        }
    }

    func json(_ application: Application) -> JSONValue {
        [
            "id": .string(application.id), "appId": .string(application.appID),
            "displayName": .string(application.displayName),
            "createdDateTime": .string(application.created.iso8601),
            "identifierUris": .array(application.identifierURIs.map { .string($0) }),
            "signInAudience": "AzureADMyOrg", "publisherDomain": .null, "deletedDateTime": .null,
            "passwordCredentials": .array(application.secrets.map(Self.json)), "keyCredentials": [],
            "api": [
                "requestedAccessTokenVersion": application.requestedAccessTokenVersion.map { .integer(Int64($0)) }
                    ?? .null
            ],
        ]
    }

    // MARK: Secrets

    /// `addPassword` and `removePassword` of an object. `change` applies to its secrets, durably.
    func changePassword(_ call: GraphCall, _ change: ((inout [ClientSecret]) -> Void) async throws -> Void) async throws
        -> Response
    {
        call.path.last?.lowercased() == "addpassword"
            ? try await addPassword(call, change) : try await removePassword(call, change)
    }

    /// Answers the new secret once.
    private func addPassword(_ call: GraphCall, _ change: ((inout [ClientSecret]) -> Void) async throws -> Void)
        async throws
        -> Response
    {
        let wanted = call.body?.member("passwordCredential")
        let now = identity.clock.now()
        let start = try Self.time(wanted, "startDateTime") ?? now
        let end = try Self.time(wanted, "endDateTime") ?? start.adding(seconds: Self.secretLifetimeSeconds)
        guard start < end, now < end else {
            throw GraphError.badRequest("The secret would have expired already: check 'endDateTime'.")
        }
        let (secret, record) = ClientSecret.generate(
            displayName: wanted?.member("displayName")?.stringValue.map { String($0.prefix(256)) }, start: start,
            end: end,
            rounds: identity.secretRounds, randomness: identity.randomness)
        var isFull = false
        try await change { secrets in
            isFull = secrets.count >= Self.secretsLimit
            if !isFull { secrets.append(record) }
        }
        guard !isFull else {
            throw GraphError.badRequest("There are \(Self.secretsLimit) secrets already; remove one first.")
        }
        var value = Self.json(record)
        value["secretText"] = .string(secret.reveal())
        return .json(.ok, value.serialized(), headers: ["Cache-Control": "no-store"])
    }

    private func removePassword(_ call: GraphCall, _ change: ((inout [ClientSecret]) -> Void) async throws -> Void)
        async throws
        -> Response
    {
        guard let keyID = call.body?.member("keyId")?.stringValue?.lowercased() else {
            throw GraphError.badRequest("The property 'keyId' is required.")
        }
        var isFound = false
        try await change { secrets in
            isFound = secrets.contains { $0.keyID == keyID }
            secrets.removeAll { $0.keyID == keyID }
        }
        guard isFound else {
            throw GraphError.badRequest("No password credential found with keyId '\(keyID.prefix(64))'.")
        }
        return Response(status: .noContent)
    }

    private static func time(_ value: JSONValue?, _ name: String) throws(GraphError) -> Timestamp? {
        guard let text = value?.member(name)?.stringValue else { return nil }
        guard let time = Timestamp(iso8601: text) else { throw .badRequest("'\(name)' is not a time.") }
        return time
    }
}
