import EncryptionAtRest
import Foundation

/// Searches the store's files for pieces of what they hold: a second look, from outside, at "everything at rest is
/// encrypted".
final class PlaintextSearch {
    /// Bytes of one sample: long enough that ciphertext does not hold it by chance, and longer than what a row says of
    /// an extent's place, 24 bytes that the extent's own header in a segment says in clear.
    static let sampleBytes = 32
    static let samplesPerPiece = 4
    /// Of each kind of thing.
    static let sampleLimit = 20_000
    private static let blockBytes = 4 << 20

    private var taken: [SealedStore.Opened: Int] = [:]
    var samples: Int { taken.values.reduce(0, +) }
    private(set) var files = 0
    private(set) var bytes = 0
    /// Files that hold a sample in clear, relative to the folder.
    private(set) var findings: [String] = []
    /// Samples by their first eight bytes, so that most positions cost one look-up; many records begin alike.
    private var needles: [UInt64: Set<[UInt8]>] = [:]

    /// Takes samples of something that was opened.
    func add(_ kind: SealedStore.Opened, _ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.sampleBytes, taken[kind, default: 0] < Self.sampleLimit else { return }
        let step = max(Self.sampleBytes, (bytes.count - Self.sampleBytes) / Self.samplesPerPiece)
        for start in stride(from: 0, through: bytes.count - Self.sampleBytes, by: step).prefix(Self.samplesPerPiece) {
            let sample = Array(bytes[start..<start + Self.sampleBytes])
            // A run of one byte is no text, and stands in any sparse file; nor may a sample begin with one, which would
            // be looked up at every byte of the hole.
            guard Set(sample).count > 4, Set(sample.prefix(8)).count > 2 else { continue }
            needles[Self.head(of: sample[...]), default: []].insert(sample)
            taken[kind, default: 0] += 1
        }
    }

    private static func head(of bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// `omitted` is a folder directly below `folder`: none of its files is opened.
    func search(below folder: String, leavingOut omitted: String? = nil) throws {
        guard let walk = FileManager.default.enumerator(atPath: folder) else { return }
        for case let name as String in walk where omitted.map({ !name.hasPrefix($0 + "/") }) ?? true {
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: folder + "/" + name, isDirectory: &isFolder),
                !isFolder.boolValue
            else { continue }
            files += 1
            if try holdsSample(folder + "/" + name) { findings.append(name) }
        }
    }

    private func holdsSample(_ path: String) throws -> Bool {
        guard let file = FileHandle(forReadingAtPath: path) else { throw CommandFailure("\(path) cannot be read.") }
        defer { try? file.close() }
        var carried: [UInt8] = []
        while let data = try file.read(upToCount: Self.blockBytes), !data.isEmpty {
            bytes += data.count
            let block = carried + [UInt8](data)
            if contains(block) { return true }
            carried = Array(block.suffix(Self.sampleBytes - 1))
        }
        return false
    }

    private func contains(_ block: [UInt8]) -> Bool {
        guard block.count >= Self.sampleBytes else { return false }
        return block.withUnsafeBufferPointer { block in
            var head: UInt64 = 0
            for index in block.indices {
                head = head << 8 | UInt64(block[index])
                let start = index - 7
                guard start >= 0, start + Self.sampleBytes <= block.count, let samples = needles[head] else { continue }
                if samples.contains(Array(block[start..<start + Self.sampleBytes])) { return true }
            }
            return false
        }
    }
}
