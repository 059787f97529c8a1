public import CofferCore

/// What a room may know about a principal of the tenant.
public struct DirectoryPrincipal: Sendable, Equatable {
    public let objectID: String
    public let displayName: String
    /// `ServicePrincipal` or `User`, as role assignments write it.
    public let principalType: String
    public init(objectID: String, displayName: String, principalType: String) {
        self.objectID = objectID
        self.displayName = displayName
        self.principalType = principalType
    }
}

/// Looks principals up in the tenant's directory. IdentityService keeps the promise.
public protocol PrincipalDirectory: Sendable {
    /// nil when the directory knows no such object.
    func principal(_ objectID: String) async throws -> DirectoryPrincipal?
}

/// Hands workers a way to ask for tokens of their own identity, and only of that: the App Service identity endpoint.
///
/// IdentityService keeps the promise; FunctionsHost registers a worker when it starts and revokes when it ends.
public protocol IdentityEndpointRegistry: Sendable {
    /// Returns a new random `IDENTITY_HEADER` value that stands for the identity until it is revoked or the process
    /// ends.
    func register(_ identity: ManagedIdentity) -> RedactedString
    /// Unknown values are ignored.
    func revoke(_ header: RedactedString)
}
