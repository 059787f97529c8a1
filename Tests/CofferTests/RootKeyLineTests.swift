import CofferCore
import EncryptionAtRest
import Foundation
import TestSupport
import Testing

@testable import coffer

@Suite struct RootKeyLineTests {
    private func parsed(_ text: String) -> RootKeyLine? { RootKeyLine(parsing: SecretBytes(copying: text.utf8)) }
    private func text(_ line: RootKeyLine) -> String {
        line.text.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    }

    @Test func linesAreWrittenAsTheFormatSays() throws {
        let key = RootKey(version: 1, key: SecretBytes(copying: 0..<32))
        #expect(text(.clear(key)) == "coffer-root-key 1 " + Array<UInt8>(0..<32).base64 + "\n")
        let wrapped = try #require(WrappedRootKey(version: 4_294_967_295, message: Array(0..<60)))
        #expect(text(.wrapped(wrapped)) == "coffer-root-key-pkcs11 4294967295 " + Array<UInt8>(0..<60).base64 + "\n")
        #expect(
            WrappedRootKey.additional(version: 258)
                == [0, 0, 0, 25] + Array("coffer/v1/root-key-pkcs11".utf8) + [0, 0, 0, 4, 0, 0, 1, 2])
    }

    private static let key = Array<UInt8>(0..<32).base64
    private static let message = Array<UInt8>(0..<60).base64
    @Test(arguments: [
        "", "\n", "coffer-root-key", "coffer-root-key 1", "coffer-root-key 1 ", "coffer-root-key 0 \(key)",
        "coffer-root-key 01 \(key)", "coffer-root-key +1 \(key)", "coffer-root-key -1 \(key)",
        "coffer-root-key 4294967296 \(key)", "coffer-root-key 1 \(key) more", "coffer-root-key 1 \(message)",
        "coffer-root-key 1 \(key.dropLast())", "coffer-root-key 1 \(key.dropLast(2))9=",
        "coffer-root-key 1 \(key.dropLast(4))", "coffer-root-key 1 ====", "Coffer-root-key 1 \(key)",
        "coffer-root-key-pkcs11 1 \(key)", "coffer-root-key-pkcs12 1 \(message)",
        "coffer-root-key-pkcs11 1 \(message.dropLast(4))", "coffer-root-key\u{0}1 \(key)",
    ])
    func anythingElseIsRefused(text: String) { #expect(parsed(text) == nil) }

    /// The white space around a key that was put back by hand does not count.
    @Test(arguments: ["coffer-root-key 7 \(key)", "  coffer-root-key\t7  \(key)\r\n\n"])
    func whiteSpaceIsNoPartOfIt(text: String) throws {
        guard case .clear(let found) = try #require(parsed(text)) else {
            Issue.record("not in clear")
            return
        }
        #expect(found.version == 7)
        #expect(self.text(.clear(found)) == "coffer-root-key 7 \(Self.key)\n")
    }

    @Test func base64IsTheOneOfFoundation() {
        let dice = SeededRandomness(1)
        for count in 0..<100 {
            let bytes = dice.bytes(count)
            let mine = SecretBytes(copying: bytes).base64
            #expect(mine.withUnsafeBytes { String(decoding: $0, as: UTF8.self) } == bytes.base64)
            let back = mine.withUnsafeBytes { SecretBytes(base64: $0[...]) }
            #expect(back?.withUnsafeBytes { Array($0) } == bytes)
        }
    }

    /// Whatever stands in the file: no crash, and what is read has one spelling.
    @Test func changedLinesAreRefusedOrReadAsTheyStand() throws {
        let dice = SeededRandomness(2)
        func number(below limit: Int) -> Int { Int(dice.bytes(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }) % limit }
        let originals = ["coffer-root-key 12 \(Self.key)\n", "coffer-root-key-pkcs11 3 \(Self.message)\n"]
        var read = 0
        for _ in 0..<20_000 {
            var line = Array(originals[number(below: 2)].utf8)
            for _ in 0...number(below: 3) where !line.isEmpty {
                let place = number(below: line.count)
                switch number(below: 4) {
                case 0: line[place] = dice.bytes(1)[0]
                case 1: line.remove(at: place)
                case 2: line.insert(Array("\n 019+/=Aaz".utf8)[number(below: 11)], at: place)
                default: line.replaceSubrange(place..., with: line[number(below: line.count)...])
                }
            }
            guard let found = RootKeyLine(parsing: SecretBytes(copying: line)) else { continue }
            read += 1
            let words = line.split { [0x20, 0x09, 0x0a, 0x0d].contains($0) }
            #expect(Array(words.joined(separator: [0x20])) + [0x0a] == Array(text(found).utf8))
        }
        #expect(read > 100, "the changes were too rough to show anything")
    }
}
