internal import CofferCore
internal import Foundation
public import HTTPEdge
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import ResourceProviders

/// The wire of the token service (`login.…`): OpenID Connect discovery, keys, and the token endpoints for client
/// credentials.
///
/// Sources: RFC 6749 §4.4, OpenID Connect Discovery 1.0, and Microsoft's "OAuth 2.0 client credentials flow".
public struct LoginService: WireService {
    /// Largest token request, in bytes.
    static let bodyBytesLimit = 65_536
    /// Path segments that stand for "the tenant of whoever signs in" in discovery.
    private static let tenantAliases: Set<String> = ["common", "organizations", "consumers"]

    private let identity: IdentityService
    public init(_ identity: IdentityService) { self.identity = identity }

    public func respond(to request: Request) async -> Response {
        let correlation = request.header("client-request-id").flatMap { UUID(uuidString: $0)?.uuidString.lowercased() }
        do {
            var response = try await route(request)
            response.headers.replaceOrAdd(name: "x-ms-request-id", value: request.id)
            if let correlation { response.headers.replaceOrAdd(name: "client-request-id", value: correlation) }
            return response
        } catch let error as LoginError {
            identity.logger.notice(
                "sign-in refused", metadata: ["code": "AADSTS\(error.number)", "request": "\(request.id)"])
            return error.response(requestID: request.id, correlationID: correlation, at: identity.clock.now())
        } catch {
            identity.logger.error("token service failed", metadata: ["error": "\(error)", "request": "\(request.id)"])
            return LoginError.unavailable.response(
                requestID: request.id, correlationID: correlation, at: identity.clock.now())
        }
    }

    private func route(_ request: Request) async throws -> Response {
        let path = (request.pathSegments ?? []).map { $0.lowercased() }
        guard let tenant = path.first else { throw LoginError.notFound }
        switch (request.method, Array(path.dropFirst())) {
        case (.GET, ["discovery", "instance"]):
            return instanceDiscovery(request)
        case (.GET, ["v2.0", ".well-known", "openid-configuration"]):
            return metadata(request.names, tenant: try knownTenant(tenant), version: 2)
        case (.GET, [".well-known", "openid-configuration"]):
            return metadata(request.names, tenant: try knownTenant(tenant), version: 1)
        case (.GET, ["discovery", "v2.0", "keys"]), (.GET, ["discovery", "keys"]):
            _ = try knownTenant(tenant)
            return .json(.ok, try identity.signingKeys.jwks.serialized(), headers: ["Cache-Control": "max-age=86400"])
        case (.POST, ["oauth2", "v2.0", "token"]):
            return try await token(request, tenant: tenant, version: 2)
        case (.POST, ["oauth2", "token"]):
            return try await token(request, tenant: tenant, version: 1)
        default:
            throw LoginError.notFound
        }
    }

    private func knownTenant(_ tenant: String) throws(LoginError) -> String {
        if tenant == identity.installation.tenantID || Self.tenantAliases.contains(tenant) { return tenant }
        throw .tenantNotFound(tenant)
    }

    // MARK: Discovery

    private func metadata(_ family: NameFamily, tenant: String, version: Int) -> Response {
        let base = "\(family.url(of: .login))/\(tenant)"
        let isAlias = Self.tenantAliases.contains(tenant)
        let issuer = identity.issuer(family, version: version)
        let v2 = version == 2 ? "/v2.0" : ""
        let document: JSONValue = [
            // For an alias Entra writes the placeholder that clients fill with the token's `tid`.
            "issuer": .string(isAlias ? issuer.replacing(identity.installation.tenantID, with: "{tenantid}") : issuer),
            "authorization_endpoint": "\(base)/oauth2\(v2)/authorize", "token_endpoint": "\(base)/oauth2\(v2)/token",
            "device_authorization_endpoint": "\(base)/oauth2\(v2)/devicecode",
            "end_session_endpoint": "\(base)/oauth2\(v2)/logout",
            "jwks_uri": "\(base)/discovery\(v2)/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "grant_types_supported": ["client_credentials"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "response_types_supported": ["code"], "scopes_supported": ["openid"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"], "request_uri_parameter_supported": false,
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "tid", "ver", "oid", "appid", "azp", "idtyp"],
            "tenant_region_scope": .null, "cloud_instance_name": .string(family.authority(of: .login)),
            "cloud_graph_host_name": .string(family.authority(of: .graph)),
            "msgraph_host": .string(family.authority(of: .graph)),
        ]
        return .json(.ok, document.serialized(), headers: ["Cache-Control": "max-age=86400"])
    }

    private func instanceDiscovery(_ request: Request) -> Response {
        let host = request.names.authority(of: .login)
        let tenant = identity.installation.tenantID
        let document: JSONValue = [
            "tenant_discovery_endpoint": "https://\(host)/\(tenant)/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                ["preferred_network": .string(host), "preferred_cache": .string(host), "aliases": [.string(host)]]
            ],
        ]
        return .json(.ok, document.serialized())
    }

    // MARK: Tokens

    private func token(_ request: Request, tenant: String, version: Int) async throws -> Response {
        guard tenant == identity.installation.tenantID else { throw LoginError.tenantNotFound(tenant) }
        let form = try await Form(request, limit: Self.bodyBytesLimit)
        guard let grant = form["grant_type"] else { throw LoginError.missingParameter("grant_type") }
        guard grant == "client_credentials" else { throw LoginError.unsupportedGrant(grant) }
        let principal = try await authenticate(form, request)
        let asked = try requestedResource(form, version: version)
        guard let resource = try await identity.resource(asked) else {
            throw LoginError.resourceNotFound(asked, tenant: identity.installation.tenantID)
        }
        let issued = try await identity.issue(
            to: principal, audience: resource.audience, names: request.names,
            version: version == 2 ? resource.version : 1)
        let seconds = issued.expires.unixSeconds - identity.clock.now().unixSeconds - 1
        var body: JSONValue = [
            "token_type": "Bearer", "access_token": .string(issued.token.reveal()), "expires_in": .integer(seconds),
            "ext_expires_in": .integer(seconds),
        ]
        if version == 1 {
            // The v1 endpoint writes numbers as text and repeats the resource.
            body["expires_in"] = "\(seconds)"
            body["ext_expires_in"] = "\(seconds)"
            body["expires_on"] = "\(issued.expires.unixSeconds)"
            body["not_before"] = "\(identity.clock.now().unixSeconds)"
            body["resource"] = .string(asked)
        }
        return .json(.ok, body.serialized(), headers: ["Cache-Control": "no-store", "Pragma": "no-cache"])
    }

    /// The service principal whose application proved itself with a secret (RFC 6749 §2.3.1).
    private func authenticate(_ form: Form, _ request: Request) async throws -> ServicePrincipal {
        let basic = Self.basicCredentials(request)
        guard let clientID = form["client_id"] ?? basic?.id else { throw LoginError.missingParameter("client_id") }
        if form["client_assertion"] != nil { throw LoginError.assertionNotSupported }
        guard let secret = form["client_secret"] ?? basic?.secret else { throw LoginError.missingSecret }
        return try await identity.authenticate(clientID, secret: secret)
    }

    private func requestedResource(_ form: Form, version: Int) throws(LoginError) -> String {
        if version == 1 {
            guard let resource = form["resource"], !resource.isEmpty else { throw .missingParameter("resource") }
            return resource
        }
        guard let scope = form["scope"], !scope.isEmpty else { throw .missingParameter("scope") }
        let scopes = scope.split(separator: " ").filter {
            !["openid", "profile", "offline_access"].contains($0.lowercased())
        }
        // Exactly one `/.default` comes off: an audience that ends in a slash keeps its own
        // (`https://management.…//.default`).
        guard scopes.count == 1, let only = scopes.first, only.lowercased().hasSuffix("/.default") else {
            throw .invalidScope(scope)
        }
        return String(only.dropLast("/.default".count))
    }

    private static func basicCredentials(_ request: Request) -> (id: String, secret: String)? {
        guard let header = request.header("Authorization"), header.lowercased().hasPrefix("basic "),
            let bytes = [UInt8](base64: header.dropFirst(6).trimmingCharacters(in: .whitespaces)),
            let text = String(validating: bytes, as: UTF8.self), let colon = text.firstIndex(of: ":"),
            let id = Form.decoded(text[..<colon]), let secret = Form.decoded(text[text.index(after: colon)...])
        else { return nil }
        return (id, secret)
    }
}

/// A body of `application/x-www-form-urlencoded` (WHATWG URL §5.1). A name sent twice is refused: which one counts
/// would be a guess.
struct Form {
    private var values: [String: String] = [:]
    static let fieldsLimit = 64

    init(_ request: Request, limit: Int) async throws {
        guard request.header("Content-Type")?.lowercased().hasPrefix("application/x-www-form-urlencoded") == true else {
            throw LoginError.malformed
        }
        let buffer: ByteBuffer
        do {
            buffer = try await request.body.collect(upTo: limit)
        } catch {
            throw LoginError.malformed
        }
        guard let text = String(validating: buffer.readableBytesView, as: UTF8.self) else { throw LoginError.malformed }
        try self.init(text)
    }

    init(_ text: String) throws(LoginError) {
        let fields = text.split(separator: "&")
        guard fields.count <= Self.fieldsLimit else { throw .malformed }
        for field in fields {
            let parts = field.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = Self.decoded(parts[0]), let value = Self.decoded(parts.count > 1 ? parts[1] : ""),
                values.updateValue(value, forKey: name) == nil
            else { throw .malformed }
        }
    }

    subscript(name: String) -> String? { values[name] }

    static func decoded(_ text: some StringProtocol) -> String? {
        percentDecoded(String(text).replacing("+", with: " "))
    }
}
