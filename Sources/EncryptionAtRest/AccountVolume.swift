public import CofferCore
public import NIOCore
public import StorageEngine

/// One storage account's data: rows with a part that lists may read and a part that needs a key, and extents.
///
/// Names (in the row key) and `visible` lie behind page encryption only, so lists and deletes go on when a customer's key is gone; `sealed` and
/// every extent need a `DataKey`, and so answer to the customer.
public final class AccountVolume: Sendable {
    init() {}
    public var account: AccountID { preconditionFailure() }

    // MARK: Keys

    /// The account's key under its lease; fast while the lease runs. Throws when the customer's key cannot be had.
    public func accountKey() async throws -> DataKey { preconditionFailure() }
    /// A customer-provided key for one request: 32 bytes. It is wiped when the last reference goes.
    public func customerProvidedKey(_ key: SecretBytes) -> DataKey { preconditionFailure() }

    // MARK: Rows

    public func get(_ partition: VolumePartition, _ keys: [[UInt8]]) async throws(SealedStoreError) -> [VolumeRow?] { preconditionFailure() }
    /// Ascending byte order, `from <= key < upTo`.
    public func scan(
        _ partition: VolumePartition, from: [UInt8], upTo: [UInt8]?, limit: Int
    ) async throws(SealedStoreError) -> [VolumeRow] { preconditionFailure() }
    /// Writes hold parts already sealed (`seal`). Extents that the commit unlinks are named in `releasing`: they become garbage in the same commit and
    /// are deleted later.
    public func commit(
        _ partition: VolumePartition, checks: [VolumeCheck], writes: [VolumeWrite], releasing: [ExtentReference] = []
    ) async throws(SealedStoreError) -> VolumeCommit { preconditionFailure() }

    /// Seals a row's inner part, bound to account, partition and row key: it opens nowhere else.
    public func seal(_ plaintext: [UInt8], at key: [UInt8], in partition: VolumePartition, under dataKey: DataKey) throws -> [UInt8] {
        preconditionFailure()
    }
    public func open(_ sealed: [UInt8], at key: [UInt8], in partition: VolumePartition, under dataKey: DataKey) throws -> [UInt8] {
        preconditionFailure()
    }

    // MARK: Extents

    /// Starts an extent under a fresh data encryption key, wrapped under `dataKey`. `expectedBytes` is the plaintext length if known: it chooses the
    /// chunk size and the place.
    public func createExtent(under dataKey: DataKey, expectedBytes: Int?) async throws -> ExtentSealer { preconditionFailure() }

    /// Opens `range` of the extent's plaintext and hands it over in order, in pieces of at most a few chunks, each verified before it leaves. Checks
    /// the lease as it goes and throws `KeyUnavailable` in the middle when it died.
    public func readExtent(
        _ reference: ExtentReference, range: Range<Int>, under dataKey: DataKey, deliver: @Sendable (ByteBuffer) async throws -> Void
    ) async throws { preconditionFailure() }

    /// Deletes every row and extent of the account.
    public func destroy() async throws(SealedStoreError) { preconditionFailure() }
}

/// Part of an account: its own rows, or one container's.
public struct VolumePartition: Sendable, Hashable {
    public let name: String
    public static let account = VolumePartition(name: "")
    /// `id` is a container's identifier, made at its creation: a later container of the same name has another.
    public static func container(_ id: String) -> VolumePartition { VolumePartition(name: id) }
}

public struct VolumeRow: Sendable {
    public let key: [UInt8]
    /// What lists and deletes may read without the account's key.
    public let visible: [UInt8]
    /// What only `open` reads; empty when the row has none.
    public let sealed: [UInt8]
    public let version: RecordVersion
}
public enum VolumeCheck: Sendable { case absent([UInt8]), present([UInt8]), unchanged([UInt8], RecordVersion) }
public enum VolumeWrite: Sendable { case put([UInt8], visible: [UInt8], sealed: [UInt8]), delete([UInt8]) }
public enum VolumeCommit: Sendable, Equatable { case committed(RecordVersion), conflict }

/// A key data is sealed under: the account's (leased) or one a request brought. Not printable, not encodable.
public final class DataKey: Sendable {
    init() {}
    /// base64 of the SHA-256 of a customer-provided key; nil for the account's key. The only trace of such a key that is ever kept.
    public var customerProvidedKeySHA256: String? { preconditionFailure() }
    /// Throws `KeyUnavailable` once the lease behind the key has died. Cheap: an atomic read.
    public func checkLease() throws { preconditionFailure() }
}

/// An extent as the manifest of a blob names it: where, how long, and its wrapped key. Codable, for use inside a sealed part only.
public struct ExtentReference: Sendable, Codable, Hashable {
    public let location: [UInt8]
    public let extentID: [UInt8]
    public let plaintextBytes: Int
    public let log2ChunkBytes: UInt8
    public let wrappedKey: [UInt8]
}

/// Seals one extent as bytes come in. Memory: at most a few chunks of plaintext.
public final class ExtentSealer: Sendable {
    init() {}
    public func append(_ plaintext: ByteBuffer) async throws { preconditionFailure() }
    /// Durable when it returns; the reference counts once a commit holds it.
    public func finish() async throws -> ExtentReference { preconditionFailure() }
    public func abort() async { preconditionFailure() }
}
