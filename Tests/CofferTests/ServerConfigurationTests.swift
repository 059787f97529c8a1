import ArgumentParser
import Testing

@testable import coffer

@Suite struct ServerConfigurationTests {
    private func configuration(address: String) async throws -> ServerConfiguration {
        try await ServerConfiguration.load(try SettingOptions.parse(["--address", address]))
    }

    /// Workers and the other commands ask on 127.0.0.1, whatever the address.
    @Test(arguments: [
        ("localhost", ["127.0.0.1"]), ("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1", "127.0.0.1"]),
        ("0:0:0:0:0:0:0:1", ["::1", "127.0.0.1"]), ("0.0.0.0", ["0.0.0.0"]), ("::", ["::"]),
        ("0:0:0:0:0:0:0:0", ["::"]), ("192.0.2.7", ["192.0.2.7", "127.0.0.1"]),
    ])
    func theLoopbackIsAlwaysServed(address: String, listening: [String]) async throws {
        #expect(try await configuration(address: address).listenAddresses == listening)
    }

    @Test(arguments: [("localhost", 0), ("::1", 0), ("0:0:0:0:0:0:0:0", 1), ("192.0.2.7", 1)])
    func addressesOfTheNetworkAreWarnedOf(address: String, warnings: Int) async throws {
        let found = try await configuration(address: address).warnings.filter { $0.contains("beyond this machine") }
        #expect(found.count == warnings)
    }

    @Test(arguments: [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")])
    func portsAreNamedAsURLsNameThem(address: String, authority: String) {
        let state = Home.RunState(
            pid: 1, address: address, httpsPort: 1, httpPort: 2, gatewayPort: 3, domain: "coffer.localhost",
            advertisedPort: nil)
        #expect(state.authority(state.httpsPort) == authority)
    }
}
