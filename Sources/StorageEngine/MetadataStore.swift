/// An ordered map of byte keys to byte values in partitions: what Coffer asks of a metadata engine.
///
/// The engine is not trusted: values arrive sealed. A commit is atomic inside one partition, conditional on row
/// versions, and durable when it returns. Reads see every commit that returned before they began. No closure runs
/// inside a transaction: callers read, decide, commit, and retry on conflict.
public protocol MetadataStore: Sendable {
    var properties: MetadataStoreProperties { get }

    /// The rows of `keys`, in their order; nil for an absent one. All are read from one snapshot.
    func get(_ partition: Partition, _ keys: [RowKey]) async throws(StorageEngineError) -> [Row?]
    /// What `get` would answer, where the engine has it in memory; nil where it would have to ask its medium. Never
    /// waits.
    func remembered(_ partition: Partition, _ keys: [RowKey]) -> [Row?]?
    /// Rows with `from <= key < upTo` in ascending byte order, at most `limit`, from one snapshot. `upTo` nil means to
    /// the end.
    func scan(_ partition: Partition, from: RowKey, upTo: RowKey?, limit: Int) async throws(StorageEngineError) -> [Row]
    /// Applies all `writes` if every check holds, or none.
    func commit(_ partition: Partition, checks: [RowCheck], writes: [RowWrite]) async throws(StorageEngineError)
        -> CommitResult
    /// Every partition that has a row, in byte order after `after`, at most `limit`: for verification and for sweeping.
    func partitions(after: Partition?, limit: Int) async throws(StorageEngineError) -> [Partition]
}

/// Names a partition: a container, an account's own rows, a vault, a site. Up to 512 bytes.
public struct Partition: Sendable, Hashable {
    public let bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ name: String) { self.bytes = Array(name.utf8) }
}

/// Orders rows by unsigned bytes. Up to 4,096 bytes.
public struct RowKey: Sendable, Hashable, Comparable {
    public let bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }
    public init(_ text: String) { self.bytes = Array(text.utf8) }
    public static func < (left: RowKey, right: RowKey) -> Bool { left.bytes.lexicographicallyPrecedes(right.bytes) }

    /// The smallest key above every key that begins with this one; nil when there is none (all bytes 0xff).
    public var prefixEnd: RowKey? {
        var bytes = self.bytes
        while let last = bytes.popLast() {
            if last < 0xff { return RowKey(bytes + [last + 1]) }
        }
        return nil
    }
}

/// Changes with every write of a row, and never returns to an earlier value, not even through deletion.
public struct RowVersion: Sendable, Hashable {
    public let number: UInt64
    public init(_ number: UInt64) { self.number = number }
}

public struct Row: Sendable, Equatable {
    public let key: RowKey
    public let value: [UInt8]
    public let version: RowVersion
    public init(key: RowKey, value: [UInt8], version: RowVersion) {
        self.key = key
        self.value = value
        self.version = version
    }
}

public enum RowCheck: Sendable {
    case absent(RowKey)
    case present(RowKey)
    case unchanged(RowKey, RowVersion)
}

public enum RowWrite: Sendable {
    case put(RowKey, [UInt8])
    case delete(RowKey)
}

public enum CommitResult: Sendable, Equatable {
    /// Durable. The version every row written by this commit now has.
    case committed(RowVersion)
    /// A check failed; nothing was written.
    case conflict
}

public struct MetadataStoreProperties: Sendable {
    /// Largest value, in bytes.
    public let valueBytesLimit: Int
    /// Most writes in one commit.
    public let writesPerCommitLimit: Int
    /// Whether acknowledged commits outlive the process.
    public let isDurable: Bool
    public init(valueBytesLimit: Int, writesPerCommitLimit: Int, isDurable: Bool) {
        self.valueBytesLimit = valueBytesLimit
        self.writesPerCommitLimit = writesPerCommitLimit
        self.isDurable = isDurable
    }

    /// Largest partition name, in bytes.
    public static let partitionBytesLimit = 512
    /// Largest row key, in bytes.
    public static let keyBytesLimit = 4096

    /// Throws `.limitExceeded` for a commit that no engine of these properties takes.
    public func check(_ partition: Partition, _ writes: [RowWrite]) throws(StorageEngineError) {
        guard partition.bytes.count <= Self.partitionBytesLimit else {
            throw StorageEngineError(
                .limitExceeded, "The name of a partition holds at most \(Self.partitionBytesLimit) bytes.")
        }
        guard writes.count <= writesPerCommitLimit else {
            throw StorageEngineError(.limitExceeded, "A commit holds at most \(writesPerCommitLimit) writes; split it.")
        }
        for write in writes {
            guard case .put(let key, let value) = write else { continue }
            guard key.bytes.count <= Self.keyBytesLimit else {
                throw StorageEngineError(.limitExceeded, "A row key holds at most \(Self.keyBytesLimit) bytes.")
            }
            guard value.count <= valueBytesLimit else {
                throw StorageEngineError(.limitExceeded, "A value holds at most \(valueBytesLimit) bytes.")
            }
        }
    }
}

public struct StorageEngineError: Error, Sendable, CustomStringConvertible {
    public struct Code: Sendable, Hashable {
        private enum Value { case unavailable, outcomeUnknown, corrupt, full, limitExceeded, notFound }
        private let value: Value
        /// Try again later; nothing was written.
        public static let unavailable = Code(value: .unavailable)
        /// The commit may or may not have happened: read again.
        public static let outcomeUnknown = Code(value: .outcomeUnknown)
        /// The bytes on the medium are not what the engine wrote.
        public static let corrupt = Code(value: .corrupt)
        /// The medium is full.
        public static let full = Code(value: .full)
        /// A key, value or commit exceeds `properties`.
        public static let limitExceeded = Code(value: .limitExceeded)
        /// No such extent.
        public static let notFound = Code(value: .notFound)
    }
    public let code: Code
    /// Says what to do; never holds customer data.
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
