import CofferCore
import FunctionsHost
import Monitor

/// Joins the apps' logs to the diagnostic settings' workspaces. What comes faster than it can be sealed is dropped, the
/// oldest first.
final class FunctionLogsToMonitor: FunctionLogSink {
    private static let waitingLimit = 8_192
    private let entries: AsyncStream<FunctionLogEntry>.Continuation

    init(_ monitor: MonitorService) {
        let (stream, continuation) = AsyncStream.makeStream(
            of: FunctionLogEntry.self, bufferingPolicy: .bufferingNewest(Self.waitingLimit))
        entries = continuation
        Task {
            for await entry in stream {
                let line = LogLine(
                    time: entry.time, level: entry.level.rawValue, message: entry.message,
                    functionName: entry.functionName ?? "")
                await monitor.emit([line], category: "FunctionAppLogs", from: entry.site)
            }
        }
    }

    func write(_ entry: FunctionLogEntry) { entries.yield(entry) }
    deinit { entries.finish() }
}
