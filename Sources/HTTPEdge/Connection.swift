import CofferCore
import Logging
import NIOCore
import NIOHTTP1
import NIOSSL

/// One HTTP/1.1 connection: hands request after request to the services and writes their responses, one at a time and
/// in order.
///
/// It reads from the socket only what somebody wants: the next request head when none is running, or the body bytes a
/// service pulls. So a slow service slows its client down, and a pipelining client waits in the kernel's buffer. The
/// end of the connection is noticed all the same.
final class Connection: ChannelDuplexHandler, @unchecked Sendable {
    // @unchecked: every mutable member is read and written on `loop`'s thread only; what other threads call goes
    // through `onLoop`.
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let loop: any EventLoop
    let loopState: LoopState
    let shared: EdgeShared
    let transport: Transport
    /// Over the limit of connections: the first request is answered 503.
    private let isOverLimit: Bool

    var context: ChannelHandlerContext?
    private var admission: Admission
    var exchange: Exchange?
    private var serial: UInt64 = 0
    /// Requests that came in behind the running one.
    private var pending = CircularBuffer<HTTPServerRequestPart>(initialCapacity: 0)
    /// After a response whose request's body is still arriving.
    private var discard: Discard?
    private var readWasHeldBack = false
    private var sawPartInThisRead = false
    private var sawBytesInThisRead = false
    private var isStartingPending = false
    private var isReceivingHead = false
    private var isClosing = false
    private var lastWrite: EventLoopFuture<Void>?
    private var deadline: (at: NIODeadline, meaning: Deadline)?
    /// Apart from the other: a service may read the body while it writes its response.
    private var bodyDeadline: NIODeadline?
    private var timer: (at: NIODeadline, scheduled: Scheduled<Void>)?

    private struct Discard {
        var bytes = 0
        let limit: Int
        let thenKeepAlive: Bool
    }
    enum Deadline { case idle, head, write, linger }

    init(channel: any Channel, loopState: LoopState, shared: EdgeShared, entrance: Entrance, isOverLimit: Bool) {
        loop = channel.eventLoop
        self.loopState = loopState
        self.shared = shared
        self.isOverLimit = isOverLimit
        let address = channel.remoteAddress?.ipAddress.flatMap { IPAddress($0) }
        let peer = address?.description ?? ""
        if case .tls(_, _, let version) = entrance {
            transport = Transport(scheme: .https, tlsVersion: version, peerAddress: peer)
        } else {
            transport = Transport(scheme: .http, tlsVersion: nil, peerAddress: peer)
        }
        admission = Admission(
            entrance: entrance, names: shared.configuration.names, peerIsLoopback: address?.isLoopback ?? false)
    }

    func onLoop(_ body: @escaping @Sendable () -> Void) {
        if loop.inEventLoop { body() } else { loop.execute(body) }
    }

    // MARK: - Life

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        loopState.add(self, of: context.channel)
        set(.head, shared.configuration.limits.headerTimeout)
        if loopState.isDraining { close() }
    }

    func handlerRemoved(context: ChannelHandlerContext) { clientWentAway() }

    func channelInactive(context: ChannelHandlerContext) {
        clientWentAway()
        context.fireChannelInactive()
    }

    private func clientWentAway() {
        guard context != nil else { return }
        context = nil
        timer?.scheduled.cancel()
        timer = nil
        deadline = nil
        bodyDeadline = nil
        pending.removeAll()
        guard let exchange else { return }
        self.exchange = nil
        // The response may have left already, with a body still being thrown away; then there is nothing to cancel.
        exchange.intake.fail(EdgeError.clientWentAway)
        exchange.writeWaiter?.resume(throwing: EdgeError.clientWentAway)
        exchange.writeWaiter = nil
        exchange.task?.cancel()
        report(exchange)
    }

    /// Closes now when idle, otherwise after the running response.
    func drain() {
        if let exchange { exchange.keepsAlive = false } else if discard == nil { closeAfterFlush() }
    }

    /// Closes without waiting for the peer's half of the TLS closure: an idle client would let it wait for its
    /// time-out.
    func close() {
        isClosing = true
        guard let context else { return }
        // A peer that takes nothing does not take the closure either.
        guard context.channel.isWritable, let tls = tlsContext(context) else { return closeBelowTLS() }
        set(.write, shared.configuration.limits.writeTimeout)
        context.close(mode: .output).assumeIsolated().whenComplete { _ in tls.close(promise: nil) }
    }

    /// Ends the connection at once, whatever is still unwritten.
    func closeBelowTLS() {
        isClosing = true
        guard let context else { return }
        (tlsContext(context) ?? context).close(promise: nil)
    }

    private func tlsContext(_ context: ChannelHandlerContext) -> ChannelHandlerContext? {
        transport.scheme == .https
            ? try? context.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self) : nil
    }

    // MARK: - Reading

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        sawPartInThisRead = true
        receive(unwrapInboundIn(data))
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if sawBytesInThisRead, !sawPartInThisRead, exchange == nil, discard == nil, !isReceivingHead, !isClosing {
            // Bytes came, but no whole head: the clock against slow senders starts.
            isReceivingHead = true
            set(.head, shared.configuration.limits.headerTimeout)
        }
        sawPartInThisRead = false
        sawBytesInThisRead = false
        loopState.executor.drain()
    }

    /// Told by the decoder, which sees bytes before they make up a request.
    func bytesArrived() { sawBytesInThisRead = true }

    /// The channel asks on its own after every read; it gets through only when something is wanted.
    func read(context: ChannelHandlerContext) {
        if wantsInput { context.read() } else { readWasHeldBack = true }
    }

    private var wantsInput: Bool {
        if isClosing { return false }
        if discard != nil { return true }
        guard let exchange else { return pending.isEmpty }
        return exchange.intake.waiter != nil
    }

    private func readIfWanted() {
        guard readWasHeldBack, wantsInput, let context else { return }
        readWasHeldBack = false
        context.read()
    }

    private func receive(_ part: HTTPServerRequestPart) {
        if discard != nil {
            throwAway(part)
        } else if isClosing {
            return
        } else if let exchange, !exchange.intake.isComplete {
            switch part {
            case .head: pending.append(part)
            case .body(let bytes):
                exchange.intake.receive(bytes)
                if exchange.intake.waiter == nil { bodyDeadline = nil }
            case .end:
                exchange.intake.complete()
                bodyDeadline = nil
            }
        } else if exchange != nil || !(context?.channel.isWritable ?? false) || !pending.isEmpty {
            pending.append(part)
        } else if case .head(let head) = part {
            begin(head)
        }
    }

    private func throwAway(_ part: HTTPServerRequestPart) {
        switch part {
        case .head: break
        case .body(let bytes):
            discard!.bytes += bytes.readableBytes
            if discard!.bytes > discard!.limit {
                discard = nil
                close()
            }
        case .end:
            let thenKeepAlive = discard!.thenKeepAlive
            discard = nil
            if thenKeepAlive { becomeIdle() } else { closeAfterFlush() }
        }
    }

    // MARK: - A request

    private func begin(_ head: HTTPRequestHead) {
        isReceivingHead = false
        deadline = nil
        serial += 1
        let admitted = admission.admit(head)
        let accepted = try? admitted.get()
        let limit =
            accepted.map { shared.configuration.maximumBodyBytes($0.endpoint) }
            ?? shared.configuration.limits.drainedBytes
        let framing = IncomingFraming(head)
        let exchange = Exchange(
            serial: serial, id: loopState.nextRequestID(), head: head, endpoint: accepted?.endpoint,
            intake: BodyIntake(
                declaredLength: framing.length, limitBytes: limit, expectsContinue: framing.expectsContinue),
            startedAt: shared.configuration.onRequestFinished == nil ? nil : .now())
        self.exchange = exchange
        // The decoder stops after a request that asks for an upgrade; none is offered, so this is the connection's
        // last request.
        if framing.asksForUpgrade || loopState.isDraining { exchange.keepsAlive = false }
        if isOverLimit { return refuse(.tooManyConnections, exchange) }
        if let problem = framing.problem { return refuse(problem, exchange) }
        switch admitted {
        case .failure(let refusal): refuse(refusal, exchange)
        case .success(let accepted):
            if let length = framing.length, length > limit { return refuse(.bodyTooLarge(limitBytes: limit), exchange) }
            guard let service = shared.service(accepted.endpoint) else {
                return refuse(.noService(accepted.endpoint), exchange)
            }
            serve(
                Request(
                    id: exchange.id, method: head.method, rawPath: accepted.rawPath, rawQuery: accepted.rawQuery,
                    headers: head.headers,
                    endpoint: accepted.endpoint, names: accepted.names, transport: transport, body: body(of: exchange)),
                by: service, exchange)
        }
    }

    private func serve(_ request: Request, by service: any WireService, _ exchange: Exchange) {
        let serial = exchange.serial
        switch shared.configuration.placement(request.endpoint) {
        case .eventLoop:
            exchange.task = Task(executorPreference: loopState.executor) { [self] in
                await answer(serial, with: service.respond(to: request))
            }
        case .threadPool:
            exchange.task = Task { [self] in await answer(serial, with: service.respond(to: request)) }
        }
    }

    private func refuse(_ refusal: Refusal, _ exchange: Exchange) {
        if refusal.status == .badRequest || refusal.retryAfterSeconds != nil || exchange.method == .CONNECT {
            exchange.keepsAlive = false
        }
        if let foreign = refusal.foreignAuthority { shared.logRefused(foreign) }
        send(refusal.response(requestID: exchange.id), exchange)
    }

    private func body(of exchange: Exchange) -> RequestBody {
        guard exchange.intake.hasBody else { return .empty }
        let serial = exchange.serial
        return RequestBody(declaredLength: exchange.intake.declaredLength) { [self] in try await nextPart(serial) }
    }

    private func nextPart(_ serial: UInt64) async throws -> ByteBuffer? {
        if loop.inEventLoop {
            switch pull(serial) {
            case .part(let bytes): return bytes
            case .end: return nil
            case .failed(let error): throw error
            case .wait: break
            }
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                onLoop { self.wait(serial, continuation) }
            }
        } onCancel: {
            loop.execute { self.giveUpReading(serial) }
        }
    }

    private func pull(_ serial: UInt64) -> BodyIntake.Step {
        guard let exchange, exchange.serial == serial else { return .failed(EdgeError.clientWentAway) }
        return exchange.intake.pull()
    }

    private func wait(_ serial: UInt64, _ continuation: CheckedContinuation<ByteBuffer?, any Error>) {
        switch pull(serial) {
        case .part(let bytes): continuation.resume(returning: bytes)
        case .end: continuation.resume(returning: nil)
        case .failed(let error): continuation.resume(throwing: error)
        case .wait:
            precondition(exchange!.intake.waiter == nil, "one reader at a time reads a request's body")
            exchange!.intake.waiter = continuation
            if exchange!.intake.expectsContinue { sendContinue(exchange!) }
            let at = NIODeadline.now() + shared.configuration.limits.readTimeout
            bodyDeadline = at
            wake(at)
            readIfWanted()
        }
    }

    private func giveUpReading(_ serial: UInt64) {
        guard let exchange, exchange.serial == serial else { return }
        exchange.intake.waiter?.resume(throwing: CancellationError())
        exchange.intake.waiter = nil
    }

    private func sendContinue(_ exchange: Exchange) {
        exchange.intake.expectsContinue = false
        guard exchange.status == nil, let context else { return }
        var buffer = context.channel.allocator.buffer(capacity: 32)
        buffer.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    // MARK: - After a response

    /// The response has been handed to the socket.
    func finish(_ exchange: Exchange) {
        guard self.exchange === exchange else { return }
        self.exchange = nil
        bodyDeadline = nil
        clear(.write)
        report(exchange)
        exchange.intake.abandon()
        // A service that read on after it answered gets no more.
        exchange.intake.fail(EdgeError.clientWentAway)
        if exchange.intake.isComplete {
            if exchange.keepsAlive { becomeIdle() } else { closeAfterFlush() }
            return
        }
        guard exchange.framing != .untilClose else { return closeAfterFlush() }
        let limits = shared.configuration.limits
        discard = Discard(
            limit: exchange.keepsAlive ? limits.drainedBytes : limits.lingerBytes, thenKeepAlive: exchange.keepsAlive)
        set(.linger, limits.lingerTimeout)
        readIfWanted()
    }

    /// `close` on a socket drops what is still unwritten.
    private func closeAfterFlush() {
        isClosing = true
        guard let lastWrite else { return close() }
        set(.write, shared.configuration.limits.writeTimeout)
        lastWrite.assumeIsolated().whenComplete { [self] _ in close() }
    }

    /// Writes the last bytes of a response. A promise costs an allocation; small responses of living connections go
    /// without.
    func writeLast(_ buffer: ByteBuffer, _ exchange: Exchange, _ context: ChannelHandlerContext) {
        if exchange.keepsAlive, buffer.readableBytes < 64 * 1_024, context.channel.isWritable {
            context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        } else {
            lastWrite = context.writeAndFlush(wrapOutboundOut(buffer))
        }
    }

    private func becomeIdle() {
        guard let context, !isClosing else { return }
        set(.idle, shared.configuration.limits.idleTimeout)
        startPending(context)
        if exchange == nil, loopState.isDraining { closeAfterFlush() }
        readIfWanted()
    }

    /// Starts the next pipelined request, once the client has taken the responses before it.
    private func startPending(_ context: ChannelHandlerContext) {
        // A request that is answered on the spot comes back here: the loop below goes on with the next one, however
        // many there are, not the stack.
        guard !isStartingPending else { return }
        isStartingPending = true
        defer { isStartingPending = false }
        while exchange == nil, discard == nil, !isClosing, context.channel.isWritable, let part = pending.popFirst() {
            if case .head(let head) = part { begin(head) }
            while let exchange, !exchange.intake.isComplete, let next = pending.popFirst() {
                switch next {
                case .head: preconditionFailure("the decoder sends an end before a head")
                case .body(let bytes): exchange.intake.receive(bytes)
                case .end: exchange.intake.complete()
                }
            }
            while discard != nil, let next = pending.popFirst() { throwAway(next) }
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            if let exchange {
                clear(.write)
                exchange.writeWaiter?.resume()
                exchange.writeWaiter = nil
            } else {
                startPending(context)
                readIfWanted()
            }
        }
        context.fireChannelWritabilityChanged()
    }

    private func report(_ exchange: Exchange) {
        guard let report = shared.configuration.onRequestFinished, let startedAt = exchange.startedAt else { return }
        report(
            FinishedRequest(
                id: exchange.id, method: exchange.method, endpoint: exchange.endpoint, status: exchange.status ?? 499,
                duration: .now() - startedAt, requestBytes: exchange.intake.receivedBytes,
                responseBytes: exchange.sentBytes))
    }

    // MARK: - Errors and time

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is HTTPParserError, !isClosing else {
            // The socket or the TLS layer broke: nothing can be said any more.
            isClosing = true
            context.close(promise: nil)
            return
        }
        if let exchange {
            // In the middle of a body, or in a pipelined request behind the running one, which may still be answered.
            exchange.keepsAlive = false
            if case HTTPParserError.invalidEOFState = error {
                exchange.intake.fail(EdgeError.clientWentAway)
            } else {
                exchange.intake.fail(EdgeError.malformedBody)
            }
        } else if discard != nil {
            close()
        } else {
            let refusal: Refusal =
                if case HTTPParserError.headerOverflow = error { .headersTooLarge } else { .malformed }
            refuseAndClose(refusal)
        }
    }

    /// Answers what never became a request.
    private func refuseAndClose(_ refusal: Refusal) {
        guard let context, !isClosing else { return }
        isClosing = true
        deadline = nil
        let response = refusal.response(requestID: loopState.nextRequestID())
        guard case .bytes(let body) = response.body else { return close() }
        var buffer = context.channel.allocator.buffer(capacity: 512)
        let head = ResponseHead(
            status: response.status, headers: response.headers, framing: .length(body.readableBytes),
            connection: .close,
            date: loopState.dateHeader())
        guard head.write(into: &buffer) else { return close() }
        buffer.writeImmutableBuffer(body)
        context.writeAndFlush(wrapOutboundOut(buffer)).assumeIsolated().whenComplete { [self] _ in close() }
    }

    func set(_ meaning: Deadline, _ amount: TimeAmount) {
        let at = NIODeadline.now() + amount
        deadline = (at, meaning)
        wake(at)
    }

    /// One timer per connection. Moving a deadline further away costs no call: the timer looks again when it fires.
    private func wake(_ at: NIODeadline) {
        if let timer {
            guard at < timer.at else { return }
            timer.scheduled.cancel()
        }
        timer = (at, loop.assumeIsolated().scheduleTask(deadline: at) { [weak self] in self?.timerFired() })
    }

    func clear(_ meaning: Deadline) {
        if deadline?.meaning == meaning { deadline = nil }
    }

    private func timerFired() {
        timer = nil
        guard context != nil else { return }
        let now = NIODeadline.now()
        if let at = bodyDeadline, at <= now {
            bodyDeadline = nil
            exchange?.keepsAlive = false
            exchange?.intake.fail(EdgeError.timedOut)
        }
        if let deadline, deadline.at <= now {
            self.deadline = nil
            end(deadline.meaning)
        }
        if let bodyDeadline { wake(bodyDeadline) }
        if let deadline { wake(deadline.at) }
    }

    /// A deadline has passed.
    private func end(_ meaning: Deadline) {
        switch meaning {
        case .idle, .linger: close()
        case .head: if isReceivingHead { refuseAndClose(.headersTooSlow) } else { close() }
        case .write:
            exchange?.writeWaiter?.resume(throwing: EdgeError.timedOut)
            exchange?.writeWaiter = nil
            closeBelowTLS()
        }
    }
}

/// What a request's head says about the bytes behind it.
struct IncomingFraming {
    /// Body bytes; nil when chunked.
    private(set) var length: Int? = 0
    private(set) var expectsContinue = false
    private(set) var asksForUpgrade = false
    private(set) var problem: Refusal?

    init(_ head: HTTPRequestHead) {
        for (name, padded) in head.headers {
            // The decoder leaves the white space behind a value on it; it is not the value's (RFC 9110 §5.5).
            var value = Substring(padded)
            while let last = value.utf8.last, last == 0x20 || last == 0x09 { value.removeLast() }
            switch name.utf8.count {
            case 14 where name.lowercased() == "content-length":
                // The decoder takes lengths up to 2^64 - 1.
                if let bytes = Int(value), bytes >= 0 { length = bytes } else { problem = .malformed }
            case 17 where name.lowercased() == "transfer-encoding":
                if value.lowercased() == "chunked" { length = nil } else { problem = .unsupportedCoding }
            case 6 where name.lowercased() == "expect":
                if value.lowercased() == "100-continue" {
                    expectsContinue = head.version.minor > 0
                } else {
                    problem = .unsupportedExpectation
                }
            case 7 where name.lowercased() == "upgrade": asksForUpgrade = true
            default: break
            }
        }
        if length == 0 { expectsContinue = false }
    }
}

/// NIO's request decoder, which also tells its connection that bytes have come: a head that arrives slowly shows in
/// nothing else.
final class RequestDecoder: ByteToMessageDecoder {
    typealias InboundOut = HTTPServerRequestPart
    private let decoder: HTTPRequestDecoder
    private let connection: Connection

    init(limits: EdgeLimits, connection: Connection) {
        var configuration = NIOHTTPDecoderLimitConfiguration()
        configuration.maxHeaderFieldSize = limits.headerFieldBytes
        configuration.maxHeaderListSize = limits.headerBytes
        configuration.maxHeaderFieldCount = limits.headerFields
        decoder = HTTPRequestDecoder(limitConfiguration: configuration)
        self.connection = connection
    }

    func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        connection.bytesArrived()
        return try decoder.decode(context: context, buffer: &buffer)
    }
    func decodeLast(context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool) throws -> DecodingState {
        try decoder.decodeLast(context: context, buffer: &buffer, seenEOF: seenEOF)
    }
    func decoderAdded(context: ChannelHandlerContext) { decoder.decoderAdded(context: context) }
    func decoderRemoved(context: ChannelHandlerContext) { decoder.decoderRemoved(context: context) }
}
