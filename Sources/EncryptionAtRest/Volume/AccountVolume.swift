public import CofferCore
internal import StorageEngine

/// One storage account's data: rows with a part that lists may read and a part that needs a key, and extents.
///
/// Row keys (names) lie behind page encryption; `visible` is sealed under a key of the platform besides, so that lists
/// and deletes go on when a customer's key is gone; `sealed` and every extent need a `DataKey`, and so answer to the
/// customer.
///
/// `AccountVolume+Commit.swift` writes, `AccountVolume+Extents.swift` makes and reads extents.
public final class AccountVolume: Sendable {
    public let account: AccountID
    let core: StoreCore
    let keys: AccountKeys
    let rowSeal: RootSeal
    private let domain: KeyDomain

    init(core: StoreCore, account: AccountID, keys: AccountKeys) {
        self.core = core
        self.account = account
        self.keys = keys
        domain = KeyDomain(account)
        rowSeal = core.rootSeal(.volumeRows, account.bytes)
    }

    // MARK: Keys

    /// The account's key under its lease; fast while the lease runs. Throws `KeyUnavailable` when the customer's key
    /// cannot be had.
    public func accountKey() async throws -> DataKey { try await key(of: domain) }

    /// An encryption scope's key under its lease. Throws as `accountKey` does. Ask whether the scope is enabled once
    /// the key is at hand, not before: `AccountKeys.withdraw` ends the keys that were taken before it.
    public func scopeKey(_ scope: String) async throws -> DataKey {
        try await key(of: KeyDomain(account, scope: scope))
    }

    private func key(of domain: KeyDomain) async throws -> DataKey {
        if let key = keys.keyAtHand(domain) { return key }
        return try await keys.dataKey(domain)
    }

    /// A customer-provided key for one request: 32 bytes, which the caller has checked. It is wiped when the last
    /// reference goes.
    public func customerProvidedKey(_ key: SecretBytes) -> DataKey {
        DataKey(customerProvided: key, account: account)
    }

    // MARK: Rows

    public func get(_ partition: VolumePartition, _ keys: [[UInt8]]) async throws(SealedStoreError) -> [VolumeRow?] {
        try decode(try await core.get(engine(partition), keys.map { RowKind.data.key($0) }), in: partition)
    }

    /// What `get` would answer, where that costs no look at the disk; nil elsewhere.
    public func remembered(_ partition: VolumePartition, _ keys: [[UInt8]]) throws(SealedStoreError) -> [VolumeRow?]? {
        guard let rows = core.remembered(engine(partition), keys.map { RowKind.data.key($0) }) else { return nil }
        return try decode(rows, in: partition)
    }

    /// Ascending byte order, `from <= key < upTo`.
    public func scan(
        _ partition: VolumePartition, from: [UInt8], upTo: [UInt8]?, limit: Int
    ) async throws(SealedStoreError) -> [VolumeRow] {
        let upper = upTo.map { RowKind.data.key($0) } ?? RowKind.data.end
        var rows: [VolumeRow] = []
        for row in try await core.scan(engine(partition), from: RowKind.data.key(from), upTo: upper, limit: limit) {
            rows.append(try decode(row, in: partition))
        }
        return rows
    }

    func engine(_ partition: VolumePartition) -> Partition { EnginePartition.volume(account, partition) }

    func bound(_ key: RowKey, in partition: VolumePartition) -> FieldList {
        FieldList(.volumeRow, account.bytes, Array(partition.name.utf8), key.bytes)
    }

    func encode(visible: [UInt8], sealed: SealedPart, at key: RowKey, in partition: VolumePartition) -> [UInt8] {
        let contents = RowContents.encode(visible: visible, sealed: sealed.message)
        return RowFrame.encode(rowSeal.seal(contents, bound: bound(key, in: partition)), bodies: sealed.bodies)
    }

    private func decode(_ rows: [Row?], in partition: VolumePartition) throws(SealedStoreError) -> [VolumeRow?] {
        var decoded: [VolumeRow?] = []
        decoded.reserveCapacity(rows.count)
        for row in rows {
            guard let row else {
                decoded.append(nil)
                continue
            }
            decoded.append(try decode(row, in: partition))
        }
        return decoded
    }

    func decode(_ row: Row, in partition: VolumePartition) throws(SealedStoreError) -> VolumeRow {
        guard let frame = RowFrame(row.value) else { throw Self.unknownRowFormat }
        let plaintext = try rowSeal.open(
            frame.value, bound: bound(row.key, in: partition), what: "A row of a storage account")
        guard let contents = RowContents(plaintext) else { throw Self.unknownRowFormat }
        return VolumeRow(
            key: Array(row.key.bytes.dropFirst()), visible: contents.visible,
            sealed: SealedPart(contents.sealed, bodies: frame.bodies), version: RecordVersion(row: row.version))
    }

    private static let unknownRowFormat = SealedStoreError(
        .corrupt, "A row of a storage account is not in a format this version of Coffer reads.")

    // MARK: Sealed parts

    /// Seals a row's inner part, bound to account, partition, row key and the small bodies beside it: it opens nowhere
    /// else. `extents` are those the plaintext refers to, in its order; the small bodies among them go with the part.
    /// Throws `KeyUnavailable` when the lease died.
    public func seal(
        _ plaintext: [UInt8], of extents: [ExtentReference], at key: [UInt8], in partition: VolumePartition,
        under dataKey: DataKey
    ) async throws -> SealedPart {
        try await confirmKey(dataKey)
        let header = SealedMessage.header(dataKey)
        let bodies = extents.filter(\.isInline).flatMap(\.extentID)
        let message = dataKey.rows.seal(
            plaintext, additional: sealedPartBound(key, partition, header, bodies),
            randomness: core.randomness, header: header)
        return SealedPart(message, bodies: InlineBodies.encode(extents))
    }

    /// Throws `KeyUnavailable` when the lease died, `SealedStoreError.keyMismatch` for a part sealed under another key
    /// and `.corrupt` for one that is damaged, was moved here, or has other bodies beside it. The bodies themselves are
    /// opened when they are read.
    public func open(
        _ part: SealedPart, at key: [UInt8], in partition: VolumePartition, under dataKey: DataKey
    ) async throws -> [UInt8] {
        try await confirmKey(dataKey)
        let header = try SealedMessage.checkHeader(part.message, dataKey)
        guard let bodies = part.inlineBodies.extentIDs,
            let plaintext = dataKey.rows.open(
                part.message[SealedMessage.headerBytes...],
                additional: sealedPartBound(key, partition, header, bodies))
        else { throw SealedStoreError(.corrupt, "The sealed part of a row does not open: it is damaged or was moved.") }
        return plaintext
    }

    /// A key of another account here is a mistake in the program, not in the data. A lease that an announcement
    /// suspended is no refusal: the vault is asked again.
    func confirmKey(_ dataKey: DataKey) async throws {
        precondition(dataKey.account == account, "a data key of another account")
        try await dataKey.confirmLease()
    }

    /// `bodies`: the extent IDs of the small bodies beside the part, one after the other.
    private func sealedPartBound(
        _ key: [UInt8], _ partition: VolumePartition, _ header: [UInt8], _ bodies: [UInt8]
    ) -> [UInt8] {
        var bound = FieldList(.sealedPart, account.bytes, Array(partition.name.utf8), key, header)
        if !bodies.isEmpty { bound.append(bodies) }
        return bound.bytes
    }
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
    public let sealed: SealedPart
    public let version: RecordVersion
}
public enum VolumeCheck: Sendable { case absent([UInt8]), present([UInt8]), unchanged([UInt8], RecordVersion) }
public enum VolumeWrite: Sendable { case put([UInt8], visible: [UInt8], sealed: SealedPart), delete([UInt8]) }
public enum VolumeCommit: Sendable, Equatable { case committed(RecordVersion), conflict }

/// The rows of a volume partition lie apart by their first byte.
enum RowKind: UInt8 {
    /// A service's row.
    case data = 0x64
    /// An extent released by a commit and not yet deleted.
    case garbage = 0x67
    /// How many holders in this partition refer to an extent.
    case link = 0x6c

    func key(_ rest: [UInt8]) -> RowKey {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(1 + rest.count)
        bytes.append(rawValue)
        bytes.append(contentsOf: rest)
        return RowKey(bytes)
    }
    var end: RowKey { RowKey([rawValue + 1]) }
    var start: RowKey { RowKey([rawValue]) }
}

/// A row as the engine keeps it: sealed, and behind a length the small bodies it refers to, which are sealed already.
/// Without bodies the sealed value stands alone (docs/format.md §5.1).
struct RowFrame {
    private static let version: UInt8 = 2
    let value: ArraySlice<UInt8>
    let bodies: ArraySlice<UInt8>

    static func encode(_ value: [UInt8], bodies: ArraySlice<UInt8>) -> [UInt8] {
        bodies.isEmpty ? value : TwoParts.encode(version, value, bodies)
    }

    init?(_ bytes: [UInt8]) {
        guard bytes.first == Self.version else {
            value = bytes[...]
            bodies = []
            return
        }
        guard let (value, bodies) = TwoParts.decode(Self.version, bytes), !bodies.isEmpty else { return nil }
        self.value = value
        self.bodies = bodies
    }
}

/// What a row's seal holds: version 1 | length of the visible part (32 bits, big endian) | visible | sealed.
struct RowContents: Equatable {
    static let version: UInt8 = 1
    let visible: [UInt8]
    let sealed: [UInt8]

    static func encode(visible: [UInt8], sealed: [UInt8]) -> [UInt8] {
        TwoParts.encode(version, visible, sealed[...])
    }

    init?(_ bytes: [UInt8]) {
        guard let (visible, sealed) = TwoParts.decode(Self.version, bytes) else { return nil }
        self.visible = Array(visible)
        self.sealed = Array(sealed)
    }
}

/// version (8 bits) | length of the first part (32 bits, big endian) | first part | second part, to the end.
private enum TwoParts {
    static func encode(_ version: UInt8, _ first: [UInt8], _ second: ArraySlice<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(5 + first.count + second.count)
        bytes.append(version)
        bytes.append(bigEndian: UInt32(first.count))
        bytes.append(contentsOf: first)
        bytes.append(contentsOf: second)
        return bytes
    }

    static func decode(_ version: UInt8, _ bytes: [UInt8]) -> (first: ArraySlice<UInt8>, second: ArraySlice<UInt8>)? {
        var reader = FieldReader(bytes[...])
        guard reader.integer(UInt8.self) == version, let count = reader.integer(UInt32.self),
            let first = reader.take(Int(count))
        else { return nil }
        return (first, reader.rest)
    }
}

/// The head of a sealed part's message: version 1 | algorithm 1 | kind of key | key domain 16. Then nonce, ciphertext
/// and tag.
enum SealedMessage {
    static let version: UInt8 = 1
    static let algorithm: UInt8 = 1
    static let headerBytes = 19

    static func header(_ key: DataKey) -> [UInt8] { [version, algorithm, key.kind.rawValue] + key.domainID }

    static func checkHeader(_ sealed: [UInt8], _ key: DataKey) throws(SealedStoreError) -> [UInt8] {
        guard sealed.count >= headerBytes + XAES256GCM.overheadBytes, sealed[0] == version, sealed[1] == algorithm
        else {
            throw SealedStoreError(
                .corrupt, "The sealed part of a row is not in a format this version of Coffer reads.")
        }
        let header = header(key)
        guard constantTimeEquals(sealed[..<headerBytes], header[...]) else {
            throw SealedStoreError(.keyMismatch, "The sealed part of a row was sealed under another key.")
        }
        return header
    }
}
