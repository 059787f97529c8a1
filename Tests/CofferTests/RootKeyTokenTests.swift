import CofferCore
import Crypto
import Foundation
import NIOHTTP1
import Testing

@testable import coffer

/// The root key under a key of a real PKCS#11 token (SoftHSM), and the real program.
@Suite struct RootKeyTokenTests {
    private let token: SoftToken
    private let program: CofferProgram
    init() throws {
        token = try SoftToken()
        program = try token.program()
    }
    private let noWrapping = ["COFFER_ROOT_KEY_WRAPPING_KEY": ""]

    @Test func aServerKeepsItsDataUnderAWrappedKey() async throws {
        let home = try await program.localHome()
        func group(_ state: Home.RunState) throws -> String {
            "/subscriptions/\(try home.administrator().subscriptionID)/resourcegroups/kept?api-version=2021-04-01"
        }
        let said = try await program.serving { state in
            _ = try await LocalClient(state).manage(.PUT, group(state), ["location": "eastus"], home: home)
            let custody = "\(program.rootKeyFile), wrapped by pkcs11:token=coffer;object=root\n"
            #expect(try await program.run("status").output.contains(custody))
            #expect(try await program.run("config").output.contains(custody))
        }
        #expect(said.contains("wrapped by pkcs11:token=coffer;object=root"))
        let file = try program.rootKeyText
        #expect(file.hasPrefix("coffer-root-key-pkcs11 1 "))
        #expect(try mode(program.rootKeyFile) == 0o600)

        try await program.serving { state in
            let found = try await LocalClient(state).manage(.GET, group(state), nil, home: home)
            #expect(found["name"]?.stringValue == "kept")
        }
        #expect(try program.rootKeyText == file)

        // The token is gone: neither the disk nor the file is worth anything.
        try FileManager.default.moveItem(atPath: token.path + "/tokens", toPath: token.path + "/away")
        try FileManager.default.createDirectory(atPath: token.path + "/tokens", withIntermediateDirectories: true)
        let refused = try await program.run("serve")
        #expect(refused.code == 1 && refused.errors.contains("knows no token as in pkcs11:token=coffer;object=root"))
        #expect(try program.rootKeyText == file)
    }

    @Test func protectAndUnprotectKeepTheKeyAndTheData() async throws {
        try await CofferProgram.madeInClear(program)
        let clear = try program.rootKeyText
        let done = try await program.run("root-key", "protect")
        #expect(done.code == 0 && done.output.contains("is now wrapped by pkcs11:token=coffer;object=root"))
        let wrapped = try program.rootKeyText
        #expect(wrapped.hasPrefix("coffer-root-key-pkcs11 1 "))
        #expect(try await program.run("verify").output.hasSuffix("sound\n"))
        let again = try await program.run("root-key", "protect")
        #expect(again.code == 0 && again.output.contains("already wrapped"))
        #expect(try program.rootKeyText == wrapped)

        #expect(try await program.run("root-key", "unprotect").code == 0)
        #expect(try program.rootKeyText == clear)
        #expect(try mode(program.rootKeyFile) == 0o600)
        #expect(try await program.run("verify", environment: noWrapping).output.hasSuffix("sound\n"))
        let clearAlready = try await program.run("root-key", "unprotect")
        #expect(clearAlready.code == 1 && clearAlready.errors.contains("in clear already"))
    }

    /// What the token wrote opens by another AES-GCM, from docs/format.md alone, under a key that both know.
    @Test func theLineIsWhatTheFormatSays() async throws {
        let bytes = SystemRandomness().bytes(32)
        try Data(bytes).write(to: URL(fileURLWithPath: token.path + "/known"))
        try token.addKey(
            "known",
            [
                "--write-object", token.path + "/known", "--type", "secrkey", "--key-type", "AES:32", "--sensitive",
                "--private",
            ])
        try await CofferProgram.madeInClear(program)
        let clear = try program.rootKeyText
        let done = try await program.run(
            "root-key", "protect", environment: setting(token.uri("token=coffer;object=known")))
        #expect(done.code == 0, "\(done)")
        let message = try #require([UInt8](base64: program.rootKeyText.split(separator: " ")[2].dropLast()))
        let label = Array("coffer/v1/root-key-pkcs11".utf8)
        let key = try AES.GCM.open(
            AES.GCM.SealedBox(combined: message), using: SymmetricKey(data: bytes),
            authenticating: [0, 0, 0, UInt8(label.count)] + label + [0, 0, 0, 4, 0, 0, 0, 1])
        #expect(clear == "coffer-root-key 1 \(key.base64EncodedString())\n")
    }

    @Test func anotherKeyTakesOver() async throws {
        try await CofferProgram.madeInClear(program)
        let clear = try program.rootKeyText
        #expect(try await program.run("root-key", "protect").code == 0)
        try token.addKey("second", ["--keygen", "--key-type", "AES:32", "--sensitive", "--private"])
        let second = ["COFFER_ROOT_KEY_WRAPPING_KEY": token.uri("token=coffer;object=second")]
        let without = try await program.run("root-key", "protect", environment: second)
        #expect(without.code == 1 && without.errors.contains("another key wrapped it"))
        let moved = try await program.run(
            "root-key", "protect", "--old-wrapping-key", token.uri(), environment: second)
        #expect(moved.code == 0, "\(moved)")
        #expect(try await program.run("verify").code == 1)
        #expect(try await program.run("verify", environment: second).code == 0)
        #expect(try await program.run("root-key", "unprotect", environment: second).code == 0)
        #expect(try program.rootKeyText == clear)
    }

    @Test func whatLiesThereMustBeWhatTheSettingsSay() async throws {
        try await CofferProgram.madeInClear(program)
        let clear = try await program.run("serve")
        #expect(clear.code == 1 && clear.errors.contains("'coffer root-key protect'"))
        #expect(try await program.run("root-key", "protect").code == 0)
        let wrapped = try await program.run("serve", environment: noWrapping)
        #expect(wrapped.code == 1 && wrapped.errors.contains("Name that key with --root-key-wrapping-key"))
        let unset = try await program.run("root-key", "protect", environment: noWrapping)
        #expect(unset.code == 64 && unset.errors.contains("--root-key-wrapping-key"))
    }

    /// A file that was changed, or taken for another version, opens nothing and is not replaced.
    @Test func aChangedFileIsRefused() async throws {
        try await CofferProgram.madeInClear(program)
        #expect(try await program.run("root-key", "protect").code == 0)
        let wrapped = try program.rootKeyText
        let words = wrapped.split(separator: " ")
        var message = try #require([UInt8](base64: words[2].dropLast()))
        message[20] ^= 1
        for changed in ["\(words[0]) 1 \(message.base64)\n", "\(words[0]) 2 \(words[2])"] {
            try write(changed, to: program.rootKeyFile)
            let refused = try await program.run("serve")
            #expect(refused.code == 1 && refused.errors.contains("its file was changed"), "\(refused)")
            #expect(refused.errors.contains("restore the file"))
        }
        try write(wrapped, to: program.rootKeyFile)
        #expect(try await program.run("verify").code == 0)
    }

    @Test func keysThatWillNotDoAreRefused() async throws {
        try token.addKey("short", ["--keygen", "--key-type", "AES:16", "--sensitive", "--private"])
        try token.addKey("pair", ["--keypairgen", "--key-type", "rsa:2048"])
        try token.addKey("free", ["--keygen", "--key-type", "AES:32", "--sensitive", "--private", "--extractable"])
        try token.addKey("open", ["--keygen", "--key-type", "AES:32", "--private"])
        try token.addKey("public", ["--keygen", "--key-type", "AES:32", "--sensitive"])
        try token.addKey("twice", ["--keygen", "--key-type", "AES:32", "--sensitive", "--private", "--id", "01"])
        try token.addKey("twice", ["--keygen", "--key-type", "AES:32", "--sensitive", "--private", "--id", "02"])
        for (key, reason) in [
            ("object=none", "has no key as in"), ("object=short", "no AES key of 256 bits"),
            ("object=pair", "no AES key of 256 bits"), ("object=free", "can be taken out of its token"),
            ("object=open", "can be taken out of its token"),
            ("object=public", "can be used without the PIN"), ("object=twice", "more than one secret key"),
        ] {
            try await refuses(token.uri("token=coffer;" + key), reason)
        }
        #expect(try await program.run("config", environment: setting(token.uri("object=twice;id=%02"))).code == 0)
        try await CofferProgram.madeInClear(program)
        let named = try await program.run("root-key", "protect", environment: setting(token.uri("object=twice;id=%02")))
        #expect(named.code == 0, "\(named)")
    }

    @Test func tokensAndModulesThatAreNotThereAreRefused() async throws {
        try await refuses(token.uri("token=other;object=root"), "knows no token as in pkcs11:token=other;object=root")
        try await refuses(token.uri(module: "/nonexistent.so"), "module cannot be loaded")
        try await refuses(token.uri(module: token.pinFile), "module cannot be loaded")
        try token.add(token: "other")
        try await refuses(token.uri("object=root"), "More than one token")
        try await refuses(token.uri(), "C_Initialize", with: ["SOFTHSM2_CONF": "/nonexistent"])
    }

    @Test func aPINFileMustBeTheOwnersAndRight() async throws {
        try await refuses(token.uri(pinFile: "/nonexistent"), "PIN file /nonexistent is not there")
        try await refuses(token.uri(pinFile: token.path), "is not a file")
        for (text, mode, reason) in [
            (SoftToken.pin, 0o640, "chmod 600"), ("\n", 0o600, "is empty"),
            (String(repeating: "1", count: 2_000), 0o600, "longer than"),
        ] {
            try write(text, to: token.path + "/other", mode: mode)
            try await refuses(token.uri(pinFile: token.path + "/other"), reason)
        }
        try write("0000-wrong", to: token.path + "/wrong")
        try await refuses(token.uri(pinFile: token.path + "/wrong"), "refused the PIN in", code: 78)
    }

    // MARK: Helpers

    private func setting(_ uri: String) -> [String: String] { ["COFFER_ROOT_KEY_WRAPPING_KEY": uri] }

    /// A first start with this key fails, says why, and makes nothing.
    private func refuses(
        _ uri: String, _ reason: String, code: Int32 = 1, with environment: [String: String] = [:],
        _ location: SourceLocation = #_sourceLocation
    ) async throws {
        let ending = try await program.run("serve", environment: setting(uri).merging(environment) { $1 })
        #expect(ending.code == code && ending.errors.contains(reason), "\(ending)", sourceLocation: location)
        #expect(!ending.errors.contains("0000-wrong"))
        #expect(!FileManager.default.fileExists(atPath: program.rootKeyFile), sourceLocation: location)
        #expect(!FileManager.default.fileExists(atPath: program.home.path + "/data/store"), sourceLocation: location)
    }
    private func mode(_ path: String) throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }
}

extension CofferProgram {
    /// A server of before: its root key lies in clear.
    static func madeInClear(_ program: CofferProgram) async throws {
        _ = try await TestHome.platform(in: program.home.path).close()
    }
}
