import ArgumentParser
import CToken
import CofferCore
import EncryptionAtRest
import Foundation

/// Changes who keeps the root key. The key itself stays: no data is touched.
struct RootKeyCommands: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "root-key", abstract: "Wrap the root key by a key in a PKCS#11 token, or take that back.",
        subcommands: [Protect.self, Unprotect.self, InToken.self])
}

struct Protect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "protect", abstract: "Wrap the root key by a key in a PKCS#11 token.",
        discussion: """
            Needs --root-key-wrapping-key; the key in the token is made beforehand (docs/operations.md). The file is replaced \
            once the token has given the same key back. Nothing else changes, and a running server goes on. From then on \
            every command that opens the data needs the same setting. With --old-wrapping-key, a key that another token \
            wraps moves to the new one without lying in clear.
            """)

    @OptionGroup var options: SettingOptions
    @Option(help: ArgumentHelp("The key that wraps the root key until now.", valueName: "uri"))
    var oldWrappingKey: String?

    func run() async throws {
        let old = try oldWrappingKey.map { try TokenKeyURI(parsing: $0, of: "--old-wrapping-key") }
        let store = try await ServerConfiguration.load(options).rootKeyStore
        guard let wrappingKey = store.wrappingKey else {
            throw ValidationError("Name the key that is to wrap the root key with --root-key-wrapping-key.")
        }
        try await store.changing { line in
            let key: RootKey
            switch (line, old) {
            case (.clear(let clear), nil): key = clear
            case (.clear, _?):
                throw CommandFailure("The root key \(store.path) lies in clear. Leave --old-wrapping-key out.")
            case (.wrapped(let wrapped), let old?): key = try await store.unwrap(wrapped, by: old)
            case (.wrapped(let wrapped), nil):
                _ = try await store.unwrap(wrapped, by: wrappingKey)
                print("The root key \(store.path) is already wrapped by \(wrappingKey.name). Nothing was changed.")
                return
            }
            try store.write(try await store.line(of: key, under: wrappingKey, SystemRandomness()), replacing: line)
            print(
                """
                The root key \(store.path) is now wrapped by \(wrappingKey.name).
                Start the server with --root-key-wrapping-key from here on, or COFFER_ROOT_KEY_WRAPPING_KEY set.
                Without the token the data is gone: have a second token, or a copy of the key in clear, in a safe place.
                """)
            if old == nil { print("Copies of the old file, and old blocks of its disk, still hold the key in clear.") }
        }
    }
}

struct Unprotect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unprotect", abstract: "Put the root key back in clear, in its file of mode 0600.",
        discussion: "Needs --root-key-wrapping-key as it was. Leave that setting out afterwards.")

    @OptionGroup var options: SettingOptions

    func run() async throws {
        let store = try await ServerConfiguration.load(options).rootKeyStore
        try await store.changing { line in
            guard case .wrapped = line else {
                throw CommandFailure(
                    "The root key \(store.path) lies in clear already. Leave --root-key-wrapping-key out.")
            }
            try store.write(.clear(try await store.open(line)), replacing: line)
            print(
                """
                The root key \(store.path) lies in clear now. Keep a copy: without it the data is gone.
                Start the server without --root-key-wrapping-key from here on.
                """)
        }
    }
}

/// What `TokenProcess` starts. Nothing secret is among its arguments.
struct InToken: ParsableCommand {
    static let name = "in-token"
    static let configuration = CommandConfiguration(commandName: name, shouldDisplay: false)

    @Argument var operation: String
    @Argument var version: UInt32
    @Argument var uri: String

    func run() throws {
        guard coffer_token_guard_process(TokenProcess.lifetimeSeconds) == 0 else {
            throw CommandFailure("The process for the token cannot be kept from writing its memory to a disk.")
        }
        // A module that prints must not print into the answer.
        let answer = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 16)
        dup2(STDERR_FILENO, STDOUT_FILENO)
        var session: TokenSession?
        let written = TokenAnswer.write {
            guard let operation = TokenSession.Operation(rawValue: operation) else {
                throw CommandFailure("The server starts this command by itself. Use 'coffer root-key protect'.")
            }
            let opened = TokenSession(try TokenKeyURI(parsing: uri))
            session = opened
            return try opened.run(operation, version: version, input(operation)) { login in
                var step = login.rawValue
                _ = write(answer, &step, 1)
            }
        }
        _ = written.withUnsafeBytes { write(answer, $0.baseAddress, $0.count) }
        close(answer)
        session?.close()
        // What a module left for the end of a process has ended some of them badly.
        _exit(0)
    }

    private func input(_ operation: TokenSession.Operation) throws -> SecretBytes {
        let request: Int32 = 3
        return try SecretBytes(capacity: operation.inputBytes) { memory in
            let got = read(request, memory.baseAddress, memory.count)
            guard got == operation.inputBytes else {
                throw CommandFailure("The server starts this command by itself. Use 'coffer root-key protect'.")
            }
            return got
        }
    }
}

extension RootKeyStore {
    /// Hands over what lies there, if a command may put something in its place, and keeps others from doing the same.
    /// Ends the command with a code of its own when a PIN was refused.
    fileprivate func changing(_ body: (RootKeyLine) async throws -> Void) async throws {
        guard guardian == .owner else {
            throw CommandFailure(
                "\(path) is a credential of systemd, which only systemd-creds changes. Name the file with --root-key-file."
            )
        }
        try await PINRefusal.ending {
            guard try read() != nil else { throw absent }
            try await locked {
                try requireOwnFile()
                guard let line = try read() else { throw absent }
                try await body(line)
            }
        }
    }

    private var absent: CommandFailure {
        CommandFailure(
            "There is no root key at \(path). Name it with --root-key-file; the first 'coffer serve' makes one.")
    }
}

extension PINRefusal {
    /// Ends the command with a code of its own when a PIN was refused.
    static func ending(_ body: () async throws -> Void) async throws {
        do { try await body() } catch let refusal as PINRefusal {
            FileHandle.standardError.write(Data("Error: \(refusal)\n".utf8))
            throw ExitCode(exitCode)
        }
    }
}
