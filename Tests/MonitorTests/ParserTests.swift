import CofferCore
import ResourceProviders
import TestSupport
import Testing

@testable import Monitor

/// Queries of logs: each is understood as a whole, or refused in words.
struct LogQueryTests {
    private static func refused(_ error: ControlError) -> Bool {
        error.status == 400 && error.code == "BadArgumentError" && !error.message.isEmpty
    }

    @Test func queriesComeBack() throws {
        let random = SeededRandomness(111)
        for _ in 0..<1_000 {
            let space = random.pick([" ", "  ", "\n", " \t"])
            let limit = random.number(0..<LogQuery.rowLimit + 1)
            let id = "/subscriptions/s/" + random.text(["a", "B", "/", "é", "-", "."], upTo: 6)
            let quote = random.pick(["'", "\""])
            let comparison = random.pick(["==", "=~"])
            let words = [
                "", "FunctionAppLogs", "|", "where", "_ResourceId", comparison, quote + id + quote, "|",
                random.pick(["take", "limit"]), "\(limit)", "",
            ]
            let text = words.joined(separator: space)
            let query = try LogQuery(text)
            #expect(query.table == "FunctionAppLogs" && query.limit == limit, "\(text)")
            #expect(query.resources == [ResourceID(id)])
        }
    }

    /// Of two stages neither is passed over.
    @Test func everyStageCounts() throws {
        let query = try LogQuery("T | where _ResourceId == '/a' | where _ResourceId == '/b' | take 5 | take 10")
        #expect(query.resources == [ResourceID("/a"), ResourceID("/b")] && query.limit == 5)
        #expect(throws: ControlError.self) { try LogQuery("T | take 5 | where _ResourceId == '/a'") }
    }

    /// A part that was not understood and not refused would show other rows than were asked for.
    @Test func randomQueriesAreUnderstoodOrRefused() {
        let random = SeededRandomness(112)
        let parts = [
            "FunctionAppLogs", "|", "| ", " ", "where", "_ResourceId", "==", "=~", "'/a'", "\"/a\"", "'", "take",
            "limit", "5", "10001", "-1", "x", "é",
        ]
        for _ in 0..<3_000 {
            let text = random.text(parts, upTo: 10)
            do throws(ControlError) {
                let query = try LogQuery(text)
                #expect(!query.table.isEmpty && (0...LogQuery.rowLimit).contains(query.limit))
                var plain = query.table
                for resource in query.resources { plain += " | where _ResourceId == '\(resource)'" }
                plain += " | take \(query.limit)"
                let again = try LogQuery(plain)
                #expect(again.table == query.table && again.limit == query.limit && again.resources == query.resources)
                let (takes, wheres) = (text.contains("take") || text.contains("limit"), text.contains("where"))
                #expect(wheres || query.resources.isEmpty, "\(text)")
                #expect(takes || query.limit == LogQuery.rowLimit, "\(text)")
            } catch {
                #expect(Self.refused(error))
            }
        }
    }

    @Test func mutatedQueriesAreUnderstoodOrRefused() {
        let random = SeededRandomness(113)
        let seed = Array("FunctionAppLogs | where _ResourceId == '/subscriptions/s/a' | take 100")
        var understood = 0
        for _ in 0..<2_000 {
            var text = seed
            for _ in 0...random.number(0..<2) {
                let place = random.number(0..<text.count)
                switch random.number(0..<3) {
                case 0: text[place] = random.pick(Array("|'\"= 0x/é\n"))
                case 1: text.remove(at: place)
                default: text.insert(random.pick(Array("|'\"= 0x/é\n")), at: place)
                }
            }
            do throws(ControlError) {
                let query = try LogQuery(String(text))
                understood += 1
                // No stage is passed over.
                #expect(text.filter { $0 == "|" }.count == 2 && query.resources.count == 1, "\(String(text))")
            } catch {
                #expect(Self.refused(error))
            }
        }
        #expect(understood > 50, "another digit is another limit")
    }
}
