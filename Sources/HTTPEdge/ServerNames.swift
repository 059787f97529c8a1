import CofferCore
import Logging
import NIOCore
import NIOSSL
import NIOTLS
import Synchronization

/// The TLS contexts by host name. A context is kept as long as its leaf certificate, so that clients can resume their
/// sessions.
final class ServerNames: Sendable {
    struct Identity: Sendable {
        let context: NIOSSLContext
        let endpoint: Endpoint
        let names: NameFamily
    }
    private struct Key: Hashable {
        let host: String
        let oldest: Transport.TLSVersion
    }
    private struct Kept {
        let context: NIOSSLContext
        let renewAt: Timestamp
    }

    private let authority: CertificateAuthority
    private let configuration: EdgeConfiguration
    private let contexts = Mutex<[Key: Kept]>([:])
    private static let maximumContexts = 256

    init(authority: CertificateAuthority, configuration: EdgeConfiguration) {
        self.authority = authority
        self.configuration = configuration
    }

    /// nil when this server does not answer for the host.
    func identity(forServerName name: String) throws -> Identity? {
        guard let host = Authority(name)?.host, let match = configuration.names.match(host) else { return nil }
        let key = Key(host: host, oldest: configuration.minimumTLSVersion(match.endpoint))
        let now = configuration.clock.now()
        if let kept = contexts.withLock({ $0[key] }), now < kept.renewAt {
            return Identity(context: kept.context, endpoint: match.endpoint, names: match.family)
        }
        let leaf = try authority.leaf(forHost: host)
        var tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: [.certificate(leaf.certificate)], privateKey: .privateKey(leaf.privateKey))
        tls.minimumTLSVersion = key.oldest == .v1_3 ? .tlsv13 : .tlsv12
        tls.applicationProtocols = ["http/1.1"]
        let context = try NIOSSLContext(configuration: tls)
        contexts.withLock {
            // Any one goes: made anew it costs a millisecond.
            if $0.count >= Self.maximumContexts, $0[key] == nil, let other = $0.keys.first { $0[other] = nil }
            $0[key] = Kept(context: context, renewAt: leaf.renewAt)
        }
        return Identity(context: context, endpoint: match.endpoint, names: match.family)
    }
}

/// The pipelines a connection can have.
struct Pipelines: Sendable {
    let shared: EdgeShared

    /// Waits for the ClientHello, then adds TLS with the certificate of the name in it.
    func addTLS(to channel: any Channel, _ loopState: LoopState, isOverLimit: Bool) throws {
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(HandshakeTimer(timeout: shared.configuration.limits.handshakeTimeout))
        let names = SNIHandler { result in
            do {
                guard case .hostname(let name) = result,
                    let identity = try shared.serverNames.identity(forServerName: name)
                else {
                    refuseServerName(channel)
                    return channel.eventLoop.makeSucceededVoidFuture()
                }
                let tls = NIOSSLServerHandler(context: identity.context)
                try operations.addHandler(tls)
                try operations.addHandler(
                    RequestsAfterHandshake(
                        pipelines: self, loopState: loopState, identity: identity, tls: tls, isOverLimit: isOverLimit))
                return channel.eventLoop.makeSucceededVoidFuture()
            } catch {
                shared.configuration.logger.error("no certificate for a host name", metadata: ["error": "\(error)"])
                channel.close(promise: nil)
                return channel.eventLoop.makeFailedFuture(error)
            }
        }
        try operations.addHandler(ByteToMessageHandler(ClientHelloDecoder(names: names, loopState: loopState)))
    }

    /// A fatal `unrecognized_name` alert (RFC 6066 §3) in a record of its own, then the end.
    private func refuseServerName(_ channel: any Channel) {
        var alert = channel.allocator.buffer(capacity: 7)
        alert.writeBytes([21, 3, 3, 0, 2, 2, 112])
        channel.writeAndFlush(alert).whenComplete { _ in channel.close(promise: nil) }
    }

    func addRequests(to channel: any Channel, _ loopState: LoopState, entrance: Entrance, isOverLimit: Bool) throws {
        let connection = Connection(
            channel: channel, loopState: loopState, shared: shared, entrance: entrance, isOverLimit: isOverLimit)
        let decoder = RequestDecoder(limits: shared.configuration.limits, connection: connection)
        let operations = channel.pipeline.syncOperations
        try operations.addHandler(ByteToMessageHandler(decoder))
        try operations.addHandler(connection)
    }
}

/// NIO's reader of the ClientHello, with an answer for those who speak http to the https port.
private final class ClientHelloDecoder: ByteToMessageDecoder {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    private let names: SNIHandler
    private let loopState: LoopState
    private var isRefused = false

    init(names: SNIHandler, loopState: LoopState) {
        self.names = names
        self.loopState = loopState
    }

    func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        guard !isRefused else { return .needMoreData }
        // TLS records of a ClientHello begin with 22; methods with a capital letter.
        guard let first = buffer.readableBytesView.first, (0x41...0x5a).contains(first) else {
            return names.decode(context: context, buffer: &buffer)
        }
        isRefused = true
        Refusal.plainOnTLSPort.writeAndClose(context.channel, loopState)
        return .needMoreData
    }

    func decodeLast(context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool) throws -> DecodingState {
        isRefused ? .needMoreData : try names.decodeLast(context: context, buffer: &buffer, seenEOF: seenEOF)
    }
}

/// Closes a connection that does not finish its handshake in time. It stands before everything else and goes once
/// requests can come.
final class HandshakeTimer: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    private let timeout: TimeAmount
    private var scheduled: Scheduled<Void>?

    init(timeout: TimeAmount) { self.timeout = timeout }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        scheduled = context.eventLoop.scheduleTask(in: timeout) { channel.close(promise: nil) }
    }
    func handlerRemoved(context: ChannelHandlerContext) { scheduled?.cancel() }
    func channelInactive(context: ChannelHandlerContext) {
        scheduled?.cancel()
        context.fireChannelInactive()
    }
}

/// Puts the HTTP pipeline behind TLS as soon as the handshake says which version was agreed on.
private final class RequestsAfterHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    private let pipelines: Pipelines
    private let loopState: LoopState
    private let identity: ServerNames.Identity
    private let tls: NIOSSLServerHandler
    private let isOverLimit: Bool

    init(
        pipelines: Pipelines, loopState: LoopState, identity: ServerNames.Identity, tls: NIOSSLServerHandler,
        isOverLimit: Bool
    ) {
        self.pipelines = pipelines
        self.loopState = loopState
        self.identity = identity
        self.tls = tls
        self.isOverLimit = isOverLimit
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case TLSUserEvent.handshakeCompleted? = event as? TLSUserEvent else {
            return context.fireUserInboundEventTriggered(event)
        }
        let version: Transport.TLSVersion = tls.tlsVersion == .tlsv13 ? .v1_3 : .v1_2
        let operations = context.pipeline.syncOperations
        do {
            try pipelines.addRequests(
                to: context.channel, loopState, entrance: .tls(identity.endpoint, identity.names, version),
                isOverLimit: isOverLimit)
            if let timer = try? operations.context(handlerType: HandshakeTimer.self) {
                operations.removeHandler(context: timer, promise: nil)
            }
            operations.removeHandler(self, promise: nil)
        } catch {
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A handshake that failed: the TLS layer has sent its alert.
        pipelines.shared.configuration.logger.debug("TLS handshake failed", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }
}
