import CofferCore
import EncryptionAtRest
import FunctionsHost
import HTTPEdge
import IdentityService
import Logging
import Monitor
import NIOPosix
import NIOSSL
import ResourceManager
import ResourceProviders

/// The rooms that need to know where the server listens: functions, whose workers and packages come back through the
/// server's own doors, and Resource Manager, which leads to them.
struct ControlPlane: Sendable {
    let manager: ResourceManager
    let runtime: FunctionRuntime
    let gate: FunctionGate
    let outbound: OutboundClient

    /// Loads sites and roles, and starts what runs by itself. `ports` are the listeners' own.
    init(_ platform: Platform, home: Home, ports: Home.RunState, log: Logger) async throws {
        let clock = SystemClock()
        let randomness = SystemRandomness()
        let group = MultiThreadedEventLoopGroup.singleton
        let sites = SiteStore(store: platform.store)
        try await sites.load()
        for name in sites.damaged {
            log.error("The records of a function app or plan do not open; the others do", metadata: ["what": "\(name)"])
        }
        let authority = try NIOSSLCertificate(bytes: Array(platform.authority.certificatePEM.utf8), format: .pem)
        outbound = OutboundClient(
            OutboundClient.Configuration(
                hostNames: platform.names, gateway: (ports.address, ports.gatewayPort), trustRoots: [authority]),
            group: group)
        var settings = FunctionsHostConfiguration(names: platform.names, instanceID: randomness.bytes(32).hex)
        settings.identityEndpoint = "http://127.0.0.1:\(ports.httpPort)/msi/token"
        settings.packageLimits.mountedBytes = home.configuration.packageMegabytes << 20
        settings.workerNetwork = home.configuration.workerNetwork
        settings.workerPorts = [ports.httpsPort, ports.httpPort, ports.gatewayPort]
        // Not HTTPS_PROXY and SSL_CERT_FILE themselves: they would cut a function off from everything but Coffer.
        settings.workerEnvironment = [
            "COFFER_GATEWAY": "http://127.0.0.1:\(ports.gatewayPort)", "COFFER_CA_FILE": home.authorityFile,
        ]
        settings.workerFiles = [home.authorityFile]
        runtime = FunctionRuntime(
            sites: sites, vaults: VaultSecretsOfKeyVault(vaults: platform.vaults), http: outbound,
            identities: platform.identity, identityEndpoint: platform.identityEndpoint,
            logs: FunctionLogsToMonitor(platform.monitor), configuration: settings, group: group, clock: clock,
            randomness: randomness, logger: log)
        try await runtime.start()
        gate = FunctionGate(runtime)
        let web = WebResourceProvider(
            sites: sites, runtime: runtime, access: platform.access, identities: platform.identity, clock: clock,
            randomness: randomness, log: log)
        try await web.removeLeftIdentities()
        manager = ResourceManager(
            installation: platform.installation, names: platform.names,
            records: platform.store.records(.resources, "tree"),
            controller: platform.access, verifier: platform.tokens, directory: platform.identity,
            providers: [
                platform.vaults, platform.accounts, web, platform.monitor.workspaces, platform.monitor.insights,
            ], clock: clock, logger: log)
        try await manager.start(administrator: platform.administrator.objectID)
    }

    func service(for endpoint: Endpoint) -> (any WireService)? {
        switch endpoint {
        case .management: manager
        case .site: gate
        case .scm: ScmService(runtime: runtime)
        default: nil
        }
    }

    /// Ends the workers.
    func close() async {
        await runtime.shutdown()
        await outbound.shutdown()
    }
}
