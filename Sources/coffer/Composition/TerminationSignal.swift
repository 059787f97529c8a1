import Dispatch
import Foundation

/// The signals that ask a server to end. The process does not die of them while this is held.
struct TerminationSignal {
    private let sources: [any DispatchSourceSignal]
    private let numbers: AsyncStream<Int32>

    /// Returns once each of SIGINT, SIGTERM and SIGHUP is caught: one that comes earlier ends the process, and none is
    /// lost. SIGHUP stays ignored where it is, as nohup(1) asks.
    static func caught() async -> TerminationSignal {
        let (numbers, continuation) = AsyncStream.makeStream(of: Int32.self)
        var sources: [any DispatchSourceSignal] = []
        for number in [SIGINT, SIGTERM] + (isIgnored(SIGHUP) ? [] : [SIGHUP]) {
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { continuation.yield(number) }
            await withCheckedContinuation { caught in
                source.setRegistrationHandler { caught.resume() }
                source.resume()
            }
            sources.append(source)
        }
        return TerminationSignal(sources: sources, numbers: numbers)
    }

    private static func isIgnored(_ number: Int32) -> Bool {
        var action = sigaction()
        return sigaction(number, nil, &action) == 0
            && unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
                == unsafeBitCast(SIG_IGN, to: Int.self)
    }

    /// The number of the first since they are caught.
    func first() async -> Int32 {
        for await number in numbers { return number }
        return SIGTERM
    }
}
