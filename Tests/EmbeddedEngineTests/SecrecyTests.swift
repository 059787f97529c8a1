import CofferCore
import Foundation
import Logging
import StorageEngine
import Testing

@testable import EmbeddedEngine

@Suite struct SecrecyTests {
    private let pageBytes = TestDirectory.pageBytes

    /// Names and values are looked for in every file, while the engine is open (log), after a checkpoint, and after
    /// many changes.
    @Test func nothingIsReadableOnDisk() async throws {
        let directory = TestDirectory()
        let planted = ["Kaffeemaschine", "Zahnradbahn-Partition", "Blumenkohlsuppe"]
        func search(_ when: String) {
            for file in directory.files {
                let bytes = FileManager.default.contents(atPath: file)!
                for text in planted + ["SQLite format", "CREATE TABLE"] {
                    #expect(bytes.range(of: Data(text.utf8)) == nil, "\(text) is readable in \(file) \(when)")
                }
            }
        }
        let engine = try directory.open()
        for round in 0..<50 {
            let value = Array(String(repeating: planted[2], count: 1 + round * 20).utf8)
            try await put(engine, "\(planted[0]) \(round)", value, in: planted[1])
        }
        #expect(directory.bytes("metadata/rows.db-wal").count > 100_000, "there is something to search")
        search("while open")
        engine.close()
        #expect(directory.bytes("metadata/rows.db").count > 100_000, "there is something to search")
        search("after closing")
    }

    /// Equal rows leave nothing equal: no two pages of the log and of the database share a block.
    @Test func equalPagesDifferOnDisk() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        for _ in 0..<20 { try await put(engine, "same", [UInt8](repeating: 0, count: 5000)) }
        let log = directory.bytes("metadata/rows.db-wal")
        engine.close()
        var seen: Set<ArraySlice<UInt8>> = []
        for start in stride(from: 32, to: log.count, by: TestDirectory.frameBytes) {
            for block in stride(from: start + 24, to: start + TestDirectory.frameBytes, by: 32) {
                #expect(seen.insert(log[block..<min(block + 16, log.count)]).inserted)
            }
        }
        #expect(seen.count > 1000)
    }

    @Test func aWrongKeyIsRefusedClearly() async throws {
        let directory = TestDirectory()
        let engine = try directory.open(key: 1)
        try await put(engine, "k", [1])
        engine.close()
        let error = await failure { _ = try directory.open(key: 2) }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains("root key does not belong") == true)
        let right = try directory.open(key: 1)
        #expect(try await value(right, "k") == [1])
        right.close()
    }

    /// A database under another key, of another directory, or moved within the file.
    @Test(arguments: [0, 5, 2000, 4055, 4056, 4074, 4095]) func aFlippedByteIsRefused(inPage offset: Int) async throws {
        let directory = try await filled()
        var database = directory.bytes("metadata/rows.db")
        for page in 0..<(database.count / pageBytes) { database[page * pageBytes + offset] ^= 1 }
        directory.write(database, to: "metadata/rows.db")
        #expect(await readEverything(directory)?.code == .corrupt)
    }

    @Test func swappedPagesAreRefused() async throws {
        let directory = try await filled()
        var database = directory.bytes("metadata/rows.db")
        let count = database.count / pageBytes
        for page in stride(from: 1, to: count - 1, by: 2) {
            let one = Array(database[page * pageBytes..<(page + 1) * pageBytes])
            database.replaceSubrange(
                page * pageBytes..<(page + 1) * pageBytes,
                with: database[(page + 1) * pageBytes..<(page + 2) * pageBytes])
            database.replaceSubrange((page + 1) * pageBytes..<(page + 2) * pageBytes, with: one)
        }
        directory.write(database, to: "metadata/rows.db")
        #expect(await readEverything(directory)?.code == .corrupt)
    }

    @Test func zeroedPagesAreRefused() async throws {
        let directory = try await filled()
        var database = directory.bytes("metadata/rows.db")
        for index in 3 * pageBytes..<database.count { database[index] = 0 }
        directory.write(database, to: "metadata/rows.db")
        #expect(await readEverything(directory)?.code == .corrupt)
    }

    @Test func anotherDirectorysDatabaseIsRefused() async throws {
        let one = try await filled(), other = try await filled()
        one.write(other.bytes("metadata/rows.db"), to: "metadata/rows.db")
        #expect(await readEverything(one)?.code == .corrupt)
    }

    @Test func aDamagedIdentityIsRefused() async throws {
        let directory = try await filled()
        let engine = directory.bytes("engine")
        for index in engine.indices {
            var changed = engine
            changed[index] ^= 4
            directory.write(changed, to: "engine")
            #expect(await failure { _ = try directory.open() } != nil, "byte \(index)")
        }
        directory.write(Array(engine.dropLast()), to: "engine")
        #expect(await failure { _ = try directory.open() }?.code == .corrupt)
        try FileManager.default.removeItem(atPath: directory.path + "/engine")
        #expect(await failure { _ = try directory.open() }?.code == .corrupt)
        directory.write(engine, to: "engine")
        #expect(await readEverything(directory) == nil)
    }

    private func filled() async throws -> TestDirectory {
        let directory = TestDirectory()
        let engine = try directory.open()
        for round in 0..<60 { try await put(engine, "row \(round)", [UInt8](repeating: UInt8(round), count: 3000)) }
        engine.close()
        return directory
    }

    private func readEverything(_ directory: TestDirectory) async -> StorageEngineError? {
        await failure {
            let engine = try directory.open()
            defer { engine.close() }
            let rows = try await engine.scan(Partition("p"), from: RowKey([]), upTo: nil, limit: 1000)
            #expect(rows.count == 60)
        }
    }

    @Test func modesKeepOthersOut() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        try await put(engine, "k", [1])
        _ = try await extent(engine, 1, 100)
        _ = try await extent(engine, 1, 2_000_000)
        let all = FileManager.default.enumerator(atPath: directory.path)!.compactMap { $0 as? String }.map {
            directory.path + "/" + $0
        }
        #expect(all.count >= 10)
        for path in all + [directory.path] {
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            let mode = (attributes[.posixPermissions] as! NSNumber).intValue
            #expect(mode == (attributes[.type] as? FileAttributeType == .typeDirectory ? 0o700 : 0o600), "\(path)")
        }
        #expect(!all.contains { $0.hasSuffix("-shm") || $0.hasSuffix("-journal") })
        engine.close()
    }
}

@Suite struct DataDirectoryTests {
    @Test func aSecondServerIsRefusedHelpfully() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        let error = await failure { _ = try directory.open() }
        #expect(error?.code == .unavailable)
        #expect(error?.message.contains(directory.path) == true)
        #expect(error?.message.contains("process \(getpid())") == true)
        engine.close()
        try directory.open().close()
    }

    @Test func missingParentsAreMade() async throws {
        let outer = TestDirectory()
        let path = outer.path + "/a/b/c"
        let engine = try EmbeddedEngine.open(
            at: path, pageKey: SecretBytes(copying: [UInt8](repeating: 1, count: 32)), clock: FixedClock(),
            randomness: SystemRandomness(), logger: .init(label: "test"))
        engine.close()
        #expect(FileManager.default.fileExists(atPath: path + "/metadata/rows.db"))
    }

    /// The format says how large pages are; the sum over it is made right, the key check is not.
    @Test(arguments: EngineFormat.allCases, [false, true])
    func aChangedFormatIsRefused(format: EngineFormat, withLog: Bool) async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(format: format))
        try await put(engine, "k", [UInt8](repeating: 1, count: 6000))
        let image = withLog ? directory.image() : directory
        engine.close()
        let before = image.bytes("engine")
        let identity = try EngineIdentity(before, path: "")
        let other = EngineIdentity(
            format: format == .pagesOf8KiB ? .pagesOf4KiB : .pagesOf8KiB, databaseID: identity.databaseID,
            keyCheck: identity.keyCheck)
        image.write(other.bytes, to: "engine")
        let files = ["metadata/rows.db"] + (withLog ? ["metadata/rows.db-wal"] : [])
        let contents = files.map(image.bytes)
        #expect(await failure { _ = try image.open() }?.message.contains("the file `engine` that it wrote") == true)
        #expect(files.map(image.bytes) == contents)
        image.write(before, to: "engine")
        let again = try image.open()
        #expect(try await value(again, "k")?.count == 6000)
        again.close()
    }

    @Test func aNewerFormatIsRefused() async throws {
        let directory = TestDirectory()
        try directory.open().close()
        var engine = directory.bytes("engine")
        engine[15] = 3
        directory.write(engine, to: "engine")
        #expect(await failure { _ = try directory.open() }?.message.contains("format 3") == true)
    }

    @Test func freeSpaceIsTheDisks() async throws {
        let directory = TestDirectory()
        let engine = try directory.open()
        #expect(try await engine.freeBytes() > 1 << 20)
        engine.close()
    }
}
