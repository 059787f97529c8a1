public import CofferCore

/// Takes what apps and their host have to say (category `FunctionAppLogs`). The composition root joins it to the
/// diagnostic settings' targets. Called from any thread; it must return at once and drop what it cannot keep.
public protocol FunctionLogSink: Sendable {
    func write(_ entry: FunctionLogEntry)
}

public struct FunctionLogEntry: Sendable, Equatable {
    public enum Level: String, Sendable { case information = "Information", warning = "Warning", error = "Error" }
    public let time: Timestamp
    public let site: ResourceID
    /// nil for the host's and the worker's own lines.
    public let functionName: String?
    public let invocationID: String?
    public let level: Level
    /// `Host.Results`, `Function.NAME`, `Worker`, …
    public let category: String
    /// At most `messageLimitBytes`; longer ones are cut.
    public let message: String

    public static let messageLimitBytes = 32 << 10

    public init(
        time: Timestamp, site: ResourceID, functionName: String? = nil, invocationID: String? = nil, level: Level,
        category: String,
        message: String
    ) {
        self.time = time
        self.site = site
        self.functionName = functionName
        self.invocationID = invocationID
        self.level = level
        self.category = category
        self.message = message
    }
}

/// Keeps nothing.
public struct DiscardedFunctionLogs: FunctionLogSink {
    public init() {}
    public func write(_ entry: FunctionLogEntry) {}
}
