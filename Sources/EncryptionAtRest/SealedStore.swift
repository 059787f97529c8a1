public import CofferCore
public import StorageEngine

/// The only store services see. It seals what leaves for an engine and opens what comes back; engines hold ciphertext only.
public final class SealedStore: Sendable {
    /// `customerKeys` reaches the vaults; nil until the composition root has one (`attach`).
    public init(
        metadata: any MetadataStore, extents: any ExtentStore, rootKey: RootKey, clock: any WallClock, randomness: any Randomness
    ) throws(SealedStoreError) { preconditionFailure() }

    /// Records of the services' own state, sealed under a key derived from the root key for `domain`.
    public func records(_ domain: RecordDomain, _ partition: String) -> SealedRecords { preconditionFailure() }

    /// The names of a domain's partitions that hold at least one record.
    public func partitions(of domain: RecordDomain) async throws(SealedStoreError) -> [String] { preconditionFailure() }

    /// The keys of storage accounts.
    public var accountKeys: AccountKeys { preconditionFailure() }

    /// What an account's data plane reads and writes through.
    public func volume(account: AccountID) -> AccountVolume { preconditionFailure() }
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
        case full
        case limitExceeded
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// An ordered map of text keys to plaintext values inside one partition, atomic and durable per commit.
public struct SealedRecords: Sendable {
    public func get(_ key: String) async throws(SealedStoreError) -> SealedRecord? { preconditionFailure() }
    /// Records whose key begins with `prefix` and sorts after `after`, in byte order.
    public func scan(prefix: String, after: String? = nil, limit: Int = .max) async throws(SealedStoreError) -> [SealedRecord] {
        preconditionFailure()
    }
    /// All writes or none; `.conflict` when a check failed.
    public func commit(checks: [RecordCheck] = [], _ writes: [RecordWrite]) async throws(SealedStoreError) -> RecordCommit {
        preconditionFailure()
    }
}

public struct SealedRecord: Sendable {
    public let key: String
    public let value: [UInt8]
    public let version: RecordVersion
}
public struct RecordVersion: Sendable, Hashable { let row: RowVersion }
public enum RecordCheck: Sendable { case absent(String), present(String), unchanged(String, RecordVersion) }
public enum RecordWrite: Sendable { case put(String, [UInt8]), delete(String) }
public enum RecordCommit: Sendable, Equatable { case committed(RecordVersion), conflict }
