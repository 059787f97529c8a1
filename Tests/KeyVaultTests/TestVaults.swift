import AccessControl
import CofferCore
import Crypto
import EncryptionAtRest
import Foundation
import HTTPEdge
import Logging
import NIOCore
import NIOHTTP1
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport
import _CryptoExtras

@testable import KeyVault

/// The service on real parts: the in-memory engine, real sealing, real tokens, a clock that stands until it is moved.
final class TestVaults: Sendable {
    static let tenant = "11111111-1111-4111-8111-111111111111"
    static let subscription = "22222222-2222-4222-8222-222222222222"
    static let group = ResourceID("/subscriptions/\(subscription)/resourceGroups/rg1")
    static let names = HostNames(domain: "coffer.localhost", port: nil)

    final class TestClock: WallClock {
        private let time = Mutex(Timestamp(unixSeconds: 1_790_000_000))
        func now() -> Timestamp { time.withLock { $0 } }
        func advance(days: Int64 = 0, seconds: Int64 = 0) {
            time.withLock { $0 = $0.adding(seconds: days * 86_400 + seconds) }
        }
    }

    let engine: FaultyEngine
    let clock = TestClock()
    let access = AccessController()
    let tokens: TokenVerifier
    let service: KeyVaultService
    let owner = caller(1)
    private let assignments = Mutex<[RoleAssignment]>([])

    static func caller(_ number: Int, kind: Caller.Kind = .servicePrincipal) -> Caller {
        let digit = String(repeating: String(number), count: 8)
        return Caller(
            kind: kind, objectID: "\(digit)-aaaa-4aaa-8aaa-aaaaaaaaaaaa", tenantID: tenant,
            applicationID: "\(digit)-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
    }

    init() async throws {
        let memory = InMemoryEngine()
        engine = FaultyEngine(memory)
        tokens = TokenVerifier(clock: clock)
        try await tokens.publish(jwks: TestTokens.jwks, issuers: [TestTokens.issuer])
        let store = try SealedStore(
            metadata: engine, extents: memory, rootKey: RootKey(version: 1, key: SystemRandomness().secret(32)),
            clock: clock,
            randomness: SystemRandomness())
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        service = KeyVaultService(
            store: store, access: access, tokens: tokens,
            installation: Installation(
                tenantID: Self.tenant, subscriptionID: Self.subscription, subscriptionName: "test"),
            hostNames: Self.names, clock: clock, randomness: SystemRandomness(), logger: logger)
        assign(owner, role: "Owner", at: .root)
    }

    // MARK: Roles

    func assign(_ caller: Caller, role: String, at scope: ResourceID) {
        let definition = BuiltInRoles.all.first { $0.roleName == role }!
        assignments.withLock {
            $0.append(
                RoleAssignment(
                    name: UUID().uuidString, scope: scope, roleID: definition.id, principalID: caller.objectID,
                    principalType: "ServicePrincipal", created: clock.now(), createdBy: "test"))
        }
        publish()
    }
    func removeRoles(of caller: Caller) {
        assignments.withLock { $0.removeAll { $0.principalID == caller.objectID } }
        publish()
    }
    private func publish() {
        access.publish(RoleBook(definitions: BuiltInRoles.all, assignments: assignments.withLock { $0 }))
    }

    /// The keys of all records of all vaults' objects.
    func objectKeys() async throws -> [String] {
        var keys: [String] = []
        for partition in try await engine.partitions(after: nil, limit: .max) {
            guard String(decoding: partition.bytes, as: UTF8.self).hasPrefix("r/vault/objects-") else { continue }
            let rows = try await engine.scan(partition, from: RowKey(""), upTo: nil, limit: .max)
            keys += rows.map { String(decoding: $0.key.bytes, as: UTF8.self) }
        }
        return keys
    }

    // MARK: Control plane

    static func vaultID(_ name: String) -> ResourceID {
        ResourceID("\(group)/providers/Microsoft.KeyVault/vaults/\(name)")
    }

    func control(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil, as caller: Caller? = nil,
        apiVersion: String = "2024-11-01"
    ) async throws -> (status: Int, body: JSONValue) {
        let request = ControlRequest(
            method: method, path: path, query: [:], apiVersion: apiVersion, body: body, names: Self.names.own)
        let response = try await service.respond(to: request, as: caller ?? owner)
        guard case .json(let value) = response.body else { return (response.status, .null) }
        return (response.status, value)
    }

    /// The code of the refusal, or nil when there was none.
    func refusal(
        _ method: ControlRequest.Method, _ path: ResourceID, _ body: JSONValue? = nil, as caller: Caller? = nil
    ) async -> ControlError? {
        do {
            _ = try await control(method, path, body, as: caller)
            return nil
        } catch {
            return error as? ControlError
        }
    }

    static func policy(
        _ caller: Caller, keys: [String] = [], secrets: [String] = []
    ) -> JSONValue {
        [
            "tenantId": .string(tenant), "objectId": .string(caller.objectID),
            "permissions": [
                "keys": .array(keys.map { .string($0) }), "secrets": .array(secrets.map { .string($0) }),
                "certificates": [],
                "storage": [],
            ],
        ]
    }
    static func body(
        policies: [JSONValue] = [], rbac: Bool = false, purgeProtection: Bool = false, more: [String: JSONValue] = [:]
    ) -> JSONValue {
        var properties: [String: JSONValue] = [
            "tenantId": .string(tenant), "sku": ["family": "A", "name": "standard"], "accessPolicies": .array(policies),
            "enableRbacAuthorization": .bool(rbac),
        ]
        if purgeProtection { properties["enablePurgeProtection"] = true }
        properties.merge(more) { _, new in new }
        return ["location": "eastus", "properties": .object(properties)]
    }

    /// Makes a vault whose owner may do everything by policy.
    @discardableResult
    func makeVault(
        _ name: String = "vault1", policies: [JSONValue] = [], rbac: Bool = false, purgeProtection: Bool = false,
        more: [String: JSONValue] = [:]
    ) async throws -> JSONValue {
        let all = Self.policy(owner, keys: ["all"], secrets: ["all"])
        let body = Self.body(policies: [all] + policies, rbac: rbac, purgeProtection: purgeProtection, more: more)
        return try await control(.put, Self.vaultID(name), body).body
    }

    // MARK: Data plane

    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: JSONValue
        var code: String? { body["error"]?["code"]?.stringValue }
        var innerCode: String? { body["error"]?["innererror"]?["code"]?.stringValue }
        var message: String? { body["error"]?["message"]?.stringValue }
    }

    /// Sends one request; `as` nil sends no token.
    func send(
        _ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil, as caller: Caller?, vault: String = "vault1",
        names: NameFamily = TestVaults.names.own, peer: String = "127.0.0.1",
        query: String = "api-version=7.6-preview.2",
        token: String? = nil, raw: [UInt8]? = nil
    ) async -> Answer {
        var headers: HTTPHeaders = ["Content-Type": "application/json", "x-ms-client-request-id": "client-1"]
        if let token = token
            ?? caller.map({ TestTokens.token(for: $0, audience: names.vaultAudience, now: clock.now()) })
        {
            headers.add(name: "Authorization", value: "Bearer \(token)")
        }
        let bytes = raw ?? body?.serialized() ?? []
        let request = Request(
            id: "request-1", method: method, rawPath: path, rawQuery: query, headers: headers, endpoint: .vault(vault),
            names: names,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: peer),
            body: .bytes(ByteBuffer(bytes: bytes)))
        let response = await service.respond(to: request)
        var value = JSONValue.null
        if case .bytes(let buffer) = response.body {
            value = (try? JSONValue(parsing: buffer.readableBytesView)) ?? .null
        }
        return Answer(status: Int(response.status.code), headers: response.headers, body: value)
    }

    /// As the owner.
    func owned(_ method: HTTPMethod, _ path: String, _ body: JSONValue? = nil, vault: String = "vault1") async -> Answer
    {
        await send(method, path, body, as: owner, vault: vault)
    }
}

/// RS256 tokens as the token service makes them.
enum TestTokens {
    static let issuer = "https://sts.windows.net/\(TestVaults.tenant)/"
    private static let key = try! _RSA.Signing.PrivateKey(keySize: .bits2048)
    /// Signing takes a millisecond: the same claims are signed once.
    private static let made = Mutex<[[UInt8]: String]>([:])

    static var jwks: [UInt8] {
        let parts = try! key.publicKey.getKeyPrimitives()
        let json: JSONValue = [
            "keys": [
                [
                    "kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256",
                    "n": .string([UInt8](parts.modulus).base64URL),
                    "e": .string([UInt8](parts.publicExponent).base64URL),
                ]
            ]
        ]
        return json.serialized()
    }

    static func token(
        for caller: Caller, audience: String, now: Timestamp, lifetimeSeconds: Int64 = 3_600,
        issuer: String = TestTokens.issuer
    ) -> String {
        let header: JSONValue = ["alg": "RS256", "typ": "JWT", "kid": "k1"]
        let claims: JSONValue = [
            "aud": .string(audience), "iss": .string(issuer), "iat": .integer(now.unixSeconds),
            "nbf": .integer(now.unixSeconds),
            "exp": .integer(now.unixSeconds + lifetimeSeconds), "tid": .string(caller.tenantID),
            "oid": .string(caller.objectID),
            "sub": .string(caller.objectID), "appid": .string(caller.applicationID ?? ""), "idtyp": "app", "ver": "1.0",
        ]
        let input = header.serialized().base64URL + "." + claims.serialized().base64URL
        let known = made.withLock { $0[claims.serialized()] }
        if let known { return known }
        let signature = try! key.signature(for: SHA256.hash(data: Data(input.utf8)), padding: .insecurePKCS1v1_5)
        let token = input + "." + [UInt8](signature.rawRepresentation).base64URL
        made.withLock { $0[claims.serialized()] = token }
        return token
    }
}
