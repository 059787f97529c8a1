import Foundation
import Testing

/// docs/compatibility.md claims nothing without a witness: a test, a step of the walkthrough or a black-box test that
/// stands in this tree.
struct CompatibilityTests {
    @Test func everyClaimHasAWitness() throws {
        let witnesses = try Witnesses.all.get()
        let rows = try Self.rows(of: Tree.lines(of: "docs/compatibility.md"))
        #expect(rows.count > 100, "the tables were not found")
        for row in rows {
            for fault in row.faults(witnesses) {
                Issue.record("docs/compatibility.md:\(row.line) '\(row.operation)' \(fault)")
            }
        }
    }

    /// The check itself must be able to fail.
    @Test(arguments: [
        ("| a | works | | |", "names no witness"),
        ("| a | partial | b | see the tests |", "names no witness"),
        ("| a | works | | `CompatibilityTests.nothingOfThisName` |", "does not exist"),
        ("| a | works | | `NoTests.everyClaimHasAWitness` |", "does not exist"),
        ("| a | works | | `CompatibilityTests.rows` |", "does not exist"),
        ("| a | works | | `walkthrough [99]` |", "does not exist"),
        ("| a | works | | `walkthrough [0]` |", "does not exist"),
        ("| a | works | | `Acceptance/none.py` |", "does not exist"),
        ("| a | missing | 501 | `NoTests.none` |", "does not exist"),
        ("| a | missing | | |", "does not say what it answers"),
        ("| a | great | b | `walkthrough [01]` |", "state"),
        ("| a | works | `walkthrough [01]` |", "columns"),
    ])
    func unfoundedClaimsAreFound(row: String, fault: String) throws {
        let table = ["| operation | state | differences | witness |", "|---|---|---|---|", row]
        let found = try Self.rows(of: table).flatMap { try $0.faults(Witnesses.all.get()) }
        #expect(found.count == 1 && found[0].contains(fault), "\(found)")
    }
    @Test func foundedClaimsPass() throws {
        let table = [
            "| operation | state | differences | witness |", "|---|---|---|---|",
            "| a | works | | `CompatibilityTests.foundedClaimsPass`, `walkthrough [01]` |",
            "| b | partial | c | `Acceptance/crash.py` |", "| d | missing | 501 | |",
        ]
        #expect(try Self.rows(of: table).flatMap { try $0.faults(Witnesses.all.get()) }.isEmpty)
    }

    /// The rows of every table whose last column is the witness.
    private static func rows(of lines: [String]) -> [Row] {
        var rows: [Row] = []
        var isTable = false
        for (number, line) in lines.enumerated() {
            guard line.hasPrefix("|") else {
                isTable = false
                continue
            }
            let cells = line.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false).map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            if cells.last == "witness" { isTable = true; continue }
            if isTable, !line.hasPrefix("|---") { rows.append(Row(line: number + 1, cells: cells)) }
        }
        return rows
    }
}

private struct Row {
    let line: Int
    let cells: [String]
    var operation: String { cells.first ?? "" }

    func faults(_ witnesses: Witnesses) -> [String] {
        guard cells.count == 4 else { return ["has \(cells.count) columns; four are due"] }
        let named = cells[3].components(separatedBy: "`").enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
        let unknown = named.filter { !witnesses.contains($0) }
        if !unknown.isEmpty { return unknown.map { "names the witness \($0), which does not exist" } }
        switch cells[1] {
        case "works", "partial": return named.isEmpty ? ["\(cells[1]), but names no witness"] : []
        case "missing": return cells[2].isEmpty ? ["is missing, but does not say what it answers"] : []
        default: return ["has the state '\(cells[1])'; it is works, partial or missing"]
        }
    }
}

/// What can bear witness, read from the tree.
private struct Witnesses {
    static let all = Result { try Witnesses() }

    private var tests: Set<String> = []
    private let steps: Int
    private static let types: Set = ["struct", "class", "enum", "actor", "extension"]

    private init() throws {
        for file in try Tree.swiftFiles(below: "Tests") {
            var suite = ""
            var isTest = false
            for line in try Tree.lines(of: file) {
                let words = line.split { !$0.isLetter && !$0.isNumber && $0 != "@" }.map(String.init)
                if line.first?.isWhitespace == false, let kind = words.firstIndex(where: Self.types.contains),
                    kind + 1 < words.count
                {
                    suite = words[kind + 1]
                }
                if words.first == "@Test" { isTest = true }
                // The arguments of @Test may stand between it and its function.
                if isTest, let function = words.firstIndex(of: "func"), function + 1 < words.count {
                    tests.insert("\(suite).\(words[function + 1])")
                    isTest = false
                }
            }
        }
        steps = try Tree.lines(of: "Acceptance/walkthrough.sh").count { $0.hasPrefix("say ") }
    }

    func contains(_ name: String) -> Bool {
        if name.hasPrefix("walkthrough ["), name.hasSuffix("]") {
            return Int(name.dropFirst("walkthrough [".count).dropLast()).map { (1...steps).contains($0) } ?? false
        }
        if name.hasPrefix("Acceptance/") { return FileManager.default.fileExists(atPath: Tree.root + "/" + name) }
        return tests.contains(name)
    }
}
