public import CofferCore
internal import EncryptionAtRest
public import HTTPEdge
public import Logging
internal import NIOCore
internal import NIOHTTP1
public import StorageAccount

/// The Blob service: one account's containers and blobs over the wire protocol of Azure Storage, for
/// `Endpoint.storage(_, .blob)`.
///
/// Operations are in `Operations/`, one file each or one for a small family; `BlobServiceRoutes` says which request is
/// which. Every operation takes the caller (in `BlobCall`) and asks for its own access before it does anything.
public final class BlobService: WireService, StoredAccessPolicies {
    let accounts: any StorageAccounts
    let names: HostNames
    let clock: any WallClock
    let randomness: any Randomness
    let logger: Logger
    let containers = ContainerCache()
    let newNames = NewNames()
    /// Uncommitted blocks of one name are put one after the other, and so are pages: each changes the same row, and of
    /// many that raced for it all but one would have to begin again. Names share these by chance.
    let turnstiles = (0..<64).map { _ in Turnstile() }
    let pageMapLimits: PageMapLimits
    let pageMapPins = PageMapPins()
    let pageReleases = PageReleases()

    /// `names` tells which copy sources are accounts of this server.
    public convenience init(
        accounts: any StorageAccounts, names: HostNames, clock: any WallClock, randomness: any Randomness,
        logger: Logger
    ) {
        self.init(
            accounts: accounts, names: names, clock: clock, randomness: randomness, logger: logger,
            pageMapLimits: PageMapLimits())
    }

    init(
        accounts: any StorageAccounts, names: HostNames, clock: any WallClock, randomness: any Randomness,
        logger: Logger, pageMapLimits: PageMapLimits
    ) {
        self.pageMapLimits = pageMapLimits
        self.accounts = accounts
        self.names = names
        self.clock = clock
        self.randomness = randomness
        self.logger = logger
    }

    public func respond(to request: Request) async -> Response {
        var response: Response
        do {
            response = try await answer(request)
        } catch {
            response = refusal(error, request)
        }
        stamp(&response.headers, request)
        return response
    }

    private func answer(_ request: Request) async throws -> Response {
        guard case .storage(let accountName, .blob) = request.endpoint else { throw StorageError.resourceNotFound }
        let parameters = QueryParameters(request)
        // Get Account Information (restype=account) names a container where one segment stands.
        let isContainer = ["container", "account"].contains(parameters["restype"])
        let address = try BlobAddress(rawPath: request.rawPath, isContainer: isContainer)
        let account = try await accounts.account(named: accountName)
        if request.method == .OPTIONS { return try await preflight(request, account) }
        let caller = try await accounts.authenticate(request, account: account, service: .blob, policies: self)
        let call = BlobCall(
            request: request, parameters: parameters, account: account, caller: caller, now: clock.now())
        guard request.headers.contains(name: "Origin") else { return try await perform(call, at: address) }
        var response: Response
        do {
            response = try await perform(call, at: address)
        } catch {
            // A browser shows a refusal to its script only with the CORS headers on it.
            response = refusal(error, request)
        }
        try await addCORSHeaders(&response.headers, request, account)
        return response
    }

    // MARK: Refusals

    /// Turns whatever an operation threw into the wire's answer.
    func refusal(_ error: any Error, _ request: Request) -> Response {
        let storageError = wireError(error)
        if storageError.status >= 500 {
            logger.error(
                "Blob request failed",
                metadata: [
                    "request": "\(request.id)", "code": "\(storageError.code)", "error": "\(Self.describe(error))",
                ])
        }
        var headers = HTTPHeaders()
        headers.add(name: "x-ms-error-code", value: storageError.code)
        for (name, value) in storageError.headers { headers.add(name: name, value: value) }
        let status = HTTPResponseStatus(statusCode: storageError.status)
        guard request.method != .HEAD, storageError.status != 304 else {
            return Response(status: status, headers: headers)
        }
        headers.add(name: "Content-Type", value: "application/xml")
        return Response(status: status, headers: headers, body: .bytes(errorBody(storageError, request)))
    }

    func wireError(_ error: any Error) -> StorageError {
        switch error {
        case let error as StorageError: return error
        case let error as KeyUnavailable:
            return StorageError(error.code == .scopeNotAvailable ? 409 : 403, error.code.rawValue, error.message)
        case let error as SealedStoreError:
            switch error.code {
            case .unavailable, .full, .extentGone: return .serverBusy
            case .outcomeUnknown:
                return StorageError(
                    500, "OperationTimedOut", "The operation could not be completed within the permitted time.")
            case .limitExceeded: return .bodyTooLarge
            case .corrupt, .keyMismatch:
                return StorageError(500, "InternalError", "The stored data did not pass its integrity check.")
            }
        case is ContentChanged: return .serverBusy
        case EdgeError.bodyTooLarge: return .bodyTooLarge
        case EdgeError.timedOut:
            return StorageError(
                408, "OperationTimedOut", "The request's body did not arrive within the permitted time.")
        case EdgeError.clientWentAway: return StorageError(400, "InvalidInput", "The request's body ended early.")
        default:
            return StorageError(
                500, "InternalError", "The server encountered an internal error. Please retry the request.")
        }
    }
    private static func describe(_ error: any Error) -> String {
        (error as? SealedStoreError)?.message ?? String(describing: type(of: error))
    }

    private func errorBody(_ error: StorageError, _ request: Request) -> ByteBuffer {
        var xml = XMLDocumentWriter()
        xml.open("Error")
        xml.element("Code", error.code)
        xml.element("Message", "\(error.message)\nRequestId:\(request.id)\nTime:\(clock.now().iso8601WithTicks)")
        for (name, value) in error.details { xml.element(named: name, value) }
        xml.close("Error")
        return xml.finish()
    }

    /// What every answer carries.
    private func stamp(_ headers: inout HTTPHeaders, _ request: Request) {
        headers.add(name: "x-ms-request-id", value: request.id)
        headers.add(name: "x-ms-version", value: request.header("x-ms-version") ?? Self.newestVersion)
        if let id = request.header("x-ms-client-request-id"), id.utf8.count <= 1_024 {
            headers.add(name: "x-ms-client-request-id", value: id)
        }
    }
    /// The newest version whose behaviour is served; newer ones are taken and served the same.
    static let newestVersion = "2026-04-06"

    // MARK: StoredAccessPolicies

    public func storedAccessPolicy(
        _ identifier: String, container: String, account: StorageAccountView
    ) async throws(StorageError) -> StoredAccessPolicy? {
        do {
            guard
                let policy = try await self.container(container, of: account)?.record.policies.first(where: {
                    $0.identifier == identifier
                })
            else { return nil }
            return StoredAccessPolicy(start: policy.start, expiry: policy.expiry, permissions: policy.permissions)
        } catch {
            throw wireError(error)
        }
    }
}

/// One authenticated request on its way through an operation.
struct BlobCall: Sendable {
    let request: Request
    let parameters: QueryParameters
    let account: StorageAccountView
    let caller: StorageCaller
    /// When the request came: one time for all that it writes.
    let now: Timestamp
    var volume: AccountVolume { account.volume }
}
