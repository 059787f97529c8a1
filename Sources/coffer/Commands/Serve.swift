import ArgumentParser
import CPlatform
import CofferCore
import Foundation
import HTTPEdge
import IdentityService
import Logging
import NIOCore
import ResourceManager

/// Starts the server, and runs until a signal ends it.
struct Serve: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Start the server.",
        discussion: """
            The first start makes everything: the data folder, the root key, the certificate authority, the tenant and its \
            subscription, and an administrator whose secret lies in the credentials file (mode 0600). SIGINT or SIGTERM \
            stops the server once running requests have ended.
            """)

    @OptionGroup var options: SettingOptions
    @Flag(help: "Give the administrator a new secret and the Owner role again, then start.") var resetAdministrator =
        false

    func run() async throws { try await PINRefusal.ending(serve) }

    private func serve() async throws {
        coffer_tune_allocator()
        let configuration = try await ServerConfiguration.load(options)
        let home = Home(configuration: configuration)
        let log = Self.logger(configuration)
        let platform = try await Platform(configuration, log: log)
        // Before anything that may fail: the administrator's secret is known once.
        do { try keepAdministrator(platform.administrator, of: platform, home: home) } catch {
            await platform.close()
            throw error
        }
        // Only now: a link is followed when what it leads to is there.
        for warning in configuration.warnings { log.warning("\(warning)") }
        var edge = EdgeConfiguration(names: platform.names, logger: log)
        edge.addresses = configuration.listenAddresses
        edge.tlsPort = configuration.httpsPort
        edge.plainPort = configuration.httpPort
        edge.gatewayPort = configuration.gatewayPort
        edge.minimumTLSVersion = { platform.minimumTLSVersion(of: $0) }
        let server: EdgeServer
        do {
            server = try await EdgeServer.start(edge, authority: platform.authority) { platform.service(for: $0) }
        } catch {
            await platform.close()
            throw CommandFailure(
                "The server cannot listen on \(configuration.address), ports \(configuration.httpsPort), \(configuration.httpPort) and "
                    + "\(configuration.gatewayPort): \(CommandFailure.reason(error)). Stop what uses them, or choose others with --https-port, --http-port and --gateway-port."
            )
        }
        var state = Home.RunState(
            pid: getpid(), address: configuration.address, httpsPort: server.tlsPort ?? 0,
            httpPort: server.plainPort ?? 0,
            gatewayPort: server.gatewayPort ?? 0, domain: configuration.domain,
            advertisedPort: configuration.advertisedPort, rootKey: configuration.rootKeyStore.description)
        let plane = try await ControlPlane(platform, home: home, ports: state, log: log)
        platform.attach(plane)
        if resetAdministrator {
            let administrator = try await platform.identity.resetAdministratorSecret()
            try await plane.manager.restoreAdministrator(administrator.objectID)
            try keepAdministrator(administrator, of: platform, home: home)
        }
        // Before anybody can know whom to end.
        let termination = await TerminationSignal.caught()
        let maintenance = Maintenance(Maintenance.jobs(platform, log: log), log: log)
        try home.write(state)
        Self.greet(state, home: home)

        let signal = await termination.first()
        log.notice("stopping", metadata: ["signal": "\(signal)"])
        maintenance.cancel()
        // So that the other commands say so. When it cannot be written they find a server that does not answer.
        state.isStopping = true
        try? home.write(state)
        await server.shutdown(gracefully: .seconds(Int64(configuration.shutdownSeconds)))
        await maintenance.stop()
        // While the data is still this process's: afterwards the file may be the next server's.
        home.removeRunState()
        await platform.close()
    }

    /// Keeps the administrator's credentials where `coffer env` reads them. They are made once; a lost file needs
    /// `--reset-administrator`.
    private func keepAdministrator(_ administrator: Administrator, of platform: Platform, home: Home) throws {
        guard let secret = administrator.secret else { return }
        try home.write(
            Home.Administrator(
                tenantID: platform.installation.tenantID, subscriptionID: platform.installation.subscriptionID,
                clientID: administrator.clientID, clientSecret: secret.reveal()))
    }

    private static func logger(_ configuration: ServerConfiguration) -> Logger {
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var log = Logger(label: "coffer")
        log.logLevel = configuration.logLevel
        return log
    }

    /// Says what to do next; holds no secret.
    private static func greet(_ state: Home.RunState, home: Home) {
        let folders = home.configuration.foldersAsFlags
        print(
            """
            Coffer \(Version.current) is ready (process \(state.pid)).
              https    \(state.authority(state.httpsPort))   all services, by host name
              http     \(state.authority(state.httpPort))   what may be served in clear
              gateway  \(state.authority(state.gatewayPort))   HTTPS_PROXY for az, the SDKs and curl
              data     \(home.configuration.dataFolder)
              root key \(state.rootKey ?? "")
                       keep a copy: without it\(home.configuration.rootKeyWrappingKey == nil ? "" : " or its token") the data is gone

            In another terminal:
              eval "$(\(CommandLine.arguments.first ?? "coffer") env\(folders))"
              az cloud register --name Coffer --endpoint-resource-manager "$ARM_ENDPOINT"    # once
              az cloud set --name Coffer
              az login --service-principal --username "$CLIENT_ID" --password "$CLIENT_SECRET" --tenant "$TENANT_ID"
              az group create --name demo --location eastus
            """)
        fflush(nil)
    }
}
