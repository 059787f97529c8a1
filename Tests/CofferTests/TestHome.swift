import ArgumentParser
import CofferCore
import Foundation
import TestSupport

@testable import coffer

/// The folder of one installation, which goes with the test.
final class TestHome: Sendable {
    let path = FileManager.default.temporaryDirectory.path + "/coffer-" + SystemRandomness().uuidString()
    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Everything joined as the server has it, listening to nobody.
    func platform() async throws -> Platform { try await Self.platform(in: path) }
    static func platform(in path: String) async throws -> Platform {
        let options = try SettingOptions.parse([
            "--data-folder", path + "/data", "--root-key-file", path + "/root.key", "--credentials-file",
            path + "/administrator.json",
        ])
        return try await Platform(
            try await ServerConfiguration.load(options),
            log: silentLogger)
    }
}
