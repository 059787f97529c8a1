import CofferCore
import Foundation
import Testing

@testable import coffer

/// The root key as a credential of systemd: a folder with files, as a unit's process finds it.
@Suite struct RootKeyCredentialTests {
    private let folder = TestHome()
    private let program: CofferProgram
    private var credential: String { folder.path + "/coffer-root-key" }
    private static let key = [UInt8](repeating: 9, count: 32).base64

    init() throws {
        program = try CofferProgram(
            ["CREDENTIALS_DIRECTORY": folder.path], namesRootKeyFile: false, secrets: [Self.key])
        try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
    }
    private func give(_ text: String = "coffer-root-key 1 \(key)\n", mode: Int = 0o400) throws {
        try? FileManager.default.removeItem(atPath: credential)
        try write(text, to: credential, mode: mode)
    }

    /// 0440 is what systemd's access list for a unit's user looks like.
    @Test(arguments: [0o400, 0o440]) func aCredentialIsTheRootKey(mode: Int) async throws {
        try give(mode: mode)
        let said = try await program.serving { _ in
            let custody = "systemd credential \(credential), in clear\n"
            #expect(try await program.run("status").output.contains(custody))
            let config = try await program.run("config").output
            #expect(config.contains(custody) && config.contains("rootKeyFile         credential   \(credential)\n"))
        }
        #expect(said.contains("systemd credential"))
        #expect(!FileManager.default.fileExists(atPath: program.home.path + "/.config/coffer/root.key"))
        #expect(try await program.run("verify").output.hasSuffix("sound\n"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["coffer-root-key"])
        // It is the key, and not merely there.
        try give("coffer-root-key 1 \([UInt8](repeating: 8, count: 32).base64)\n")
        #expect(try await program.run("verify").code == 1)
    }

    @Test(arguments: [
        ("coffer-root-key 1 short\n", 0o400, "is not a root key"), ("", 0o400, "is not a root key"),
        ("coffer-root-key 1 \(key)\n", 0o404, "no credential of systemd can"),
        ("coffer-root-key 1 \(key)\n", 0o460, "no credential of systemd can"),
    ])
    func aCredentialThatWillNotDoIsRefused(text: String, mode: Int, reason: String) async throws {
        try give(text, mode: mode)
        let refused = try await program.run("serve")
        #expect(refused.code == 1 && refused.errors.contains(reason), "\(refused)")
        #expect(!FileManager.default.fileExists(atPath: program.home.path + "/data/store"))
    }

    /// A misspelt credential must not become a key in clear on a disk.
    @Test func noKeyIsMadeBesideCredentials() async throws {
        try write("x", to: folder.path + "/coffer-rootkey", mode: 0o400)
        let refused = try await program.run("serve")
        #expect(refused.code == 1 && refused.errors.contains("coffer-root-key is missing"), "\(refused)")
        #expect(!FileManager.default.fileExists(atPath: program.home.path + "/.config"))
        // Nor is its lack told as that of a file, once there is data.
        try FileManager.default.createDirectory(
            atPath: program.home.path + "/data/store", withIntermediateDirectories: true)
        #expect(try await program.run("serve").errors.contains("coffer-root-key is missing"))
    }

    @Test func aNamedFileGoesBeforeTheCredential() async throws {
        try give("coffer-root-key 1 short\n")
        let named = ["COFFER_ROOT_KEY_FILE": program.rootKeyFile]
        try write("coffer-root-key 1 \(Self.key)\n", to: program.rootKeyFile)
        let config = try await program.run("config", environment: named).output
        #expect(config.contains("root key: \(program.rootKeyFile), in clear\n"))
    }

    @Test func aCredentialIsNeverReplaced() async throws {
        try give()
        let token = try SoftToken()
        for command in ["protect", "unprotect"] {
            let refused = try await program.run(
                "root-key", command,
                environment: token.environment.merging(["COFFER_ROOT_KEY_WRAPPING_KEY": token.uri()]) { $1 })
            #expect(refused.code == 1 && refused.errors.contains("systemd-creds"), "\(refused)")
        }
    }

    /// Key and PIN both from systemd: the wrapped line as a credential, the PIN as another.
    @Test func aWrappedKeyAndItsPINMayBeCredentials() async throws {
        let token = try SoftToken()
        let maker = try token.program()
        try write("coffer-root-key 1 \(Self.key)\n", to: maker.rootKeyFile)
        #expect(try await maker.run("root-key", "protect").code == 0)
        try give(try maker.rootKeyText)
        try write(SoftToken.pin, to: folder.path + "/pin", mode: 0o440)
        let uri = token.uri(pinFile: folder.path + "/pin")
        let environment = token.environment.merging(["COFFER_ROOT_KEY_WRAPPING_KEY": uri]) { $1 }
        let absent = try await program.run("verify", environment: environment)
        #expect(absent.code == 1 && absent.errors.contains("There is no data"))
        let config = try await program.run("config", environment: environment).output
        #expect(config.contains("systemd credential \(credential), wrapped by pkcs11:token=coffer;object=root"))
        let moved = try CofferProgram(
            environment.merging(["CREDENTIALS_DIRECTORY": folder.path]) { $1 }, namesRootKeyFile: false,
            secrets: [Self.key, SoftToken.pin])
        let said = try await moved.serving { _ in }
        #expect(said.contains("systemd credential \(credential), wrapped by"))
    }
}
