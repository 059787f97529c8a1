public import CofferCore

/// What Resource Manager asks of the room that owns a namespace, and what the rooms owe it: Azure's resource provider
/// contract.
///
/// The provider authorizes inside its operations; Resource Manager has verified the token and resolved the path,
/// nothing else. An instance is called concurrently.
public protocol ResourceProvider: Sendable {
    /// `Microsoft.KeyVault`.
    var namespace: String { get }
    /// What `/providers` lists.
    var resourceTypes: [ResourceTypeDescription] { get }

    /// Serves one request below the namespace. Throws `ControlError` for every refusal.
    func respond(to request: ControlRequest, as caller: Caller) async throws(ControlError) -> ControlResponse

    /// The top-level tracked resources below a scope (a subscription or a group), for `/resources` and for group
    /// deletion. Unfiltered by access: Resource Manager filters by the caller's `read` before anything leaves.
    func trackedResources(below scope: ResourceID) async throws(ControlError) -> [TrackedResource]
    /// Throws while `trackedResources` may leave something out, because it cannot be read. Asked before a group is
    /// deleted: none is taken for empty.
    func requireAllTracked(below scope: ResourceID) async throws(ControlError)
    /// Deletes one top-level resource as the caller, as a DELETE of its identifier would. Used by group deletion.
    func deleteTrackedResource(_ id: ResourceID, as caller: Caller) async throws(ControlError)
}

extension ResourceProvider {
    /// For those that read all their resources or none.
    public func requireAllTracked(below scope: ResourceID) async throws(ControlError) {}
}

public struct ResourceTypeDescription: Sendable {
    public let name: String
    public let apiVersions: [String]
    public init(_ name: String, apiVersions: [String]) {
        self.name = name
        self.apiVersions = apiVersions
    }
}

public struct TrackedResource: Sendable, Equatable {
    public let id: ResourceID
    public let type: String
    public let location: String
    public let kind: String?
    public let tags: [String: String]
    public init(id: ResourceID, type: String, location: String, kind: String? = nil, tags: [String: String] = [:]) {
        self.id = id
        self.type = type
        self.location = location
        self.kind = kind
        self.tags = tags
    }
}

/// A control plane request with its path taken apart.
public struct ControlRequest: Sendable {
    public enum Method: String, Sendable {
        case get = "GET", head = "HEAD", put = "PUT", patch = "PATCH", post = "POST", delete = "DELETE"
    }
    public let method: Method
    /// The whole path as an identifier, in the caller's spelling; for actions it ends in the action's name.
    public let path: ResourceID
    /// Percent-decoded query parameters under lower-cased names.
    public let query: [String: String]
    public let apiVersion: String
    /// Absent when the request had no body; a malformed one never arrives here.
    public let body: JSONValue?
    /// The family of names to write into URLs of the answer.
    public let names: NameFamily
    public init(
        method: Method, path: ResourceID, query: [String: String], apiVersion: String, body: JSONValue?,
        names: NameFamily
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.apiVersion = apiVersion
        self.body = body
        self.names = names
    }

    /// The URL of a list's next page: this request with `skipToken`, and with those of its parameters that `repeating`
    /// names.
    public func nextLink(skipToken: String, repeating names: [String]) -> String {
        var query = [("api-version", apiVersion), ("$skipToken", skipToken)]
        for name in names {
            if let value = self.query[name] { query.append((name, value)) }
        }
        return self.names.url(of: .management) + path.description + "?"
            + query.map { "\($0)=\(percentEncoded($1, keeping: "-_.~"))" }.joined(separator: "&")
    }
}

public struct ControlResponse: Sendable {
    public enum Body: Sendable { case none, json(JSONValue), xml(String) }
    public var status: Int
    public var headers: [(String, String)]
    public var body: Body
    public init(status: Int, headers: [(String, String)] = [], body: Body = .none) {
        self.status = status
        self.headers = headers
        self.body = body
    }
    public static func json(_ status: Int = 200, _ value: JSONValue) -> ControlResponse {
        ControlResponse(status: status, body: .json(value))
    }
    public static func empty(_ status: Int) -> ControlResponse { ControlResponse(status: status) }
}

/// A refusal in Resource Manager's error shape, `{"error":{"code","message"}}`.
public struct ControlError: Error, Sendable {
    public let status: Int
    public let code: String
    public let message: String
    public init(status: Int, code: String, message: String) {
        self.status = status
        self.code = code
        self.message = message
    }

    public static func resourceNotFound(_ id: ResourceID) -> ControlError {
        ControlError(
            status: 404, code: "ResourceNotFound",
            message:
                "The Resource '\(id.resourceType ?? "")/\(id.name)' under resource group '\(id.resourceGroup ?? "")' was not found."
        )
    }
    public static func badRequest(_ message: String, code: String = "BadRequest") -> ControlError {
        ControlError(status: 400, code: code, message: message)
    }
    /// What a caller without the right role gets; names the action and the scope, so that the mend is plain.
    public static func authorizationFailed(_ caller: Caller, _ action: Action, _ scope: ResourceID) -> ControlError {
        ControlError(
            status: 403, code: "AuthorizationFailed",
            message:
                "The client '\(caller.applicationID ?? caller.objectID)' with object id '\(caller.objectID)' does not have "
                + "authorization to perform action '\(action)' over scope '\(scope)' or the scope is invalid. "
                + "If access was recently granted, please refresh your credentials.")
    }
    public static func notImplemented(_ what: String) -> ControlError {
        ControlError(
            status: 501, code: "NotImplemented",
            message: "\(what) is not supported by this server. See docs/compatibility.md.")
    }
}

/// The directory, as rooms that own resources with identities need it. IdentityService keeps the promise; the
/// composition root joins them.
public protocol ManagedIdentities: Sendable {
    /// Makes the system-assigned identity of a resource, or returns the one it has. Durable when it returns.
    func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity
    /// Removes it for good; role assignments to it stay, as in Azure, and name nobody.
    func removeSystemAssignedIdentity(of resource: ResourceID) async throws
    /// A token for an identity as the App Service identity endpoint hands it to a worker. `audience` is the resource
    /// asked for.
    func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken
    /// The service principal that a client secret proves, to act as inside the process. Asked before each use: a secret
    /// that was removed proves nothing. What it throws says why, and holds no secret.
    func servicePrincipal(applicationID: String, secret: RedactedString, tenantID: String) async throws -> Caller
}

public struct ManagedIdentity: Sendable, Codable, Equatable {
    public let principalID: String
    public let clientID: String
    public let tenantID: String
    public init(principalID: String, clientID: String, tenantID: String) {
        self.principalID = principalID
        self.clientID = clientID
        self.tenantID = tenantID
    }
    /// The caller a service acts as when it uses this identity inside the process.
    public var caller: Caller {
        Caller(kind: .managedIdentity, objectID: principalID, tenantID: tenantID, applicationID: clientID)
    }
}

public struct IssuedToken: Sendable {
    public let token: RedactedString
    public let expires: Timestamp
    public init(token: RedactedString, expires: Timestamp) {
        self.token = token
        self.expires = expires
    }
}
