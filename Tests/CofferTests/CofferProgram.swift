import ArgumentParser
import CofferCore
import Foundation
import Synchronization
import Testing

@testable import coffer

/// The real program, as a process with an environment of its own, on the folder of one installation.
final class CofferProgram: Sendable {
    struct Ending {
        let code: Int32
        let output: String
        let errors: String
    }

    let home = TestHome()
    var rootKeyFile: String { home.path + "/root.key" }
    private let environment: [String: String]
    /// What nothing may print.
    private let secrets: [String]
    /// The command that starts it, such as `prlimit` and what follows.
    private let starter: [String]

    init(
        _ environment: [String: String] = [:], namesRootKeyFile: Bool = true, secrets: [String] = [],
        through starter: [String] = []
    ) throws {
        let path = home.path
        var all = ProcessInfo.processInfo.environment.filter {
            !$0.key.hasPrefix("COFFER_") && $0.key != "CREDENTIALS_DIRECTORY"
        }
        all.merge([
            "HOME": path, "COFFER_DATA_FOLDER": path + "/data", "COFFER_CREDENTIALS_FILE": path + "/administrator.json",
            "COFFER_HTTPS_PORT": "0", "COFFER_HTTP_PORT": "0", "COFFER_GATEWAY_PORT": "0",
        ]) { _, new in new }
        if namesRootKeyFile { all["COFFER_ROOT_KEY_FILE"] = path + "/root.key" }
        self.environment = all.merging(environment) { _, new in new }
        self.secrets = secrets
        self.starter = starter
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    /// The product beside the program of these tests.
    private static let path =
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path + "/coffer"

    private func process(_ arguments: [String], _ more: [String: String]) throws -> (Process, output: Pipe, errors: URL)
    {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = starter + [Self.path] + arguments
        process.environment = environment.merging(more) { _, new in new }
        let output = Pipe()
        // A file takes any length without a reader.
        let errors = URL(fileURLWithPath: home.path + "/errors-" + SystemRandomness().uuidString())
        try Data().write(to: errors)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = try FileHandle(forWritingTo: errors)
        return (process, output, errors)
    }

    /// A command that does not end is ended, so that a server which starts where it should refuse fails its test alone.
    private static let longestRun = DispatchTimeInterval.seconds(180)
    private static func limit(on process: Process) -> DispatchWorkItem {
        let limit = DispatchWorkItem { [processID = process.processIdentifier] in kill(processID, SIGKILL) }
        DispatchQueue.global().asyncAfter(deadline: .now() + longestRun, execute: limit)
        return limit
    }

    /// Runs a command to its end.
    func run(_ arguments: String..., environment more: [String: String] = [:]) async throws -> Ending {
        let ending = try await offThePool { [self] in
            let (process, output, errors) = try process(arguments, more)
            try process.run()
            let limit = Self.limit(on: process)
            defer { limit.cancel() }
            let printed = try output.fileHandleForReading.readToEnd() ?? Data()
            process.waitUntilExit()
            return Ending(
                code: process.terminationStatus, output: String(decoding: printed, as: UTF8.self),
                errors: try String(contentsOf: errors, encoding: .utf8))
        }
        for secret in secrets {
            #expect(!(ending.output + ending.errors).contains(secret), "\(arguments) printed a secret")
        }
        return ending
    }

    /// Runs `body` beside a server that is ready, and stops it; returns what the server said on both channels.
    @discardableResult
    func serving(_ body: (Home.RunState) async throws -> Void) async throws -> String {
        let (process, output, errors) = try process(["serve"], [:])
        try process.run()
        let limit = Self.limit(on: process)
        defer { limit.cancel() }
        let greeting = try await offThePool {
            var greeting = ""
            while !greeting.contains("az group create") {
                let piece = output.fileHandleForReading.availableData
                if piece.isEmpty { break }
                greeting += String(decoding: piece, as: UTF8.self)
            }
            return greeting
        }
        let state = try? JSONDecoder().decode(
            Home.RunState.self, from: Data(contentsOf: URL(fileURLWithPath: home.path + "/data/run.json")))
        let outcome: (any Error)?
        do {
            let log = try String(contentsOf: errors, encoding: .utf8)
            try await body(#require(state, "the server did not start: \(log)"))
            outcome = nil
        } catch { outcome = error }
        process.terminate()
        try await offThePool { process.waitUntilExit() }
        if let outcome { throw outcome }
        #expect(process.terminationReason == .exit && process.terminationStatus == 0)
        let said = greeting + (try String(contentsOf: errors, encoding: .utf8))
        for secret in secrets { #expect(!said.contains(secret), "the server printed a secret") }
        return said
    }

    /// The folders of the installation, for what of the command line runs in this process.
    func localHome() async throws -> Home {
        let options = try SettingOptions.parse([
            "--data-folder", home.path + "/data", "--root-key-file", rootKeyFile, "--credentials-file",
            home.path + "/administrator.json",
        ])
        return Home(configuration: try await ServerConfiguration.load(options))
    }

    var rootKeyText: String { get throws { try String(contentsOfFile: rootKeyFile, encoding: .utf8) } }
}

/// A thread that may block while processes run: the pool has few.
private func offThePool<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Swift.Result { try body() }) }.start()
    }
}

/// Writes a file with its mode.
func write(_ text: String, to path: String, mode: Int = 0o600) throws {
    try FileManager.default.createDirectory(
        atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(text.utf8).write(to: URL(fileURLWithPath: path))
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
}

/// Runs a tool of the machine; one that is missing or fails is a failure of the test.
@discardableResult
func tool(_ name: String, _ arguments: [String], environment: [String: String] = [:]) throws -> String {
    let (status, said) = try attempt(name, arguments, environment: environment)
    try #require(status == 0, "\(name), of 'Scripts/install-dependencies test': \(said)")
    return said
}

/// Runs a tool that may fail.
func attempt(
    _ name: String, _ arguments: [String], environment: [String: String] = [:]
) throws -> (status: Int32, said: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [name] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { _, new in new }
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let said = String(decoding: try output.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, said)
}
