import CofferCore
import EncryptionAtRest
import Foundation
import Testing

@testable import coffer

/// How the root key's file is made and replaced.
@Suite struct RootKeyFileTests {
    private let home = TestHome()
    private let store: RootKeyStore
    init() {
        store = RootKeyStore(path: home.path + "/keys/root.key", guardian: .owner, wrappingKey: nil, isNamed: true)
    }

    private var text: String { get throws { try String(contentsOfFile: store.path, encoding: .utf8) } }
    private func load() async throws -> RootKey {
        try await store.load(dataFolder: home.path + "/data", hasData: false, randomness: SystemRandomness())
    }
    private func line(_ byte: UInt8) -> RootKeyLine {
        .clear(RootKey(version: 1, key: SecretBytes(copying: [UInt8](repeating: byte, count: 32))))
    }

    @Test func theFirstKeyReplacesNothing() async throws {
        let made = try await load()
        #expect(try await load().key.isEqual(to: made.key))
        let before = try text
        #expect(throws: CommandFailure.self) { try store.write(line(1), replacing: nil) }
        #expect(throws: CommandFailure.self) { try store.write(line(1), replacing: line(2)) }
        #expect(try text == before)
        #expect(!FileManager.default.fileExists(atPath: store.path + ".new"))
    }

    @Test func oneAtATime() async throws {
        try await store.locked {
            await #expect(throws: CommandFailure.self) { _ = try await load() }
            await #expect(throws: CommandFailure.self) { try await store.locked {} }
        }
        #expect(!FileManager.default.fileExists(atPath: store.path))
        _ = try await load()
    }

    /// As a process holds it that another thread began to start meanwhile.
    @Test func aCopyOfTheDescriptorDoesNotKeepTheLock() async throws {
        let copies = try await store.locked {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").filter {
                URL(fileURLWithPath: "/proc/self/fd/\($0)").resolvingSymlinksInPath().path == home.path + "/keys"
            }.map { dup(try #require(Int32($0))) }
        }
        defer { for copy in copies { close(copy) } }
        try #require(!copies.isEmpty)
        try await store.locked {}
    }

    @Test func whatAChangeLeftBehindGoes() async throws {
        _ = try await load()
        let leftover = PrivateFile.temporary(of: store.path)
        try write("coffer-root-key 1 in clear", to: leftover)
        try await store.locked {
            // Whoever holds the lock is writing it.
            try write("coffer-root-key 1 in clear", to: leftover)
            _ = try await load()
            #expect(FileManager.default.fileExists(atPath: leftover))
        }
        _ = try await load()
        #expect(!FileManager.default.fileExists(atPath: leftover))
    }

    @Test func aLinkIsNotReplaced() async throws {
        _ = try await load()
        try store.requireOwnFile()
        try FileManager.default.linkItem(atPath: store.path, toPath: store.path + ".second")
        #expect(throws: CommandFailure.self) { try store.requireOwnFile() }
        try FileManager.default.removeItem(atPath: store.path + ".second")
        try FileManager.default.moveItem(atPath: store.path, toPath: store.path + ".elsewhere")
        try FileManager.default.createSymbolicLink(
            atPath: store.path, withDestinationPath: store.path + ".elsewhere")
        _ = try await load()
        #expect(throws: CommandFailure.self) { try store.requireOwnFile() }
    }

    /// The kernel gives no dump to anybody at this limit.
    @Test func aServerLeavesNoCore() async throws {
        let program = try CofferProgram([:], secrets: [])
        try await program.serving { state in
            let limits = try String(contentsOfFile: "/proc/\(state.pid)/limits", encoding: .utf8)
            let core = try #require(limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") })
            #expect(core.split(separator: " ").suffix(3) == ["1", "1", "bytes"])
        }
    }

    /// Many containers allow no dump and give no right to raise that limit, at which a collector still gets one.
    @Test(.enabled(if: geteuid() == 0), arguments: [[], ["prlimit", "--core=0:0"]])
    func aServerThatMayNotRaiseItsLimitIsWithheldAsAWhole(limit: [String]) async throws {
        // Who looks needs every right that the server has.
        let program = try CofferProgram(
            through: limit + ["setpriv", "--bounding-set=-sys_ptrace,-sys_resource", "--"])
        try await program.serving { state in
            let look = ["--bounding-set=-sys_ptrace,-sys_resource", "--", "readlink", "/proc/\(state.pid)/exe"]
            let status = try attempt("setpriv", look).status
            #expect(status == (limit.isEmpty ? 0 : 1))
        }
    }
}
