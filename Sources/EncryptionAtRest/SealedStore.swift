public import CofferCore
internal import NIOCore
public import StorageEngine
internal import Synchronization

/// The only store services see. It seals what leaves for an engine and opens what comes back; engines hold ciphertext
/// only.
public final class SealedStore: Sendable {
    let core: StoreCore
    /// The keys of storage accounts.
    public let accountKeys: AccountKeys
    private let recordSeals = Mutex<[String: RootSeal]>([:])
    private let volumes = Mutex<[AccountID: AccountVolume]>([:])
    /// Kept seals of record partitions; above this many the cache starts anew.
    private static let recordSealsLimit = 4_096

    public init(
        metadata: any MetadataStore, extents: any ExtentStore, rootKey: RootKey, clock: any WallClock,
        randomness: any Randomness
    ) throws(SealedStoreError) {
        guard rootKey.key.count == 32 else {
            throw SealedStoreError(.corrupt, "The root key has \(rootKey.key.count) bytes; it must have 32.")
        }
        core = StoreCore(metadata: metadata, extents: extents, rootKey: rootKey, clock: clock, randomness: randomness)
        accountKeys = AccountKeys(core)
    }

    /// The key the embedded engine seals its database pages under: 32 bytes.
    public static func pageKey(_ rootKey: RootKey) -> SecretBytes {
        KeyDerivation.secret(32, from: rootKey.key, info: FieldList(.metadataPages).bytes)
    }

    /// Records of the services' own state, sealed under a key derived from the root key for `domain` and `partition`.
    public func records(_ domain: RecordDomain, _ partition: String) -> SealedRecords {
        let name = "\(domain.rawValue)/\(partition)"
        let seal = recordSeals.withLock { seals in
            if let seal = seals[name] { return seal }
            if seals.count >= Self.recordSealsLimit { seals.removeAll() }
            let seal = core.rootSeal(.records, Array(domain.rawValue.utf8), Array(partition.utf8))
            seals[name] = seal
            return seal
        }
        return SealedRecords(core: core, seal: seal, domain: domain, partition: partition)
    }

    /// The names of a domain's partitions that hold at least one record.
    public func partitions(of domain: RecordDomain) async throws(SealedStoreError) -> [String] {
        let prefix = EnginePartition.records(domain, "").bytes
        return try await core.partitions(prefix: prefix).map {
            String(decoding: $0.bytes.dropFirst(prefix.count), as: UTF8.self)
        }
    }

    /// What an account's data plane reads and writes through.
    public func volume(account: AccountID) -> AccountVolume {
        volumes.withLock { volumes in
            if let volume = volumes[account] { return volume }
            let volume = AccountVolume(core: core, account: account, keys: accountKeys)
            volumes[account] = volume
            return volume
        }
    }
}

/// Separates the keys of the rooms: a record of one domain never opens in another.
public enum RecordDomain: String, Sendable, CaseIterable { case identity, resources, vault, storage, sites, audit }

/// The root of all keys (docs/format.md §2): 256 bits and a version.
public struct RootKey: Sendable {
    public let version: UInt32
    public let key: SecretBytes
    public init(version: UInt32, key: SecretBytes) {
        self.version = version
        self.key = key
    }
}

public struct SealedStoreError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        /// Try again later; nothing was written.
        case unavailable
        /// The commit may or may not have happened: read again.
        case outcomeUnknown
        /// Sealed bytes do not open: damaged, moved, or sealed under another root key.
        case corrupt
        /// Sealed under another key than the one given: another customer-provided key, or the account's.
        case keyMismatch
        case full
        case limitExceeded
        /// Nobody holds an extent that was to be linked any more: it was read of before a change that released it.
        case extentGone
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// How partitions are named in the engine (docs/format.md §3).
enum EnginePartition {
    static let accountKeys = Partition("k")
    static let volumePrefix = Array("v/".utf8)
    static func records(_ domain: RecordDomain, _ name: String) -> Partition {
        Partition("r/\(domain.rawValue)/\(name)")
    }
    static func volume(_ account: AccountID, _ partition: VolumePartition) -> Partition {
        Partition(volumePrefix(account) + Array(partition.name.utf8))
    }
    static func volumePrefix(_ account: AccountID) -> [UInt8] { volumePrefix + account.bytes + [0x2f] }
}

/// What the parts of the room share: the two engines, the root key, time and randomness.
final class StoreCore: Sendable {
    let metadata: any MetadataStore
    let extents: any ExtentStore
    let rootKey: RootKey
    let clock: any WallClock
    let randomness: any Randomness
    let unlinked: UnlinkedExtents
    let readers = ExtentReaders()
    /// Whether a sweep since the start has looked into every partition.
    let sweptAll = Atomic(false)

    init(
        metadata: any MetadataStore, extents: any ExtentStore, rootKey: RootKey, clock: any WallClock,
        randomness: any Randomness
    ) {
        self.metadata = metadata
        self.extents = extents
        self.rootKey = rootKey
        self.clock = clock
        self.randomness = randomness
        unlinked = UnlinkedExtents()
    }

    /// A seal under HKDF(root key, label | fields).
    func rootSeal(_ label: Label, _ fields: [UInt8]...) -> RootSeal {
        var info = FieldList(label)
        for field in fields { info.append(field) }
        return RootSeal(rootKey: rootKey, info: info.bytes, randomness: randomness)
    }

    // MARK: The engine, in this room's errors

    func get(_ partition: Partition, _ keys: [RowKey]) async throws(SealedStoreError) -> [Row?] {
        do { return try await metadata.get(partition, keys) } catch { throw SealedStoreError(error) }
    }
    func remembered(_ partition: Partition, _ keys: [RowKey]) -> [Row?]? { metadata.remembered(partition, keys) }
    func scan(_ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int) async throws(SealedStoreError) -> [Row] {
        do { return try await metadata.scan(partition, from: from, upTo: upTo, limit: limit) } catch {
            throw SealedStoreError(error)
        }
    }
    func commit(_ partition: Partition, checks: [RowCheck], writes: [RowWrite]) async throws(SealedStoreError)
        -> CommitResult
    {
        do { return try await metadata.commit(partition, checks: checks, writes: writes) } catch {
            throw SealedStoreError(error)
        }
    }
    func deleteExtent(_ location: ExtentLocation) async throws(SealedStoreError) {
        do { try await extents.delete(location) } catch { throw SealedStoreError(error) }
    }

    /// Every partition whose name begins with `prefix`, in byte order.
    func partitions(prefix: [UInt8]) async throws(SealedStoreError) -> [Partition] {
        var found: [Partition] = []
        // A partition named exactly like the prefix would sort at it, not after it: start one below.
        var after: Partition? = prefix.isEmpty ? nil : Partition(Array(prefix.dropLast()))
        let page = 1_000
        while true {
            let names: [Partition]
            do { names = try await metadata.partitions(after: after, limit: page) } catch {
                throw SealedStoreError(error)
            }
            for name in names {
                if name.bytes.starts(with: prefix) {
                    found.append(name)
                } else if prefix.lexicographicallyPrecedes(name.bytes) {
                    return found
                }
            }
            guard names.count == page else { return found }
            after = names.last
        }
    }
}

extension SealedStoreError {
    init(_ error: StorageEngineError) {
        let code: Code =
            switch error.code {
            case .unavailable: .unavailable
            case .outcomeUnknown: .outcomeUnknown
            case .full: .full
            case .limitExceeded: .limitExceeded
            default: .corrupt
            }
        self.init(code, error.message)
    }
}
