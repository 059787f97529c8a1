internal import AccessControl
public import CofferCore
public import HTTPEdge
internal import NIOHTTP1

extension StorageAccountService {
    /// How far a signed request's date may be from the server's, either way (Microsoft, "Authorize with Shared Key").
    static let requestDateToleranceSeconds: Int64 = 15 * 60

    public func authenticate(
        _ request: Request, account view: StorageAccountView, service: StorageService,
        policies: any StoredAccessPolicies
    ) async throws(StorageError) -> StorageCaller {
        let account = try await loadedAccount(view)
        try requireConnection(request, account)
        let authorization = request.headers.first(name: "authorization")
        let sharedAccess = SharedAccessAuthorization(
            request: request, account: account, service: service, now: clock.now(), tenantID: tenantID)
        if let token = try sharedAccess.token() {
            let grant = try await sharedAccess.grant(token, policies: policies)
            if let principal = grant.delegatingPrincipal { try await requireStanding(of: principal) }
            if let holder = token.holder {
                // The signature is bound to one user, who proves it with a token beside it.
                let caller = try await principal(authorization ?? "", request, view, service)
                guard caller.objectID == holder else {
                    throw .authenticationFailed(detail: "sduoid names another principal than the bearer token.")
                }
            } else if authorization != nil {
                throw .invalidAuthenticationInfo(
                    "A request carries a shared access signature or an Authorization header, not both.")
            }
            return .sharedAccess(grant)
        }
        guard let authorization else { return try anonymous(request, view, service) }
        if authorization.utf8.starts(with: "SharedKey".utf8) {
            try verifySharedKey(authorization, request, account, service)
            return .accountKey
        }
        return .principal(try await principal(authorization, request, view, service))
    }

    /// What a principal delegated ends with the principal.
    private func requireStanding(of principal: Caller) async throws(StorageError) {
        do { try await tokens.requireStanding(of: principal) } catch {
            guard error.reason != .unavailable else { throw StorageError(503, "ServerBusy", error.message) }
            throw .authenticationFailed(detail: "The principal of the user delegation key was deleted or disabled.")
        }
    }

    // MARK: Connection

    private func requireConnection(_ request: Request, _ account: LoadedAccount) throws(StorageError) {
        let settings = account.record.settings
        if settings.publicNetworkAccess == "Disabled" {
            throw .authorizationFailure("public network access to the account is disabled.")
        }
        if let allowed = account.allowedAddresses {
            guard let peer = IPv4Range.address(request.transport.peerAddress),
                allowed.contains(where: { $0.contains(peer) })
            else {
                throw .authorizationFailure(
                    "the account's network rules do not allow \(request.transport.peerAddress).")
            }
        }
        if request.transport.scheme == .http {
            if settings.requiresHTTPS {
                throw StorageError(400, "AccountRequiresHttps", "The account being accessed does not support http.")
            }
        } else if settings.minimumTLSVersion == "TLS1_3", request.transport.tlsVersion.map({ $0 < .v1_3 }) ?? true {
            throw StorageError(
                400, "TlsVersionNotPermitted",
                "The TLS version of the connection is not permitted on this storage account: it wants TLS 1.3.")
        }
        if case .storage(let name, _) = request.endpoint, name != account.record.name, request.method != .GET,
            request.method != .HEAD
        {
            throw StorageError(
                403, "InsufficientAccountPermissions", "Write operations are not allowed on the secondary endpoint.")
        }
    }

    // MARK: Nobody

    private func anonymous(
        _ request: Request, _ account: StorageAccountView, _ service: StorageService
    ) throws(StorageError) -> StorageCaller {
        if service == .blob || service == .web, account.allowsBlobPublicAccess { return .anonymous }
        throw noAuthenticationInformation(request)
    }

    /// 401 `NoAuthenticationInformation` with the challenge that tells a client where to get a token. For a data plane
    /// that refuses an anonymous caller.
    public func noAuthenticationInformation(_ request: Request) -> StorageError {
        var error = StorageError(
            401, "NoAuthenticationInformation",
            "Server failed to authenticate the request. Please refer to the information in the www-authenticate header."
        )
        error.headers = [("WWW-Authenticate", challenge(request))]
        return error
    }

    private func challenge(_ request: Request) -> String {
        "Bearer authorization_uri=\(request.names.url(of: .login))/\(installation.tenantID)/oauth2/authorize resource_id=https://storage.azure.com"
    }

    // MARK: Shared key

    private func verifySharedKey(
        _ authorization: String, _ request: Request, _ account: LoadedAccount, _ service: StorageService
    ) throws(StorageError) {
        let parts = authorization.utf8.split(separator: 0x20)
        guard parts.count == 2, let colon = parts[1].firstIndex(of: 0x3a) else {
            throw .invalidAuthenticationInfo(
                "The Authorization header is not of the form 'SharedKey account:signature'.")
        }
        let scheme: SharedKeyString.Scheme
        switch String(Substring(parts[0])) {
        case "SharedKey": scheme = .sharedKey
        case "SharedKeyLite": scheme = .sharedKeyLite
        case let other: throw .invalidAuthenticationInfo("The authentication scheme '\(other)' is not known.")
        }
        guard String(Substring(parts[1][..<colon])) == account.record.name else {
            throw .authenticationFailed(detail: "The Authorization header names another account than the host name.")
        }
        guard account.view.allowsSharedKeyAccess else { throw .keyBasedAuthenticationNotPermitted }
        try requireFreshDate(request)
        let signature = Substring(parts[1][parts[1].index(after: colon)...])
        let query = request.query
        let string = SharedKeyString(request: request, account: account.record.name, service: service)
        for order in SharedKeyString.HeaderOrder.allCases
        where Signatures.verify(
            signature, of: string.bytes(scheme, order: order, query: query), under: account.signingKeys)
        {
            return
        }
        var text = ""
        if !Self.headersNeverRepeated.contains(where: { request.headers.contains(name: $0) }) {
            text =
                " Server used following string to sign: '"
                + String(decoding: string.bytes(scheme, order: .bytes, query: query), as: UTF8.self) + "'."
        }
        throw .authenticationFailed(
            detail: "The MAC signature found in the HTTP request is not the same as any computed signature." + text)
    }

    /// Headers that carry secrets: an answer does not repeat a signed text that holds one.
    private static let headersNeverRepeated = [
        "x-ms-encryption-key", "x-ms-source-encryption-key", "x-ms-copy-source", "x-ms-copy-source-authorization",
        "x-ms-rename-source",
    ]

    private func requireFreshDate(_ request: Request) throws(StorageError) {
        guard let text = request.headers.first(name: "x-ms-date") ?? request.headers.first(name: "date") else {
            throw .authenticationFailed(detail: "Request date header not specified: send x-ms-date.")
        }
        guard let date = Timestamp(rfc1123: text) else {
            throw .authenticationFailed(
                detail: "Request date header is not of the form 'Sun, 06 Nov 1994 08:49:37 GMT'.")
        }
        let now = clock.now()
        guard date >= now.adding(seconds: -Self.requestDateToleranceSeconds),
            date <= now.adding(seconds: Self.requestDateToleranceSeconds)
        else {
            throw .authenticationFailed(
                detail: "Request date header too old: '\(date.rfc1123)'; the server's clock says \(now.rfc1123).")
        }
    }

    // MARK: Bearer token

    private func principal(
        _ authorization: String, _ request: Request, _ account: StorageAccountView, _ service: StorageService
    ) async throws(StorageError) -> Caller {
        let parts = authorization.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else {
            throw .invalidAuthenticationInfo(
                "The Authorization header is neither 'SharedKey account:signature' nor 'Bearer token'.")
        }
        guard request.transport.scheme == .https else {
            throw .authenticationFailed(
                detail: "Authentication scheme Bearer is not supported for insecure connection.")
        }
        guard (request.headers.first(name: "x-ms-version") ?? "") >= "2017-11-09" else {
            throw .authenticationFailed(
                detail: "Authentication scheme Bearer is not supported in this version: send x-ms-version.")
        }
        var audiences: Set<String> = ["https://storage.azure.com"]
        for family in hostNames.families {
            audiences.insert(family.url(of: .storage(account: account.name, service: service)))
        }
        do throws(TokenRefusal) {
            let caller = try await tokens.verify(String(parts[1]), audiences: audiences)
            guard caller.tenantID == tenantID else {
                throw TokenRefusal(.wrongIssuer, "The token is of another tenant.")
            }
            return caller
        } catch {
            guard error.reason != .unavailable else { throw StorageError(503, "ServerBusy", error.message) }
            var refusal = StorageError(
                401, "InvalidAuthenticationInfo",
                "Server failed to authenticate the request. Please refer to the information in the "
                    + "www-authenticate header."
            )
            refusal.headers = [("WWW-Authenticate", challenge(request))]
            refusal.details = [("AuthenticationErrorDetail", error.message)]
            throw refusal
        }
    }
}

extension StorageError {
    static var keyBasedAuthenticationNotPermitted: StorageError {
        StorageError(
            403, "KeyBasedAuthenticationNotPermitted",
            "Key based authentication is not permitted on this storage account.")
    }
    static func authorizationFailure(_ why: String) -> StorageError {
        StorageError(403, "AuthorizationFailure", "This request is not authorized to perform this operation: \(why)")
    }
    static func invalidAuthenticationInfo(_ why: String) -> StorageError {
        var error = StorageError(
            400, "InvalidAuthenticationInfo",
            "Authentication information is not given in the correct format. Check the value of Authorization header.")
        error.details = [("AuthenticationErrorDetail", why)]
        return error
    }
}
