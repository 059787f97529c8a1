internal import NIOCore

/// Cuts a stream into lines of at most 32 KiB, and lets a limited number of them through each second: an app that
/// shouts cannot fill the server's memory or its log.
final class LineReader: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    static let lineBytes = FunctionLogEntry.messageLimitBytes
    static let linesPerSecond = 1_000

    private let take: (String) -> Void
    private var rest = ByteBuffer()
    private var second: Int64 = 0
    private var count = 0
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
        let now = Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000_000)
        if now != second {
            if dropped > 0 { take("\(dropped) lines were dropped: more than \(Self.linesPerSecond) in a second.") }
            (second, count, dropped) = (now, 0, 0)
        }
        count += 1
        guard count <= Self.linesPerSecond else {
            dropped += 1
            return
        }
        var text = String(decoding: line.readableBytesView, as: UTF8.self)
        if text.hasSuffix("\r") { text.removeLast() }
        if !text.isEmpty { take(text) }
    }
}
