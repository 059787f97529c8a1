import AccessControl
import CofferCore
import Crypto
import CryptoExtras
import EncryptionAtRest
import HTTPEdge
import Logging
import NIOCore
import NIOHTTP1
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport

@testable import StorageAccount

/// The directory's part: identities by resource.
final class Directory: ManagedIdentities {
    private let known = Mutex<[ResourceID: ManagedIdentity]>([:])
    private let randomness = SeededRandomness(99)
    /// Whether identities can be removed.
    let isAvailable = Mutex(true)
    func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity {
        known.withLock { known in
            let identity =
                known[resource]
                ?? ManagedIdentity(
                    principalID: randomness.uuidString(), clientID: randomness.uuidString(), tenantID: Fixture.tenant)
            known[resource] = identity
            return identity
        }
    }
    func removeSystemAssignedIdentity(of resource: ResourceID) async throws {
        guard isAvailable.withLock({ $0 }) else { throw StorageEngineError(.unavailable, "the disk is gone") }
        known.withLock { $0[resource] = nil }
    }
    func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken {
        throw ControlError.notImplemented("tokens")
    }
    func servicePrincipal(applicationID: String, secret: RedactedString, tenantID: String) async throws -> Caller {
        throw ControlError.notImplemented("client secrets")
    }
    func identity(of resource: ResourceID) -> ManagedIdentity? { known.withLock { $0[resource] } }
}

/// Whether a customer's key may be taken: the vault's own word, and its protection against loss.
final class Eligibility: CustomerKeyEligibility {
    private let vault: FakeVault
    let isRecoverable = Mutex(true)
    init(_ vault: FakeVault) { self.vault = vault }

    func customerKeyEligibility(_ reference: CustomerKeyReference, as caller: Caller) async throws(ControlError) {
        guard isRecoverable.withLock({ $0 }) else {
            throw .badRequest("Keyvault policy recoverable is not set", code: "KeyVaultPolicyError")
        }
        do throws(KeyUnavailable) {
            _ = try await vault.currentKeyIdentifier(of: reference, as: caller)
        } catch {
            throw ControlError(error)
        }
    }
}

/// Policies by container and identifier.
struct Policies: StoredAccessPolicies {
    var known: [String: StoredAccessPolicy] = [:]
    func storedAccessPolicy(
        _ identifier: String, container: String, account: StorageAccountView
    ) async throws(StorageError) -> StoredAccessPolicy? { known["\(container)/\(identifier)"] }
}

/// Microsoft.Storage over the in-memory engine, with an owner, and tokens signed by a key of its own.
struct Fixture {
    static let tenant = "22222222-2222-4222-8222-222222222222"
    static let subscription = "44444444-4444-4444-8444-444444444444"
    static let group = ResourceID("/subscriptions/\(subscription)/resourceGroups/rg1")
    static let names = NameFamily.coffer(domain: "coffer.localhost", port: 8443)
    static let issuer = "https://login.coffer.localhost:8443/\(tenant)/v2.0"

    let engine = InMemoryEngine()
    let clock = FixedClock("2026-11-22T00:00:00Z")
    let directory = Directory()
    let vault = FakeVault(name: "cmk")
    let eligibility: Eligibility
    let access = AccessController()
    let tokens: TokenVerifier
    let store: SealedStore
    let service: StorageAccountService
    let owner = Caller(kind: .user, objectID: "55555555-5555-4555-8555-555555555555", tenantID: tenant)

    init() throws {
        tokens = TokenVerifier(clock: clock)
        store = try SealedStore(
            metadata: engine, extents: engine, rootKey: rootKey(), clock: clock, randomness: SeededRandomness(1))
        store.accountKeys.attach(vault)
        eligibility = Eligibility(vault)
        service = Self.service(store, access, tokens, directory, eligibility, clock, seed: 2)
        assign([(owner.objectID, BuiltInRoles.owner, Self.group.parent)])
    }

    private static func service(
        _ store: SealedStore, _ access: AccessController, _ tokens: TokenVerifier, _ directory: Directory,
        _ eligibility: Eligibility, _ clock: FixedClock, seed: UInt64
    ) -> StorageAccountService {
        StorageAccountService(
            store: store, access: access, tokens: tokens, identities: directory, eligibility: eligibility,
            installation: Installation(tenantID: tenant, subscriptionID: subscription, subscriptionName: "Coffer"),
            hostNames: HostNames(domain: "coffer.localhost", port: 8443), clock: clock,
            randomness: SeededRandomness(seed),
            logger: silentLogger)
    }
    /// Another service over the same bytes, as after a restart.
    func restarted() -> StorageAccountService {
        Self.service(store, access, tokens, directory, eligibility, clock, seed: 3)
    }

    /// The owner keeps the subscription; `more` is principal, role, scope.
    func assign(_ more: [(String, String, ResourceID)]) {
        var list = more
        list.append((owner.objectID, BuiltInRoles.owner, ResourceID("/subscriptions/\(Self.subscription)")))
        access.publish(
            RoleBook(
                definitions: BuiltInRoles.all,
                assignments: list.enumerated().map { index, item in
                    RoleAssignment(
                        name: "\(index)", scope: item.2, roleID: item.1, principalID: item.0, principalType: "User",
                        created: clock.now(), createdBy: owner.objectID)
                }))
    }

    // MARK: Control plane

    static func id(_ account: String, group: ResourceID = group) -> ResourceID {
        group.appending("providers", "Microsoft.Storage", "storageAccounts", account)
    }

    func control(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil, as caller: Caller? = nil,
        query: [String: String] = [:], service: StorageAccountService? = nil
    ) async throws -> JSONValue {
        let response = try await (service ?? self.service).respond(
            to: ControlRequest(
                method: method, path: path, query: query, apiVersion: "2025-08-01", body: body, names: Self.names),
            as: caller ?? owner)
        if case .json(let value) = response.body { return value }
        return ["status": .integer(Int64(response.status))]
    }
    /// `NNN Code` of the refusal.
    func refusal(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil, as caller: Caller? = nil
    ) async -> String {
        do {
            _ = try await control(method, path, body, as: caller)
            return "none"
        } catch let error as ControlError {
            return "\(error.status) \(error.code)"
        } catch {
            return "\(error)"
        }
    }

    static let plainAccount: JSONValue = [
        "sku": ["name": "Standard_LRS"], "kind": "StorageV2", "location": "East US",
        "properties": ["encryption": ["keySource": "Microsoft.Storage", "services": ["blob": [:]]]],
    ]
    @discardableResult
    func create(_ name: String, _ changes: JSONValue = [:]) async throws -> JSONValue {
        try await control(.put, Self.id(name), Self.plainAccount.merged(with: changes))
    }
    @discardableResult
    func patch(_ name: String, _ properties: JSONValue) async throws -> JSONValue {
        try await control(.patch, Self.id(name), ["properties": properties])
    }
    func keys(_ name: String) async throws -> [String] {
        let answer = try await control(.post, Self.id(name).appending("listKeys"), query: ["$expand": "kerb"])
        return (answer["keys"]?.arrayValue ?? []).compactMap { $0["value"]?.stringValue }
    }

    /// Creates `goldenaccount` with the secrets that the golden requests were signed with.
    func createGoldenAccount() async throws {
        try await create("goldenaccount")
        try await service.directory.change("goldenaccount") { records, stored in
            let key = SecretBytes(copying: Array(0..<64))
            let secrets = AccountSecrets(
                keys: [
                    AccountSecrets.Key(name: "key1", created: self.clock.now(), secret: key),
                    AccountSecrets.Key(name: "key2", created: self.clock.now(), secret: stored!.secrets.keys[1].secret),
                ], delegationSecret: SecretBytes(copying: Array(64..<96)))
            _ = try await records.records.commit([try records.put(secrets, of: "goldenaccount")])
        }
    }

    // MARK: Data plane

    func request(
        _ method: HTTPMethod = .GET, _ url: String, _ headers: [(String, String)] = [],
        scheme: Transport.Scheme = .https,
        peer: String = "203.0.113.7", tls: Transport.TLSVersion? = .v1_3
    ) -> Request {
        let rest = url.split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false)[2]
        let slash = rest.firstIndex(of: "/")!
        let target = rest[slash...].split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let (endpoint, names) = HostNames(domain: "coffer.localhost", port: 8443).match(String(rest[..<slash]))!
        return Request(
            id: "r", method: method, rawPath: String(target[0]), rawQuery: target.count > 1 ? String(target[1]) : "",
            headers: HTTPHeaders(headers), endpoint: endpoint, names: names,
            transport: Transport(scheme: scheme, tlsVersion: scheme == .https ? tls : nil, peerAddress: peer),
            body: .empty)
    }

    func authenticate(
        _ request: Request, policies: Policies = Policies(), as service: StorageService = .blob
    ) async throws(StorageError) -> StorageCaller {
        guard case .storage(let name, _) = request.endpoint else { fatalError("not a storage host") }
        let account = try await self.service.account(named: name)
        return try await self.service.authenticate(request, account: account, service: service, policies: policies)
    }
    /// `NNN Code` of the refusal, or what was let in.
    func outcome(_ request: Request, policies: Policies = Policies(), as service: StorageService = .blob) async
        -> String
    {
        do throws(StorageError) {
            switch try await authenticate(request, policies: policies, as: service) {
            case .accountKey: return "accountKey"
            case .sharedAccess: return "sharedAccess"
            case .principal: return "principal"
            case .anonymous: return "anonymous"
            }
        } catch {
            return "\(error.status) \(error.code)"
        }
    }

    // MARK: Tokens

    /// A signed token, once its key is trusted.
    func token(
        for objectID: String, audience: String = "https://storage.azure.com", tenant: String = tenant,
        lifeSeconds: Int64 = 3_600
    ) async throws -> String {
        let key = Self.tokenKey
        let primitives = try key.publicKey.getKeyPrimitives()
        let jwks =
            #"{"keys":[{"kty":"RSA","kid":"k","n":"\#([UInt8](primitives.modulus).base64URL)","#
            + #""e":"\#([UInt8](primitives.publicExponent).base64URL)"}]}"#
        try await tokens.publish(jwks: Array(jwks.utf8), issuers: [Self.issuer])
        let now = clock.now().unixSeconds
        let claims: JSONValue = [
            "aud": .string(audience), "iss": .string(Self.issuer), "exp": .integer(now + lifeSeconds),
            "nbf": .integer(now),
            "tid": .string(tenant), "oid": .string(objectID), "idtyp": "user",
        ]
        let signed = Array(#"{"alg":"RS256","kid":"k"}"#.utf8).base64URL + "." + claims.serialized().base64URL
        let signature = try key.signature(for: Array(signed.utf8), padding: .insecurePKCS1v1_5)
        return signed + "." + Array(signature.rawRepresentation).base64URL
    }
    private static let tokenKey = try! _RSA.Signing.PrivateKey(keySize: .bits2048)
}
