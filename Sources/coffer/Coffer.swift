import ArgumentParser

/// The command line. Every command reads the same settings (flags, then environment, then file, then defaults).
@main
struct Coffer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "coffer",
        abstract: "The encrypted Azure on your own machine.",
        discussion: """
            Start the server with 'coffer serve'. In another terminal, 'eval "$(coffer env)"' points az, the SDKs and \
            curl at it. Every option can also be set in the environment (COFFER_DATA_FOLDER for --data-folder) or in a \
            JSON file (--config-file); 'coffer config' prints what is in force and where it came from.

            Exit codes: 0 success, 1 the command failed, 2 verification found damage, 64 wrong usage, 78 a token refused \
            its PIN: do not start again before that is mended.
            """,
        version: Version.current,
        subcommands: [Serve.self, Env.self, Status.self, Config.self, Verify.self, Logs.self, RootKeyCommands.self]
    )
}

enum Version {
    static let current = "0.1.0"
}
