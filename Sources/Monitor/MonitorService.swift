public import AccessControl
public import CofferCore
public import EncryptionAtRest
public import Logging
public import ResourceProviders

/// Workspaces and diagnostic settings: where the platform's logs go, sealed and bounded.
///
/// Two namespaces share one state, because a setting on a resource names the workspace its logs flow to.
public final class MonitorService: Sendable {
    let records: MonitorRecords
    let access: AccessController
    let clock: any WallClock
    let randomness: any Randomness
    let log: Logger
    let ingestion: LogIngestion

    public init(
        store: SealedStore, access: AccessController, clock: any WallClock, randomness: any Randomness, log: Logger
    ) {
        self.records = MonitorRecords(store: store)
        self.access = access
        self.clock = clock
        self.randomness = randomness
        self.log = log
        self.ingestion = LogIngestion(records: records, log: log)
    }

    /// `Microsoft.OperationalInsights`.
    public var workspaces: any ResourceProvider { WorkspaceProvider(service: self) }
    /// `Microsoft.Insights`.
    public var insights: any ResourceProvider { DiagnosticSettingsProvider(service: self) }

    /// Sends lines to every workspace that a diagnostic setting of `resource` names for `category`; nowhere when there
    /// is none. Returns at once: lines wait in memory, bounded, and are sealed in batches.
    public func emit(_ lines: [LogLine], category: String, from resource: ResourceID) async {
        await ingestion.enqueue(lines, category: category, from: resource)
    }

    /// Seals what still waits. For shutdown.
    public func flush() async { await ingestion.flush() }

    func require(_ caller: Caller, _ action: String, at scope: ResourceID) throws(ControlError) {
        let action = Action.control(action)
        guard access.decide(caller, action, at: scope).isAllowed else {
            throw .authorizationFailed(caller, action, scope)
        }
    }
}

/// One line of a log, as a table row of the workspace.
public struct LogLine: Sendable, Codable, Equatable {
    public let time: Timestamp
    /// `Information`, `Warning`, `Error`.
    public let level: String
    public let message: String
    /// The function it belongs to; empty for the host's own.
    public let functionName: String
    public init(time: Timestamp, level: String, message: String, functionName: String) {
        self.time = time
        self.level = level
        self.message = message
        self.functionName = functionName
    }
}
