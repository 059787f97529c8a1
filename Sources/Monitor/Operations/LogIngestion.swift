import CofferCore
import Logging
import ResourceProviders

/// Takes log lines in, holds them for a moment so that many become one sealed record, and never holds more than it may.
actor LogIngestion {
    /// Most lines in one sealed batch.
    static let batchLineLimit = 256
    /// Most lines that wait in memory; beyond it the newest are dropped and counted.
    static let waitingLineLimit = 8_192
    /// Longest line kept, in characters.
    static let lineCharacterLimit = 8_192

    private let records: MonitorRecords
    private let log: Logger
    private var waiting: [(resource: ResourceID, category: String, line: LogLine)] = []
    private var dropped = 0
    private var writer: Task<Void, Never>?
    private var lastNumbers: [String: UInt64] = [:]

    init(records: MonitorRecords, log: Logger) {
        self.records = records
        self.log = log
    }

    func enqueue(_ lines: [LogLine], category: String, from resource: ResourceID) {
        for line in lines {
            guard waiting.count < Self.waitingLineLimit else {
                dropped += 1
                continue
            }
            let short = LogLine(
                time: line.time, level: line.level, message: String(line.message.prefix(Self.lineCharacterLimit)),
                functionName: line.functionName)
            waiting.append((resource, category, short))
        }
        if writer == nil {
            writer = Task { await self.drain() }
        }
    }

    /// Lines that arrive while a batch is being sealed make up the next one: the slower the disk, the larger the
    /// batches.
    private func drain() async {
        while !waiting.isEmpty {
            let head = waiting[0]
            let batch = waiting.prefix(Self.batchLineLimit).prefix {
                $0.resource == head.resource && $0.category == head.category
            }
            waiting.removeFirst(batch.count)
            await write(batch.map(\.line), category: head.category, from: head.resource)
        }
        writer = nil
        if dropped > 0 {
            log.warning(
                "log lines were dropped because they came faster than they could be sealed",
                metadata: ["lines": "\(dropped)"])
            dropped = 0
        }
    }

    func flush() async {
        while let writer { await writer.value }
    }

    private func write(_ lines: [LogLine], category: String, from resource: ResourceID) async {
        do {
            for setting in try await records.settings(of: resource) where setting.sends(category) {
                guard let id = setting.workspace, let workspace = try await records.workspace(id) else { continue }
                let last: UInt64
                if let known = lastNumbers[workspace.customerID] {
                    last = known
                } else {
                    last = try await records.lastBatchNumber(of: workspace.customerID)
                }
                lastNumbers[workspace.customerID] = last + 1
                try await records.append(
                    MonitorRecords.Batch(resource: resource, category: category, lines: lines), number: last + 1,
                    to: workspace.customerID)
            }
        } catch {
            log.error("log lines could not be sealed", metadata: ["lines": "\(lines.count)", "reason": "\(error)"])
        }
    }
}

extension MonitorRecords.Setting {
    /// Whether the setting is on for a category.
    func sends(_ category: String) -> Bool {
        (properties.member("logs")?.arrayValue ?? []).contains { entry in
            entry.member("enabled")?.boolValue == true
                && (entry.member("category")?.stringValue?.lowercased() == category.lowercased()
                    || entry.member("categoryGroup")?.stringValue?.lowercased() == "alllogs")
        }
    }
}
