import CofferCore
import ResourceProviders

/// The part of the Kusto query language the workspace answers: one table, equality on `_ResourceId`, and `take`.
struct LogQuery {
    /// Rows returned when the query has no `take`, and the most it may ask for.
    static let rowLimit = 10_000

    let table: String
    /// Every `where` must hold.
    let resources: [ResourceID]
    let limit: Int

    /// Throws 400 `BadArgumentError`, naming the part that is not understood.
    init(_ text: String) throws(ControlError) {
        guard text.utf8.count <= 4_096 else { throw Self.refused("The query is longer than 4,096 bytes.") }
        var parts = text.split(separator: "|", omittingEmptySubsequences: false).map { part in
            part.split(whereSeparator: \.isWhitespace).map(String.init)
        }
        guard parts.first?.count == 1, let table = parts.removeFirst().first else {
            throw Self.refused("A query begins with one table name, for example: FunctionAppLogs | take 100")
        }
        self.table = table
        var resources: [ResourceID] = []
        var limit = Self.rowLimit
        var hasTake = false
        for part in parts {
            if part.count == 4, part[0] == "where", part[1] == "_ResourceId", ["==", "=~"].contains(part[2]),
                let value = Self.literal(part[3])
            {
                // It would choose among the rows taken, not among all.
                guard !hasTake else { throw Self.refused("Put 'where' before 'take'.") }
                resources.append(ResourceID(value))
            } else if part.count == 2, ["take", "limit"].contains(part[0]), let count = Int(part[1]),
                (0...Self.rowLimit).contains(count)
            {
                limit = min(limit, count)
                hasTake = true
            } else {
                throw Self.refused(
                    "'\(part.joined(separator: " "))' is not understood. Supported: where _ResourceId == '…' and take 0…\(Self.rowLimit)."
                )
            }
        }
        self.resources = resources
        self.limit = limit
    }

    func selects(_ batch: MonitorRecords.Batch) -> Bool {
        batch.category.lowercased() == table.lowercased() && resources.allSatisfy { $0 == batch.resource }
    }

    private static func literal(_ text: String) -> String? {
        guard text.count >= 2, let quote = text.first, quote == "'" || quote == "\"", text.last == quote else {
            return nil
        }
        return String(text.dropFirst().dropLast())
    }
    private static func refused(_ message: String) -> ControlError { .badRequest(message, code: "BadArgumentError") }
}
