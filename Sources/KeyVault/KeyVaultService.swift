public import AccessControl
public import CofferCore
public import EncryptionAtRest
public import Logging
internal import Synchronization

/// Vaults: keys and secrets with versions, soft deletion, purge protection and cryptographic operations; and their
/// control plane.
///
/// * `Operations/` holds one function per operation of the API; each takes the caller first and decides about access
///   itself.
/// * `KeyVaultRoutes.swift` (`WireService`) and `ResourceProvider/` bring requests to them.
/// * `CustomerKeys.swift` serves storage accounts in this process, through the same operations.
public final class KeyVaultService: Sendable {
    let store: SealedStore
    let index: VaultIndex
    let access: AccessController
    let tokens: TokenVerifier
    let installation: Installation
    let hostNames: HostNames
    let clock: any WallClock
    let randomness: any Randomness
    let logger: Logger
    /// Names this service's tokens are issued for.
    let audiences: Set<String>
    let objects = RecordMemory<ObjectRecords.Found>(limit: Limits.rememberedVersions)
    let handles = KeyHandles(limit: Limits.keyHandles)
    let threads = CryptographyThreads(threads: Limits.cryptographyThreads, limit: Limits.cryptographyQueue)
    private let observers = Mutex<[@Sendable (String?) -> Void]>([])

    enum Limits {
        /// Decoded private keys in memory, over all vaults.
        static let keyHandles = 256
        /// A private key that nothing used for so long leaves memory.
        static let keyHandleIdleSeconds: Int64 = 300
        /// Decoded records in memory, over all vaults.
        static let rememberedVaults = 1_024
        static let rememberedVersions = 4_096
        static let cryptographyThreads = 2
        /// Calls waiting for those threads or running on them.
        static let cryptographyQueue = 256
        /// The largest page of a list, and the default (Key Vault REST API).
        static let pageItems = 25
        static let secretBytes = 25_600
        static let tags = 15
        static let requestBytes = 256 * 1_024
        /// Above this a body takes long to read, and its request leaves the event loop; what the operations on keys
        /// take is far below.
        static let briefBytes = 8 * 1_024
        /// A backup carries every version.
        static let restoreBytes = 8 * 1_024 * 1_024
        static let accessPolicies = 1_024
        static let ipRules = 1_000
        /// Private operations of larger RSA keys compute on threads of their own.
        static let bitsComputedInPlace = 2_048
    }

    /// Registers itself for changes of roles and principals: from then on `onChange` observers hear of them.
    public init(
        store: SealedStore, access: AccessController, tokens: TokenVerifier, installation: Installation,
        hostNames: HostNames,
        clock: any WallClock, randomness: any Randomness, logger: Logger
    ) {
        self.store = store
        self.index = VaultIndex(store: store)
        self.access = access
        self.tokens = tokens
        self.installation = installation
        self.hostNames = hostNames
        // The last is Key Vault's own application identifier, which Azure accepts as well.
        self.audiences = Set(hostNames.families.map(\.vaultAudience) + ["cfa8b339-82a2-471a-a3c9-0fc0be7a4093"])
        self.clock = clock
        self.randomness = randomness
        self.logger = logger
        access.onChange { [weak self] in self?.announce(nil) }
        tokens.onPrincipalChange { [weak self] in self?.announce(nil) }
    }

    func addObserver(_ observer: @escaping @Sendable (String?) -> Void) { observers.withLock { $0.append(observer) } }

    /// Tells those who hold keys of the vault (nil: of any) that access may have changed. Called after the change is
    /// durable and before it is acknowledged.
    func announce(_ vaultName: String?) {
        for observer in observers.withLock({ $0 }) { observer(vaultName) }
    }

    func makeVersionID() -> String { randomness.bytes(16).hex }
}
