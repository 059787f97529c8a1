internal import CofferCore
internal import EncryptionAtRest
internal import Foundation
internal import HTTPEdge
internal import NIOHTTP1

extension GraphService {
    func servicePrincipals(_ call: GraphCall) async throws -> Response {
        guard call.path.count > 1 else {
            switch call.method {
            case .GET: return try await listServicePrincipals(call)
            case .POST: return try await createServicePrincipal(call)
            default: throw GraphError.badRequest("The method is not allowed on servicePrincipals.")
            }
        }
        let principal = try await findServicePrincipal(call.path[1])
        switch (call.method, call.path.dropFirst(2).map { $0.lowercased() }) {
        case (.GET, []): return .json(.ok, try await json(principal).serialized())
        case (.GET, ["owners"]), (.GET, ["memberof"]), (.GET, ["transitivememberof"]):
            // No owners are recorded and there are no groups.
            return Self.list([], context: "directoryObjects")
        case (.PATCH, []): return try await updateServicePrincipal(principal.id, call)
        case (.DELETE, []): return try await deleteServicePrincipal(principal)
        case (.POST, ["addpassword"]), (.POST, ["removepassword"]):
            return try await changePassword(call) { change in
                try await self.changePrincipal(principal.id) { change(&$0.secrets) }
            }
        default: throw GraphError.badRequest("Resource not found for the segment '\(call.path.last ?? "")'.")
        }
    }

    private func findServicePrincipal(_ key: String) async throws -> ServicePrincipal {
        let found =
            key.lowercased().hasPrefix("appid=")
            ? try await identity.directory.principal(ofApplication: String(key.dropFirst(6)))
            : try await identity.directory.principal(key)
        guard let found else { throw GraphError.notFound(key) }
        return found.value
    }

    private func listServicePrincipals(_ call: GraphCall) async throws -> Response {
        let applications = Dictionary(try await identity.directory.applications().map { ($0.appID, $0) }) { first, _ in
            first
        }
        let found = try filtered(try await identity.directory.principals(), call) { principal, path in
            switch path.lowercased() {
            case "id": [principal.id]
            case "appid": [principal.appID]
            case "displayname": [principal.displayName]
            case "serviceprincipaltype": [principal.kind.rawValue]
            case "serviceprincipalnames": principal.names(applications[principal.appID])
            case "alternativenames": principal.resource.map { [$0.description] } ?? []
            case "accountenabled": [principal.isEnabled ? "true" : "false"]
            default: nil
            }
        }
        var values: [JSONValue] = []
        for principal in found { values.append(json(principal, applications[principal.appID])) }
        return Self.list(values, context: "servicePrincipals")
    }

    private func createServicePrincipal(_ call: GraphCall) async throws -> Response {
        guard let appID = call.body?.member("appId")?.stringValue?.lowercased() else {
            throw GraphError.badRequest("The property 'appId' is required.")
        }
        guard let application = try await identity.directory.application(appID)?.value else {
            throw GraphError(
                status: .badRequest, code: "Request_BadRequest",
                message:
                    "The appId '\(appID.prefix(64))' of the service principal does not reference a valid application "
                    + "object."
            )
        }
        let principal = ServicePrincipal(
            id: identity.randomness.uuidString(), appID: appID, kind: .application,
            displayName: application.displayName,
            created: identity.clock.now())
        let isCommitted = try await identity.directory.commit(
            [.absent(DirectoryRecords.principalOfKey(appID)), .present(DirectoryRecords.applicationKey(appID))],
            [
                DirectoryRecords.put(DirectoryRecords.principalKey(principal.id), principal),
                DirectoryRecords.put(DirectoryRecords.principalOfKey(appID), text: principal.id),
            ])
        guard isCommitted else {
            throw GraphError(
                status: .conflict, code: "Request_MultipleObjectsWithSameKeyValue",
                message: "The service principal cannot be created, because one for the appId '\(appID)' already exists."
            )
        }
        return .json(.created, json(principal, application).serialized())
    }

    private func updateServicePrincipal(_ id: String, _ call: GraphCall) async throws -> Response {
        let body = call.body ?? [:]
        let known: Set<String> = ["accountenabled", "displayname"]
        guard let members = body.objectValue, members.keys.allSatisfy({ known.contains($0.lowercased()) }) else {
            throw GraphError.badRequest(
                "Only 'accountEnabled' and 'displayName' of a service principal can be updated on this server.")
        }
        try await changePrincipal(id) { principal in
            if let isEnabled = body.member("accountEnabled")?.boolValue { principal.isEnabled = isEnabled }
            if let name = body.member("displayName")?.stringValue { principal.displayName = name }
        }
        return Response(status: .noContent)
    }

    private func deleteServicePrincipal(_ principal: ServicePrincipal) async throws -> Response {
        guard principal.kind == .application else {
            throw GraphError(
                status: .forbidden, code: "Authorization_RequestDenied",
                message: "A managed identity goes with its resource; it cannot be deleted here.")
        }
        _ = try await identity.directory.commit(
            [],
            [
                .delete(DirectoryRecords.principalKey(principal.id)),
                .delete(DirectoryRecords.principalOfKey(principal.appID)),
            ])
        return Response(status: .noContent)
    }

    private func changePrincipal(_ id: String, _ change: (inout ServicePrincipal) -> Void) async throws {
        try await identity.directory.retrying { () -> Void? in
            guard let stored = try await identity.directory.principal(id) else { throw GraphError.notFound(id) }
            var principal = stored.value
            change(&principal)
            let key = DirectoryRecords.principalKey(id)
            return try await identity.directory.commit(
                [.unchanged(key, stored.version)], [DirectoryRecords.put(key, principal)]) ? () : nil
        }
    }

    // MARK: JSON

    func json(_ principal: ServicePrincipal, isTyped: Bool = false) async throws -> JSONValue {
        var value = json(principal, try await identity.directory.application(principal.appID)?.value)
        if isTyped { value["@odata.type"] = "#microsoft.graph.servicePrincipal" }
        return value
    }

    func json(_ principal: ServicePrincipal, _ application: Application?) -> JSONValue {
        [
            "id": .string(principal.id), "appId": .string(principal.appID),
            "displayName": .string(principal.displayName),
            "appDisplayName": .string(application?.displayName ?? principal.displayName),
            "accountEnabled": .bool(principal.isEnabled),
            "servicePrincipalType": .string(principal.kind.rawValue),
            "servicePrincipalNames": .array(principal.names(application).map { .string($0) }),
            "alternativeNames": principal.resource.map { ["isExplicit=False", .string($0.description)] } ?? [],
            "appOwnerOrganizationId": .string(identity.installation.tenantID),
            "createdDateTime": .string(principal.created.iso8601),
            "passwordCredentials": .array(principal.secrets.map(Self.json)), "keyCredentials": [],
            "deletedDateTime": .null,
        ]
    }

    /// Never the secret itself, which is not kept.
    static func json(_ secret: ClientSecret) -> JSONValue {
        [
            "keyId": .string(secret.keyID), "displayName": secret.displayName.map { .string($0) } ?? .null,
            "hint": .string(secret.hint),
            "startDateTime": .string(secret.start.iso8601), "endDateTime": .string(secret.end.iso8601),
            "customKeyIdentifier": .null,
            "secretText": .null,
        ]
    }
}
