import CofferCore
import Crypto
import EncryptionAtRest
import HTTPEdge
import Logging
import NIOCore
import NIOHTTP1
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import BlobService
@testable import StorageAccount

/// Says who asks instead of proving it; everything else of the room under test is real.
final class KnownCallers: StorageAccounts {
    struct State {
        var caller = StorageCaller.accountKey
        var granted: Set<String> = []
        var allowsPublicAccess = true
        var properties = BlobServiceProperties()
        var sourcesAreAnonymous = false
        /// Encryption scopes of the account `acct`, by name: whether they are enabled.
        var scopes: [String: Bool] = [:]
    }
    /// From now on a copy source that brings no authorization is asked for by nobody.
    func sourcesAreAnonymous() { state.withLock { $0.sourcesAreAnonymous = true } }
    let state = Mutex(State())
    let store: SealedStore
    init(store: SealedStore) { self.store = store }

    static let id = AccountID(bytes: Array(1...16))

    func account(named name: String) async throws(StorageError) -> StorageAccountView {
        guard name == "acct" || name == "other" else { throw StorageError(404, "ResourceNotFound", "no such account") }
        let id = name == "acct" ? Self.id : AccountID(bytes: Array(101...116))
        return StorageAccountView(
            name: name, id: id,
            resourceID: ResourceID(
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/\(name)"),
            kind: "StorageV2", skuName: "Standard_LRS", allowsSharedKeyAccess: true,
            allowsBlobPublicAccess: state.withLock { $0.allowsPublicAccess }, requiresHTTPS: false,
            created: Timestamp(unixSeconds: 0),
            volume: store.volume(account: id))
    }
    func authenticate(
        _ request: Request, account: StorageAccountView, service: StorageService, policies: any StoredAccessPolicies
    ) async throws(StorageError) -> StorageCaller {
        if request.rawQuery.contains("sig=reader") {
            return .sharedAccess(
                SharedAccessGrant(
                    scope: .account(resourceTypes: "o"), permissions: "r", responseHeaders: [:],
                    encryptionScope: nil,
                    delegatingPrincipal: nil))
        }
        // The request for a copy's source is a GET.
        if request.method == .GET, state.withLock({ $0.sourcesAreAnonymous }) { return .anonymous }
        return state.withLock { $0.caller }
    }
    func requireRole(
        _ caller: Caller, _ action: Action, account: StorageAccountView, container: String?
    ) throws(StorageError) {
        guard state.withLock({ $0.granted.contains(action.name) }) else {
            throw StorageError(403, "AuthorizationPermissionMismatch", "not granted")
        }
    }
    func userDelegationKey(
        start: String?, expiry: String, delegatedTenantID: String?, version: String, as caller: StorageCaller,
        account: StorageAccountView
    ) async throws(StorageError) -> UserDelegationKey {
        guard case .principal(let principal) = caller else {
            throw StorageError(403, "AuthenticationFailed", "only principals")
        }
        return UserDelegationKey(
            signedObjectID: principal.objectID, signedTenantID: principal.tenantID, signedStart: start ?? "",
            signedExpiry: expiry,
            signedService: "b", signedVersion: version, signedDelegatedUserTenantID: delegatedTenantID,
            value: RedactedString("c2VjcmV0"))
    }
    func requireEncryptionScope(_ name: String, of account: StorageAccountView) async throws(StorageError) {
        guard state.withLock({ $0.scopes[name] }) == true, account.id == Self.id else {
            throw .encryptionScopeNotAvailable("the scope '\(name)' is disabled or was never made")
        }
    }
    func blobServiceProperties(of account: StorageAccountView) async throws(StorageError) -> BlobServiceProperties {
        state.withLock { $0.properties }
    }
    func updateBlobServiceProperties(
        of account: StorageAccountView, _ change: @Sendable (inout BlobServiceProperties) throws(StorageError) -> Void
    ) async throws(StorageError) {
        var properties = state.withLock { $0.properties }
        try change(&properties)
        let changed = properties
        state.withLock { $0.properties = changed }
    }
    func noAuthenticationInformation(_ request: Request) -> StorageError {
        StorageError(401, "NoAuthenticationInformation", "challenge")
    }
}

struct Answer: Sendable {
    let status: Int
    let headers: HTTPHeaders
    let body: [UInt8]
    var text: String { String(decoding: body, as: UTF8.self) }
    var code: String? { headers.first(name: "x-ms-error-code") }
    func header(_ name: String) -> String? { headers.first(name: name) }
    func xml() throws -> XMLNode { try readXML(ByteBuffer(bytes: body)) }
}

private final class BodyCollector: ResponseBodyWriter {
    let bytes = Mutex<[UInt8]>([])
    func write(_ part: ByteBuffer) async throws { bytes.withLock { $0.append(contentsOf: part.readableBytesView) } }
}

/// The room over a real sealed store on the in-memory engine.
final class Blobs: Sendable {
    let clock: FixedClock
    let engine: InMemoryEngine
    /// Between the store and the engine; fails when it is told to.
    let faults: FaultyEngine
    let store: SealedStore
    let accounts: KnownCallers
    let service: BlobService
    let vault = FakeVault()

    /// `previous`: a server that ended, on whose disk this one starts. Its seed must be another.
    init(seed: UInt64 = 1, after previous: Blobs? = nil, pageMapLimits: PageMapLimits = PageMapLimits()) async throws {
        let randomness = SeededRandomness(seed)
        clock = previous?.clock ?? FixedClock(unixSeconds: 1_790_000_000)
        engine = previous?.engine ?? InMemoryEngine()
        faults = FaultyEngine(engine)
        store = try SealedStore(
            metadata: faults, extents: engine, rootKey: rootKey(), clock: clock, randomness: randomness)
        store.accountKeys.attach(vault)
        if previous == nil {
            try await store.accountKeys.create(KnownCallers.id)
            try await store.accountKeys.create(AccountID(bytes: Array(101...116)))
        }
        accounts = KnownCallers(store: store)
        service = BlobService(
            accounts: accounts, names: HostNames(domain: "coffer.test", port: nil), clock: clock,
            randomness: randomness,
            logger: silentLogger, pageMapLimits: pageMapLimits)
    }

    /// With a container `c`.
    static func withContainer(seed: UInt64 = 1) async throws -> Blobs {
        let blobs = try await Blobs(seed: seed)
        #expect(await blobs.send(.PUT, "/ccc?restype=container").status == 201)
        return blobs
    }

    func send(
        _ method: HTTPMethod, _ target: String, _ headers: [(String, String)] = [], body: [UInt8] = [],
        declared: Int?? = nil, meanwhile: (@Sendable () async -> Void)? = nil,
        scheme: Transport.Scheme = .https, account: String = "acct"
    ) async -> Answer {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let whole = RequestBody.bytes(ByteBuffer(bytes: body))
        let source = PartSource(body)
        let isAnnounced = meanwhile == nil || declared != nil
        let length: Int?? = isAnnounced ? declared : .some(body.count)
        let requestBody =
            length.map { length in
                RequestBody(declaredLength: length) {
                    // Before the end of the body is told.
                    let part = source.take()
                    if part == nil, let meanwhile { await meanwhile() }
                    return part
                }
            } ?? whole
        let request = Request(
            id: "00000000-0000-4000-8000-000000000000", method: method, rawPath: String(parts[0]),
            rawQuery: parts.count > 1 ? String(parts[1]) : "",
            headers: HTTPHeaders([("x-ms-version", "2025-11-05")] + headers),
            endpoint: .storage(account: account, service: .blob),
            names: .coffer(domain: "coffer.test", port: nil),
            transport: Transport(scheme: scheme, tlsVersion: scheme == .https ? .v1_3 : nil, peerAddress: "127.0.0.1"),
            body: requestBody)
        let response = await service.respond(to: request)
        var bytes: [UInt8] = []
        switch response.body {
        case .empty, .omitted: break
        case .bytes(let buffer): bytes = Array(buffer.readableBytesView)
        case .stream(_, let write):
            let collector = BodyCollector()
            do { try await write(collector) } catch { return Answer(status: -1, headers: response.headers, body: []) }
            bytes = collector.bytes.withLock { $0 }
        }
        return Answer(status: Int(response.status.code), headers: response.headers, body: bytes)
    }

    @discardableResult
    func put(_ name: String, _ text: String, _ headers: [(String, String)] = []) async -> Answer {
        await send(.PUT, "/ccc/\(name)", [("x-ms-blob-type", "BlockBlob")] + headers, body: Array(text.utf8))
    }
    /// An encryption scope of the account `acct`, with a key of its own.
    func makeScope(_ name: String) async throws {
        try await store.accountKeys.create(KnownCallers.id, scope: name)
        accounts.state.withLock { $0.scopes[name] = true }
    }
    /// As the control plane does it: the state first, then the end of the keys in memory.
    func disableScope(_ name: String) {
        accounts.state.withLock { $0.scopes[name] = false }
        store.accountKeys.withdraw(KnownCallers.id, scope: name)
    }
    func enableScope(_ name: String) { accounts.state.withLock { $0.scopes[name] = true } }
    func asCaller(_ caller: StorageCaller) { accounts.state.withLock { $0.caller = caller } }
    func withGrant(_ permissions: String, _ scope: SharedAccessGrant.Scope, encryptionScope: String? = nil) {
        asCaller(
            .sharedAccess(
                SharedAccessGrant(
                    scope: scope, permissions: LetterSet(stringLiteral: permissions), responseHeaders: [:],
                    encryptionScope: encryptionScope,
                    delegatingPrincipal: nil)))
    }
    /// Where a container's rows lie.
    func volume(_ container: String) async throws -> (AccountVolume, VolumePartition) {
        let account = try await accounts.account(named: "acct")
        return (account.volume, try #require(try await service.container(container, of: account)).partition)
    }
    /// How many rows a container has beside its mark.
    func rows(_ container: String) async throws -> Int {
        let (volume, partition) = try await volume(container)
        return try await volume.scan(partition, from: [0x01], upTo: nil, limit: .max).count
    }
    var extentCount: Int { get async throws { try await engine.list(after: nil, limit: .max).count } }
}

private final class PartSource: Sendable {
    private let rest: Mutex<[UInt8]>
    init(_ bytes: [UInt8]) { rest = Mutex(bytes) }
    func take() -> ByteBuffer? {
        rest.withLock { rest in
            guard !rest.isEmpty else { return nil }
            let part = rest.prefix(1_000)
            rest.removeFirst(part.count)
            return ByteBuffer(bytes: part)
        }
    }
}

/// The three headers of a customer-provided key made of one byte.
func customerKey(_ byte: UInt8 = 9, algorithm: Bool = true) -> [(String, String)] {
    let key = [UInt8](repeating: byte, count: 32)
    let hash = Array(SHA256.hash(data: key)).base64
    return [("x-ms-encryption-key", key.base64), ("x-ms-encryption-key-sha256", hash)]
        + (algorithm ? [("x-ms-encryption-algorithm", "AES256")] : [])
}
