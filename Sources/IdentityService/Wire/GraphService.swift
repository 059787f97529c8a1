internal import AccessControl
internal import CofferCore
internal import Foundation
public import HTTPEdge
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import ResourceProviders

/// The wire of Microsoft Graph (`graph.…`), as far as service principals and applications go.
///
/// Any principal of the tenant may read the directory, as in Entra by default; only an administrator of the directory
/// may change it. Source: Microsoft Graph REST API v1.0, "applications" and "servicePrincipals".
public struct GraphService: WireService {
    /// Largest request, in bytes.
    static let bodyBytesLimit = 1 << 20

    let identity: IdentityService
    private let audiences: Set<String>

    public init(_ identity: IdentityService) {
        self.identity = identity
        audiences = Set(identity.names.families.map { $0.url(of: .graph) } + ["https://graph.windows.net"])
    }

    public func respond(to request: Request) async -> Response {
        var response: Response
        do {
            response = try await answer(request)
        } catch let error as GraphError {
            response = error.response(request: request, at: identity.clock.now())
        } catch {
            identity.logger.error(
                "directory request failed", metadata: ["error": "\(error)", "request": "\(request.id)"])
            response = GraphError.unavailable.response(request: request, at: identity.clock.now())
        }
        response.headers.replaceOrAdd(name: "request-id", value: request.id)
        response.headers.replaceOrAdd(name: "Cache-Control", value: "no-cache")
        if let client = request.header("client-request-id"), UUID(uuidString: client) != nil {
            response.headers.replaceOrAdd(name: "client-request-id", value: client)
        }
        return response
    }

    private func answer(_ request: Request) async throws -> Response {
        let caller = try await authenticate(request)
        guard let segments = request.pathSegments, let version = segments.first?.lowercased(),
            ["v1.0", "beta"].contains(version)
        else {
            throw GraphError.badRequest("Invalid version: the path begins with /v1.0 or /beta.")
        }
        let body = try await body(request)
        let call = GraphCall(
            method: request.method, path: Self.expanded(Array(segments.dropFirst())),
            query: Dictionary(request.query.map { ($0.name.lowercased(), $0.value) }) { first, _ in first }, body: body,
            names: request.names)
        if ![.GET, .HEAD].contains(request.method), call.path.first?.lowercased() != "directoryobjects" {
            try await requireAdministrator(caller)
        }
        return try await route(call)
    }

    private func authenticate(_ request: Request) async throws -> Caller {
        guard let header = request.header("Authorization"), header.lowercased().hasPrefix("bearer ") else {
            throw GraphError.unauthenticated("Access token is empty.")
        }
        do {
            return try await identity.verifier.verify(
                String(header.dropFirst(7)).trimmingCharacters(in: .whitespaces), audiences: audiences)
        } catch {
            throw GraphError.unauthenticated(error.message)
        }
    }

    private func requireAdministrator(_ caller: Caller) async throws {
        guard try await identity.directory.principal(caller.objectID)?.value.isAdministrator == true else {
            throw GraphError.denied
        }
    }

    private func body(_ request: Request) async throws -> JSONValue? {
        guard ![.GET, .HEAD].contains(request.method) else { return nil }
        let buffer: ByteBuffer
        do {
            buffer = try await request.body.collect(upTo: Self.bodyBytesLimit)
        } catch {
            throw GraphError.badRequest("The request content is too large or did not arrive in full.")
        }
        guard buffer.readableBytes > 0 else { return nil }
        guard let value = try? JSONValue(parsing: buffer.readableBytesView), value.objectValue != nil else {
            throw GraphError.badRequest("Unable to read JSON request payload.")
        }
        return value
    }

    /// `servicePrincipals(appId='x')` becomes `servicePrincipals`, `appId=x`, an alternate key (OData 4.01 URL
    /// Conventions §4.3.6).
    static func expanded(_ segments: [String]) -> [String] {
        segments.flatMap { segment -> [String] in
            guard segment.hasSuffix(")"), let open = segment.firstIndex(of: "(") else { return [segment] }
            let inner = segment[segment.index(after: open)...].dropLast()
            return [String(segment[..<open]), String(inner).replacing("'", with: "")]
        }
    }

    private func route(_ call: GraphCall) async throws -> Response {
        let path = call.path.map { $0.lowercased() }
        switch (call.method, path.first, path.count) {
        case (.GET, "me"?, _):
            throw GraphError.badRequest("/me request is only valid with delegated authentication flow.")
        case (.GET, "users"?, 1), (.GET, "groups"?, 1):
            // The tenant has no users and no groups; a filter still has to make sense.
            if let text = call.query["$filter"], Filter(parsing: text) == nil { throw GraphError.invalidFilter }
            return Self.list([], context: call.path[0])
        case (.GET, "users"?, 2), (.GET, "groups"?, 2): throw GraphError.notFound(call.path[1])
        case (_, "serviceprincipals"?, _): return try await servicePrincipals(call)
        case (_, "applications"?, _): return try await applications(call)
        case (.POST, "directoryobjects"?, 2) where path[1] == "getbyids": return try await getByIDs(call)
        case (.GET, "directoryobjects"?, 2): return try await directoryObject(call.path[1])
        default:
            throw GraphError.badRequest("Resource not found for the segment '\(call.path.first ?? "")'.")
        }
    }

    static func list(_ values: [JSONValue], context: String) -> Response {
        .json(
            .ok,
            JSONValue.object(["value": .array(values), "@odata.context": .string("$metadata#\(context)")]).serialized())
    }

    // MARK: Objects of either kind

    private func getByIDs(_ call: GraphCall) async throws -> Response {
        guard let ids = call.body?.member("ids")?.arrayValue?.compactMap(\.stringValue), ids.count <= 1_000 else {
            throw GraphError.badRequest("'ids' must be a list of at most 1000 object identifiers.")
        }
        let types = call.body?.member("types")?.arrayValue?.compactMap { $0.stringValue?.lowercased() }
        var values: [JSONValue] = []
        for id in ids {
            if types?.contains(where: { $0 == "serviceprincipal" || $0 == "directoryobject" }) ?? true,
                let principal = try await identity.directory.principal(id)?.value
            {
                values.append(try await json(principal, isTyped: true))
            }
            if types?.contains("application") ?? false, let found = try await application(byObjectID: id) {
                var value = json(found)
                value["@odata.type"] = "#microsoft.graph.application"
                values.append(value)
            }
        }
        return Self.list(values, context: "directoryObjects")
    }

    private func directoryObject(_ id: String) async throws -> Response {
        if let principal = try await identity.directory.principal(id)?.value {
            return .json(.ok, try await json(principal, isTyped: true).serialized())
        }
        guard let found = try await application(byObjectID: id) else { throw GraphError.notFound(id) }
        var value = json(found)
        value["@odata.type"] = "#microsoft.graph.application"
        return .json(.ok, value.serialized())
    }

    func application(byObjectID id: String) async throws -> Application? {
        try await identity.directory.applications().first { $0.id == id.lowercased() }
    }

    func filtered<Object>(_ objects: [Object], _ call: GraphCall, values: (Object, String) -> [String]?)
        throws(GraphError) -> [Object]
    {
        var found = objects
        if let text = call.query["$filter"], !text.isEmpty {
            guard let filter = Filter(parsing: text) else { throw .invalidFilter }
            found = []
            for object in objects {
                guard let verdict = filter.evaluate(values: { values(object, $0) }) else { throw .invalidFilter }
                if verdict { found.append(object) }
            }
        }
        if let top = call.query["$top"].flatMap(Int.init), top >= 0 { found = Array(found.prefix(top)) }
        return found
    }
}

/// A Graph request with its path taken apart, without the version.
struct GraphCall {
    let method: HTTPMethod
    let path: [String]
    let query: [String: String]
    let body: JSONValue?
    let names: NameFamily
}

/// A refusal in Graph's shape ("Microsoft Graph error responses").
struct GraphError: Error {
    let status: HTTPResponseStatus
    let code: String
    let message: String

    static func badRequest(_ message: String) -> GraphError {
        GraphError(status: .badRequest, code: "BadRequest", message: message)
    }
    static let invalidFilter = GraphError(
        status: .badRequest, code: "Request_UnsupportedQuery",
        message: "Unsupported or invalid query filter clause specified.")
    static func notFound(_ id: String) -> GraphError {
        GraphError(
            status: .notFound, code: "Request_ResourceNotFound",
            message:
                "Resource '\(id.prefix(100))' does not exist or one of its queried reference-property objects are not "
                + "present."
        )
    }
    static func unauthenticated(_ message: String) -> GraphError {
        GraphError(status: .unauthorized, code: "InvalidAuthenticationToken", message: message)
    }
    static let denied = GraphError(
        status: .forbidden, code: "Authorization_RequestDenied",
        message: "Insufficient privileges to complete the operation.")
    static let unavailable = GraphError(
        status: .serviceUnavailable, code: "ServiceUnavailable",
        message: "The directory cannot be read or written now; try again.")

    func response(request: Request, at time: Timestamp) -> Response {
        let body: JSONValue = [
            "error": [
                "code": .string(code), "message": .string(message),
                "innerError": ["date": .string(String(time.iso8601.dropLast())), "request-id": .string(request.id)],
            ]
        ]
        var headers: HTTPHeaders = [:]
        if status == .unauthorized { headers.add(name: "WWW-Authenticate", value: "Bearer") }
        if status == .serviceUnavailable { headers.add(name: "Retry-After", value: "1") }
        return .json(status, body.serialized(), headers: headers)
    }
}
