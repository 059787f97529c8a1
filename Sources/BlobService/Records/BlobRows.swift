internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import StorageAccount

/// A blob's or snapshot's row as it was read.
struct BlobRow: Sendable {
    let key: [UInt8]
    let record: BlobRecord
    let sealed: SealedPart
    let version: RecordVersion

    init(_ row: VolumeRow) throws {
        key = row.key
        record = try BlobRecord(decoding: row.visible)
        sealed = row.sealed
        version = row.version
    }
}

/// What a write of new content replaces.
enum Replaced: Sendable {
    /// As it was read before the body was taken; the commit says when it has changed.
    case known(BlobRow?)
    /// Most likely nothing; the commit says when that is wrong.
    case presumedAbsent
    /// Not read yet, or not kept.
    case unread

    private static let extentsKept = 64
    private static let bytesKept = 64 << 10

    /// A body may take its time: a row of many extents is not held for as long, but read again.
    init(_ row: BlobRow?) {
        let isLarge = row.map {
            $0.record.releasable.count > Self.extentsKept || $0.sealed.byteCount > Self.bytesKept
        }
        self = isLarge == true ? .unread : .known(row)
    }
}

/// What a commit takes away, and what must not have changed for that to be right.
struct Unlinking: Sendable {
    var releasing: [ExtentReference] = []
    var checks: [VolumeCheck] = []
    var writes: [VolumeWrite] = []
    mutating func add(_ other: Unlinking) {
        releasing += other.releasing
        checks += other.checks
        writes += other.writes
    }
}

extension BlobService {
    // MARK: Reading

    /// The row, committed or not; nil when there is none.
    func blobRow(_ call: BlobCall, _ container: ContainerHandle, _ name: String, snapshot: String? = nil) async throws
        -> BlobRow?
    {
        let found = try await storedRow(call, container, name, snapshot: snapshot)
        try await checkTags(call, container, name, found)
        return found
    }
    /// The same, whatever the request says of tags: for a row that is not the request's subject.
    func storedRow(_ call: BlobCall, _ container: ContainerHandle, _ name: String, snapshot: String? = nil)
        async throws -> BlobRow?
    {
        try await call.volume.get(container.partition, [BlobKeys.row(name, snapshot)])[0].map(BlobRow.init)
    }

    /// 412 unless the blob, if there is one, meets the request's `x-ms-if-tags`. Who asks must be allowed to read tags.
    private func checkTags(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ row: BlobRow?
    ) async throws {
        guard let row, !row.record.isUncommitted, let text = call.header("x-ms-if-tags") else { return }
        try authorize(call, .readTags, container: container.name, blob: name)
        let condition = try TagCondition(text)
        guard condition.holds(for: try await tags(of: row, call, container)) else { throw StorageError.conditionNotMet }
    }
    /// A blob's tags; they answer to the key kept for the blob, also where the content answers to another.
    func tags(of row: BlobRow, _ call: BlobCall, _ container: ContainerHandle) async throws -> [(String, String)] {
        let key = try await keptKey(call, scope: row.record.encryptionScope)
        guard row.record.customerKeySHA256 != nil else { return try await open(row, call, container, under: key).tags }
        guard !row.record.accountSealed.isEmpty else { return [] }
        var part = BlobSecrets()
        try part.decodeAccountPart(
            try await call.volume.open(
                SealedPart(row.record.accountSealed), at: row.key, in: container.partition, under: key))
        return part.tags
    }

    /// The committed blob, or the snapshot that the query names. Throws 404.
    func existingBlob(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, snapshot: String? = nil
    ) async throws -> BlobRow {
        guard let row = try await blobRow(call, container, name, snapshot: snapshot), !row.record.isUncommitted else {
            throw StorageError.blobNotFound
        }
        return row
    }
    /// The query's `snapshot`; nil when there is none. Throws 400 for anything that is not a snapshot's time.
    func snapshotParameter(_ call: BlobCall) throws(StorageError) -> String? {
        guard let text = call.parameters["snapshot"], !text.isEmpty else { return nil }
        guard Timestamp(iso8601: text) != nil, text.utf8.count <= 40 else { throw .invalidQuery("snapshot", text) }
        return text
    }

    /// The key that a write's content will answer to. Throws `KeyUnavailable`, or 409 for a scope that is not
    /// available.
    func dataKey(_ call: BlobCall, _ encryption: RequestedEncryption) async throws -> DataKey {
        if let given = encryption.customerKey { return call.volume.customerProvidedKey(given.key) }
        return try await keptKey(call, scope: encryption.scope)
    }

    /// The key that a blob's content answers to; `given` has been checked against what the record names.
    func readKey(_ call: BlobCall, _ given: CustomerKeyHeaders?, _ record: BlobRecord) async throws -> DataKey {
        if let given { return call.volume.customerProvidedKey(given.key) }
        return try await keptKey(call, scope: record.encryptionScope)
    }

    /// The key that is kept for a blob: the account's or an encryption scope's.
    func keptKey(_ call: BlobCall, scope: String?) async throws -> DataKey {
        guard let scope else { return try await call.volume.accountKey() }
        try await accounts.requireEncryptionScope(scope, of: call.account)
        let key = try await call.volume.scopeKey(scope)
        // Asked again with the key at hand: whoever disables the scope from here on ends this very key.
        try await accounts.requireEncryptionScope(scope, of: call.account)
        return key
    }

    /// Opens a row's sealed parts. `key` must be of the kind the row names (`CustomerKeyHeaders.check` came before).
    func open(_ row: BlobRow, _ call: BlobCall, _ container: ContainerHandle, under key: DataKey) async throws
        -> BlobSecrets
    {
        guard !row.sealed.isEmpty else { return BlobSecrets() }
        guard row.sealed.byteCount <= Self.bytesOpenedInPlace else {
            return try await awayFromEventLoop { try await openSealed(row, call, container, under: key) }
        }
        return try await openSealed(row, call, container, under: key)
    }

    /// A content of tens of thousands of blocks takes milliseconds to decode.
    private static let bytesOpenedInPlace = 64 << 10

    private func openSealed(_ row: BlobRow, _ call: BlobCall, _ container: ContainerHandle, under key: DataKey)
        async throws -> BlobSecrets
    {
        let plain = try await call.volume.open(row.sealed, at: row.key, in: container.partition, under: key)
        var secrets = try BlobSecrets(decoding: plain, bodies: row.sealed.inlineBodies)
        if !row.record.accountSealed.isEmpty {
            let accountKey = try await call.volume.accountKey()
            try secrets.decodeAccountPart(
                try await call.volume.open(
                    SealedPart(row.record.accountSealed), at: row.key, in: container.partition, under: accountKey))
        }
        return secrets
    }

    /// How a blob's content is cut; needs the key kept for the blob alone.
    func layout(of row: BlobRow, _ call: BlobCall, _ container: ContainerHandle) async throws -> ContentLayout {
        let key = try await keptKey(call, scope: row.record.encryptionScope)
        guard row.record.customerKeySHA256 != nil else {
            return ContentLayout(try await open(row, call, container, under: key).manifest)
        }
        guard !row.record.accountSealed.isEmpty else { return ContentLayout() }
        var part = BlobSecrets()
        try part.decodeAccountPart(
            try await call.volume.open(
                SealedPart(row.record.accountSealed), at: row.key, in: container.partition, under: key))
        return part.layout
    }

    // MARK: Writing

    /// The row of `record` and `secrets` at `key`, sealed under `dataKey`.
    func put(
        _ record: BlobRecord, _ secrets: BlobSecrets, at key: [UInt8], _ call: BlobCall, _ container: ContainerHandle,
        under dataKey: DataKey
    ) async throws -> VolumeWrite {
        var record = record
        let isCustomers = record.customerKeySHA256 != nil
        precondition(
            record.customerKeySHA256 == dataKey.customerProvidedKeySHA256 && record.encryptionScope == dataKey.scope,
            "a row is sealed under the key it names")
        record.tagCount = UInt64(secrets.tags.count)
        record.releasable = secrets.manifest.extents.compactMap(\.withoutKey)
        record.accountSealed = []
        if isCustomers {
            var secrets = secrets
            let hasLayout = record.type == .block && !secrets.manifest.slices.isEmpty
            secrets.layout = hasLayout ? ContentLayout(secrets.manifest) : ContentLayout()
            record.accountSealed = try await call.volume.seal(
                secrets.encodedAccountPart(), of: [], at: key, in: container.partition,
                under: try await call.volume.accountKey()
            ).message
        }
        return .put(
            key, visible: record.encoded(),
            sealed: try await seal(secrets, including: !isCustomers, at: key, call, container, under: dataKey))
    }

    /// The sealed part of a row at `key`; `including` MD5 and tags or without.
    func seal(
        _ secrets: BlobSecrets, including accountPart: Bool, at key: [UInt8], _ call: BlobCall,
        _ container: ContainerHandle, under dataKey: DataKey
    ) async throws -> SealedPart {
        try await call.volume.seal(
            secrets.encoded(including: accountPart), of: secrets.manifest.extents, at: key, in: container.partition,
            under: dataKey)
    }

    /// A commit of more extents looks for so many rows that it leaves the event loop.
    private static let extentsCommittedInPlace = 64

    /// Commits into a container that must still be there; false when a check failed and the caller should read again.
    /// Throws 404 when the container went away meanwhile.
    func commit(
        _ call: BlobCall, _ container: ContainerHandle, checks: [VolumeCheck], writes: [VolumeWrite],
        linking: [ExtentReference] = [],
        releasing: [ExtentReference] = []
    ) async throws -> Bool {
        let volume = call.volume
        let checks = [.present(BlobKeys.container)] + checks
        let outcome =
            linking.count + releasing.count <= Self.extentsCommittedInPlace
            ? try await volume.commit(
                container.partition, checks: checks, writes: writes, linking: linking, releasing: releasing)
            : try await awayFromEventLoop {
                try await volume.commit(
                    container.partition, checks: checks, writes: writes, linking: linking, releasing: releasing)
            }
        if outcome != .conflict { return true }
        let current = try await readContainer(container.name, of: call.account)
        guard current?.record.id == container.record.id else {
            containers.forget(container.name, of: call.account.id)
            throw StorageError.containerNotFound
        }
        return false
    }

    /// Replaces (or creates) the base blob of `name`: the way every write of new content ends.
    ///
    /// `make` gets what stands there now, already checked against lease and conditions, and may run again after a lost
    /// race. `beside` goes into the same commit. Extents that were written for a replacement that is refused are
    /// nobody's and the store takes them back.
    func replaceBlob(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, replacing replaced: Replaced,
        conditions: Conditions, under key: DataKey, beside: Unlinking = Unlinking(),
        make: (_ existing: BlobRow?) async throws -> (BlobRecord, BlobSecrets)
    ) async throws -> BlobRecord {
        var replaced = replaced
        return try await retrying {
            let old =
                switch replaced {
                case .known(let row): row
                case .presumedAbsent: BlobRow?.none
                case .unread: try await blobRow(call, container, name)
                }
            let isPresumed = if case .presumedAbsent = replaced { true } else { false }
            replaced = .unread
            let existing = old.flatMap { $0.record.isUncommitted ? nil : $0 }
            try checkReplacement(call, container, existing?.record, conditions)
            // What the old row and the blocks held and the new row holds as well moves: the commit nets it out. Read
            // before `make` reads the blocks: one that changes between the two is found out by the commit.
            var change = beside
            change.releasing += old?.record.releasable ?? []
            change.writes += releasePages(of: old?.record, name, call, container)
            if old?.record.hasStagedBlocks == true { change.add(try await unlinkStagedBlocks(call, container, name)) }
            var (record, secrets) = try await make(existing)
            record.etag = ETag(at: call.now, after: old?.record.etag)
            record.modified = call.now
            record.lease = existing?.record.lease ?? Lease()
            record.lease.settleAfterWrite(at: call.now)
            record.snapshotCount = existing?.record.snapshotCount ?? 0
            record.customerKeySHA256 = key.customerProvidedKeySHA256
            record.encryptionScope = key.scope
            let rowKey = BlobKeys.base(name)
            change.checks.append(old.map { .unchanged(rowKey, $0.version) } ?? .absent(rowKey))
            change.writes.append(try await put(record, secrets, at: rowKey, call, container, under: key))
            let done = try await commit(
                call, container, checks: change.checks, writes: change.writes, linking: secrets.manifest.extents,
                releasing: change.releasing)
            if isPresumed { newNames.learn(wasNew: done) }
            return done ? record : nil
        }
    }

    /// What a write would replace, if lease, conditions and rights allow it now: before its body is taken, so that
    /// most of what will be refused costs none. The commit asks again.
    ///
    /// `mayPresume`: where a new name is likely, the disk is not asked whether it is one, and all of this is left to
    /// the commit. For bodies that cost little when they are refused.
    func checkedReplacement(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, _ conditions: Conditions,
        mayPresume: Bool = false
    ) async throws -> Replaced {
        let row: BlobRow?
        if !mayPresume || conditions.needABlob {
            row = try await blobRow(call, container, name)
        } else if let known = try call.volume.remembered(container.partition, [BlobKeys.base(name)]) {
            row = try known[0].map(BlobRow.init)
        } else if newNames.areLikely {
            return .presumedAbsent
        } else {
            row = try await blobRow(call, container, name)
            newNames.learn(wasNew: row == nil)
        }
        try checkReplacement(call, container, row.flatMap { $0.record.isUncommitted ? nil : $0.record }, conditions)
        return Replaced(row)
    }

    /// Lease, conditions and the right to overwrite, for a write over what stands there.
    func checkReplacement(
        _ call: BlobCall, _ container: ContainerHandle, _ existing: BlobRecord?, _ conditions: Conditions
    ) throws(StorageError) {
        var conditions = conditions
        if let existing, conditions.ifNoneMatch == .any, conditions.leaseID != nil,
            existing.lease.isActive(at: call.now)
        {
            // Who holds the lease of the blob may write over it; Azure's own SDK sends both headers and expects that.
            conditions.ifNoneMatch = nil
        }
        try conditions.checkWrite(etag: existing?.etag, modified: existing?.modified, existing: .blobAlreadyExists)
        try conditions.checkLeaseForWrite(existing?.lease ?? Lease(), of: .blob, at: call.now)
        if existing != nil, !mayOverwrite(call, container: container.name) { throw .unauthorizedOverwrite }
    }

    /// Runs what ends in the commit that links `extents`; when it throws, they are nobody's and the store takes them
    /// back.
    func linking<Result>(
        _ extents: [ExtentReference], _ call: BlobCall, _ body: () async throws -> Result
    ) async throws -> Result {
        do {
            return try await body()
        } catch {
            for extent in extents { await call.volume.discard(extent) }
            throw error
        }
    }

    /// Changes a committed blob in place. `change` returns what becomes of the sealed part: nil leaves it.
    // The optimizer of Swift 6.3.1 crashes on this function once it is specialized for a closure that throws and never
    // waits (it splits the coroutine wrongly), so it leaves this one as it is.
    @_optimize(none)
    func updateBlob<Result>(
        _ call: BlobCall, _ container: ContainerHandle, _ name: String, snapshot: String? = nil,
        _ change: (_ row: BlobRow, _ record: inout BlobRecord) async throws -> (Result, sealed: SealedPart?)
    ) async throws -> (BlobRecord, Result) {
        try await retrying {
            let row = try await existingBlob(call, container, name, snapshot: snapshot)
            var record = row.record
            let (result, sealed) = try await change(row, &record)
            let write = VolumeWrite.put(row.key, visible: record.encoded(), sealed: sealed ?? row.sealed)
            let done = try await commit(call, container, checks: [.unchanged(row.key, row.version)], writes: [write])
            return done ? (record, result) : nil
        }
    }

    /// Changes MD5 or tags, which answer to the key kept for the blob, also where the content answers to another.
    /// Returns the new sealed part, nil when it stays.
    func changeAccountPart(
        _ row: BlobRow, _ record: inout BlobRecord, _ call: BlobCall, _ container: ContainerHandle,
        _ change: (inout BlobSecrets) -> Void
    ) async throws -> SealedPart? {
        let key = try await keptKey(call, scope: record.encryptionScope)
        if record.customerKeySHA256 == nil {
            var secrets = try await open(row, call, container, under: key)
            change(&secrets)
            record.tagCount = UInt64(secrets.tags.count)
            return try await seal(secrets, including: true, at: row.key, call, container, under: key)
        }
        var part = BlobSecrets()
        if !record.accountSealed.isEmpty {
            try part.decodeAccountPart(
                try await call.volume.open(
                    SealedPart(record.accountSealed), at: row.key, in: container.partition, under: key))
        }
        change(&part)
        record.tagCount = UInt64(part.tags.count)
        record.accountSealed = try await call.volume.seal(
            part.encodedAccountPart(), of: [], at: row.key, in: container.partition, under: key
        ).message
        return nil
    }
}
