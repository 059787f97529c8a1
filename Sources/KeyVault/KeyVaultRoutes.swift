internal import AccessControl
internal import CofferCore
internal import EncryptionAtRest
public import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// The data plane's wire. The order is the service's: host, token, version, route, body.
extension KeyVaultService: WireService {
    public func respond(to request: Request) async -> Response {
        var response: Response
        var region = "local"
        do throws(VaultError) {
            let vault = try await addressedVault(request)
            region = vault.location
            let call = VaultCall(request: request, vault: vault, caller: try await authenticate(request))
            response = try await answering { () async throws -> Response in
                if isBrief(request) { return try await route(call) }
                return try await awayFromEventLoop { try await route(call) }
            }
        } catch {
            response = Response.json(HTTPResponseStatus(statusCode: error.status), error.body.serialized())
            if error.status == 401 { response.headers.add(name: "WWW-Authenticate", value: challenge(request.names)) }
            if let seconds = error.retryAfterSeconds { response.headers.add(name: "Retry-After", value: "\(seconds)") }
        }
        addCommonHeaders(to: &response, request, region: region)
        return response
    }

    /// Whether a request takes less than a millisecond, so that it may stay on the event loop it came in by: what busy
    /// clients do, use a key and read a key or secret. Lists, backups and restores read and decode as much as there is.
    private func isBrief(_ request: Request) -> Bool {
        let segments = request.rawPath.utf8.split(separator: 0x2f)
        guard let last = segments.last.flatMap({ Substring($0) })?.lowercased() else { return false }
        switch request.method {
        case .GET: return (2...3).contains(segments.count) && last != "versions"
        case .POST:
            guard let length = request.body.declaredLength, length <= Limits.briefBytes else { return false }
            return ["unwrapkey", "wrapkey", "decrypt", "encrypt", "sign", "verify"].contains(last)
        default: return false
        }
    }

    /// Both values hold neither `=` nor `,`, and the parts are split by `, `: every SDK parses this form.
    private func challenge(_ names: NameFamily) -> String {
        "Bearer authorization=\"\(names.url(of: .login))/\(installation.tenantID)\", "
            + "resource=\"\(names.vaultAudience)\""
    }

    private func addCommonHeaders(to response: inout Response, _ request: Request, region: String) {
        response.headers.replaceOrAdd(name: "x-ms-request-id", value: request.id)
        if let id = request.header("x-ms-client-request-id"), id.utf8.count <= 128,
            id.utf8.allSatisfy({ (0x20...0x7e).contains($0) })
        {
            response.headers.add(name: "x-ms-client-request-id", value: id)
        }
        let family =
            request.transport.peerAddress.utf8.contains(0x3a) ? ("Ipv6", "InterNetworkV6") : ("Ipv4", "InterNetwork")
        response.headers.add(contentsOf: [
            ("Cache-Control", "no-cache"), ("Pragma", "no-cache"), ("Expires", "-1"),
            ("x-ms-keyvault-region", region), ("x-ms-keyvault-service-version", "1.9.2000.1"),
            (
                "x-ms-keyvault-network-info",
                "conn_type=\(family.0);addr=\(request.transport.peerAddress);act_addr_fam=\(family.1);"
            ),
            ("X-Content-Type-Options", "nosniff"), ("Strict-Transport-Security", "max-age=31536000;includeSubDomains"),
        ])
    }

    // MARK: Authentication

    /// The live vault of the host name.
    private func addressedVault(_ request: Request) async throws(VaultError) -> Vault {
        let name: String
        switch request.endpoint {
        case .vault(let vault): name = vault
        case .managedHSM: throw .notSupported("Managed HSMs are")
        default: throw .vaultNotFound("")
        }
        guard let vault = try await answering({ () async throws -> Vault? in try await index.find(name)?.vault }),
            vault.deletion == nil
        else {
            throw .vaultNotFound(name)
        }
        return vault
    }

    private func authenticate(_ request: Request) async throws(VaultError) -> Caller {
        let parts = request.header("Authorization")?.split(separator: " ", maxSplits: 1) ?? []
        guard parts.count == 2, parts[0].lowercased() == "bearer" else {
            throw VaultError(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        }
        do {
            return try await tokens.verify(String(parts[1]), audiences: audiences)
        } catch {
            throw unauthorized(error)
        }
    }

    private func unauthorized(_ refusal: TokenRefusal) -> VaultError {
        guard refusal.reason != .unavailable else {
            return VaultError(503, "ServiceUnavailable", refusal.message, retryAfterSeconds: 1)
        }
        let code =
            switch refusal.reason {
            case .wrongAudience: "AKV10022: Invalid audience."
            case .wrongIssuer: "AKV10032: Invalid issuer."
            case .expired: "AKV10046: The token has expired."
            case .notYetValid: "AKV10046: The token is not valid yet."
            case .badSignature: "AKV10046: Unable to resolve the key used for signature validation."
            case .malformed, .missingClaim, .principalUnknown, .unavailable: "AKV10000: The token is not usable."
            }
        return VaultError(401, "Unauthorized", "\(code) \(refusal.message)")
    }
}

/// One authenticated request to one vault.
struct VaultCall: Sendable {
    let request: Request
    /// As it was when the request came in; operations read it again and decide on that.
    let vault: Vault
    let caller: Caller

    var names: NameFamily { request.names }
    var address: VaultAddress {
        VaultAddress(name: vault.name, origin: .network(peerAddress: request.transport.peerAddress))
    }

    func body(upTo limit: Int = KeyVaultService.Limits.requestBytes) async throws -> VaultBody {
        try VaultBody(try await bodyBytes(upTo: limit))
    }
    func bodyBytes(upTo limit: Int = KeyVaultService.Limits.requestBytes) async throws -> ByteBufferView {
        do {
            return try await request.body.collect(upTo: limit).readableBytesView
        } catch EdgeError.bodyTooLarge(let limit) {
            throw VaultError(413, "RequestTooLarge", "The request body is larger than \(limit) bytes.")
        } catch let error as EdgeError {
            throw VaultError(400, "BadRequest", "The request body did not arrive: \(error).")
        }
    }

    func ok(_ value: JSONValue) -> Response {
        Response.json(.ok, value.serialized())
    }

    /// A KeyOperationResult: what a busy vault answers most, so it is written without the detour over a tree.
    func answer(_ key: StoredObject, value: String) -> Response {
        let identifier = key.identifier(names)
        var body = ByteBufferAllocator().buffer(capacity: identifier.utf8.count + value.utf8.count + 32)
        body.writeStaticString("{\"kid\":")
        body.writeJSONString(identifier)
        body.writeStaticString(",\"value\":")
        body.writeJSONString(value)
        body.writeStaticString("}")
        return Response.json(.ok, body)
    }

    // MARK: Paging

    /// `maxresults` of 1…25 and the position that `$skiptoken` carries.
    func page() throws(VaultError) -> (limit: Int, after: String?) {
        var limit = KeyVaultService.Limits.pageItems
        var after: String?
        for (name, value) in request.query {
            switch name.lowercased() {
            case "maxresults", "$maxresults":
                guard let number = Int(value), (1...KeyVaultService.Limits.pageItems).contains(number) else {
                    throw .badParameter("maxresults must be between 1 and \(KeyVaultService.Limits.pageItems).")
                }
                limit = number
            case "$skiptoken":
                guard let bytes = [UInt8](base64URL: value), let text = String(validating: bytes, as: UTF8.self),
                    isValidObjectName(text)
                else {
                    throw .badParameter("The $skiptoken is not one that this server made.")
                }
                after = text
            default: break
            }
        }
        return (limit, after)
    }

    func answer(_ page: Page<StoredObject>, limit: Int, isVersion: Bool) -> Response {
        var link = JSONValue.null
        if let next = page.next {
            let version = request.query.first { $0.name.lowercased() == "api-version" }?.value ?? ""
            let token = Array(next.utf8).base64URL
            link = .string(
                "\(names.url(of: request.endpoint))\(request.rawPath)?api-version=\(version)&$skiptoken=\(token)"
                    + "&maxresults=\(limit)"
            )
        }
        return ok(["value": .array(page.items.map { $0.listItem(names, isVersion: isVersion) }), "nextLink": link])
    }
}
