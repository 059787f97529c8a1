import CofferCore
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Testing

@testable import HTTPEdge

@Suite struct ServerNameTests {
    private let mine = "v1.vault.coffer.localhost"

    @Test func aConnectionServesTheEndpointOfItsServerNameOnly() async throws {
        try await withServer { server, authority in
            let client = try await RawClient.connect(port: server.tlsPort!, tls: (mine, authority))
            try await client.send("GET /a HTTP/1.1\r\nHost: V1.Vault.coffer.localhost:8443\r\n\r\n")
            try await client.received(until: #"vault("v1")"#)
            for host in ["v2.vault.coffer.localhost", "example.com", "127.0.0.1", "localhost"] {
                client.clear()
                try await client.send("GET /a HTTP/1.1\r\nHost: \(host)\r\n\r\n")
                let answer = try await client.received(until: "}}")
                #expect(answer.hasPrefix("HTTP/1.1 421 Misdirected Request") && answer.contains(host))
            }
            let old = try await RawClient.connect(port: server.tlsPort!, tls: (mine, authority))
            try await old.send("GET /a HTTP/1.0\r\n\r\n")
            try await old.received(until: #"vault("v1")"#)
        }
    }

    @Test(arguments: ["example.com", "coffer.localhost", "a.b.vault.coffer.localhost", "vault.coffer.localhost", nil])
    func anUnknownServerNameIsRefusedInTheHandshake(name: String?) async throws {
        try await withServer { server, authority in
            let client = try await RawClient.connect(port: server.tlsPort!, tls: (name, authority))
            await #expect(throws: (any Error).self) { try await client.send("GET / HTTP/1.1\r\n\r\n") }
            #expect(try await client.receivedUntilClosed() == "")
        }
    }

    @Test func httpOnTheTLSPortIsToldSo() async throws {
        try await withServer { server, _ in
            let client = try await RawClient.connect(port: server.tlsPort!)
            try await client.send("GET / HTTP/1.1\r\nHost: \(mine)\r\n\r\n")
            let answer = try await client.receivedUntilClosed()
            #expect(answer.hasPrefix("HTTP/1.1 400") && answer.contains("https"))
        }
    }

    @Test func bothLoopbackAddressesHaveTheSamePorts() async throws {
        try await withServer(configure: { $0.addresses = ["127.0.0.1", "::1", "203.0.113.7"] }) { server, _ in
            let channel = try? await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(
                host: "::1", port: server.tlsPort!
            ).get()
            // A machine without IPv6 leaves ::1 out, and 203.0.113.7 (RFC 5737) nobody has.
            try await channel?.close()
            try await RawClient.connect(port: server.tlsPort!).close()
        }
    }

    @Test func anEndpointCanAskForTLS13() async throws {
        let strict: @Sendable (Endpoint) -> Transport.TLSVersion = { $0 == .vault("v1") ? .v1_3 : .v1_2 }
        try await withServer(configure: { $0.minimumTLSVersion = strict }) { server, authority in
            for (name, works) in [(mine, false), ("v2.vault.coffer.localhost", true)] {
                let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(
                                RawClient.tlsHandler(name, authority, maximum: .tlsv12))
                        }
                    }
                    .connect(host: "127.0.0.1", port: server.tlsPort!).get()
                // A write is kept once the handshake is through.
                let written = await Result {
                    try await channel.writeAndFlush(ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n"))
                }
                #expect(((try? written.get()) != nil) == works)
                try? await channel.close()
            }
        }
    }

    @Test(arguments: ["1.0", "1.1"])
    func theGatewayLeadsIntoTheSameServer(version: String) async throws {
        try await withServer { server, authority in
            for port in [443, server.tlsPort!] {
                let client = try await RawClient.connect(port: server.gatewayPort!)
                try await client.send(
                    "CONNECT \(mine):\(port) HTTP/\(version)\r\n"
                        + (version == "1.1" ? "Host: \(mine):\(port)\r\nUser-Agent: x\r\n\r\n" : "\r\n")
                )
                try await #expect(client.received(until: "\r\n\r\n") == "HTTP/1.1 200 Connection established\r\n\r\n")
                try await client.startTLS(mine, authority)
                try await client.send("GET /through HTTP/1.1\r\nHost: \(mine)\r\n\r\n")
                let answer = try await client.received(until: "127.0.0.1")
                #expect(answer.contains("/through") && answer.contains("https\nv1_3"))
            }
        }
    }

    @Test(arguments: [
        ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", 403),
        ("CONNECT 127.0.0.1:22 HTTP/1.0\r\n\r\n", 403),
        ("CONNECT v1.vault.azure.net:22 HTTP/1.1\r\n\r\n", 403), ("CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", 403),
        ("CONNECT v1.vault.azure.net HTTP/1.1\r\n\r\n", 400), ("CONNECT  HTTP/1.1\r\n\r\n", 400),
        ("CONNECT v1.vault.azure.net:443 HTTP/1.1\r\nX: \(String(repeating: "x", count: 9_000))", 431),
        ("GET http://example.com/ HTTP/1.1\r\nHost: acct.blob.core.windows.net\r\n\r\n", 403),
        ("GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 403),
        ("GET http://management.azure.com/ HTTP/1.1\r\nHost: management.azure.com\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: acct.blob.core.windows.net\r\n\r\n", 400),
    ])
    func theGatewayIsNoOpenProxy(request: String, status: Int) async throws {
        try await withServer { server, _ in
            let client = try await RawClient.connect(port: server.gatewayPort!)
            try await client.send(request)
            let answer = try await client.received(until: "}}")
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
        }
    }

    @Test func theGatewayServesAbsoluteURLs() async throws {
        try await withServer { server, _ in
            let client = try await RawClient.connect(port: server.gatewayPort!)
            for index in 0..<2 {
                try await client.send(
                    "GET http://acct.blob.core.windows.net/c/\(index)?q HTTP/1.1\r\nHost: other.example\r\n\r\n")
                try await client.received(until: "/c/\(index)\nq\n")
            }
        }
    }

    @Test func aConnectInPiecesIsReadToItsEnd() async throws {
        try await withServer { server, authority in
            let client = try await RawClient.connect(port: server.gatewayPort!)
            for piece in ["CON", "NECT \(mine)", ":443 HTTP/1.1\r", "\n", "\r\n"] { try await client.send(piece) }
            try await client.received(until: "established\r\n\r\n")
        }
    }
}

extension Result where Failure == any Error {
    fileprivate init(_ body: () async throws -> Success) async {
        do { self = .success(try await body()) } catch { self = .failure(error) }
    }
}
