import Glibc
import Logging
import NIOCore
import NIOHTTP1

extension Connection {
    /// Bodies up to this size leave in one buffer with their head: one system call, one TLS record. Larger ones are
    /// not copied. Bytes.
    private static let coalescedBytes = 32 * 1_024
    /// A streaming service gives the other tasks of its loop a turn after so many bytes without a wait.
    private static let bytesPerTurn = 1_024 * 1_024

    /// The service's answer, on whatever thread it came.
    func answer(_ serial: UInt64, with response: Response) async {
        guard case .stream(let length, let produce) = response.body else {
            onLoop { self.sendWhole(serial, response) }
            return
        }
        let starts: Bool
        if loop.inEventLoop {
            starts = startStream(serial, response, length: length)
        } else {
            starts = await withCheckedContinuation { continuation in
                onLoop { continuation.resume(returning: self.startStream(serial, response, length: length)) }
            }
        }
        guard starts else { return }
        do {
            try await produce(StreamWriter(connection: self, serial: serial))
            onLoop { self.endStream(serial) }
        } catch {
            onLoop { self.breakStream(serial, error) }
        }
    }

    private func current(_ serial: UInt64) -> Exchange? {
        guard let exchange, exchange.serial == serial, context != nil else { return nil }
        return exchange
    }

    private func sendWhole(_ serial: UInt64, _ response: Response) {
        if let exchange = current(serial) { send(response, exchange) }
    }

    // MARK: - Whole responses

    /// Writes a response that is not a stream, and ends the exchange.
    func send(_ response: Response, _ exchange: Exchange) {
        guard let context else { return }
        var body: ByteBuffer?
        let framing: Framing
        switch response.body {
        case .empty: framing = .length(0)
        case .omitted(let length):
            // To anything but HEAD (or with 304) it would announce bytes that never come, and the client would wait
            // for them.
            guard length == 0 || !Self.mayHaveBody(response.status, exchange) else { return sendInvalid(exchange) }
            framing = .length(length)
        case .bytes(let bytes):
            framing = .length(bytes.readableBytes)
            if bytes.readableBytes > 0, Self.mayHaveBody(response.status, exchange) { body = bytes }
        case .stream: preconditionFailure("streams have their own way")
        }
        let bodyBytes = body?.readableBytes ?? 0
        let isCoalesced = bodyBytes <= Self.coalescedBytes
        var buffer = context.channel.allocator.buffer(capacity: 512 + (isCoalesced ? bodyBytes : 0))
        guard writeHead(response, framing, exchange, into: &buffer) else { return sendInvalid(exchange) }
        exchange.sentBytes = bodyBytes
        if let body {
            if isCoalesced {
                buffer.writeImmutableBuffer(body)
            } else {
                context.write(wrapOutboundOut(buffer), promise: nil)
                buffer = body
            }
        }
        writeLast(buffer, exchange, context)
        finish(exchange)
    }

    private static func mayHaveBody(_ status: HTTPResponseStatus, _ exchange: Exchange) -> Bool {
        exchange.method != .HEAD && status.mayHaveResponseBody
    }

    private func writeHead(
        _ response: Response, _ framing: Framing, _ exchange: Exchange, into buffer: inout ByteBuffer
    ) -> Bool {
        let framing = response.status.code == 204 || response.status.code == 304 ? Framing.none : framing
        if framing == .untilClose || loopState.isDraining { exchange.keepsAlive = false }
        if exchange.intake.expectsContinue {
            // The client was never told to send its body. It may wait, or send it after all: nobody can tell what the
            // next bytes are.
            exchange.keepsAlive = false
        } else if let outstanding = exchange.intake.outstandingBytes,
            outstanding > shared.configuration.limits.drainedBytes
        {
            exchange.keepsAlive = false
        }
        let option: ResponseHead.ConnectionOption =
            !exchange.keepsAlive ? .close : exchange.isOldVersion ? .keepAlive : .unsaid
        let head = ResponseHead(
            status: response.status, headers: response.headers, framing: framing, connection: option,
            date: loopState.dateHeader())
        guard head.write(into: &buffer) else { return false }
        exchange.status = Int(response.status.code)
        exchange.framing = framing
        return true
    }

    /// A service made a response that must not leave.
    private func sendInvalid(_ exchange: Exchange) {
        shared.configuration.logger.error(
            "a response cannot be sent: a malformed header, or a length without a body",
            metadata: ["request": .string(exchange.id), "endpoint": .string(exchange.endpoint?.kind ?? "none")])
        send(Refusal.invalidResponse.response(requestID: exchange.id), exchange)
    }

    // MARK: - Streams

    /// False when there is nothing to stream: the client is gone, or the response has no body.
    private func startStream(_ serial: UInt64, _ response: Response, length: Int?) -> Bool {
        guard let exchange = current(serial), let context else { return false }
        var buffer = context.channel.allocator.buffer(capacity: 512)
        let framing: Framing = length.map { .length($0) } ?? (exchange.isOldVersion ? .untilClose : .chunked)
        guard writeHead(response, framing, exchange, into: &buffer) else {
            sendInvalid(exchange)
            return false
        }
        guard Self.mayHaveBody(response.status, exchange) else {
            writeLast(buffer, exchange, context)
            finish(exchange)
            return false
        }
        exchange.heldHead = buffer
        return true
    }

    fileprivate func write(_ serial: UInt64, _ bytes: ByteBuffer) throws -> WriteOutcome {
        guard let exchange = current(serial), let context, exchange.status != nil else {
            throw EdgeError.clientWentAway
        }
        let count = bytes.readableBytes
        guard count > 0 else { return .go }
        if case .length(let length) = exchange.framing, exchange.sentBytes + count > length {
            throw ResponseLengthMismatch()
        }
        let turnsBefore = exchange.sentBytes / Self.bytesPerTurn
        exchange.sentBytes += count
        var buffer = exchange.heldHead ?? context.channel.allocator.buffer(capacity: 16)
        exchange.heldHead = nil
        if exchange.framing == .chunked { buffer.writeChunkSize(count) }
        let isCoalesced = count <= Self.coalescedBytes / 2
        if isCoalesced {
            buffer.writeImmutableBuffer(bytes)
        } else {
            if buffer.readableBytes > 0 { context.write(wrapOutboundOut(buffer), promise: nil) }
            buffer = bytes
        }
        if exchange.framing == .chunked {
            if isCoalesced {
                buffer.writeStaticString("\r\n")
            } else {
                context.write(wrapOutboundOut(buffer), promise: nil)
                buffer = context.channel.allocator.buffer(capacity: 2)
                buffer.writeStaticString("\r\n")
            }
        }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
        // The flush may have found the connection broken.
        guard current(serial) != nil else { throw EdgeError.clientWentAway }
        if !context.channel.isWritable { return .wait }
        return exchange.sentBytes / Self.bytesPerTurn == turnsBefore ? .go : .giveTurn
    }

    fileprivate enum WriteOutcome { case go, giveTurn, wait }

    fileprivate func waitForRoom(_ serial: UInt64, _ continuation: CheckedContinuation<Void, any Error>) {
        guard let exchange = current(serial), let context else {
            return continuation.resume(throwing: EdgeError.clientWentAway)
        }
        guard !context.channel.isWritable else { return continuation.resume() }
        precondition(exchange.writeWaiter == nil, "one writer at a time writes a response")
        exchange.writeWaiter = continuation
        set(.write, shared.configuration.limits.writeTimeout)
    }

    fileprivate func giveUpWriting(_ serial: UInt64) {
        guard let exchange = current(serial) else { return }
        exchange.writeWaiter?.resume(throwing: CancellationError())
        exchange.writeWaiter = nil
    }

    private func endStream(_ serial: UInt64) {
        guard let exchange = current(serial), let context else { return }
        if case .length(let length) = exchange.framing, exchange.sentBytes < length {
            return breakStream(serial, ResponseLengthMismatch())
        }
        var last = exchange.heldHead
        exchange.heldHead = nil
        if exchange.framing == .chunked {
            if last == nil { last = context.channel.allocator.buffer(capacity: 8) }
            last!.writeStaticString("0\r\n\r\n")
        }
        // An empty write behind the last bytes of a body tells when they have left.
        if last != nil || !exchange.keepsAlive { writeLast(last ?? ByteBuffer(), exchange, context) }
        finish(exchange)
    }

    /// Breaks the connection off without an end of the body, so that the client knows that it has not got all.
    private func breakStream(_ serial: UInt64, _ error: any Error) {
        guard let exchange = current(serial), let context else { return }
        if !(error is EdgeError), !(error is CancellationError) {
            shared.configuration.logger.error(
                "a response broke off",
                metadata: ["request": .string(exchange.id), "error": .string(String(describing: type(of: error)))])
        }
        if exchange.heldHead != nil, !(error is EdgeError) {
            // Nothing has left yet: the client can be told.
            exchange.heldHead = nil
            return send(Refusal.invalidResponse.response(requestID: exchange.id), exchange)
        }
        exchange.keepsAlive = false
        abort(context)
    }

    /// A reset instead of an orderly end, below TLS: otherwise a body that ends with the connection would look whole.
    private func abort(_ context: ChannelHandlerContext) {
        if let socket = context.channel as? any SocketOptionProvider {
            // `close` with no time to linger sends a reset. Both calls are on the loop: the option is set when the
            // close comes.
            socket.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in }
        }
        closeBelowTLS()
    }
}

/// A stream wrote more or less than the length it declared.
struct ResponseLengthMismatch: Error {}

private struct StreamWriter: ResponseBodyWriter {
    let connection: Connection
    let serial: UInt64

    func write(_ bytes: ByteBuffer) async throws {
        let outcome: Connection.WriteOutcome
        if connection.loop.inEventLoop {
            outcome = try connection.write(serial, bytes)
        } else {
            outcome = try await withCheckedThrowingContinuation { continuation in
                connection.onLoop { continuation.resume(with: Result { try connection.write(serial, bytes) }) }
            }
        }
        switch outcome {
        case .go: return
        case .giveTurn: await Task.yield()
        case .wait:
            try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { continuation in
                    connection.onLoop { connection.waitForRoom(serial, continuation) }
                }
            } onCancel: {
                connection.loop.execute { connection.giveUpWriting(serial) }
            }
        }
    }
}
