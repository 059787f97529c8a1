import CofferCore
import Foundation
import Logging
import NIOCore
import StorageEngine
import Testing

@testable import EmbeddedEngine

/// A directory that goes with the test.
final class TestDirectory: Sendable {
    let path: String
    /// In memory where there is such a file system: what the tests look at does not depend on the disk, and hundreds of
    /// fsyncs take their time.
    init(onDisk: Bool = false) {
        let memory = "/dev/shm"
        let base = !onDisk && access(memory, W_OK) == 0 ? memory : FileManager.default.temporaryDirectory.path
        path = base + "/coffer-engine-" + SystemRandomness().uuidString()
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func open(
        key: UInt8 = 1, options: EmbeddedEngine.Options = .init()
    ) throws(StorageEngineError) -> EmbeddedEngine {
        try EmbeddedEngine.open(
            at: path, pageKey: SecretBytes(copying: [UInt8](repeating: key, count: 32)), clock: FixedClock(),
            randomness: SystemRandomness(), logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
            options: options)
    }

    /// Of the format that is made.
    static let pageBytes = EngineFormat.current.pageBytes
    static let frameBytes = LogFile.frameHeaderBytes + pageBytes

    /// A copy of all files as they are now: what a crash would leave.
    func image() -> TestDirectory {
        let copy = TestDirectory()
        try? FileManager.default.copyItem(atPath: path, toPath: copy.path)
        return copy
    }

    var files: [String] {
        FileManager.default.enumerator(atPath: path)!.compactMap { $0 as? String }.map { path + "/" + $0 }
            .filter {
                (try? FileManager.default.attributesOfItem(atPath: $0)[.type] as? FileAttributeType) == .typeRegular
            }
    }

    var segmentNames: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path + "/extents/segments")) ?? []).sorted()
    }

    func bytes(_ file: String) -> [UInt8] { Array(FileManager.default.contents(atPath: path + "/" + file) ?? Data()) }
    func write(_ bytes: [UInt8], to file: String) {
        try! Data(bytes).write(to: URL(fileURLWithPath: path + "/" + file))
    }
}

struct FixedClock: WallClock {
    func now() -> Timestamp { Timestamp(microseconds: 1_700_000_000_000_000) }
}

func put(_ store: any MetadataStore, _ key: String, _ value: [UInt8], in partition: String = "p") async throws {
    let result = try await store.commit(Partition(partition), checks: [], writes: [.put(RowKey(key), value)])
    guard case .committed = result else {
        Issue.record("a commit without checks was refused")
        return
    }
}

func value(_ store: any MetadataStore, _ key: String, in partition: String = "p") async throws -> [UInt8]? {
    try await store.get(Partition(partition), [RowKey(key)])[0]?.value
}

func extent(_ store: any ExtentStore, _ byte: UInt8, _ count: Int, expectedBytes: Int? = nil) async throws
    -> ExtentLocation
{
    let writer = try await store.create(expectedBytes: expectedBytes ?? count)
    var left = count
    while left > 0 {
        let piece = min(left, 100_000)
        try await writer.append(.init(repeating: byte, count: piece))
        left -= piece
    }
    return try await writer.finish()
}

/// The code of the error that `body` throws.
func failure(_ body: () async throws -> Void) async -> StorageEngineError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? StorageEngineError
    }
}
