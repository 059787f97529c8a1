public import CofferCore
internal import NIOCore

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
    /// A site's lines beyond these are dropped, from a worker and from the admin API alike.
    static let linesPerSecond = 1_000

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
        self.message = message.utf8.count <= Self.messageLimitBytes ? message : message.cut(Self.messageLimitBytes)
    }
}

extension String {
    /// Its first bytes, at most `count`; a character that would be torn is left out.
    func cut(_ count: Int) -> String {
        var end = utf8.index(startIndex, offsetBy: count, limitedBy: utf8.endIndex) ?? endIndex
        while end > startIndex, end.samePosition(in: unicodeScalars) == nil { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}

/// How many lines a site may still log in this second.
struct LineAllowance {
    private var second: Int64 = 0
    private var count = 0

    /// Takes all that is asked for, or nothing; returns which.
    mutating func take(_ lines: Int, now: NIODeadline) -> Bool {
        let now = Int64(now.uptimeNanoseconds / 1_000_000_000)
        if now != second { (second, count) = (now, 0) }
        guard lines <= FunctionLogEntry.linesPerSecond - count else { return false }
        count += lines
        return true
    }
}

/// Keeps nothing.
public struct DiscardedFunctionLogs: FunctionLogSink {
    public init() {}
    public func write(_ entry: FunctionLogEntry) {}
}
