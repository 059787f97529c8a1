import CofferCore
import Foundation
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import Testing

@testable import HTTPEdge

private let blobHost = "Host: acct.blob.core.coffer.localhost\r\n"

/// HTTP/1.1 byte by byte on the plain port.
@Suite struct WireTests {
    @Test func answersRequestAfterRequestOnOneConnection() async throws {
        try await withServer { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            for index in 0..<3 {
                try await client.send("PUT /c/b\(index)?n HTTP/1.1\r\n\(blobHost)Content-Length: 5\r\n\r\nhello")
                let answer = try await client.received(until: "hello")
                #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
                #expect(answer.contains("\r\nDate: ") && answer.contains("GMT\r\n") && !answer.contains("Connection:"))
                #expect(
                    answer.contains(
                        "PUT\n/c/b\(index)\nn\nstorage(account: \"acct\", service: CofferCore.StorageService.blob)\n"
                            + "http\nnone\n127.0.0.1"
                    ))
                client.clear()
            }
        }
    }

    @Test func answersPipelinedRequestsInOrder() async throws {
        let running = NIOLockedValueBox((now: 0, most: 0))
        let service = ClosureService { request in
            running.withLockedValue {
                $0.now += 1
                $0.most = max($0.most, $0.now)
            }
            let body = try? await request.body.collect(upTo: 100)
            // The first takes longest: order must not come from luck.
            if request.rawPath == "/1" { for _ in 0..<50 { await Task.yield() } }
            running.withLockedValue { $0.now -= 1 }
            return .text("[\(request.rawPath) \(String(buffer: body!))]")
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            var requests = ""
            for index in 1...20 {
                requests +=
                    "POST /\(index) HTTP/1.1\r\n\(blobHost)Transfer-Encoding: chunked\r\n\r\n"
                    + "3\r\nabc\r\n2;x=y\r\n\(index % 10)z\r\n0\r\n\r\n"
            }
            try await client.send(requests)
            let answers = try await client.received(until: "[/20 abc0z]")
            let bodies = answers.split(separator: "[").dropFirst().map { $0.prefix { $0 != "]" } }
            #expect(bodies.map(String.init) == (1...20).map { "/\($0) abc\($0 % 10)z" })
            #expect(running.withLockedValue { $0.most } == 1)
        }
    }

    @Test func aFloodOfPipelinedRefusalsIsAnsweredToTheLast() async throws {
        let gate = Gate()
        let service = ClosureService { _ in
            await gate.wait()
            return .text("first")
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            let refused = "GET http://x/ HTTP/1.1\r\n\r\n"
            try await client.send(
                "GET / HTTP/1.1\r\n\(blobHost)\r\n" + String(repeating: refused, count: 600) + "GARBAGE\r\n\r\n")
            await gate.open()
            let answers = try await client.receivedUntilClosed()
            #expect(
                answers.hasPrefix("HTTP/1.1 200 OK\r\n")
                    && answers.components(separatedBy: "\"UnknownHost\"").count == 601)
            #expect(answers.contains("HTTP/1.1 400"))
        }
    }

    @Test func headHasTheLengthAndNoBody() async throws {
        let service = ClosureService { request in
            switch request.rawPath {
            case "/omitted": Response(status: .ok, body: .omitted(length: 1_234))
            case "/stream":
                Response(status: .ok, body: .stream(length: 99) { _ in Issue.record("a HEAD must not stream") })
            case "/none": Response(status: .noContent)
            default: .text("12345")
            }
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            for (path, length) in [("/omitted", 1_234), ("/stream", 99), ("/bytes", 5)] {
                try await client.send("HEAD \(path) HTTP/1.1\r\n\(blobHost)\r\n")
                let answer = try await client.received(until: "\r\n\r\n")
                #expect(answer.contains("Content-Length: \(length)\r\n") && answer.hasSuffix("\r\n\r\n"))
                client.clear()
            }
            try await client.send("GET /omitted HTTP/1.1\r\n\(blobHost)\r\n")
            try await #expect(client.received(until: "}}").hasPrefix("HTTP/1.1 500"))
            client.clear()
            try await client.send("GET /none HTTP/1.1\r\n\(blobHost)Connection: close\r\n\r\n")
            let last = try await client.receivedUntilClosed()
            #expect(
                last.hasPrefix("HTTP/1.1 204 No Content\r\n") && !last.contains("Content-Length")
                    && last.contains("Connection: close"))
        }
    }

    @Test func http10GetsNoChunksAndTheEndOfTheConnection() async throws {
        let service = ClosureService { _ in
            Response(
                status: .ok,
                body: .stream(length: nil) { writer in
                    for _ in 0..<3 { try await writer.write(ByteBuffer(string: "part ")) }
                })
        }
        try await withServer(service) { server, _ in
            let old = try await RawClient.connect(port: server.plainPort!)
            try await old.send("GET / HTTP/1.0\r\n\(blobHost)\r\n")
            let answer = try await old.receivedUntilClosed()
            #expect(answer.hasSuffix("\r\n\r\npart part part ") && !answer.contains("chunked"))
            let new = try await RawClient.connect(port: server.plainPort!)
            try await new.send("GET / HTTP/1.1\r\n\(blobHost)\r\n")
            let chunked = try await new.received(until: "0\r\n\r\n")
            #expect(
                chunked.hasSuffix("5\r\npart \r\n5\r\npart \r\n5\r\npart \r\n0\r\n\r\n")
                    && chunked.contains("Transfer-Encoding: chunked"))
        }
    }

    @Test func sends100OnlyWhenTheServiceReads() async throws {
        let service = ClosureService { request in
            guard request.rawPath == "/read" else { return .text("no", status: .forbidden) }
            return .text((try? await request.body.collect(upTo: 100)).map { String(buffer: $0) } ?? "failed")
        }
        try await withServer(service) { server, _ in
            let head = "HTTP/1.1\r\n\(blobHost)Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            let reader = try await RawClient.connect(port: server.plainPort!)
            try await reader.send("PUT /read " + head)
            try await #expect(reader.received(until: "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
            try await reader.send("body")
            try await reader.received(until: "body")

            let refused = try await RawClient.connect(port: server.plainPort!)
            try await refused.send("PUT /refuse " + head)
            let answer = try await refused.received(until: "\r\n\r\nno")
            #expect(answer.hasPrefix("HTTP/1.1 403") && answer.contains("Connection: close"))
        }
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", 400), ("GET / HTTP/1.1\r\n\(blobHost)\(blobHost)\r\n", 400),
        ("GARBAGE\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\(blobHost)Bad Header\r\n\r\n", 400), ("GET nonsense HTTP/1.1\r\n\(blobHost)\r\n", 400),
        ("POST / HTTP/1.1\r\n\(blobHost)Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n\(blobHost)Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n\(blobHost)Content-Length: -5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\n\(blobHost)Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 421), ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: management.coffer.localhost\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\nHost: v.vault.azure.net\r\n\r\n", 403),
        ("GET / HTTP/1.1\r\n\(blobHost)Expect: magic\r\n\r\n", 417),
        ("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\n\(blobHost)X: \(String(repeating: "x", count: 20_000))\r\n\r\n", 431),
        ("GET /\(String(repeating: "x", count: 20_000)) HTTP/1.1\r\n\(blobHost)\r\n", 431),
        ("GET / HTTP/1.1\r\n\(blobHost)\(String(repeating: "X: y\r\n", count: 200))\r\n", 431),
        ("PUT / HTTP/1.1\r\n\(blobHost)Content-Length: 1000001\r\n\r\n", 413),
    ])
    func refuses(_ request: String, status: Int) async throws {
        try await withServer(configure: { $0.maximumBodyBytes = { _ in 1_000_000 } }) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            try await client.send(request)
            let answer = try await client.received(until: "}}")
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
            #expect(answer.contains("x-ms-request-id: ") && answer.contains(#""message":""#))
        }
    }

    @Test func aChunkedBodyOverTheLimitEndsInAnError() async throws {
        let service = ClosureService { request in
            do {
                for try await _ in request.body {}
                return .text("whole")
            } catch { return .text("\(error)", status: .payloadTooLarge) }
        }
        try await withServer(service, configure: { $0.maximumBodyBytes = { _ in 10 } }) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            try await client.send(
                "PUT / HTTP/1.1\r\n\(blobHost)Transfer-Encoding: chunked\r\n\r\n"
                    + "5\r\nabcde\r\n8\r\nabcdefgh\r\n0\r\n\r\n"
            )
            let answer = try await client.received(until: "limitBytes: 10)")
            #expect(answer.hasPrefix("HTTP/1.1 413"))
        }
    }

    @Test func localIsForTheLoopbackHostOnThePlainPort() async throws {
        try await withServer { server, _ in
            for host in ["127.0.0.1:\(server.plainPort!)", "localhost", "[::1]:80"] {
                let client = try await RawClient.connect(port: server.plainPort!)
                try await client.send("GET /msi/token HTTP/1.1\r\nHost: \(host)\r\n\r\n")
                try await client.received(until: "\nlocal\nhttp\n")
            }
        }
        var outside = Admission(entrance: .plain, names: testNames, peerIsLoopback: false)
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/", headers: ["Host": "127.0.0.1"])
        #expect(throws: Refusal.localFromElsewhere) { try outside.admit(head).get() }
    }

    @Test func headersFromAServiceCannotForgeAResponse() async throws {
        let bad: [(String, String)] = [
            ("X", "a\r\nSet-Cookie: b"), ("X", "a\nb"), ("X", "a\u{0}b"), ("X\r\nY", "a"), ("X Y", "a"), ("", "a"),
            ("X:", "a"),
        ]
        let service = ClosureService { request in
            let index = Int(request.rawPath.dropFirst())!
            let headers = HTTPHeaders([bad[index]])
            return index % 2 == 0
                ? .text("secret", headers: headers)
                : Response(
                    status: .ok, headers: headers,
                    body: .stream(length: 6) { try await $0.write(.init(string: "secret")) })
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            for index in bad.indices {
                try await client.send("GET /\(index) HTTP/1.1\r\n\(blobHost)\r\n")
                let answer = try await client.received(until: "}}")
                #expect(
                    answer.hasPrefix("HTTP/1.1 500") && !answer.contains("secret") && !answer.contains("Set-Cookie"))
                client.clear()
            }
        }
    }

    /// Spaces after the number are the field's, not the value's (RFC 9110 §5.5).
    @Test func aPaddedLengthIsStillTheBodysLength() async throws {
        try await withServer { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            for padding in ["", " ", "   "] {
                try await client.send("PUT / HTTP/1.1\r\n\(blobHost)Content-Length: 5\(padding)\r\n\r\nhello")
                let answer = try await client.received(until: "127.0.0.1\n")
                #expect(answer.hasPrefix("HTTP/1.1 200") && answer.hasSuffix("\nhello"), "\(answer)")
                client.clear()
            }
        }
    }

    /// Read as nothing, such a length would store an empty blob and call it done.
    @Test(arguments: ["9223372036854775808", "18446744073709551615", "5x", ""])
    func aLengthThatIsNoNumberIsMalformed(_ text: String) {
        let head = HTTPRequestHead(version: .http1_1, method: .PUT, uri: "/", headers: ["Content-Length": text])
        #expect(IncomingFraming(head).problem == .malformed)
        let padded = HTTPRequestHead(
            version: .http1_1, method: .PUT, uri: "/",
            headers: ["Transfer-Encoding": "Chunked ", "Expect": "100-Continue\t"])
        let framing = IncomingFraming(padded)
        #expect(framing.problem == nil && framing.length == nil && framing.expectsContinue)
    }

    /// A client would take the next response on the connection for the one that a 1xx announces.
    @Test func aServiceCannotSendAnInterimResponse() async throws {
        let service = ClosureService { request in
            .text("x", status: .init(statusCode: Int(request.rawPath.dropFirst())!))
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            for status in [100, 101, 103, 199] {
                try await client.send("GET /\(status) HTTP/1.1\r\n\(blobHost)\r\n")
                #expect(try await client.received(until: "\r\n\r\n").hasPrefix("HTTP/1.1 500"))
                client.clear()
            }
        }
    }

    @Test func framingHeadersOfAServiceAreReplaced() async throws {
        let service = ClosureService { _ in
            .text(
                "12345",
                headers: [
                    "content-length": "7", "Transfer-Encoding": "chunked", "Connection": "upgrade", "Date": "then",
                    "x-ms-ok": "yes",
                ])
        }
        try await withServer(service) { server, _ in
            let client = try await RawClient.connect(port: server.plainPort!)
            try await client.send("GET / HTTP/1.1\r\n\(blobHost)\r\n")
            let answer = try await client.received(until: "12345")
            #expect(answer == "HTTP/1.1 200 OK\r\nDate: then\r\nx-ms-ok: yes\r\nContent-Length: 5\r\n\r\n12345")
        }
    }

    @Test func anEndpointWithoutServiceIs501() async throws {
        try await withServer { server, authority in
            let client = try await RawClient.connect(port: server.tlsPort!, tls: ("graph.microsoft.com", authority))
            try await client.send("GET /me HTTP/1.1\r\nHost: graph.microsoft.com\r\n\r\n")
            let answer = try await client.received(until: "}}")
            #expect(answer.hasPrefix("HTTP/1.1 501"))
        }
    }

    @Test func randomAndMutatedBytesNeverStopTheServer() async throws {
        try await withServer { server, _ in
            var generator = RequestIdentifiers(randomness: SystemRandomness())
            let seed =
                "PUT /c/b?x=%41 HTTP/1.1\r\n\(blobHost)Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
                + "5\r\nhello\r\n0\r\nT: v\r\n\r\n"
            for _ in 0..<150 {
                var bytes = Array(seed.utf8)
                let noise = Array(generator.next().utf8)
                for index in 0..<6 {
                    let position = (Int(noise[index]) * 131 + Int(noise[index + 10]) * 7) % bytes.count
                    switch noise[index + 20] % 3 {
                    case 0: bytes[position] = noise[index] &* noise[index + 9]
                    case 1: bytes.remove(at: position)
                    default: bytes.insert(noise[index], at: position)
                    }
                }
                let port = noise[35] % 2 == 0 ? server.plainPort! : server.gatewayPort!
                let client = try await RawClient.connect(port: port)
                try? await client.send(ByteBuffer(bytes: bytes))
                try? await client.close()
            }
            let client = try await RawClient.connect(port: server.plainPort!)
            try await client.send("GET /alive HTTP/1.1\r\n\(blobHost)\r\n")
            try await client.received(until: "/alive")
        }
    }
}
