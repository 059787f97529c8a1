public import CofferCore
public import EncryptionAtRest
internal import Synchronization

/// Sites and plans, kept sealed; one partition for each site (`site/NAME`), one for the plans.
///
/// All of them are in memory after `load`, so that the gate reads without waiting; every change is durable before it is
/// seen.
public final class SiteStore: Sendable {
    private struct State {
        var sites: [String: Site] = [:]
        var plans: [ResourceID: Plan] = [:]
        /// What was there at the start and does not open: names of sites in lower case, and rows of plans.
        var damagedSites: Set<String> = []
        var damagedPlans: Set<String> = []
        var observers: [@Sendable (SiteChange) -> Void] = []
    }
    private static let sitePartition = "site/"
    private static let plansPartition = "plans"
    private static let planRows = "plan/"
    private static let siteRow = "site"
    private static let usageRow = "usage"
    private static let platformKeyRow = "platform-key"
    private static let attemptsLimit = 16

    private let store: SealedStore
    private let state = Mutex(State())
    /// One writer at a time, so that memory follows the order of the commits.
    private let turnstile = Turnstile()

    public init(store: SealedStore) { self.store = store }

    /// Reads every site and plan. Called once, before anything else. What does not open is set aside, alone: it stays
    /// as it lies, its name stays taken, and everything else is served.
    public func load() async throws {
        for partition in try await store.partitions(of: .sites) {
            if partition == Self.plansPartition {
                for row in try await planRecords.keys(prefix: Self.planRows) { try await loadPlan(row) }
            } else {
                try await loadSite(String(partition.dropFirst(Self.sitePartition.count)))
            }
        }
    }

    private func loadSite(_ name: String) async throws {
        do {
            guard let record = try await records(of: name).get(Self.siteRow) else { return }
            let site = try SiteRecord(recordBytes: record.value).site
            // Read again when the site is served; one that does not open then would be found too late.
            _ = try await usage(of: name)
            state.withLock { $0.sites[site.name.lowercased()] = site }
        } catch {
            guard Self.isDamage(error) else { throw error }
            state.withLock { _ = $0.damagedSites.insert(name) }
        }
    }

    private func loadPlan(_ row: String) async throws {
        do {
            guard let record = try await planRecords.get(row) else { return }
            let plan = try Plan(recordBytes: record.value)
            state.withLock { $0.plans[plan.id] = plan }
        } catch {
            guard Self.isDamage(error) else { throw error }
            state.withLock { _ = $0.damagedPlans.insert(row) }
        }
    }

    /// Bytes that do not open or do not decode; not a store that cannot be read now.
    private static func isDamage(_ error: any Error) -> Bool {
        (error as? SealedStoreError).map { $0.code == .corrupt } ?? true
    }

    /// Names of sites and plans that were set aside, for the log.
    public var damaged: [String] {
        state.withLock { state in
            (state.damagedSites.map { "site \($0)" }
                + state.damagedPlans.map { $0.replacing("/", with: " ", maxReplacements: 1) })
                .sorted()
        }
    }
    var damagedSite: String? { state.withLock { $0.damagedSites.min() } }
    func isDamaged(site name: String) -> Bool { state.withLock { $0.damagedSites.contains(name.lowercased()) } }
    func isDamaged(plan id: ResourceID) -> Bool { state.withLock { $0.damagedPlans.contains(Self.planRow(id)) } }
    func hasDamagedPlan(below scope: ResourceID) -> Bool {
        state.withLock { state in
            state.damagedPlans.contains { scope.contains(ResourceID(String($0.dropFirst(Self.planRows.count)))) }
        }
    }

    /// Calls back after every later change, before the change's caller continues. The observer must return quickly.
    public func onChange(_ observer: @escaping @Sendable (SiteChange) -> Void) {
        state.withLock { $0.observers.append(observer) }
    }

    // MARK: Sites

    /// By host label, in any case.
    public func site(named name: String) -> Site? { state.withLock { $0.sites[name.lowercased()] } }
    public func site(_ id: ResourceID) -> Site? { site(named: id.name).flatMap { $0.id == id ? $0 : nil } }
    public func sites() -> [Site] { state.withLock { $0.sites.values.sorted { $0.id.canonical < $1.id.canonical } } }

    /// Throws `.nameTaken` when any subscription or group already has a site of that name.
    public func create(_ site: Site) async throws {
        try await turnstile.pass {
            let result = try await records(of: site.name).commit(
                checks: [.absent(Self.siteRow)], [.put(Self.siteRow, SiteRecord(site).recordBytes())])
            guard case .committed = result else { throw SiteStoreError.nameTaken(site.name) }
            publish(.created(site)) { $0.sites[site.name.lowercased()] = site }
        }
    }

    /// Reads, changes and writes the site as one step; `change` may run more than once. Throws `.notFound`, and what
    /// `change` throws.
    @discardableResult
    public func update(_ id: ResourceID, _ change: @Sendable (inout Site) throws -> Void) async throws -> Site {
        let records = records(of: id.name)
        return try await turnstile.pass {
            for _ in 0..<Self.attemptsLimit {
                guard let record = try await records.get(Self.siteRow) else { throw SiteStoreError.notFound(id) }
                let old = try SiteRecord(recordBytes: record.value).site
                guard old.id == id else { throw SiteStoreError.notFound(id) }
                var new = old
                try change(&new)
                if new == old { return old }
                let bytes = try SiteRecord(new).recordBytes()
                let result = try await records.commit(
                    checks: [.unchanged(Self.siteRow, record.version)], [.put(Self.siteRow, bytes)])
                guard case .committed = result else { continue }
                publish(.updated(old: old, new: new)) { $0.sites[id.name.lowercased()] = new }
                return new
            }
            throw SiteStoreError.contended(id)
        }
    }

    /// Removes the site with all its records. Returns false when there was none.
    public func delete(_ id: ResourceID) async throws -> Bool {
        try await turnstile.pass {
            guard let site = site(id) else { return false }
            let records = records(of: id.name)
            // Also what is written beside this: the next site of the name must not inherit it.
            let keys = Set(try await records.keys(prefix: "") + [Self.siteRow, Self.usageRow, Self.platformKeyRow])
            _ = try await records.commit(keys.sorted().map { .delete($0) })
            publish(.deleted(site)) { $0.sites[id.name.lowercased()] = nil }
            return true
        }
    }

    // MARK: Plans

    public func plan(_ id: ResourceID) -> Plan? { state.withLock { $0.plans[id] } }
    public func plans() -> [Plan] { state.withLock { $0.plans.values.sorted { $0.id.canonical < $1.id.canonical } } }

    /// Reads, changes and writes the plan as one step; `change` gets nil when there is none. Throws what it throws.
    func putPlan(_ id: ResourceID, _ change: @Sendable (Plan?) throws -> Plan) async throws -> Plan {
        try await turnstile.pass {
            // Its row lies there, and nobody may write over it.
            guard !isDamaged(plan: id) else { throw SiteStoreError.damaged(id) }
            let old = plan(id)
            let new = try change(old)
            if new == old { return new }
            _ = try await planRecords.commit([.put(Self.planRow(id), new.recordBytes())])
            state.withLock { $0.plans[id] = new }
            return new
        }
    }
    public func deletePlan(_ id: ResourceID) async throws -> Bool {
        try await turnstile.pass {
            guard plan(id) != nil else { return false }
            _ = try await planRecords.commit([.delete(Self.planRow(id))])
            state.withLock { $0.plans[id] = nil }
            return true
        }
    }

    // MARK: Usage

    func usage(of name: String) async throws -> UsageRecord? {
        try await records(of: name).get(Self.usageRow).map { try UsageRecord(recordBytes: $0.value) }
    }
    /// Writes only while the site exists, so that a late report does not bring a deleted partition back.
    func save(_ usage: UsageRecord, of name: String) async throws {
        _ = try await records(of: name).commit(
            checks: [.present(Self.siteRow)], [.put(Self.usageRow, usage.recordBytes())])
    }

    // MARK: Encryption of access keys

    /// The site's own key for its access keys, hexadecimal: 32 random bytes made at the first call. Stands where App
    /// Service has `MACHINEKEY_DecryptionKey`.
    func platformKey(of id: ResourceID, randomness: any Randomness) async throws -> RedactedString {
        guard site(id) != nil else { throw SiteStoreError.notFound(id) }
        let records = records(of: id.name)
        for _ in 0..<Self.attemptsLimit {
            if let record = try await records.get(Self.platformKeyRow) {
                return RedactedString(String(decoding: record.value, as: UTF8.self))
            }
            let key = randomness.bytes(32).hex
            let result = try await records.commit(
                checks: [.present(Self.siteRow), .absent(Self.platformKeyRow)],
                [.put(Self.platformKeyRow, Array(key.utf8))])
            if case .committed = result { return RedactedString(key) }
            guard site(id) != nil else { break }
        }
        throw SiteStoreError.notFound(id)
    }

    private var planRecords: SealedRecords { store.records(.sites, Self.plansPartition) }
    private static func planRow(_ id: ResourceID) -> String { planRows + id.canonical }
    private func records(of name: String) -> SealedRecords {
        store.records(.sites, Self.sitePartition + name.lowercased())
    }

    private func publish(_ change: SiteChange, _ apply: (inout State) -> Void) {
        let observers = state.withLock { state in
            apply(&state)
            return state.observers
        }
        for observer in observers { observer(change) }
    }
}

public enum SiteChange: Sendable {
    case created(Site)
    case updated(old: Site, new: Site)
    case deleted(Site)
}

public enum SiteStoreError: Error, Sendable, Equatable, CustomStringConvertible {
    case nameTaken(String)
    case notFound(ResourceID)
    /// Many writers at once; nothing was written by this one.
    case contended(ResourceID)
    /// It is there, and its record does not open.
    case damaged(ResourceID)

    public var description: String {
        switch self {
        case .nameTaken(let name): "Website with given name \(name) already exists."
        case .notFound(let id): "The site '\(id)' was not found."
        case .contended(let id): "The site '\(id)' is being changed by others; try again."
        case .damaged(let id): "The record of '\(id)' does not open."
        }
    }
}
