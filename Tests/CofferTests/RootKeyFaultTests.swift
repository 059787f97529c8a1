import CofferCore
import Foundation
import Testing

@testable import coffer

/// Tokens that refuse, lie or fall over: a module of our own (Tests/Fixtures), and the real program.
@Suite struct RootKeyFaultTests {
    private let module: FaultyModule
    init() throws { module = try FaultyModule() }
    private let home = TestHome()
    private var log: String { home.path + "/logins" }

    private func serve(_ fault: String) async throws -> CofferProgram.Ending {
        try write("1234", to: home.path + "/pin")
        let uri = "pkcs11:object=root?module-path=\(module.path)&pin-source=\(home.path)/pin"
        return try await program(fault, uri).run("root-key", "protect")
    }
    private func program(_ fault: String, _ uri: String) throws -> CofferProgram {
        let program = try CofferProgram(
            ["FAULTY_TOKEN": fault, "FAULTY_TOKEN_LOG": log, "COFFER_ROOT_KEY_WRAPPING_KEY": uri], secrets: ["1234"])
        try write("coffer-root-key 1 \([UInt8](repeating: 7, count: 32).base64)\n", to: program.rootKeyFile)
        return program
    }
    private var logins: Int { (try? String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").count) ?? 0 }

    @Test(arguments: [
        ("wrong", 78, 1, "refused the PIN"), ("locked", 78, 1, "PIN is locked"),
        ("marked as locked", 78, 0, "PIN is locked"), ("last try", 78, 0, "was not tried"),
        ("crash", 78, 1, "may have counted as wrong"), ("device", 78, 1, "may have been counted as wrong"),
        ("crash later", 1, 1, "without an answer"), ("public", 1, 1, "can be used without the PIN"),
        ("many slots", 1, 0, "C_GetSlotList"), ("many keys", 1, 1, "more than one secret key"),
        ("no mechanism", 1, 1, "does not offer AES-GCM"),
        ("silent", 1, 1, "can be taken out"), ("one way", 1, 1, "both encrypt and decrypt"),
        ("other bytes", 1, 2, "does not give back what it wrapped"),
    ])
    func eachRefusalSaysWhatToDoAndAPINIsTriedOnce(fault: String, code: Int, tries: Int, reason: String) async throws {
        let ending = try await serve(fault)
        #expect(ending.code == Int32(code) && ending.errors.contains(reason), "\(ending)")
        #expect(logins == tries)
    }

    @Test(arguments: ["none", "talk", "talk on", "own nonce", "crash at the end", "helper"])
    func whatAModulePrintsOrDrawsIsNoHarm(fault: String) async throws {
        let ending = try await serve(fault)
        #expect(ending.code == 0, "\(ending)")
        #expect(logins == 2)
    }

    @Test func aRefusedKeyStaysAsItWas() async throws {
        try write("1234", to: home.path + "/pin")
        let uri = "pkcs11:object=root?module-path=\(module.path)&pin-source=\(home.path)/pin"
        let program = try program("other bytes", uri)
        let before = try program.rootKeyText
        #expect(try await program.run("root-key", "protect").code == 1)
        #expect(try program.rootKeyText == before)
    }
}

private final class FaultyModule: Sendable {
    let path = FileManager.default.temporaryDirectory.path + "/coffer-faulty-" + SystemRandomness().uuidString() + ".so"

    deinit { try? FileManager.default.removeItem(atPath: path) }
    init() throws {
        let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().path
        let flags = try tool("pkg-config", ["--cflags", "p11-kit-1"]).split(whereSeparator: \.isWhitespace).map(
            String.init)
        try tool("clang", ["-shared", "-fPIC", "-o", path] + flags + [source + "/Fixtures/faulty-token.c"])
    }
}
