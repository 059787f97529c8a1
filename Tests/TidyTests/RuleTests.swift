import Foundation
import Testing

/// Rules a compiler does not know (CONTRIBUTING.md lists them).
struct RuleTests {
    /// Time and randomness are parameters; only the seams' own file reads the system.
    @Test func nobodyReadsTheClockOrTheDice() throws {
        let banned = [
            "Date()", "Date.now", "UUID()", ".random(in:", ".randomElement()", "SystemRandomNumberGenerator()",
            "DispatchTime.now()",
        ]
        for file in try Tree.swiftFiles(below: "Sources") where file != "Sources/CofferCore/Seams.swift" {
            for (number, line) in try Tree.lines(of: file).enumerated() where !line.isComment {
                for call in banned {
                    #expect(
                        !line.calls(call),
                        "\(file):\(number + 1) uses \(call): take a WallClock or Randomness as a parameter")
                }
            }
        }
    }

    @Test func filesStayReadable() throws {
        for file in try Tree.swiftFiles(below: "Sources") + Tree.swiftFiles(below: "Tests") {
            let lines = try Tree.lines(of: file)
            #expect(lines.count <= 800, "\(file) has \(lines.count) lines; 800 is the limit: split it by operation")
            for (number, line) in lines.enumerated() where line.count > 120 {
                #expect(
                    Bool(line.contains("http")), "\(file):\(number + 1) is \(line.count) columns wide; 120 is the limit"
                )
            }
        }
    }

    /// Unfinished work stands in docs/compatibility.md, not in a comment.
    @Test func nothingIsLeftForLater() throws {
        let words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]
        for file in try Tree.files(below: "Sources", endings: ["swift", "c", "h"]) + Tree.swiftFiles(below: "Tests") {
            for (number, line) in try Tree.lines(of: file).enumerated() {
                for word in line.split(whereSeparator: { !$0.isLetter }) {
                    #expect(!words.contains(String(word)), "\(file):\(number + 1) holds \(word)")
                }
            }
        }
    }

    @Test func everyUncheckedSendableIsArgued() throws {
        for file in try Tree.swiftFiles(below: "Sources") {
            let lines = try Tree.lines(of: file)
            for (number, line) in lines.enumerated() where line.contains("@unchecked Sendable") && !line.isComment {
                let near = lines[max(0, number - 3)...min(lines.count - 1, number + 3)].joined(separator: " ")
                #expect(
                    near.contains("@unchecked:") || near.contains("unchecked because"),
                    "\(file):\(number + 1): say why it is safe")
            }
        }
    }
}

extension String {
    /// Whether the text stands here, and not as the tail of a longer name.
    fileprivate func calls(_ call: String) -> Bool {
        guard let found = range(of: call) else { return false }
        guard let before = self[..<found.lowerBound].last, call.first?.isLetter == true else { return true }
        return !before.isLetter && !before.isNumber && before != "_"
    }
    fileprivate var isComment: Bool { trimmingCharacters(in: .whitespaces).hasPrefix("//") }
}
