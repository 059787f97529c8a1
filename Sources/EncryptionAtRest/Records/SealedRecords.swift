public import CofferCore
internal import StorageEngine

/// An ordered map of text keys to plaintext values inside one partition, atomic and durable per commit.
///
/// Keys stay readable for the engine, because they sort; its pages are encrypted. A value opens only under its domain,
/// partition and key.
public struct SealedRecords: Sendable {
    let core: StoreCore
    let seal: RootSeal
    let domain: RecordDomain
    let partition: String

    private var enginePartition: Partition { EnginePartition.records(domain, partition) }

    public func get(_ key: String) async throws(SealedStoreError) -> SealedRecord? {
        guard let row = try await core.get(enginePartition, [RowKey(key)])[0] else { return nil }
        return try open(row)
    }

    /// The records of `keys`, in their order, from one snapshot.
    public func get(_ keys: [String]) async throws(SealedStoreError) -> [SealedRecord?] {
        var records: [SealedRecord?] = []
        for row in try await core.get(enginePartition, keys.map { RowKey($0) }) {
            guard let row else {
                records.append(nil)
                continue
            }
            records.append(try open(row))
        }
        return records
    }

    /// The value alone, in memory that is locked and wiped.
    public func secret(_ key: String) async throws(SealedStoreError) -> SecretBytes? {
        guard let row = try await core.get(enginePartition, [RowKey(key)])[0] else { return nil }
        return try seal.openSecret(row.value, bound: bound(row.key.bytes), what: what)
    }

    /// Records whose key begins with `prefix` and sorts after `after`, in byte order.
    public func scan(prefix: String, after: String? = nil, limit: Int = .max) async throws(SealedStoreError)
        -> [SealedRecord]
    {
        var records: [SealedRecord] = []
        for row in try await rows(prefix: prefix, after: after, limit: limit) { records.append(try open(row)) }
        return records
    }

    /// Their keys, without opening a value: what is to be removed need not open, and stays closed.
    public func keys(prefix: String, limit: Int = .max) async throws(SealedStoreError) -> [String] {
        var keys: [String] = []
        for row in try await rows(prefix: prefix, after: nil, limit: limit) { keys.append(try key(of: row)) }
        return keys
    }

    private func rows(prefix: String, after: String?, limit: Int) async throws(SealedStoreError) -> [Row] {
        let start = RowKey(prefix)
        // The next key in byte order after `after` is `after` with a zero byte.
        let from = after.map { max(start, RowKey(Array($0.utf8) + [0])) } ?? start
        let upTo = prefix.isEmpty ? nil : start.prefixEnd
        if let upTo, from >= upTo { return [] }
        return try await core.scan(enginePartition, from: from, upTo: upTo, limit: limit)
    }

    /// All writes or none; `.conflict` when a check failed.
    public func commit(checks: [RecordCheck] = [], _ writes: [RecordWrite]) async throws(SealedStoreError)
        -> RecordCommit
    {
        let rowChecks = checks.map { check -> RowCheck in
            switch check {
            case .absent(let key): .absent(RowKey(key))
            case .present(let key): .present(RowKey(key))
            case .unchanged(let key, let version): .unchanged(RowKey(key), version.row)
            }
        }
        let rowWrites = writes.map { write -> RowWrite in
            switch write {
            case .put(let key, let value): .put(RowKey(key), seal.seal(value, bound: bound(Array(key.utf8))))
            case .putSecret(let key, let value): .put(RowKey(key), seal.seal(value, bound: bound(Array(key.utf8))))
            case .delete(let key): .delete(RowKey(key))
            }
        }
        switch try await core.commit(enginePartition, checks: rowChecks, writes: rowWrites) {
        case .committed(let version): return .committed(RecordVersion(row: version))
        case .conflict: return .conflict
        }
    }

    private func bound(_ key: [UInt8]) -> FieldList {
        FieldList(.record, Array(domain.rawValue.utf8), Array(partition.utf8), key)
    }

    func open(_ row: Row) throws(SealedStoreError) -> SealedRecord {
        let key = try key(of: row)
        let value = try seal.open(row.value, bound: bound(row.key.bytes), what: what)
        return SealedRecord(key: key, value: value, version: RecordVersion(row: row.version))
    }

    private func key(of row: Row) throws(SealedStoreError) -> String {
        guard let key = String(validating: row.key.bytes, as: UTF8.self) else {
            throw SealedStoreError(.corrupt, "\(what) has a key that is not text.")
        }
        return key
    }
    private var what: String { "A record of the domain \(domain.rawValue)" }
}

public struct SealedRecord: Sendable {
    public let key: String
    public let value: [UInt8]
    public let version: RecordVersion
}
public struct RecordVersion: Sendable, Hashable { let row: RowVersion }
public enum RecordCheck: Sendable { case absent(String), present(String), unchanged(String, RecordVersion) }
public enum RecordWrite: Sendable { case put(String, [UInt8]), putSecret(String, SecretBytes), delete(String) }
public enum RecordCommit: Sendable, Equatable { case committed(RecordVersion), conflict }
