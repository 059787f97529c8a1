public import CofferCore
internal import Logging
internal import NIOCore
internal import ResourceProviders
internal import AsyncHTTPClient

/// What the Functions host is told at start.
public struct FunctionsHostConfiguration: Sendable {
    /// The Functions runtime whose behaviour this follows; answered as the host's version.
    public static let runtimeVersion = "4.1037.0.0"

    public var names: HostNames
    /// Names this server among others: `WEBSITE_INSTANCE_ID`.
    public var instanceID: String
    public var packageLimits = PackageLimits()
    /// Of one worker, beside its package.
    public var workerMemoryBytes = 1_536 << 20
    /// Without a request for so long, a worker ends; the next request starts it again.
    public var workerIdleSeconds: Int64 = 1_200
    /// A request's longest time, as App Service's front end has it.
    public var requestTimeoutSeconds: Int64 = 230
    /// Requests one site may have under way.
    public var concurrentRequestsPerSite = 1_000
    /// `IDENTITY_ENDPOINT` of workers: `http://127.0.0.1:PORT/msi/token`. nil: workers get no identity.
    public var identityEndpoint: String?
    public var workerNetwork = WorkerNetwork.isolated
    /// Of this server, on 127.0.0.1: all that a worker in a network of its own reaches there.
    public var workerPorts: [Int] = []
    /// Variables for every worker, such as `HTTPS_PROXY` and `SSL_CERT_FILE`; app settings override them.
    public var workerEnvironment: [String: String] = [:]
    /// Files every worker may read at their own path, such as the certificates that `SSL_CERT_FILE` names.
    public var workerFiles: [String] = []

    public init(names: HostNames, instanceID: String) {
        self.names = names
        self.instanceID = instanceID
    }
}

/// What every site's host works with.
struct HostServices: Sendable {
    let configuration: FunctionsHostConfiguration
    let sites: SiteStore
    let vaults: any VaultSecrets
    let http: any OutboundHTTP
    let identities: any ManagedIdentities
    let identityEndpoint: (any IdentityEndpointRegistry)?
    let logs: any FunctionLogSink
    let handlers: HTTPClient
    let packageMemory: PackageMemory
    let group: any EventLoopGroup
    let clock: any WallClock
    let randomness: any Randomness
    let logger: Logger

    func hostName(of site: Site) -> String { configuration.names.own.authority(of: .site(site.name.lowercased())) }
}
