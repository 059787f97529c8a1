import CofferCore
import NIOCore

/// The first request of a connection to the gateway port, read by hand: a CONNECT for one of this server's own names
/// turns the same channel into the pipeline it asked for, so that no byte takes a detour through a second socket;
/// anything else becomes a plain http connection.
final class GatewayHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let pipelines: Pipelines
    private let loopState: LoopState
    private let isOverLimit: Bool
    private var received: ByteBuffer?
    private var isDone = false

    init(pipelines: Pipelines, loopState: LoopState, isOverLimit: Bool) {
        self.pipelines = pipelines
        self.loopState = loopState
        self.isOverLimit = isOverLimit
    }

    private var configuration: EdgeConfiguration { pipelines.shared.configuration }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        guard !isDone else { return }
        received.setOrWriteImmutableBuffer(bytes)
        switch ConnectRequest.parse(received!, maximumBytes: configuration.limits.gatewayHeadBytes) {
        case .incomplete: break
        case .tooLarge: refuse(.headersTooLarge, context)
        case .malformed: refuse(.malformed, context)
        case .otherMethod: becomeHTTP(context)
        case .connect(let request, let headBytes):
            received!.moveReaderIndex(forwardBy: headBytes)
            connect(request, context)
        }
    }

    private func connect(_ request: ConnectRequest, _ context: ChannelHandlerContext) {
        guard !isOverLimit else { return refuse(.tooManyConnections, context) }
        let isTLS = request.port == 443 || request.port == pipelines.shared.ports.tls
        let isPlain = request.port == 80 || request.port == pipelines.shared.ports.plain
        guard configuration.names.match(request.host) != nil, isTLS || isPlain else {
            return refuse(.gatewayHost("\(request.host):\(request.port)"), context)
        }
        isDone = true
        var answer = context.channel.allocator.buffer(capacity: 64)
        answer.writeStaticString("HTTP/1.1 200 Connection established\r\n\r\n")
        context.writeAndFlush(wrapOutboundOut(answer), promise: nil)
        handOver(context) {
            if isTLS {
                try pipelines.addTLS(to: context.channel, loopState, isOverLimit: false)
            } else {
                try pipelines.addRequests(to: context.channel, loopState, entrance: .plain, isOverLimit: false)
            }
        }
    }

    private func becomeHTTP(_ context: ChannelHandlerContext) {
        isDone = true
        handOver(context) {
            try pipelines.addRequests(to: context.channel, loopState, entrance: .gateway, isOverLimit: isOverLimit)
        }
    }

    /// Gives the bytes not yet used to the handlers that `addHandlers` adds, and leaves.
    private func handOver(_ context: ChannelHandlerContext, addHandlers: () throws -> Void) {
        do { try addHandlers() } catch { return context.close(promise: nil) }
        let operations = context.pipeline.syncOperations
        // The first one is the gateway's own; TLS has added another.
        if let timer = try? operations.context(handlerType: HandshakeTimer.self) {
            operations.removeHandler(context: timer, promise: nil)
        }
        if let rest = received, rest.readableBytes > 0 {
            received = nil
            context.fireChannelRead(wrapInboundOut(rest))
        }
        context.fireChannelReadComplete()
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    private func refuse(_ refusal: Refusal, _ context: ChannelHandlerContext) {
        isDone = true
        if let foreign = refusal.foreignAuthority { pipelines.shared.logRefused(foreign) }
        refusal.writeAndClose(context.channel, loopState)
    }
}

/// `CONNECT host:port HTTP/1.0` or `1.1` (RFC 9110 §9.3.6) with header fields that are not looked at: Python sends
/// 1.0 without a Host, curl 1.1 with.
struct ConnectRequest: Equatable {
    enum Parse: Equatable {
        /// More bytes are needed.
        case incomplete
        case tooLarge
        case malformed
        /// A request with another method: not the gateway's to read.
        case otherMethod
        /// With the number of bytes up to and including the empty line.
        case connect(ConnectRequest, headBytes: Int)
    }
    let host: String
    let port: Int

    static func parse(_ buffer: ByteBuffer, maximumBytes: Int) -> Parse {
        let bytes = buffer.readableBytesView
        let method = "CONNECT ".utf8
        guard bytes.starts(with: method.prefix(bytes.count)) else { return .otherMethod }
        guard let end = endOfHead(bytes, maximumBytes: maximumBytes) else {
            return bytes.count >= maximumBytes ? .tooLarge : .incomplete
        }
        guard let lineEnd = bytes.firstIndex(of: 0x0d) else { return .malformed }
        let parts = String(decoding: bytes[..<lineEnd], as: UTF8.self).split(
            separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[2] == "HTTP/1.1" || parts[2] == "HTTP/1.0", let authority = Authority(parts[1]),
            let port = authority.port
        else { return .malformed }
        return .connect(ConnectRequest(host: authority.host, port: port), headBytes: end)
    }

    /// The number of bytes up to and including the empty line; nil when there is none in the first `maximumBytes`.
    private static func endOfHead(_ bytes: ByteBufferView, maximumBytes: Int) -> Int? {
        var matched = 0
        let pattern: [UInt8] = [0x0d, 0x0a, 0x0d, 0x0a]
        for (offset, byte) in bytes.prefix(maximumBytes).enumerated() {
            matched = byte == pattern[matched] ? matched + 1 : byte == 0x0d ? 1 : 0
            if matched == 4 { return offset + 1 }
        }
        return nil
    }
}
