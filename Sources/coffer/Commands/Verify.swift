import ArgumentParser
import EncryptionAtRest
import Foundation
import Logging

/// Walks all data of a stopped server and prints what it checked.
struct Verify: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check all data: every tag, every key chain, no plaintext.",
        discussion: """
            Needs the server stopped. Opens every record and row, resolves every account's key chain through its vault, \
            reads every chunk of every extent, and searches the files for pieces of what they hold. An account whose \
            customer key cannot be had is reported, and is no damage. Exit code 0: sound; 2: damage, or plaintext.
            With --metadata-only, of each extent (they hold all but small blobs) only the last chunk is read, and \
            their files are not searched.
            """)

    @OptionGroup var options: SettingOptions
    @Flag(help: "Of each extent read only the last chunk, and do not search the extents' files.") var metadataOnly =
        false

    func run() async throws { try await PINRefusal.ending(verify) }

    private func verify() async throws {
        let configuration = try await ServerConfiguration.load(options)
        let home = Home(configuration: configuration)
        if let state = home.runningServer() {
            throw CommandFailure(
                "A server runs on \(configuration.dataFolder) (process \(state.pid)). "
                    + (state.isStopping == true ? "It is stopping: try again once it has." : "Stop it first."))
        }
        guard FileManager.default.fileExists(atPath: home.databaseFolder) else {
            throw CommandFailure(
                "There is no data in \(configuration.dataFolder). Name the folder with --data-folder, or start a server with "
                    + "'coffer serve'.")
        }
        let platform = try await Platform(configuration, log: Logger(label: "coffer") { _ in SwiftLogNoOpLogHandler() })
        let search = PlaintextSearch()
        let report = try await platform.store.verify(
            depth: metadataOnly ? .metadata : .everything, opened: search.add)
        await platform.close()
        try search.search(below: home.databaseFolder, leavingOut: metadataOnly ? "extents" : nil)
        printResult(report, search)
        guard report.isSound, search.findings.isEmpty else { throw ExitCode(2) }
    }

    private func printResult(_ report: VerificationReport, _ search: PlaintextSearch) {
        print(
            """
            records   \(report.recordsOpened) opened
            accounts  \(report.accountsOpened) key chains resolved, and \(report.encryptionScopesOpened) of encryption scopes; \(report.unavailableAccounts.count) with a customer key that cannot be had
            rows      \(report.rowsOpened) read, \(report.sealedPartsOpened) sealed parts opened, \(report.sealedPartsUnchecked) under keys not at hand
            bodies    \(report.smallBodiesOpened) small ones in rows opened
            extents   \(report.extentsOpened) opened (\(report.chunksOpened) chunks, \(report.plaintextBytesOpened) bytes), \
            \(report.extentsUnchecked) under keys not at hand
            waiting   \(report.garbageExtents) deleted extents, \(report.orphanExtents) left by a crash (\(report.orphanBytes) bytes)
            plaintext \(search.samples) samples, found in \(search.findings.count) of \(search.files) files (\(search.bytes) bytes\(metadataOnly ? ", extents left out" : ""))
            """)
        for account in report.unavailableAccounts {
            let scope = account.scope.map { ", encryption scope \($0)" } ?? ""
            print("unavailable: account \(account.account)\(scope): \(account.code): \(account.message)")
        }
        for problem in report.problems {
            print("DAMAGE \(problem.kind.rawValue) in \(problem.place): \(problem.message)")
        }
        for file in search.findings { print("PLAINTEXT in \(file)") }
        let isSound = report.isSound && search.findings.isEmpty
        print(
            isSound ? "sound" : "\(report.problemCount + search.findings.count) problems; restore from a backup")
    }
}
