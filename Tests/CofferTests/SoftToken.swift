import CofferCore
import Foundation

/// A token of SoftHSM's in a folder of its own, which goes with the test.
final class SoftToken: Sendable {
    static let pin = "4711-pin"
    static let module = "/usr/lib/softhsm/libsofthsm2.so"

    let path = FileManager.default.temporaryDirectory.path + "/coffer-token-" + SystemRandomness().uuidString()
    var environment: [String: String] { ["SOFTHSM2_CONF": path + "/softhsm2.conf"] }
    var pinFile: String { path + "/pin" }

    /// Makes the token `coffer` and in it the key `root`.
    init() throws {
        try FileManager.default.createDirectory(atPath: path + "/tokens", withIntermediateDirectories: true)
        try write("directories.tokendir = \(path)/tokens\nlog.level = ERROR\n", to: path + "/softhsm2.conf")
        try write(Self.pin + "\n", to: pinFile)
        try add(token: "coffer")
        try addKey("root", ["--keygen", "--key-type", "AES:32", "--sensitive", "--private"])
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func add(token: String) throws {
        try tool(
            "softhsm2-util",
            ["--init-token", "--free", "--label", token, "--pin", Self.pin, "--so-pin", Self.pin],
            environment: environment)
    }
    /// `kind` is what pkcs11-tool is to make.
    func addKey(_ label: String, _ kind: [String], token: String = "coffer") throws {
        try tool(
            "pkcs11-tool",
            ["--module", Self.module, "--login", "--pin", Self.pin, "--token-label", token, "--label", label] + kind,
            environment: environment)
    }

    func uri(_ key: String = "token=coffer;object=root", module: String = module, pinFile: String? = nil) -> String {
        "pkcs11:\(key)?module-path=\(module)&pin-source=file:\(pinFile ?? self.pinFile)"
    }

    /// A program whose settings name the key.
    func program(_ uri: String? = nil) throws -> CofferProgram {
        try CofferProgram(
            environment.merging(["COFFER_ROOT_KEY_WRAPPING_KEY": uri ?? self.uri()]) { $1 }, secrets: [Self.pin])
    }
}
