import CofferCore
import EncryptionAtRest
import Foundation
import HTTPEdge
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import ResourceProviders
import StorageEngine
import Synchronization
import TestSupport

@testable import FunctionsHost

/// Vaults as a dictionary, with the callers that may read.
final class TestVaults: VaultSecrets {
    struct State {
        var secrets: [String: (value: RedactedString, version: String)] = [:]
        var allowed: Set<String> = []
        var sets: [String] = []
    }
    let state = Mutex(State())

    func allow(_ identity: ManagedIdentity) { state.withLock { _ = $0.allowed.insert(identity.principalID) } }
    func revokeAll() { state.withLock { $0.allowed = [] } }
    func put(_ name: String, _ value: String, version: String) {
        state.withLock { $0.secrets[name] = (RedactedString(value), version) }
    }
    var names: [String] { state.withLock { $0.secrets.keys.sorted() } }

    private func check(_ vault: String, _ caller: Caller) throws(VaultSecretsError) {
        guard vault == "vault1" else { throw VaultSecretsError(.vaultNotFound, "No vault '\(vault)'.") }
        guard state.withLock({ $0.allowed.contains(caller.objectID) }) else {
            throw VaultSecretsError(.accessDenied, "The caller may not read secrets.")
        }
    }
    func secret(
        _ name: String, version: String?, inVault vault: String, as caller: Caller
    ) async throws(VaultSecretsError) -> VaultSecret {
        try check(vault, caller)
        guard let found = state.withLock({ $0.secrets[name] }) else {
            throw VaultSecretsError(.secretNotFound, "No secret '\(name)'.")
        }
        guard version == nil || version == found.version else {
            throw VaultSecretsError(.versionNotFound, "No such version.")
        }
        return VaultSecret(value: found.value, version: found.version)
    }
    func secretNames(inVault vault: String, as caller: Caller) async throws(VaultSecretsError) -> [String] {
        try check(vault, caller)
        return names
    }
    func setSecret(_ name: String, to value: RedactedString, inVault vault: String, as caller: Caller)
        async throws(VaultSecretsError)
    {
        try check(vault, caller)
        state.withLock { state in
            state.sets.append(name)
            state.secrets[name] = (value, "v\(state.sets.count)")
        }
    }
    func deleteSecret(_ name: String, inVault vault: String, as caller: Caller) async throws(VaultSecretsError) {
        try check(vault, caller)
        state.withLock { $0.secrets[name] = nil }
    }
}

/// A storage account and a package server: answers as the Blob service does, from a dictionary of URLs without queries.
final class TestStorage: OutboundHTTP {
    struct State {
        var blobs: [String: (bytes: [UInt8], tag: Int)] = [:]
        var containers: Set<String> = []
        var tags = 0
        var refusals: [String: Int] = [:]
        var requests: [String] = []
        var meanwhile: [String: @Sendable () async -> Void] = [:]
    }
    let state = Mutex(State())

    /// The next request for this URL is answered as things stand when it comes, and not before this is done.
    func meanwhile(_ url: String, _ action: @escaping @Sendable () async -> Void) {
        state.withLock { $0.meanwhile[url] = action }
    }
    func put(_ url: String, _ bytes: [UInt8]) {
        state.withLock { state in
            state.tags += 1
            state.blobs[url] = (bytes, state.tags)
        }
    }
    func bytes(_ url: String) -> [UInt8]? { state.withLock { $0.blobs[url]?.bytes } }
    /// From here on every request for a URL with this prefix gets this status; 0 lifts it.
    func refuse(_ prefix: String, with status: Int) {
        state.withLock { $0.refusals[prefix] = status == 0 ? nil : status }
    }
    func requests(for prefix: String) -> Int { state.withLock { $0.requests.count { $0.hasPrefix(prefix) } } }

    func send(_ request: OutboundRequest) async throws(OutboundError) -> OutboundResponse {
        let parts = request.url.split(separator: "?", maxSplits: 1).map(String.init)
        let (url, query) = (parts[0], parts.count > 1 ? parts[1] : "")
        let answer = answer(request, url, query)
        if let action = state.withLock({ $0.meanwhile.removeValue(forKey: url) }) { await action() }
        return answer
    }

    private func answer(_ request: OutboundRequest, _ url: String, _ query: String) -> OutboundResponse {
        state.withLock { state in
            state.requests.append(url)
            if let refusal = state.refusals.first(where: { url.hasPrefix($0.key) }) {
                return OutboundResponse(status: refusal.value, headers: ["x-ms-error-code": "AuthorizationFailure"])
            }
            if query.contains("restype=container") { return Self.container(request, url, query, &state) }
            switch request.method {
            case .GET:
                guard let blob = state.blobs[url] else {
                    return OutboundResponse(status: 404, headers: ["x-ms-error-code": "BlobNotFound"])
                }
                return OutboundResponse(
                    status: 200, headers: ["ETag": "\"\(blob.tag)\""], body: ByteBuffer(bytes: blob.bytes))
            case .PUT:
                let container = url.split(separator: "/").prefix(3).joined(separator: "/")
                guard state.containers.contains(container) else {
                    return OutboundResponse(status: 404, headers: ["x-ms-error-code": "ContainerNotFound"])
                }
                let old = state.blobs[url]
                if request.headers.first(name: "If-None-Match") == "*", old != nil {
                    return OutboundResponse(status: 409, headers: ["x-ms-error-code": "BlobAlreadyExists"])
                }
                if let match = request.headers.first(name: "If-Match"), match != old.map({ "\"\($0.tag)\"" }) {
                    return OutboundResponse(status: 412, headers: ["x-ms-error-code": "ConditionNotMet"])
                }
                state.tags += 1
                state.blobs[url] = (request.body, state.tags)
                return OutboundResponse(status: 201)
            default: return OutboundResponse(status: 405)
            }
        }
    }

    private static func container(_ request: OutboundRequest, _ url: String, _ query: String, _ state: inout State)
        -> OutboundResponse
    {
        if request.method == .PUT {
            state.containers.insert(url.split(separator: "/").joined(separator: "/"))
            return OutboundResponse(status: 201)
        }
        let prefix = query.components(separatedBy: "prefix=").last?.removingPercentEncoding ?? ""
        let found = state.blobs.keys.filter { $0.hasPrefix(url + "/" + prefix) }
        return OutboundResponse(
            status: 200, body: ByteBuffer(string: found.map { "<Blob><Name>\($0)</Name></Blob>" }.joined()))
    }
}

struct TestIdentities: ManagedIdentities {
    func systemAssignedIdentity(of resource: ResourceID, displayName: String) async throws -> ManagedIdentity {
        testIdentity
    }
    func removeSystemAssignedIdentity(of resource: ResourceID) async throws {}
    func issueToken(for identity: ManagedIdentity, audience: String) async throws -> IssuedToken {
        IssuedToken(token: RedactedString("token-for-" + audience), expires: Timestamp(unixSeconds: 4_000_000_000))
    }
    /// The secret of an application is its identifier backwards.
    func servicePrincipal(applicationID: String, secret: RedactedString, tenantID: String) async throws -> Caller {
        struct WrongSecret: Error {}
        guard secret.reveal() == String(applicationID.reversed()) else { throw WrongSecret() }
        return Caller(
            kind: .servicePrincipal, objectID: testIdentity.principalID, tenantID: tenantID,
            applicationID: applicationID)
    }
}
let testIdentity = ManagedIdentity(
    principalID: "11111111-1111-1111-1111-111111111111", clientID: "22222222-2222-2222-2222-222222222222",
    tenantID: "33333333-3333-3333-3333-333333333333")

final class TestLogs: FunctionLogSink {
    let entries = Mutex<[FunctionLogEntry]>([])
    func write(_ entry: FunctionLogEntry) { entries.withLock { $0.append(entry) } }
}

/// A host with its store, over parts that are real but for the network.
final class World: Sendable {
    static let package = "https://packages.blob.core.windows.net/packages/app.zip"
    static let secrets = "https://keys.blob.core.windows.net/azure-webjobs-secrets"

    let names = HostNames(domain: "coffer.localhost", port: nil)
    let clock = FixedClock("2026-03-01T12:00:00Z")
    let storage = TestStorage()
    let vaults = TestVaults()
    let logs = TestLogs()
    let sites: SiteStore
    let runtime: FunctionRuntime
    let gate: FunctionGate
    let id = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/MyApp")

    init(
        settings: [String: String] = [:], limits: PackageLimits = PackageLimits(),
        network: WorkerNetwork = .isolated, openPorts: [Int] = [], metadata: (any MetadataStore)? = nil,
        logger: Logger = silentLogger,
        _ change: (inout Site) -> Void = { _ in }
    ) async throws {
        let engine = InMemoryEngine()
        let key = rootKey()
        let store = try SealedStore(
            metadata: metadata ?? engine, extents: engine, rootKey: key, clock: clock, randomness: SystemRandomness())
        sites = SiteStore(store: store)
        try await sites.load()
        var configuration = FunctionsHostConfiguration(names: names, instanceID: "instance-1")
        configuration.packageLimits = limits
        configuration.workerNetwork = network
        configuration.workerPorts = openPorts
        runtime = FunctionRuntime(
            sites: sites, vaults: vaults, http: storage, identities: TestIdentities(), logs: logs,
            configuration: configuration,
            group: MultiThreadedEventLoopGroup.singleton, clock: clock, randomness: SystemRandomness(),
            logger: logger)
        gate = FunctionGate(runtime)
        var site = Site(
            id: id, kind: "functionapp,linux", location: "eastus", created: clock.now(),
            secrets: SiteSecrets(publishingCredentials: .generate(siteName: "MyApp", randomness: SystemRandomness())))
        site.secrets.appSettings = [
            "AzureWebJobsStorage": RedactedString(
                "DefaultEndpointsProtocol=https;EndpointSuffix=core.windows.net;AccountName=keys;AccountKey=AAAA")
        ]
        for (name, value) in settings { site.secrets.appSettings[name] = RedactedString(value) }
        change(&site)
        try await sites.create(site)
    }

    deinit {
        let runtime = runtime
        Task.detached { await runtime.shutdown() }
    }

    func get(_ path: String, headers: HTTPHeaders = [:]) -> Request { request(.GET, path, headers: headers) }
    func request(
        _ method: HTTPMethod, _ path: String, headers: HTTPHeaders = [:], body: String? = nil,
        scheme: Transport.Scheme = .https,
        tls: Transport.TLSVersion = .v1_3, peer: String = "198.51.100.7"
    ) -> Request {
        let parts = path.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        var headers = headers
        headers.add(name: "Host", value: "myapp.azurewebsites.coffer.localhost")
        if let body { headers.add(name: "Content-Length", value: String(body.utf8.count)) }
        return Request(
            id: "r", method: method, rawPath: parts[0], rawQuery: parts.count > 1 ? parts[1] : "", headers: headers,
            endpoint: .site("myapp"), names: names.own,
            transport: Transport(scheme: scheme, tlsVersion: scheme == .https ? tls : nil, peerAddress: peer),
            body: body.map { .bytes(ByteBuffer(string: $0)) } ?? .empty)
    }

    struct Answer {
        let status: Int
        let headers: HTTPHeaders
        let body: String
    }
    func send(_ request: Request) async throws -> Answer {
        let response = await gate.respond(to: request)
        var body = ByteBuffer()
        switch response.body {
        case .empty, .omitted: break
        case .bytes(let bytes): body = bytes
        case .stream(_, let write):
            let collector = Collector()
            try await write(collector)
            body = collector.buffer.withLock { $0 }
        }
        return Answer(status: Int(response.status.code), headers: response.headers, body: String(buffer: body))
    }
    final class Collector: ResponseBodyWriter {
        let buffer = Mutex(ByteBuffer())
        func write(_ bytes: ByteBuffer) async throws { buffer.withLock { _ = $0.writeImmutableBuffer(bytes) } }
    }
}

/// Writes zips byte by byte, so that a test can also write wrong ones.
struct ZipBuilder {
    struct Entry {
        var name: String
        var bytes: [UInt8]
        var mode: UInt32 = 0o100644
        /// What the directory says instead of the truth.
        var claimedSize: Int?
        var claimedPackedSize: Int?
        var claimedChecksum: UInt32?
        var method: UInt16 = 0
        var flags: UInt16 = 0
    }
    var entries: [Entry] = []

    mutating func add(_ name: String, _ text: String, mode: UInt32 = 0o100644) {
        entries.append(Entry(name: name, bytes: Array(text.utf8), mode: mode))
    }

    func replacing(_ name: String, _ text: String) -> ZipBuilder {
        var copy = self
        copy.entries.removeAll { $0.name == name }
        copy.add(name, text)
        return copy
    }

    func build() -> ByteBuffer {
        var out: [UInt8] = []
        var directory: [UInt8] = []
        func u16(_ value: Int) -> [UInt8] { [UInt8(value & 255), UInt8(value >> 8 & 255)] }
        func u32(_ value: Int) -> [UInt8] { u16(value & 0xffff) + u16(value >> 16 & 0xffff) }
        for entry in entries {
            let offset = out.count
            let name = Array(entry.name.utf8)
            let checksum = Int(entry.claimedChecksum ?? Self.crc32(entry.bytes))
            let common =
                u16(20) + u16(Int(entry.flags)) + u16(Int(entry.method)) + u32(0) + u32(checksum)
                + u32(entry.claimedPackedSize ?? entry.bytes.count) + u32(entry.claimedSize ?? entry.bytes.count)
                + u16(name.count) + u16(0)
            out += u32(0x0403_4b50) + common + name + entry.bytes
            directory +=
                u32(0x0201_4b50) + u16(3 << 8 | 20) + common + u16(0) + u16(0) + u16(0) + u32(Int(entry.mode << 16))
                + u32(offset) + name
        }
        let start = out.count
        out += directory
        out +=
            u32(0x0605_4b50) + u16(0) + u16(0) + u16(entries.count) + u16(entries.count) + u32(directory.count)
            + u32(start) + u16(0)
        return ByteBuffer(bytes: out)
    }

    static func crc32(_ bytes: [UInt8]) -> UInt32 {
        var crc: UInt32 = 0xffff_ffff
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1 }
        }
        return ~crc
    }
}

/// A package with a Python custom handler.
func handlerPackage(
    _ text: String = "package one", level: String = "function", forwarding: Bool = true, handler: String? = nil
) -> ZipBuilder {
    var zip = ZipBuilder()
    zip.add(
        "host.json",
        """
        {"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},
        "enableForwardingHttpRequest":\(forwarding)}}
        """)
    zip.add(
        "HttpTrigger1/function.json",
        """
        {"bindings":[{"type":"httpTrigger","direction":"in","name":"req","authLevel":"\(level)",
        "methods":["get","post"]},
        {"type":"http","direction":"out","name":"res"}]}
        """)
    zip.add("data.txt", text)
    zip.add(
        "handler",
        handler ?? """
            #!/usr/bin/env python3
            import os, json
            from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
            class H(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"
                def do_GET(s):
                    n = int(s.headers.get("Content-Length") or 0)
                    body = s.rfile.read(n).decode()
                    def tried(f):
                        try: return str(f())
                        except Exception as e: return type(e).__name__
                    b = json.dumps({
                        "text": open("data.txt").read(), "path": s.path, "body": body,
                        "greeting": os.environ.get("GREETING"),
                        "headers": dict(s.headers), "uid": os.getuid(), "root": sorted(os.listdir("/")),
                        "write": tried(lambda: open("/home/site/wwwroot/x", "w")),
                        "etc": tried(lambda: open("/etc/shadow").read()),
                        "home": tried(lambda: os.listdir("/root")),
                        "tmp": tried(lambda: open("/tmp/x", "w").write("y")),
                        "environment": sorted(os.environ), "pids": [p for p in os.listdir("/proc") if p.isdigit()],
                        "files": sorted(os.listdir("/proc/self/fd")),
                    }).encode()
                    s.send_response(200); s.send_header("Content-Length", str(len(b)))
                    s.send_header("X-Own", "1"); s.end_headers()
                    s.wfile.write(b)
                do_POST = do_GET
                def log_message(s, *a): pass
            print("handler is up", flush=True)
            ThreadingHTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
            """, mode: 0o100755)
    return zip
}
let canSandbox =
    (try? Sandbox(network: .isolated)) != nil && FileManager.default.isExecutableFile(atPath: "/usr/bin/python3")
