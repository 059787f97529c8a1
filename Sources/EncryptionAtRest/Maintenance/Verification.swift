internal import CofferCore
internal import NIOCore
internal import StorageEngine

/// What `SealedStore.verify` found. Nothing in it is secret: it names partitions and kinds of things, never contents.
public struct VerificationReport: Sendable, Codable, Equatable {
    public struct Problem: Sendable, Codable, Equatable {
        public enum Kind: String, Sendable, Codable {
            /// A sealed value, part or chunk does not open, or is not in a known format.
            case notAuthentic
            /// A row refers to an extent the engine does not have, or not in full.
            case missingExtent
            /// Data lies under an account or an encryption scope that has no key record.
            case missingAccountKey
            /// A partition of the engine that no version of Coffer makes.
            case unknownPartition
        }
        public let kind: Kind
        public let place: String
        public let message: String
    }
    /// An account, or one of its encryption scopes, whose customer key cannot be had now. Its data is neither proven
    /// nor in doubt.
    public struct UnavailableAccount: Sendable, Codable, Equatable {
        public let account: String
        public let scope: String?
        public let code: String
        public let message: String
    }

    public var recordsOpened = 0
    public var accountsOpened = 0
    public var encryptionScopesOpened = 0
    public var rowsOpened = 0
    public var sealedPartsOpened = 0
    /// Bodies of up to 16 KiB, which lie in rows.
    public var smallBodiesOpened = 0
    public var extentsOpened = 0
    public var chunksOpened = 0
    public var plaintextBytesOpened = 0
    /// Parts and extents that need a customer-provided key, or a customer's key that cannot be had.
    public var sealedPartsUnchecked = 0
    public var extentsUnchecked = 0
    /// Released and not yet deleted.
    public var garbageExtents = 0
    /// In the engine, named by nothing, and older than this process.
    public var orphanExtents = 0
    public var orphanBytes = 0
    public var unavailableAccounts: [UnavailableAccount] = []
    /// The first thousand.
    public var problems: [Problem] = []
    public var problemCount = 0

    /// Whether everything that could be checked is authentic and present.
    public var isSound: Bool { problemCount == 0 }

    fileprivate static let problemsLimit = 1_000
    fileprivate mutating func add(_ kind: Problem.Kind, _ place: String, _ message: String) {
        problemCount += 1
        if problems.count < Self.problemsLimit { problems.append(Problem(kind: kind, place: place, message: message)) }
    }
}

extension SealedStore {
    /// How much `verify` reads.
    public enum VerificationDepth: Sendable {
        /// Records, key chains, rows, and that each extent is there: seconds.
        case metadata
        /// Besides, every chunk of every extent: as long as reading the disk takes.
        case everything
    }

    /// What `verify` opened: a service's record; a volume's row, in parts (key, visible part, sealed part); a piece of
    /// a blob's content.
    public enum Opened: Sendable, CaseIterable { case record, row, content }

    /// Walks everything: every record opens, every account's key chain resolves, every row opens, every extent a row
    /// holds is there and authentic. A customer's key that cannot be had is reported as such, not as damage. May run
    /// beside requests. `opened` is shown each plaintext, for the time of the call only. Throws only when the engine
    /// cannot be read at all.
    public func verify(
        depth: VerificationDepth = .everything,
        opened: @escaping (Opened, UnsafeRawBufferPointer) -> Void = { _, _ in }
    ) async throws(SealedStoreError) -> VerificationReport {
        var verifier = Verifier(store: self, depth: depth, opened: opened)
        try await verifier.run()
        return verifier.report
    }
}

private struct Verifier {
    let store: SealedStore
    let depth: SealedStore.VerificationDepth
    let opened: (SealedStore.Opened, UnsafeRawBufferPointer) -> Void
    var report = VerificationReport()
    private var keys: [AccountID: KeyRing] = [:]
    /// Partitions that hold something under a scope without a key.
    private var lackingScopes: Set<String> = []

    private var core: StoreCore { store.core }

    init(
        store: SealedStore, depth: SealedStore.VerificationDepth,
        opened: @escaping (SealedStore.Opened, UnsafeRawBufferPointer) -> Void
    ) {
        self.store = store
        self.depth = depth
        self.opened = opened
    }

    private func show(_ kind: SealedStore.Opened, _ bytes: [UInt8]) { bytes.withUnsafeBytes { opened(kind, $0) } }
    private mutating func show(_ content: ByteBuffer) {
        content.withUnsafeReadableBytes { opened(.content, $0) }
        report.plaintextBytesOpened += content.readableBytes
    }

    mutating func run() async throws(SealedStoreError) {
        for domain in try await store.accountKeys.slots.domains() { await verifyKey(of: domain) }
        for partition in try await core.partitions(prefix: []) {
            if partition == EnginePartition.accountKeys || partition.bytes.isEmpty { continue }
            if let place = VolumePlace(partition) {
                try await verify(partition, place)
            } else if let records = records(partition) {
                try await verify(partition, records)
            } else {
                report.add(.unknownPartition, partition.bytes.hex, "No version of Coffer makes this partition.")
            }
        }
        try await countOrphans()
    }

    // MARK: Keys

    /// The keys of an account and its scopes, as far as they can be had.
    private struct KeyRing {
        /// The account has a key record, whether it opens or not.
        var hasRecord = false
        var account: DataKey?
        /// By key domain, as sealed things name it.
        var scopes: [[UInt8]: DataKey] = [:]
        /// A scope's key cannot be had: nobody knows which key domain is its.
        var lacksScopes = false

        enum Answer { case key(DataKey), unavailable, unknown }
        /// What opens a thing whose head is kind | key domain.
        func key(_ head: ArraySlice<UInt8>) -> Answer {
            switch head.first.flatMap(DataKey.Kind.init(rawValue:)) {
            case .scope:
                if let key = scopes[Array(head.dropFirst().prefix(16))] { return .key(key) }
                return lacksScopes ? .unavailable : .unknown
            case .customerProvided: return .unavailable
            // A kind that no version writes does not open under any key.
            case .account, nil: return account.map { .key($0) } ?? .unavailable
            }
        }
    }

    private mutating func verifyKey(of domain: KeyDomain) async {
        var place = "account \(domain.account.bytes.hex)"
        if let scope = domain.scope { place += ", encryption scope '\(scope)'" }
        var ring = keys[domain.account] ?? KeyRing()
        defer { keys[domain.account] = ring }
        do {
            let contents = try await store.accountKeys.slots.load(domain)
            if let damaged = contents.damaged {
                report.add(.notAuthentic, place, "The spare key record: \(damaged.message)")
            }
            guard let active = contents.active else { return }
            if domain.scope == nil { ring.hasRecord = true }
            let secret = try await store.accountKeys.unwrap(active.record, of: domain)
            let key = DataKey(secret, of: domain, lease: nil)
            if domain.scope == nil {
                ring.account = key
                report.accountsOpened += 1
            } else {
                ring.scopes[key.domainID] = key
                report.encryptionScopesOpened += 1
            }
        } catch {
            if domain.scope == nil { ring.hasRecord = true } else { ring.lacksScopes = true }
            guard let unavailable = error as? KeyUnavailable else {
                return report.add(.notAuthentic, place, "\(error)")
            }
            report.unavailableAccounts.append(
                .init(
                    account: domain.account.bytes.hex, scope: domain.scope, code: unavailable.code.rawValue,
                    message: unavailable.message))
        }
    }

    // MARK: Records

    private func records(_ partition: Partition) -> SealedRecords? {
        guard let name = String(validating: partition.bytes, as: UTF8.self) else { return nil }
        for domain in RecordDomain.allCases where name.hasPrefix("r/\(domain.rawValue)/") {
            return store.records(domain, String(name.dropFirst("r/\(domain.rawValue)/".count)))
        }
        return nil
    }

    private mutating func verify(_ partition: Partition, _ records: SealedRecords) async throws(SealedStoreError) {
        try await core.forEachRow(partition) { (row) throws(SealedStoreError) in
            do {
                show(.record, try records.open(row).value)
                report.recordsOpened += 1
            } catch { report.add(.notAuthentic, "records of \(records.domain.rawValue)", "\(error)") }
        }
    }

    // MARK: Volumes

    private mutating func verify(_ partition: Partition, _ place: VolumePlace) async throws(SealedStoreError) {
        let volume = store.volume(account: place.account)
        let name = "account \(place.account.bytes.hex), partition '\(place.partition.name)'"
        let ring = keys[place.account] ?? KeyRing()
        if !ring.hasRecord {
            report.add(
                .missingAccountKey, name, "The account has no key record: it was deleted in part, or its key is lost.")
            // Once for all its partitions.
            keys[place.account, default: ring].hasRecord = true
        }
        try await core.forEachRow(partition) { (row) throws(SealedStoreError) in
            do {
                switch row.key.bytes.first.flatMap(RowKind.init(rawValue:)) {
                case .data: try await verifyData(row, volume, place.partition, ring, name)
                case .link: try await verifyLink(row, volume, place.partition, ring, name)
                case .garbage:
                    _ = try volume.openGarbage(row, in: place.partition)
                    report.garbageExtents += 1
                case nil: report.add(.notAuthentic, name, "A row of a kind no version of Coffer writes.")
                }
            } catch { report.add(.notAuthentic, name, "\(error)") }
        }
    }

    private mutating func verifyData(
        _ row: Row, _ volume: AccountVolume, _ partition: VolumePartition, _ ring: KeyRing, _ name: String
    ) async throws {
        let contents = try volume.decode(row, in: partition)
        report.rowsOpened += 1
        show(.row, contents.key)
        show(.row, contents.visible)
        let message = contents.sealed.message
        guard !contents.sealed.isEmpty else { return }
        guard case .key(let key) = found(ring.key(message.dropFirst(2)), name) else {
            report.sealedPartsUnchecked += 1
            return
        }
        show(.row, try await volume.open(contents.sealed, at: contents.key, in: partition, under: key))
        report.sealedPartsOpened += 1
        try verifyBodies(contents.sealed.inlineBodies, key)
    }

    private mutating func found(_ answer: KeyRing.Answer, _ place: String) -> KeyRing.Answer {
        // Once for all that lies there.
        if case .unknown = answer, lackingScopes.insert(place).inserted {
            report.add(.missingAccountKey, place, "Data lies under an encryption scope that has no key record.")
        }
        return answer
    }

    private mutating func verifyBodies(_ bodies: InlineBodies, _ key: DataKey) throws(SealedStoreError) {
        var bodies = bodies
        while let body = bodies.next() {
            show(try InlineExtent.open(body, under: key))
            report.smallBodiesOpened += 1
        }
    }

    private mutating func verifyLink(
        _ row: Row, _ volume: AccountVolume, _ partition: VolumePartition, _ ring: KeyRing, _ name: String
    ) async throws {
        let reference = try volume.openLink(row, in: partition).reference
        do {
            if case .key(let key) = found(ring.key(reference.wrappedKey.dropFirst(2)), name) {
                try await verifyExtent(reference, key)
            } else {
                // Without its key, only that all of it is there.
                let last = ExtentFormat.sealedBytes(of: reference) - 1
                do { _ = try await core.extents.read(ExtentLocation(reference.location), range: last..<last + 1) } catch
                {
                    throw SealedStoreError(error)
                }
                report.extentsUnchecked += 1
            }
        } catch {
            // Released while it was being read: no damage.
            if try await core.get(volume.engine(partition), [row.key])[0] == nil { return }
            let isThere = await isListed(ExtentLocation(reference.location))
            report.add(
                isThere ? .notAuthentic : .missingExtent, "\(name), extent \(reference.location.hex)", "\(error)")
        }
    }

    private func isListed(_ location: ExtentLocation) async -> Bool {
        do {
            _ = try await core.extents.read(location, range: 0..<1)
            return true
        } catch { return error.code != .notFound }
    }

    private mutating func verifyExtent(_ reference: ExtentReference, _ key: DataKey) async throws {
        let reader = try ExtentReader(core: core, reference: reference, dataKey: key)
        let count = reader.format.chunkCount(plaintextBytes: reference.plaintextBytes)
        let step = max(1, (1 << 20) / reader.format.chunkBytes)
        if depth == .metadata {
            // The last chunk proves the length and the key.
            show(try await reader.open(count - 1..<count))
            report.chunksOpened += 1
        } else {
            for start in stride(from: 0, to: count, by: step) {
                let chunks = start..<min(start + step, count)
                show(try await reader.open(chunks))
                report.chunksOpened += chunks.count
            }
        }
        report.extentsOpened += 1
    }

    private mutating func countOrphans() async throws(SealedStoreError) {
        var candidates: [ExtentLocation: Int] = [:]
        try await core.forEachExtent { listing in
            if !listing.isRecent, !core.unlinked.contains(listing.location) {
                candidates[listing.location] = listing.byteCount
            }
        }
        try await core.forEachNamedExtent { candidates[$0] = nil }
        report.orphanExtents = candidates.count
        report.orphanBytes = candidates.values.reduce(0, +)
    }
}
