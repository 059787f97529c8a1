@preconcurrency import Dispatch
import Foundation

/// Waits for the signals that ask a server to end.
enum TerminationSignal {
    /// Returns the number of the first SIGINT, SIGTERM or SIGHUP after the call. The process does not die of them
    /// meanwhile.
    static func wait() async -> Int32 {
        let signals = AsyncStream<Int32> { continuation in
            let sources = [SIGINT, SIGTERM, SIGHUP].map { number in
                signal(number, SIG_IGN)
                let source = DispatchSource.makeSignalSource(signal: number)
                source.setEventHandler { continuation.yield(number) }
                source.resume()
                return source
            }
            continuation.onTermination = { _ in sources.forEach { $0.cancel() } }
        }
        for await number in signals { return number }
        return SIGTERM
    }
}
