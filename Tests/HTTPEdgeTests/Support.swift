import CofferCore
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Testing

@testable import HTTPEdge

struct FixedClock: WallClock {
    var time: Timestamp
    func now() -> Timestamp { time }
}

/// Answers from a closure.
struct ClosureService: WireService {
    let answer: @Sendable (Request) async -> Response
    init(_ answer: @escaping @Sendable (Request) async -> Response) { self.answer = answer }
    func respond(to request: Request) async -> Response { await answer(request) }
}

/// Describes the request it got, line by line.
let describingService = ClosureService { request in
    let body = try? await request.body.collect(upTo: 1 << 20)
    let lines = [
        "\(request.method)", request.rawPath, request.rawQuery, "\(request.endpoint)",
        request.transport.scheme.rawValue,
        request.transport.tlsVersion.map { "\($0)" } ?? "none", request.transport.peerAddress,
        String(buffer: body ?? ByteBuffer(string: "failed")),
    ]
    return Response(
        status: .ok, headers: ["Content-Type": "text/plain"],
        body: .bytes(ByteBuffer(string: lines.joined(separator: "\n"))))
}

extension Response {
    static func text(_ text: String, status: HTTPResponseStatus = .ok, headers: HTTPHeaders = [:]) -> Response {
        Response(status: status, headers: headers, body: .bytes(ByteBuffer(string: text)))
    }
}

let testNames = HostNames(domain: "coffer.localhost", port: nil)

/// A server on free ports of 127.0.0.1 for the time of `body`.
func withServer<Result>(
    _ service: ClosureService = describingService, configure: (inout EdgeConfiguration) -> Void = { _ in },
    body: (EdgeServer, CertificateAuthority) async throws -> Result
) async throws -> Result {
    var configuration = EdgeConfiguration(
        names: testNames, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    configuration.addresses = ["127.0.0.1"]
    configure(&configuration)
    let authority = try CertificateAuthority.generate(clock: SystemClock(), randomness: SystemRandomness())
    let server = try await EdgeServer.start(configuration, authority: authority) { endpoint in
        if case .graph = endpoint { nil } else { service }
    }
    do {
        let result = try await body(server, authority)
        await server.shutdown(gracefully: .milliseconds(200))
        return result
    } catch {
        await server.shutdown(gracefully: .milliseconds(200))
        throw error
    }
}

/// A TCP or TLS client that sends bytes as they are and shows what comes back.
final class RawClient: Sendable {
    struct Closed: Error { let received: String }
    let channel: any Channel
    private let inbox: Inbox

    private init(channel: any Channel, inbox: Inbox) {
        self.channel = channel
        self.inbox = inbox
    }

    static func connect(port: Int, tls: (serverName: String?, authority: CertificateAuthority)? = nil) async throws
        -> RawClient
    {
        let inbox = Inbox()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(Self.tlsHandler(tls.serverName, tls.authority))
                    }
                    try channel.pipeline.syncOperations.addHandler(InboxHandler(inbox: inbox))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        return RawClient(channel: channel, inbox: inbox)
    }

    static func tlsHandler(
        _ serverName: String?, _ authority: CertificateAuthority, maximum: TLSVersion? = nil
    ) throws -> NIOSSLClientHandler {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(
            try NIOSSLCertificate.fromPEMBytes(Array(authority.certificatePEM.utf8)))
        configuration.maximumTLSVersion = maximum
        return try NIOSSLClientHandler(context: NIOSSLContext(configuration: configuration), serverHostname: serverName)
    }

    func startTLS(_ serverName: String, _ authority: CertificateAuthority) async throws {
        inbox.clear()
        try await channel.eventLoop.submit { [channel] in
            try channel.pipeline.syncOperations.addHandler(Self.tlsHandler(serverName, authority), position: .first)
        }.get()
    }

    func send(_ text: String) async throws { try await channel.writeAndFlush(ByteBuffer(string: text)) }
    func send(_ bytes: ByteBuffer) async throws { try await channel.writeAndFlush(bytes) }
    /// Starts sending and does not wait.
    func begin(_ bytes: ByteBuffer) -> EventLoopFuture<Void> { channel.writeAndFlush(bytes) }
    func close() async throws { try await channel.close() }

    /// Everything received, as soon as it holds `text`; throws `Closed` when the connection ends before.
    @discardableResult
    func received(until text: String, times: Int = 1) async throws -> String {
        try await inbox.wait { $0.components(separatedBy: text).count > times }
    }
    /// Everything received until the server closed the connection.
    func receivedUntilClosed() async throws -> String {
        do { return try await inbox.wait { _ in false } } catch let closed as Closed { return closed.received }
    }
    func clear() { inbox.clear() }

    final class Inbox: Sendable {
        private struct State {
            var text = ""
            var isClosed = false
            var waiter: (condition: @Sendable (String) -> Bool, continuation: CheckedContinuation<String, any Error>)?
        }
        private let state = NIOLockedValueBox(State())

        func wait(_ condition: @escaping @Sendable (String) -> Bool) async throws -> String {
            try await withCheckedThrowingContinuation { continuation in
                state.withLockedValue {
                    $0.waiter = (condition, continuation)
                    Self.settle(&$0)
                }
            }
        }
        func clear() { state.withLockedValue { $0.text = "" } }
        func append(_ text: String) {
            state.withLockedValue {
                $0.text += text
                Self.settle(&$0)
            }
        }
        func close() {
            state.withLockedValue {
                $0.isClosed = true
                Self.settle(&$0)
            }
        }
        private static func settle(_ state: inout State) {
            guard let waiter = state.waiter else { return }
            if waiter.condition(state.text) {
                state.waiter = nil
                waiter.continuation.resume(returning: state.text)
            } else if state.isClosed {
                state.waiter = nil
                waiter.continuation.resume(throwing: Closed(received: state.text))
            }
        }
    }

    private final class InboxHandler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let inbox: Inbox
        init(inbox: Inbox) { self.inbox = inbox }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            inbox.append(String(buffer: unwrapInboundIn(data)))
        }
        func channelInactive(context: ChannelHandlerContext) { inbox.close() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}

/// Runs a program and returns its exit code and everything it printed.
func run(_ program: String, _ arguments: [String], environment: [String: String] = [:]) async throws -> (
    status: Int32, output: String
) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [program] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    return try await withCheckedThrowingContinuation { continuation in
        let thread = Thread {
            do {
                try process.run()
                let output = pipe.fileHandleForReading.readDataToEndOfFile()
                process.waitUntilExit()
                continuation.resume(returning: (process.terminationStatus, String(decoding: output, as: UTF8.self)))
            } catch {
                continuation.resume(throwing: error)
            }
        }
        thread.start()
    }
}

/// A folder of the test's own with the authority's certificate in it.
func withCertificateFile<Result>(_ authority: CertificateAuthority, _ body: (String) async throws -> Result)
    async throws -> Result
{
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
        "edge-\(SystemRandomness().uuidString())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appendingPathComponent("ca.crt")
    try Data(authority.certificatePEM.utf8).write(to: file)
    return try await body(file.path)
}
