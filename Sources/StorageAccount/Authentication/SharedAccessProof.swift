internal import CofferCore
internal import Crypto
internal import HTTPEdge
internal import NIOHTTP1

/// Proves one shared access token: that its signature is one of the account's keys over the token's words and the path,
/// and that those words can be read.
struct SharedAccessProof {
    let request: Request
    let query: [(name: String, value: String)]
    let parameters: SharedAccessParameters
    let account: LoadedAccount
    let service: StorageService
    let tenantID: String

    /// Throws 403 `AuthenticationFailed`; `KeyBasedAuthenticationNotPermitted` when the account takes no signature of
    /// its keys.
    func token() throws(StorageError) -> SharedAccessToken {
        let version = parameters.text(.version)
        guard isVersion(version), version >= SharedAccessString.oldestVersion else {
            throw .authenticationFailed(
                detail: "sv must be a version \(SharedAccessString.oldestVersion) or later, such as 2022-11-02; make "
                    + "the signature anew.")
        }
        let string = SharedAccessString(parameters: parameters, account: account.record.name)
        if let name = string.uncovered {
            throw .authenticationFailed(detail: "\(name.rawValue) is not a part of signatures of version \(version).")
        }
        switch parameters.kind {
        case .account: return try accountToken(string)
        case .service: return try serviceToken(string)
        case .userDelegation: return try userDelegationToken(string)
        }
    }

    // MARK: The three kinds

    private func accountToken(_ string: SharedAccessString) throws(StorageError) -> SharedAccessToken {
        try requireSharedKeyAllowed()
        try requireSignature(over: string.accountBytes(), keys: account.signingKeys)
        guard parameters[.permissions] != nil, parameters[.expiry] != nil,
            let services = parameters[.services].flatMap({ LetterSet($0, of: "bqtf") }), !services.isEmpty,
            let types = parameters[.resourceTypes].flatMap({ LetterSet($0, of: "sco") }), !types.isEmpty
        else { throw .authenticationFailed(detail: "An account SAS needs sv, ss, srt, sp and se.") }
        var token = try common(scope: .account(resourceTypes: types))
        token.services = services
        return token
    }

    private func serviceToken(_ string: SharedAccessString) throws(StorageError) -> SharedAccessToken {
        try requireSharedKeyAllowed()
        let (scope, resource, snapshot) = try scope()
        try requireSignature(
            over: string.serviceBytes(resource: resource, snapshot: snapshot), keys: account.signingKeys)
        var token = try common(scope: scope)
        token.identifier = parameters[.identifier]
        token.responseHeaders = overrides()
        return token
    }

    private func userDelegationToken(_ string: SharedAccessString) throws(StorageError) -> SharedAccessToken {
        let (scope, resource, snapshot) = try scope()
        guard parameters.text(.version) >= "2018-11-09", let objectID = parameters[.keyObjectID],
            let tenant = parameters[.keyTenantID], let keyStart = parameters[.keyStart],
            let keyExpiry = parameters[.keyExpiry], parameters[.keyService] == "b",
            let keyVersion = parameters[.keyVersion], parameters[.permissions] != nil, parameters[.expiry] != nil
        else {
            throw .authenticationFailed(
                detail: "A user delegation SAS needs sv, sr, sp, se, skoid, sktid, skt, ske, sks=b and skv.")
        }
        let key = account.userDelegationKey(
            UserDelegationKey.Terms(
                objectID: objectID, tenantID: tenant, start: keyStart, expiry: keyExpiry, service: "b",
                version: keyVersion, delegatedTenantID: parameters[.keyDelegatedTenantID]))
        let bytes = string.userDelegationBytes(
            resource: resource, snapshot: snapshot, signedHeaders: try signedHeaders(), signedQuery: try signedQuery())
        try requireSignature(over: bytes, keys: [key])
        guard tenant.lowercased() == tenantID else {
            throw .authenticationFailed(detail: "sktid names another tenant.")
        }
        if parameters[.authorizedObjectID] != nil || parameters[.unauthorizedObjectID] != nil {
            throw .authenticationFailed(detail: "saoid and suoid need an account with a hierarchical namespace.")
        }
        var token = try common(scope: scope)
        token.responseHeaders = overrides()
        token.delegation = SharedAccessToken.Delegation(
            principal: Caller(kind: .user, objectID: objectID, tenantID: tenant), start: try time(keyStart, "skt"),
            expiry: try time(keyExpiry, "ske"))
        token.holder = parameters[.delegatedObjectID]?.lowercased()
        token.signsRequestParts = parameters[.requestHeaders] != nil || parameters[.requestQuery] != nil
        return token
    }

    // MARK: Parts

    private func common(scope: SharedAccessGrant.Scope) throws(StorageError) -> SharedAccessToken {
        var token = SharedAccessToken(scope: scope)
        token.terms.permissions = parameters[.permissions]
        token.terms.start = try time(.start)
        token.terms.expiry = try time(.expiry)
        token.encryptionScope = parameters[.encryptionScope]
        switch parameters[.protocols] {
        case nil, "https,http", "http,https": break
        case "https": token.needsHTTPS = true
        default: throw .authenticationFailed(detail: "spr is https or https,http.")
        }
        if let addresses = parameters[.addresses] {
            guard let range = IPv4Range(addresses) else {
                throw .authenticationFailed(
                    detail: "sip is one IPv4 address or a range such as 168.1.5.60-168.1.5.70.")
            }
            token.addresses = range
        }
        return token
    }

    private func requireSharedKeyAllowed() throws(StorageError) {
        guard account.view.allowsSharedKeyAccess else { throw .keyBasedAuthenticationNotPermitted }
    }

    private func requireSignature(over bytes: [UInt8], keys: [SymmetricKey]) throws(StorageError) {
        guard !Signatures.verify(parameters.text(.signature), of: bytes, under: keys) else { return }
        // The string holds nothing but what the query said, without the signature.
        throw .authenticationFailed(
            detail: "Signature did not match. String to sign used was \(String(decoding: bytes, as: UTF8.self))")
    }

    private func scope() throws(StorageError) -> (scope: SharedAccessGrant.Scope, resource: String, snapshot: String) {
        let path = try SharedAccessResource(request, query)
        guard service == .blob || service == .dfs, !path.container.isEmpty else {
            throw .authenticationFailed(
                detail: "A service SAS opens a container or a blob; this request names neither.")
        }
        let container = "/blob/\(account.record.name)/\(path.container)"
        switch (parameters[.resource], path.blob) {
        case ("c", _): return (.container(path.container), container, "")
        case ("b", let blob?): return (.blob(container: path.container, blob: blob), "\(container)/\(blob)", "")
        case ("bs", let blob?):
            guard let snapshot = parameters[.snapshot] else {
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
                    "sr=\(resource) does not open this path. Known are b and bs for a blob and c for a container or "
                    + "what is in it.")
        }
    }

    private func time(_ name: SharedAccessParameters.Name) throws(StorageError) -> Timestamp? {
        guard let text = parameters[name] else { return nil }
        return try time(text, name.rawValue)
    }
    private func time(_ text: String, _ name: String) throws(StorageError) -> Timestamp {
        guard let time = Timestamp(iso8601: text) else {
            throw .authenticationFailed(detail: "\(name) is not a time such as 2026-11-25T00:00:00Z.")
        }
        return time
    }

    private func overrides() -> [String: String] {
        var headers: [String: String] = [:]
        for name in [.cacheControl, .contentDisposition, .contentEncoding, .contentLanguage, .contentType]
            as [SharedAccessParameters.Name]
        {
            headers[name.rawValue] = parameters[name]
        }
        return headers
    }

    /// `name:value` lines of the headers that `srh` lists, with this request's values, each with a newline.
    private func signedHeaders() throws(StorageError) -> String {
        var text = ""
        let lines = try lines(.requestHeaders) { request.headers[$0] }
        for line in lines { text += line + "\n" }
        return text
    }
    /// The same for query parameters and `srq`, with a newline before each.
    private func signedQuery() throws(StorageError) -> String {
        var text = ""
        // Without regard to case, as the operations read them.
        let values = Dictionary(grouping: query) { $0.name.lowercased() }
        let lines = try lines(.requestQuery) { name in values[name.lowercased(), default: []].map(\.value) }
        for line in lines { text += "\n" + line }
        return text
    }
    private func lines(
        _ name: SharedAccessParameters.Name, _ values: (String) -> [String]
    ) throws(StorageError) -> [String] {
        var lines: [String] = []
        for key in (parameters[name] ?? "").split(separator: ",") {
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
