import Foundation
import Testing

/// The map in Package.swift is the law: SwiftPM lets a target import what its dependencies depend on, so this holds
/// every `import` against it.
struct ImportTests {
    @Test func everyImportIsADoorOnTheMap() throws {
        let map = try PackageMap()
        for room in map.rooms.keys.sorted() {
            let allowed = map.rooms[room]!.union(PackageMap.always).union(PackageMap.undeclared[room] ?? [])
            for file in try Tree.swiftFiles(below: "Sources/\(room)") {
                for module in try Self.imports(of: file) where module != room {
                    #expect(
                        allowed.contains(module),
                        "\(file) imports \(module), which Package.swift does not allow for \(room)")
                }
            }
        }
    }

    /// "Encrypted at rest" is a property of the import graph: nothing above EncryptionAtRest but the composition root
    /// sees an engine.
    @Test func onlyEncryptionAtRestReachesTheEngines() throws {
        let mayImportStorageEngine: Set = [
            "StorageEngine", "StorageEngineTesting", "TestSupport", "EncryptionAtRest", "EmbeddedEngine", "coffer",
        ]
        for room in try PackageMap().rooms.keys where !mayImportStorageEngine.contains(room) {
            for file in try Tree.swiftFiles(below: "Sources/\(room)") {
                let engines = Set(try Self.imports(of: file)).intersection([
                    "StorageEngine", "EmbeddedEngine", "CSQLite",
                ])
                #expect(engines.isEmpty, "\(file) reaches past EncryptionAtRest: \(engines)")
            }
        }
    }

    private static func imports(of file: String) throws -> [String] {
        try Tree.lines(of: file).compactMap { line in
            var words = line.split(separator: " ").map(String.init)
            while let first = words.first,
                first.hasPrefix("@") || ["public", "internal", "package", "private", "fileprivate"].contains(first)
            {
                words.removeFirst()
            }
            guard words.first == "import", words.count >= 2 else { return nil }
            let kinds: Set = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
            let module = kinds.contains(words[1]) ? words[2] : words[1]
            return module.split(separator: ".").first.map(String.init)
        }
    }
}

/// Package.swift, read as text: rooms and what each may import.
struct PackageMap {
    /// The system, and the standard library's own modules.
    static let always: Set = [
        "Foundation", "FoundationEssentials", "FoundationXML", "Glibc", "Dispatch", "Synchronization", "Darwin",
        "Testing",
    ]
    /// Modules of a listed package that no product names; docs/decisions says why each is used.
    static let undeclared: [String: Set<String>] = [
        "EmbeddedEngine": ["CCryptoBoringSSL"], "coffer": ["SystemPackage"],
    ]

    let rooms: [String: Set<String>]

    init() throws {
        let text = try String(contentsOfFile: Tree.root + "/Package.swift", encoding: .utf8)
        var groups: [String: Set<String>] = [:]
        // In the order in which they build on one another.
        for name in ["nio", "crypto", "x509", "jwt", "log", "service"] {
            guard let start = text.range(of: "let \(name)") else { continue }
            let rest = text[start.upperBound...]
            let ends = ["\nlet ", "\nfunc ", "\n///"].compactMap { rest.range(of: $0)?.lowerBound }
            let definition = String(rest[..<(ends.min() ?? rest.endIndex)])
            groups[name] = Set(Self.libraries(in: definition))
            if name == "service" {
                groups[name] = Set(Self.quoted(in: definition))
                for (group, modules) in groups where Self.mentions(group, in: definition) {
                    groups[name]!.formUnion(modules)
                }
            }
        }
        var rooms: [String: Set<String>] = [:]
        let body = text.components(separatedBy: "targets: [\n").last!
        for match in Self.declarations(in: body) {
            let quoted = Self.quoted(in: match.text)
            guard let name = quoted.first else { continue }
            var allowed = Set(quoted.dropFirst())
            for (group, modules) in groups where Self.mentions(group, in: match.text) { allowed.formUnion(modules) }
            rooms[name] = allowed
        }
        self.rooms = rooms
    }

    private struct Declaration { let text: String }

    /// Each `room(…)` and the executable target, up to the parenthesis that closes it.
    private static func declarations(in body: String) -> [Declaration] {
        var found: [Declaration] = []
        for opener in ["room(", ".executableTarget("] {
            var rest = body[...]
            while let start = rest.range(of: opener) {
                var depth = 1
                var index = start.upperBound
                while depth > 0, index < rest.endIndex {
                    if rest[index] == "(" { depth += 1 }
                    if rest[index] == ")" { depth -= 1 }
                    index = rest.index(after: index)
                }
                found.append(Declaration(text: String(rest[start.upperBound..<index])))
                rest = rest[index...]
            }
        }
        return found
    }
    private static func quoted(in text: String) -> [String] {
        text.components(separatedBy: "\"").enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
    }
    private static func libraries(in text: String) -> [String] {
        text.components(separatedBy: "library(\"").dropFirst().compactMap { $0.components(separatedBy: "\"").first }
    }
    private static func mentions(_ group: String, in text: String) -> Bool {
        text.split { !$0.isLetter && !$0.isNumber && $0 != "\"" }.contains { $0 == group }
    }
}
