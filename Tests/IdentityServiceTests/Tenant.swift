import AccessControl
import CofferCore
import EncryptionAtRest
import Foundation
import HTTPEdge
import IdentityService
import Logging
import NIOCore
import NIOHTTP1
import StorageEngine
import Synchronization

/// A clock that stands still until a test moves it.
final class TestClock: WallClock {
    private let time = Mutex(Timestamp(iso8601: "2026-11-22T03:00:00Z")!)
    func now() -> Timestamp { time.withLock { $0 } }
    func advance(seconds: Int64) { time.withLock { $0 = $0.adding(seconds: seconds) } }
}

/// A tenant on an in-memory engine, with everything real but the clock.
struct Tenant {
    let clock = TestClock()
    let engine = InMemoryEngine()
    let names = HostNames(domain: "coffer.localhost", port: nil)
    let installation = Installation(
        tenantID: "11111111-2222-4333-8444-555555555555", subscriptionID: "66666666-7777-4888-8999-aaaaaaaaaaaa",
        subscriptionName: "Local")
    let verifier: TokenVerifier
    let identity: IdentityService
    let administrator: Administrator

    init() async throws {
        verifier = TokenVerifier(clock: clock)
        identity = try Self.service(engine, clock, names, installation, verifier)
        administrator = try await identity.bootstrap()
    }

    static func service(
        _ engine: InMemoryEngine, _ clock: TestClock, _ names: HostNames, _ installation: Installation,
        _ verifier: TokenVerifier
    ) throws -> IdentityService {
        let store = try SealedStore(
            metadata: engine, extents: engine,
            rootKey: RootKey(version: 1, key: SecretBytes(copying: [UInt8](repeating: 7, count: 32))),
            clock: clock, randomness: SystemRandomness())
        return IdentityService(
            installation: installation, names: names, records: store.records(.identity, "directory"),
            verifier: verifier, clock: clock,
            randomness: SystemRandomness(), logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
            secretRounds: 500)
    }

    /// The same engine after a restart.
    func restarted(verifier: TokenVerifier) throws -> IdentityService {
        try Self.service(engine, clock, names, installation, verifier)
    }

    var secret: String { administrator.secret!.reveal() }

    func request(
        _ method: HTTPMethod, _ path: String, endpoint: Endpoint, family: NameFamily? = nil, headers: HTTPHeaders = [:],
        body: String = ""
    ) -> Request {
        let parts = path.split(separator: "?", maxSplits: 1).map(String.init)
        return Request(
            id: UUID().uuidString.lowercased(), method: method, rawPath: parts[0],
            rawQuery: parts.count > 1 ? parts[1] : "", headers: headers,
            endpoint: endpoint, names: family ?? names.own,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"),
            body: .bytes(ByteBuffer(string: body)))
    }

    func login(
        _ form: [String: String], tenant: String? = nil, path: String = "/oauth2/v2.0/token", family: NameFamily? = nil,
        headers: HTTPHeaders = [:]
    ) async -> (status: Int, body: JSONValue) {
        var allowed = CharacterSet.alphanumerics
        allowed.insert(charactersIn: "-._~")
        let body = form.map { "\($0)=\($1.addingPercentEncoding(withAllowedCharacters: allowed)!)" }.joined(
            separator: "&")
        var headers = headers
        headers.add(name: "Content-Type", value: "application/x-www-form-urlencoded")
        let request = request(
            .POST, "/\(tenant ?? installation.tenantID)\(path)", endpoint: .login, family: family, headers: headers,
            body: body)
        return await answer(LoginService(identity).respond(to: request))
    }

    func signIn(_ scope: String, family: NameFamily? = nil) async -> (status: Int, body: JSONValue) {
        await login(
            [
                "grant_type": "client_credentials", "client_id": administrator.clientID, "client_secret": secret,
                "scope": scope,
                "client_info": "1",
            ], family: family)
    }

    func graph(_ method: HTTPMethod, _ path: String, token: String, _ body: JSONValue? = nil) async -> (
        status: Int, body: JSONValue
    ) {
        let headers: HTTPHeaders = ["Authorization": "Bearer \(token)", "Content-Type": "application/json"]
        let request = request(
            method, path, endpoint: .graph, headers: headers,
            body: body.map { String(decoding: $0.serialized(), as: UTF8.self) } ?? "")
        return await answer(GraphService(identity).respond(to: request))
    }

    func graphToken() async -> String {
        await signIn("https://graph.coffer.localhost//.default").body["access_token"]?.stringValue ?? ""
    }
}

func answer(_ response: Response) async -> (status: Int, body: JSONValue) {
    guard case .bytes(let buffer) = response.body else { return (Int(response.status.code), .null) }
    return (Int(response.status.code), (try? JSONValue(parsing: buffer.readableBytesView)) ?? .null)
}

func claims(_ token: String) -> JSONValue {
    let parts = token.split(separator: ".")
    guard parts.count == 3, let bytes = [UInt8](base64URL: parts[1]) else { return .null }
    return (try? JSONValue(parsing: bytes)) ?? .null
}
