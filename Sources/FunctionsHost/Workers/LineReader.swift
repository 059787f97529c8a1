internal import NIOCore

/// Cuts a stream into lines of at most 32 KiB, and lets a limited number of them through each second: an app that
/// shouts cannot fill the server's memory or its log.
final class LineReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    static let lineBytes = FunctionLogEntry.messageLimitBytes

    private let take: (String) -> Void
    private var rest = ByteBuffer()
    private var allowance = LineAllowance()
    private var dropped = 0

    init(_ take: @escaping (String) -> Void) { self.take = take }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        while let end = bytes.readableBytesView.firstIndex(of: 0x0a) {
            keep(bytes.readSlice(length: end - bytes.readerIndex) ?? ByteBuffer())
            bytes.moveReaderIndex(forwardBy: 1)
            pass(rest)
            rest.clear()
        }
        keep(bytes)
    }

    /// What is beyond the limit of a line is not even held until its end.
    private func keep(_ part: ByteBuffer) {
        rest.writeBytes(part.readableBytesView.prefix(Self.lineBytes - rest.readableBytes))
    }

    func channelInactive(context: ChannelHandlerContext) {
        if rest.readableBytes > 0 { pass(rest) }
        rest.clear()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func pass(_ line: ByteBuffer) {
        guard allowance.take(1, now: .now()) else {
            dropped += 1
            return
        }
        if dropped > 0 {
            take("\(dropped) lines were dropped: more than \(FunctionLogEntry.linesPerSecond) in a second.")
            dropped = 0
        }
        var text = String(decoding: line.readableBytesView, as: UTF8.self)
        if text.hasSuffix("\r") { text.removeLast() }
        if !text.isEmpty { take(text) }
    }
}
