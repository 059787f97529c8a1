import Foundation

/// The checkout's files, found from this file's own place.
enum Tree {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path

    /// Paths relative to the root.
    static func files(below folder: String, endings: Set<String>) throws -> [String] {
        guard let walk = FileManager.default.enumerator(atPath: root + "/" + folder) else { return [] }
        return walk.compactMap { $0 as? String }.filter { endings.contains(($0 as NSString).pathExtension) }.map {
            folder + "/" + $0
        }.sorted()
    }
    static func swiftFiles(below folder: String) throws -> [String] { try files(below: folder, endings: ["swift"]) }
    static func lines(of file: String) throws -> [String] {
        try String(contentsOfFile: root + "/" + file, encoding: .utf8).components(separatedBy: "\n")
    }
}
