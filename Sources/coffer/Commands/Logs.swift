import ArgumentParser
import CofferCore
import Foundation
import NIOHTTP1

/// Prints the sealed logs of a function app, through the workspace its diagnostic setting names.
struct Logs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Print a function app's logs.",
        discussion: "The app needs a diagnostic setting for FunctionAppLogs that names a workspace.")

    @OptionGroup var options: SettingOptions
    @Argument(help: "The app's name, or its resource identifier.") var app: String
    @Option(help: "The newest lines to print.") var lines = 200

    func validate() throws {
        guard (1...10_000).contains(lines) else { throw ValidationError("--lines is \(lines); use 1 to 10000.") }
    }

    func run() async throws {
        let home = Home(configuration: try await ServerConfiguration.load(options))
        let state = try home.answeringServer()
        let client = LocalClient(state)
        let site = try await identifier(client, home)
        let settings = try await client.manage(
            .GET, "\(site)/providers/microsoft.insights/diagnosticSettings?api-version=2021-05-01-preview", nil,
            home: home)
        let workspaces = (settings["value"]?.arrayValue ?? []).compactMap {
            $0["properties"]?["workspaceId"]?.stringValue
        }
        guard !workspaces.isEmpty else {
            throw CommandFailure(
                "'\(app)' sends its logs nowhere. Make a workspace (az monitor log-analytics workspace create) and a "
                    + "setting that names it (az monitor diagnostic-settings create --name NAME --workspace WORKSPACE "
                    + "--resource \(site) "
                    + #"--logs '[{"category":"FunctionAppLogs","enabled":true}]')."#
            )
        }
        let query = "FunctionAppLogs | where _ResourceId == '\(site)' | take \(lines)"
        var isEmpty = true
        for workspace in Set(workspaces).sorted() {
            let answer = try await client.manage(
                .POST, "\(workspace)/api/query?api-version=2017-10-01", ["query": .string(query)], home: home)
            for row in answer["tables"]?.arrayValue?.first?["rows"]?.arrayValue ?? [] {
                let fields = (row.arrayValue ?? []).map { $0.stringValue ?? "" }
                guard fields.count >= 4 else { continue }
                isEmpty = false
                print("\(fields[0]) \(fields[1]) \(fields[3].isEmpty ? "-" : fields[3]) \(Self.printable(fields[2]))")
            }
        }
        if isEmpty {
            // Not among the lines: whatever reads them finds none.
            FileHandle.standardError.write(
                Data("'\(app)' has logged nothing yet. Call one of its functions, and ask again.\n".utf8))
        }
    }

    /// What a function logs is not ours: control characters would command the reader's terminal.
    private static func printable(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            let isControl = scalar.value < 0x20 && scalar != "\t" || (0x7f...0x9f).contains(scalar.value)
            result.append(isControl ? "\u{fffd}" : scalar)
        }
        return String(result)
    }

    private func identifier(_ client: LocalClient, _ home: Home) async throws -> ResourceID {
        if app.hasPrefix("/") { return ResourceID(app) }
        let administrator = try home.administrator()
        let path = "/subscriptions/\(administrator.subscriptionID)/providers/Microsoft.Web/sites?api-version=2024-11-01"
        let sites = try await client.manage(.GET, path, nil, home: home)["value"]?.arrayValue ?? []
        guard
            let id = sites.first(where: { $0["name"]?.stringValue?.lowercased() == app.lowercased() })?["id"]?
                .stringValue
        else {
            throw CommandFailure(
                "There is no function app named '\(app)'. 'az functionapp list --query \"[].name\"' prints those there are."
            )
        }
        return ResourceID(id)
    }
}
