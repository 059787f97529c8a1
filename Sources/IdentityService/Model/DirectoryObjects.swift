internal import CofferCore

/// An application registration: what a client identifies as. Microsoft Graph `application`.
struct Application: Sendable, Codable, Equatable {
    let id: String
    /// The client identifier.
    let appID: String
    var displayName: String
    var created: Timestamp
    var identifierURIs: [String] = []
    /// 2 makes the v2 endpoint issue v2 tokens for this application as a resource.
    var requestedAccessTokenVersion: Int?
    var secrets: [ClientSecret] = []
}

/// What acts in the tenant, and what roles and access policies name by `id`. Microsoft Graph `servicePrincipal`.
struct ServicePrincipal: Sendable, Codable, Equatable {
    enum Kind: String, Sendable, Codable { case application = "Application", managedIdentity = "ManagedIdentity" }
    let id: String
    let appID: String
    let kind: Kind
    var displayName: String
    var created: Timestamp
    var isEnabled = true
    /// May change the directory through Graph. Only the administrator made at first start has it.
    var isAdministrator = false
    /// The resource whose system-assigned identity this is.
    var resource: ResourceID?
    var secrets: [ClientSecret] = []

    /// What `servicePrincipalNames` lists for it, given its application.
    func names(_ application: Application?) -> [String] { [appID] + (application?.identifierURIs ?? []) }
}
