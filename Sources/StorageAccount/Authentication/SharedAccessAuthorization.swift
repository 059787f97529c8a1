internal import CofferCore
internal import HTTPEdge

/// Verifies a shared access signature: signature first, then times, addresses, protocol, service. What it allows comes
/// back as a grant; whether the operation is within it is the operation's question.
///
/// What a signature proves depends on the query, the path and the account's keys alone; it is remembered in
/// `LoadedAccount.provenTokens`. What depends on the moment (time, connection, stored policy, the account's rules) is
/// looked at for every request.
struct SharedAccessAuthorization {
    let request: Request
    let account: LoadedAccount
    let service: StorageService
    let now: Timestamp
    let tenantID: String

    /// The token of the request's query; nil when there is none. Throws 403 `AuthenticationFailed` for one that its
    /// signature does not cover.
    func token() throws(StorageError) -> SharedAccessToken? {
        if let token = account.provenTokens.token(of: request, to: service) { return token }
        let query = request.query
        guard let parameters = try SharedAccessParameters(query) else { return nil }
        let token = try SharedAccessProof(
            request: request, query: query, parameters: parameters, account: account, service: service,
            tenantID: tenantID
        ).token()
        account.provenTokens.remember(token, of: request, to: service)
        return token
    }

    func grant(
        _ token: SharedAccessToken, policies: any StoredAccessPolicies
    ) async throws(StorageError) -> SharedAccessGrant {
        var terms = token.terms
        if let identifier = token.identifier {
            // Asked only once the signature has proven the caller, so that nobody learns which policies exist.
            try await join(identifier, of: token.scope, to: &terms, policies)
        }
        guard let permissions = terms.permissions, !permissions.isEmpty else {
            throw .authenticationFailed(detail: "sp is mandatory. Cannot be empty")
        }
        guard let expiry = terms.expiry else {
            throw .authenticationFailed(detail: "se is mandatory. Cannot be empty")
        }
        try requireTimes(start: terms.start, expiry: expiry)
        if let key = token.delegation { try requireTimes(of: key) }
        try requireAccountLimits(start: terms.start, expiry: expiry)
        try requireTransport(token)
        if let services = token.services { try requireService(among: services) }
        guard let letters = LetterSet(permissions, of: Self.permissionLetters) else {
            throw .authenticationFailed(detail: "sp holds a letter twice or one that is no permission.")
        }
        return SharedAccessGrant(
            scope: token.scope, permissions: letters, responseHeaders: token.responseHeaders,
            encryptionScope: token.encryptionScope, delegatingPrincipal: token.delegation?.principal)
    }

    private static let permissionLetters: LetterSet = "racwdxyltfmeopiu"

    private func join(
        _ identifier: String, of scope: SharedAccessGrant.Scope, to terms: inout SharedAccessToken.Terms,
        _ policies: any StoredAccessPolicies
    ) async throws(StorageError) {
        guard
            let policy = try await policies.storedAccessPolicy(
                identifier, container: scope.container ?? "", account: account.view)
        else {
            throw .authenticationFailed(
                detail: "The stored access policy that si names does not exist on the container.")
        }
        guard policy.start == nil || terms.start == nil, policy.expiry == nil || terms.expiry == nil,
            (policy.permissions ?? "").isEmpty || terms.permissions == nil
        else {
            throw .authenticationFailed(
                detail: "Access policy fields can be associated with signature or SAS identifier but not both.")
        }
        terms.start = terms.start ?? policy.start
        terms.expiry = terms.expiry ?? policy.expiry
        terms.permissions = terms.permissions ?? policy.permissions
    }

    private func requireTimes(start: Timestamp?, expiry: Timestamp) throws(StorageError) {
        guard start.map({ $0 <= now }) ?? true, now < expiry else {
            throw .authenticationFailed(
                detail: "Signature not valid in the specified time frame: Start [\(start?.rfc1123 ?? "")] - "
                    + "Expiry [\(expiry.rfc1123)] - Current [\(now.rfc1123)]")
        }
    }

    private func requireTimes(of key: SharedAccessToken.Delegation) throws(StorageError) {
        guard key.start <= now, now < key.expiry else {
            throw .authenticationFailed(
                detail: "The user delegation key is valid from \(key.start.iso8601) to \(key.expiry.iso8601); now it "
                    + "is \(now.iso8601).")
        }
    }

    /// The account's own SAS policy, where it blocks.
    private func requireAccountLimits(start: Timestamp?, expiry: Timestamp) throws(StorageError) {
        guard let limit = account.record.settings.blockingSASLifetimeSeconds else { return }
        guard let start, expiry <= start.adding(seconds: limit) else {
            throw StorageError(
                403, "AuthorizationFailure",
                "This request is not authorized to perform this operation: the account's SAS policy allows "
                    + "signatures with a start (st) and a life of at most \(limit) seconds.")
        }
    }

    private func requireTransport(_ token: SharedAccessToken) throws(StorageError) {
        guard !token.needsHTTPS || request.transport.scheme == .https else {
            throw StorageError(
                403, "AuthorizationProtocolMismatch",
                "This request is not authorized to perform this operation using this protocol.")
        }
        guard let range = token.addresses else { return }
        guard let peer = IPv4Range.address(request.transport.peerAddress), range.contains(peer) else {
            throw StorageError(
                403, "AuthorizationSourceIPMismatch",
                "This request is not authorized to perform this operation using this source IP "
                    + "\(request.transport.peerAddress).")
        }
    }

    private func requireService(among services: LetterSet) throws(StorageError) {
        let letter: LetterSet =
            switch service {
            case .blob, .dfs, .web: "b"
            case .queue: "q"
            case .table: "t"
            case .file: "f"
            }
        guard services.contains(letter) else {
            throw StorageError(
                403, "AuthorizationServiceMismatch",
                "This request is not authorized to perform this operation using this service: it is not among the "
                    + "token's signed services (ss).")
        }
    }
}
