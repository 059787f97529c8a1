import ArgumentParser
import CofferCore
import Foundation

/// Prints the exports that point clients at the running server.
struct Env: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "env",
        abstract: "Print exports that point az, the SDKs and curl at the running server.",
        discussion: """
            Use it as: eval "$(coffer env)"
            Then: az cloud register -n Coffer --endpoint-resource-manager "$ARM_ENDPOINT"    (once)
                  az cloud set -n Coffer
                  az login --service-principal -u "$CLIENT_ID" -p "$CLIENT_SECRET" --tenant "$TENANT_ID"
            The output holds the administrator's secret; with --no-secret it does not. With --azure-names no \
            'az cloud register' is needed: clients use Azure's public names, and the gateway answers for them.
            The way back: az cloud set -n AzureCloud; eval "$(coffer env --unset)"
            """)

    @OptionGroup var options: SettingOptions
    @Flag(help: "Leave the client secret out.") var noSecret = false
    @Flag(help: "For clients that use Azure's public host names.") var azureNames = false
    @Flag(help: "Print what takes the exports back. What the variables held before does not come back.") var unset =
        false

    func run() async throws {
        guard !unset else { return Self.printUnset() }
        do { try await printExports() } catch {
            // `eval "$(coffer env)" && …` must not go on without the exports, towards the real Azure.
            print("false")
            throw error
        }
    }

    private func printExports() async throws {
        let home = Home(configuration: try await ServerConfiguration.load(options))
        let server = try home.answeringServer()
        let exports = Self.exports(
            gateway: "http://\(server.authority(server.gatewayPort))", authority: home.authorityFile,
            names: azureNames ? .azurePublic : .coffer(domain: server.domain, port: server.advertisedPort),
            administrator: try home.administrator())
        for (name, value) in exports where !noSecret || !name.hasSuffix("CLIENT_SECRET") {
            print("export \(name)=\(Self.quoted(value))")
        }
        print("unset NO_PROXY no_proxy")
    }

    private static func exports(
        gateway: String, authority: String, names: NameFamily, administrator: Home.Administrator
    ) -> [(name: String, value: String)] {
        [
            ("HTTPS_PROXY", gateway), ("https_proxy", gateway), ("GATEWAY", gateway),
            ("CA_BUNDLE", authority), ("REQUESTS_CA_BUNDLE", authority), ("SSL_CERT_FILE", authority),
            ("CURL_CA_BUNDLE", authority), ("NODE_EXTRA_CA_CERTS", authority),
            ("ARM_ENDPOINT", names == .azurePublic ? "" : names.url(of: .management)),
            ("AZURE_AUTHORITY_HOST", names.url(of: .login)),
            ("AZURE_CORE_INSTANCE_DISCOVERY", "false"), ("AZURE_CORE_COLLECT_TELEMETRY", "false"),
            ("TENANT_ID", administrator.tenantID), ("AZURE_TENANT_ID", administrator.tenantID),
            ("SUBSCRIPTION_ID", administrator.subscriptionID), ("AZURE_SUBSCRIPTION_ID", administrator.subscriptionID),
            ("CLIENT_ID", administrator.clientID), ("AZURE_CLIENT_ID", administrator.clientID),
            ("CLIENT_SECRET", administrator.clientSecret), ("AZURE_CLIENT_SECRET", administrator.clientSecret),
        ]
    }

    /// Needs no server: whoever wants out may have stopped it already.
    private static func printUnset() {
        let nobody = Home.Administrator(tenantID: "", subscriptionID: "", clientID: "", clientSecret: "")
        let exports = exports(gateway: "", authority: "", names: .azurePublic, administrator: nobody)
        print("unset " + exports.map(\.name).joined(separator: " "))
    }

    /// Single quotes keep a shell from reading anything into the value.
    private static func quoted(_ value: String) -> String {
        "'" + value.replacingOccurrences(of: "'", with: "'\\''") + "'"
    }
}
