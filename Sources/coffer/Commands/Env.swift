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
            """)

    @OptionGroup var options: SettingOptions
    @Flag(help: "Leave the client secret out.") var noSecret = false
    @Flag(help: "For clients that use Azure's public host names.") var azureNames = false

    func run() async throws {
        do { try await printExports() } catch {
            // `eval "$(coffer env)" && …` must not go on without the exports, towards the real Azure.
            print("false")
            throw error
        }
    }

    private func printExports() async throws {
        let home = Home(configuration: try await ServerConfiguration.load(options))
        guard let server = home.runningServer() else {
            throw CommandFailure("No server runs on \(home.configuration.dataFolder). Start one with 'coffer serve'.")
        }
        let administrator = try home.administrator()
        let gateway = "http://\(server.address):\(server.gatewayPort)"
        let names: NameFamily =
            azureNames ? .azurePublic : .coffer(domain: server.domain, port: server.advertisedPort)
        var exports: [(String, String)] = [
            ("HTTPS_PROXY", gateway), ("https_proxy", gateway), ("GATEWAY", gateway),
            ("CA_BUNDLE", home.authorityFile), ("REQUESTS_CA_BUNDLE", home.authorityFile),
            ("SSL_CERT_FILE", home.authorityFile), ("CURL_CA_BUNDLE", home.authorityFile),
            ("NODE_EXTRA_CA_CERTS", home.authorityFile),
            ("ARM_ENDPOINT", azureNames ? "" : names.url(of: .management)),
            ("AZURE_AUTHORITY_HOST", names.url(of: .login)),
            ("AZURE_CORE_INSTANCE_DISCOVERY", "false"), ("AZURE_CORE_COLLECT_TELEMETRY", "false"),
            ("TENANT_ID", administrator.tenantID), ("AZURE_TENANT_ID", administrator.tenantID),
            ("SUBSCRIPTION_ID", administrator.subscriptionID), ("AZURE_SUBSCRIPTION_ID", administrator.subscriptionID),
            ("CLIENT_ID", administrator.clientID), ("AZURE_CLIENT_ID", administrator.clientID),
        ]
        if !noSecret {
            exports += [
                ("CLIENT_SECRET", administrator.clientSecret), ("AZURE_CLIENT_SECRET", administrator.clientSecret),
            ]
        }
        for (name, value) in exports { print("export \(name)=\(Self.quoted(value))") }
        print("unset NO_PROXY no_proxy")
    }

    /// Single quotes keep a shell from reading anything into the value.
    private static func quoted(_ value: String) -> String {
        "'" + value.replacingOccurrences(of: "'", with: "'\\''") + "'"
    }
}
