import ArgumentParser
import Foundation

/// Prints what is in force and where each setting came from.
struct Config: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Print the settings in force and where each came from.")

    @OptionGroup var options: SettingOptions

    func run() async throws {
        let configuration = try await ServerConfiguration.load(options)
        for source in configuration.sources {
            let name = source.setting.rawValue.padding(toLength: 19, withPad: " ", startingAt: 0)
            let origin = source.origin.padding(toLength: 12, withPad: " ", startingAt: 0)
            print("\(name) \(origin) \(source.value)")
        }
        print("root key: \(configuration.rootKeyStore.description)")
    }
}
