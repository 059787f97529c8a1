import AccessControl
import BlobService
import CofferCore
import EmbeddedEngine
import EncryptionAtRest
import Foundation
import FunctionsHost
import HTTPEdge
import IdentityService
public import KeyVault
import Logging
import Monitor
import NIOHTTP1
import ResourceProviders
public import StorageAccount
import Synchronization

/// One installation with all its rooms joined: the only place that knows every room. It listens to nobody; `Serve`
/// opens the doors.
final class Platform: Sendable {
    let installation: Installation
    let administrator: Administrator
    let names: HostNames
    let engine: EmbeddedEngine
    let store: SealedStore
    let authority: CertificateAuthority
    let identity: IdentityService
    let identityEndpoint: IdentityEndpoint
    let vaults: KeyVaultService
    let accounts: StorageAccountService
    let blobs: BlobService
    let monitor: MonitorService
    let access: AccessController
    let tokens: TokenVerifier
    private let controlPlane = Mutex<ControlPlane?>(nil)

    /// Opens the data folder, or makes it at the first start, and reads what must be in memory. Throws
    /// `CommandFailure`, or the engine's own error, with a message for the operator.
    init(_ configuration: ServerConfiguration, log: Logger) async throws {
        let home = Home(configuration: configuration)
        let clock = SystemClock()
        let randomness = SystemRandomness()
        try PrivateFile.makeFolder(configuration.dataFolder)
        let rootKey = try await home.rootKey(randomness: randomness)
        engine = try EmbeddedEngine.open(
            at: home.databaseFolder, pageKey: SealedStore.pageKey(rootKey), clock: clock, randomness: randomness,
            logger: log)
        store = try SealedStore(
            metadata: engine, extents: engine, rootKey: rootKey, clock: clock, randomness: randomness)
        names = HostNames(domain: configuration.domain, port: configuration.advertisedPort)
        installation = try await FirstStart.installation(in: store, randomness: randomness)
        authority = try await FirstStart.authority(in: store, clock: clock, randomness: randomness)
        // Workers read it too, each as a user of its own.
        try PrivateFile.write(Array(authority.certificatePEM.utf8), to: home.authorityFile, isPublic: true)

        access = AccessController()
        tokens = TokenVerifier(clock: clock)
        identity = IdentityService(
            installation: installation, names: names, records: store.records(.identity, "directory"), verifier: tokens,
            clock: clock,
            randomness: randomness, logger: log)
        administrator = try await identity.bootstrap()
        identityEndpoint = IdentityEndpoint(identities: identity, randomness: randomness)
        vaults = KeyVaultService(
            store: store, access: access, tokens: tokens, installation: installation, hostNames: names, clock: clock,
            randomness: randomness, logger: log)
        store.accountKeys.attach(vaults)
        accounts = StorageAccountService(
            store: store, access: access, tokens: tokens, identities: identity, eligibility: vaults,
            installation: installation,
            hostNames: names, clock: clock, randomness: randomness, logger: log)
        blobs = BlobService(accounts: accounts, names: names, clock: clock, randomness: randomness, logger: log)
        accounts.attachContainers { [weak blobs] request, account throws(ControlError) in
            guard let blobs else { throw .notImplemented("A server that is ending") }
            return try await blobs.containerResources(request, account)
        }
        monitor = MonitorService(store: store, access: access, clock: clock, randomness: randomness, log: log)
    }

    /// Completes the platform once the doors' ports are known. Until then its endpoints answer 503.
    func attach(_ plane: ControlPlane) { controlPlane.withLock { $0 = plane } }

    /// The service behind an endpoint; nil answers 501.
    func service(for endpoint: Endpoint) -> (any WireService)? {
        switch endpoint {
        case .login: LoginService(identity)
        case .graph: GraphService(identity)
        case .vault: vaults
        case .storage(_, .blob): blobs
        case .local: LocalService(identityEndpoint: identityEndpoint)
        case .management, .site, .scm:
            controlPlane.withLock { $0 }.map { $0.service(for: endpoint) } ?? StartingService()
        case .storage, .managedHSM: nil
        }
    }

    /// What the edge asks at every handshake.
    func minimumTLSVersion(of endpoint: Endpoint) -> Transport.TLSVersion {
        controlPlane.withLock { $0 }?.runtime.minimumTLSVersion(of: endpoint) ?? .v1_2
    }

    /// Ends what runs and closes the data folder. Nothing may be asked afterwards.
    func close() async {
        await controlPlane.withLock { $0 }?.close()
        await monitor.flush()
        await store.accountKeys.settle()
        engine.close()
    }
}

/// Answers while the server is still starting.
private struct StartingService: WireService {
    func respond(to request: Request) async -> Response {
        Response(status: .serviceUnavailable, headers: ["Retry-After": "1"])
    }
}

/// The account's side asks for exactly what the vault's side offers.
extension KeyVaultService: CustomerKeyEligibility {}
