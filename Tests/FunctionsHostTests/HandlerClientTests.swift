import CofferCore
import HTTPEdge
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization
import Testing

@testable import FunctionsHost

/// Answers whatever it is sent with the same words, and keeps the connection.
private final class Spoken: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let words: String
    init(_ words: String) { self.words = words }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.writeAndFlush(NIOAny(ByteBuffer(string: words)), promise: nil)
    }
}

/// A client that takes its time, by the test's clock, for every part.
private final class Reader: ResponseBodyWriter {
    let text = Mutex("")
    private let time: NIOAsyncTestingEventLoop
    private let secondsForAPart: Int64
    init(_ time: NIOAsyncTestingEventLoop, secondsForAPart: Int64) {
        self.time = time
        self.secondsForAPart = secondsForAPart
    }
    func write(_ bytes: ByteBuffer) async throws {
        text.withLock { $0 += String(buffer: bytes) }
        await time.advanceTime(by: .seconds(secondsForAPart))
    }
}

private final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}

/// How an answer ends that a handler has begun: over real connections, only the time is the test's.
@Suite(.timeLimit(.minutes(5)))
struct HandlerClientTests {
    private enum Event { case cutOff, release }
    private final class Events: Sendable {
        let all = Mutex<[Event]>([])
        func add(_ event: Event) { all.withLock { $0.append(event) } }
    }

    private static let unfinished = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"
    private static let finished = unfinished + "cd"

    private let time = NIOAsyncTestingEventLoop()
    private let events = Events()
    private let world: World
    private let handlers: HandlerClient

    init() async throws {
        world = try await World()
        handlers = HandlerClient(client: world.runtime.services.handlers, timers: time)
    }

    private func port(ofHandlerSaying words: String) async throws -> Int {
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Spoken(words))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return try #require(channel.localAddress?.port)
    }

    /// What the client has got in the end, and how it ended.
    private func forward(_ words: String, _ times: CallTimes, secondsForAPart: Int64 = 0) async throws
        -> (text: String, result: Result<Void, any Error>)
    {
        let port = try await port(ofHandlerSaying: words)
        let events = events
        let response = try await handlers.forward(
            world.get("/api/x"), port: port, invocationID: "i", bodyLimitBytes: 100, times: times,
            cutOff: { events.add(.cutOff) }, release: { events.add(.release) })
        guard case .stream(_, let write) = response.body else { throw ChannelError.inappropriateOperationForState }
        let reader = Reader(time, secondsForAPart: secondsForAPart)
        let result = await passingTime(while: words == Self.unfinished && !reader.text.withLock { $0.isEmpty }) {
            try await write(reader)
        }
        return (reader.text.withLock { $0 }, result)
    }

    /// Does `work`; meanwhile the test's time goes by whenever `passes` holds.
    private func passingTime<T: Sendable>(
        while passes: @autoclosure () -> Bool, _ work: @escaping @Sendable () async throws -> T
    ) async -> Result<T, any Error> {
        let isOver = Flag()
        let task = Task {
            defer { isOver.set() }
            return try await work()
        }
        while !isOver.isSet, !Task.isCancelled {
            if passes() { await time.advanceTime(by: .seconds(10)) }
            await Task.yield()
        }
        // Over, or past the test's own time.
        task.cancel()
        return await task.result
    }

    @Test func anAnswerThatStopsIsCutOff() async throws {
        let (text, result) = try await forward(Self.unfinished, CallTimes(silence: 230, whole: nil))
        #expect(text == "ab")
        let failure = #expect(throws: HandlerClient.Failure.self) { try result.get() }
        #expect(failure?.reason == .timedOut)
        #expect(events.all.withLock { $0 } == [.cutOff, .release])
    }

    @Test func anAnswerEndsWithinTheFunctionsTime() async throws {
        let times = CallTimes(silence: 1_000_000_000, whole: 10)
        let (text, result) = try await forward(Self.unfinished, times, secondsForAPart: 11)
        #expect(text == "ab")
        #expect(throws: HandlerClient.Failure.self) { try result.get() }
        #expect(events.all.withLock { $0 } == [.cutOff, .release])
    }

    @Test func aSlowClientIsNotTheHandlersSilence() async throws {
        let times = CallTimes(silence: 230, whole: 10)
        let (text, result) = try await forward(Self.finished, times, secondsForAPart: 1_000)
        #expect(throws: Never.self) { try result.get() }
        #expect(text == "abcd")
        #expect(events.all.withLock { $0 } == [.release])
    }

    @Test func aPayloadsAnswerIsWholeInTime() async throws {
        let port = try await port(ofHandlerSaying: Self.unfinished)
        let handlers = handlers
        let result = await passingTime(while: true) {
            try await handlers.invoke([], function: "f", port: port, invocationID: "i", timeoutSeconds: 230).status
        }
        let failure = #expect(throws: HandlerClient.Failure.self) { try result.get() }
        #expect(failure?.reason == .timedOut)
    }
}
