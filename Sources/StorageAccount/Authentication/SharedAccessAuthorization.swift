internal import CofferCore
internal import Crypto
internal import HTTPEdge
internal import NIOHTTP1

/// Verifies a shared access signature: signature first, then times, addresses, protocol, service. What it allows comes
/// back as a grant; whether the operation is within it is the operation's question.
struct SharedAccessAuthorization {
    let request: Request
    let query: QueryParameters
    let account: LoadedAccount
    let service: StorageService
    let now: Timestamp
    let tenantID: String

    func verify(
        _ parameters: SharedAccessParameters, policies: any StoredAccessPolicies
    ) async throws(StorageError) -> SharedAccessGrant {
        let version = parameters.text(.version)
        guard isVersion(version), version >= SharedAccessString.oldestVersion else {
            throw .authenticationFailed(
                detail:
                    "sv must be a version \(SharedAccessString.oldestVersion) or later, such as 2022-11-02; "
                    + "make the signature anew."
            )
        }
        let string = SharedAccessString(parameters: parameters, account: account.record.name)
        if let name = string.uncovered {
            throw .authenticationFailed(detail: "\(name.rawValue) is not a part of signatures of version \(version).")
        }
        switch parameters.kind {
        case .account: return try accountGrant(parameters, string)
        case .service: return try await serviceGrant(parameters, string, policies)
        case .userDelegation: return try userDelegationGrant(parameters, string)
        }
    }

    // MARK: The three kinds

    private func accountGrant(_ p: SharedAccessParameters, _ string: SharedAccessString) throws(StorageError)
        -> SharedAccessGrant
    {
        try requireSharedKeyAllowed()
        try requireSignature(p, over: string.accountBytes(), keys: account.signingKeys)
        guard let permissions = p[.permissions], let expiry = p[.expiry], let services = p[.services],
            let types = p[.resourceTypes],
            Set(services).isSubset(of: "bqtf"), Set(types).isSubset(of: "sco"), !services.isEmpty, !types.isEmpty
        else { throw .authenticationFailed(detail: "An account SAS needs sv, ss, srt, sp and se.") }
        try requireTimes(start: time(p, .start), expiry: time(expiry, "se"))
        try requireAccountLimits(p)
        try requireTransport(p)
        let letter: Character =
            switch service {
            case .blob, .dfs, .web: "b"
            case .queue: "q"
            case .table: "t"
            case .file: "f"
            }
        guard services.contains(letter) else {
            throw StorageError(
                403, "AuthorizationServiceMismatch",
                "This request is not authorized to perform this operation using this service: its signed "
                    + "services (ss) are '\(services)'."
            )
        }
        return SharedAccessGrant(
            scope: .account(resourceTypes: Set(types)), permissions: try letters(permissions), responseHeaders: [:],
            encryptionScope: p[.encryptionScope], delegatingPrincipal: nil)
    }

    private func serviceGrant(
        _ p: SharedAccessParameters, _ string: SharedAccessString, _ policies: any StoredAccessPolicies
    ) async throws(StorageError) -> SharedAccessGrant {
        try requireSharedKeyAllowed()
        let (scope, resource, snapshot) = try scope(p)
        try requireSignature(
            p, over: string.serviceBytes(resource: resource, snapshot: snapshot), keys: account.signingKeys)
        var start = try time(p, .start)
        var expiry = try time(p, .expiry)
        var permissions = p[.permissions]
        if let identifier = p[.identifier] {
            // Asked only once the signature has proven the caller, so that nobody learns which policies exist.
            guard
                let policy = try await policies.storedAccessPolicy(
                    identifier, container: scope.container ?? "", account: account.view)
            else {
                throw .authenticationFailed(
                    detail: "The stored access policy that si names does not exist on the container.")
            }
            guard policy.start == nil || start == nil, policy.expiry == nil || expiry == nil,
                (policy.permissions ?? "").isEmpty || permissions == nil
            else {
                throw .authenticationFailed(
                    detail: "Access policy fields can be associated with signature or SAS identifier but not both.")
            }
            start = start ?? policy.start
            expiry = expiry ?? policy.expiry
            permissions = permissions ?? policy.permissions
        }
        guard let permissions, !permissions.isEmpty else {
            throw .authenticationFailed(detail: "sp is mandatory. Cannot be empty")
        }
        guard let expiry else { throw .authenticationFailed(detail: "se is mandatory. Cannot be empty") }
        try requireTimes(start: start, expiry: expiry)
        try requireAccountLimits(p, start: start, expiry: expiry)
        try requireTransport(p)
        return SharedAccessGrant(
            scope: scope, permissions: try letters(permissions), responseHeaders: overrides(p),
            encryptionScope: p[.encryptionScope],
            delegatingPrincipal: nil)
    }

    private func userDelegationGrant(_ p: SharedAccessParameters, _ string: SharedAccessString) throws(StorageError)
        -> SharedAccessGrant
    {
        let (scope, resource, snapshot) = try scope(p)
        guard p.text(.version) >= "2018-11-09", let objectID = p[.keyObjectID], let tenant = p[.keyTenantID],
            let keyStart = p[.keyStart],
            let keyExpiry = p[.keyExpiry], p[.keyService] == "b", let keyVersion = p[.keyVersion],
            let permissions = p[.permissions],
            let expiryText = p[.expiry]
        else {
            throw .authenticationFailed(
                detail: "A user delegation SAS needs sv, sr, sp, se, skoid, sktid, skt, ske, sks=b and skv.")
        }
        let key = account.userDelegationKey(
            UserDelegationKey.Terms(
                objectID: objectID, tenantID: tenant, start: keyStart, expiry: keyExpiry, service: "b",
                version: keyVersion,
                delegatedTenantID: p[.keyDelegatedTenantID]))
        let bytes = string.userDelegationBytes(
            resource: resource, snapshot: snapshot, signedHeaders: try signedHeaders(p), signedQuery: try signedQuery(p)
        )
        try requireSignature(p, over: bytes, keys: [key])
        guard tenant.lowercased() == tenantID else {
            throw .authenticationFailed(detail: "sktid names another tenant.")
        }
        if p[.authorizedObjectID] != nil || p[.unauthorizedObjectID] != nil {
            throw .authenticationFailed(detail: "saoid and suoid need an account with a hierarchical namespace.")
        }
        let expiry = try time(expiryText, "se")
        try requireTimes(start: time(p, .start), expiry: expiry)
        guard let from = Timestamp(iso8601: keyStart), let until = Timestamp(iso8601: keyExpiry), from <= now,
            now < until
        else {
            throw .authenticationFailed(
                detail: "The user delegation key is valid from \(keyStart) to \(keyExpiry); now it is \(now.iso8601).")
        }
        try requireAccountLimits(p)
        try requireTransport(p)
        return SharedAccessGrant(
            scope: scope, permissions: try letters(permissions), responseHeaders: overrides(p),
            encryptionScope: p[.encryptionScope],
            delegatingPrincipal: Caller(kind: .user, objectID: objectID, tenantID: tenant))
    }

    // MARK: Parts

    private func requireSharedKeyAllowed() throws(StorageError) {
        guard account.view.allowsSharedKeyAccess else { throw .keyBasedAuthenticationNotPermitted }
    }

    private func requireSignature(
        _ p: SharedAccessParameters, over bytes: [UInt8], keys: [SymmetricKey]
    ) throws(StorageError) {
        guard !Signatures.verify(p.text(.signature), of: bytes, under: keys) else { return }
        // The string holds nothing but what the query said, without the signature.
        throw .authenticationFailed(
            detail: "Signature did not match. String to sign used was \(String(decoding: bytes, as: UTF8.self))")
    }

    private func scope(
        _ p: SharedAccessParameters
    ) throws(StorageError) -> (scope: SharedAccessGrant.Scope, resource: String, snapshot: String) {
        let path = try SharedAccessResource(request, query)
        guard service == .blob || service == .dfs, !path.container.isEmpty else {
            throw .authenticationFailed(
                detail: "A service SAS opens a container or a blob; this request names neither.")
        }
        let container = "/blob/\(account.record.name)/\(path.container)"
        switch (p[.resource], path.blob) {
        case ("c", _): return (.container(path.container), container, "")
        case ("b", let blob?): return (.blob(container: path.container, blob: blob), "\(container)/\(blob)", "")
        case ("bs", let blob?):
            guard let snapshot = p[.snapshot] else {
                throw .authenticationFailed(detail: "sr=bs needs the snapshot parameter.")
            }
            return (
                .snapshot(container: path.container, blob: blob, snapshot: snapshot), "\(container)/\(blob)", snapshot
            )
        case ("bv", _):
            throw .authenticationFailed(detail: "sr=bv opens a blob version; blob versioning is not enabled here.")
        case (nil, _): throw .authenticationFailed(detail: "sr is mandatory. Cannot be empty")
        case (let resource?, _):
            throw .authenticationFailed(
                detail:
                    "sr=\(resource) does not open this path. Known are b and bs for a blob and c for a "
                    + "container or what is in it."
            )
        }
    }

    private func time(_ p: SharedAccessParameters, _ name: SharedAccessParameters.Name) throws(StorageError)
        -> Timestamp?
    {
        guard let text = p[name] else { return nil }
        return try time(text, name.rawValue)
    }
    private func time(_ text: String, _ name: String) throws(StorageError) -> Timestamp {
        guard let time = Timestamp(iso8601: text) else {
            throw .authenticationFailed(detail: "\(name) is not a time such as 2026-11-25T00:00:00Z.")
        }
        return time
    }

    private func requireTimes(start: Timestamp?, expiry: Timestamp) throws(StorageError) {
        guard start.map({ $0 <= now }) ?? true, now < expiry else {
            throw .authenticationFailed(
                detail: "Signature not valid in the specified time frame: Start [\(start?.rfc1123 ?? "")] - "
                    + "Expiry [\(expiry.rfc1123)] - Current [\(now.rfc1123)]")
        }
    }

    /// The account's own SAS policy, where it blocks.
    private func requireAccountLimits(_ p: SharedAccessParameters, start: Timestamp? = nil, expiry: Timestamp? = nil)
        throws(StorageError)
    {
        guard let limit = account.record.settings.blockingSASLifetimeSeconds else { return }
        let ownStart = try time(p, .start)
        let ownExpiry = try time(p, .expiry)
        guard let start = start ?? ownStart, let expiry = expiry ?? ownExpiry, expiry <= start.adding(seconds: limit)
        else {
            throw StorageError(
                403, "AuthorizationFailure",
                "This request is not authorized to perform this operation: the account's SAS policy allows "
                    + "signatures with a start (st) and a "
                    + "life of at most \(limit) seconds.")
        }
    }

    private func requireTransport(_ p: SharedAccessParameters) throws(StorageError) {
        switch p[.protocols] {
        case nil, "https,http", "http,https": break
        case "https":
            guard request.transport.scheme == .https else {
                throw StorageError(
                    403, "AuthorizationProtocolMismatch",
                    "This request is not authorized to perform this operation using this protocol.")
            }
        default: throw .authenticationFailed(detail: "spr is https or https,http.")
        }
        guard let addresses = p[.addresses] else { return }
        guard let range = IPv4Range(addresses) else {
            throw .authenticationFailed(detail: "sip is one IPv4 address or a range such as 168.1.5.60-168.1.5.70.")
        }
        guard let peer = IPv4Range.address(request.transport.peerAddress), range.contains(peer) else {
            throw StorageError(
                403, "AuthorizationSourceIPMismatch",
                "This request is not authorized to perform this operation using this source IP "
                    + "\(request.transport.peerAddress)."
            )
        }
    }

    private func letters(_ text: String) throws(StorageError) -> Set<Character> {
        let letters = Set(text)
        guard !letters.isEmpty, letters.count == text.count, letters.isSubset(of: "racwdxyltfmeopiu") else {
            throw .authenticationFailed(detail: "sp holds a letter twice or one that is no permission.")
        }
        return letters
    }

    private func overrides(_ p: SharedAccessParameters) -> [String: String] {
        var headers: [String: String] = [:]
        for name in [.cacheControl, .contentDisposition, .contentEncoding, .contentLanguage, .contentType]
            as [SharedAccessParameters.Name]
        {
            headers[name.rawValue] = p[name]
        }
        return headers
    }

    /// `name:value` lines of the headers that `srh` lists, with this request's values, each with a newline.
    private func signedHeaders(_ p: SharedAccessParameters) throws(StorageError) -> String {
        var text = ""
        let lines = try lines(p, .requestHeaders) { request.headers[$0] }
        for line in lines { text += line + "\n" }
        return text
    }
    /// The same for query parameters and `srq`, with a newline before each.
    private func signedQuery(_ p: SharedAccessParameters) throws(StorageError) -> String {
        var text = ""
        let lines = try lines(p, .requestQuery) { name in query.pairs.filter { $0.name == name }.map(\.value) }
        for line in lines { text += "\n" + line }
        return text
    }
    private func lines(
        _ p: SharedAccessParameters, _ name: SharedAccessParameters.Name, _ values: (String) -> [String]
    ) throws(StorageError) -> [String] {
        var lines: [String] = []
        for key in (p[name] ?? "").split(separator: ",") {
            // Exactly once: of two values the operation might read the one that was not signed.
            let values = values(String(key))
            guard values.count == 1, let value = values.first, !value.utf8.contains(0x0a) else {
                throw .authenticationFailed(
                    detail: "\(name.rawValue) names '\(key)', which this request does not carry exactly once.")
            }
            lines.append("\(key):\(value)")
        }
        return lines
    }

    /// `YYYY-MM-DD`, so that versions compare as text.
    private func isVersion(_ text: String) -> Bool {
        text.utf8.count == 10
            && text.utf8.enumerated().allSatisfy { $0 == 4 || $0 == 7 ? $1 == 0x2d : (0x30...0x39).contains($1) }
    }
}
