import ArgumentParser
import Foundation

/// Tells whether a server runs on the data folder, and where.
struct Status: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Tell whether the server runs, and where.",
        discussion: "Exit code 0 when it answers, 1 when none runs, when it is stopping, and when it does not answer.")

    @OptionGroup var options: SettingOptions

    func run() async throws {
        let home = Home(configuration: try await ServerConfiguration.load(options))
        let state = try home.answeringServer()
        let health = try await LocalClient(state).health()
        print(
            """
            Coffer \(health) answers (process \(state.pid)).
              https    \(state.authority(state.httpsPort))
              http     \(state.authority(state.httpPort))
              gateway  \(state.authority(state.gatewayPort))
              data     \(home.configuration.dataFolder)
              root key \(state.rootKey ?? "?")
            """)
    }
}
