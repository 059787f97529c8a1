internal import CofferCore
internal import Synchronization

/// Keys in memory: loaded once for all who wait, kept under a lease, dropped when a vault refuses.
extension AccountKeys {
    /// What is known about one domain.
    struct Entry {
        /// Counts announcements: an answer asked for before one is not believed after it.
        var epoch: UInt64 = 0
        var key: DataKey?
        var governor: Governor = .unknown
        var loading: Task<DataKey, any Error>?
        var denial: (why: KeyUnavailable, until: Timestamp)?
        var followedAt: Timestamp?
    }
    /// Whose announcements concern the key.
    enum Governor: Equatable {
        case unknown, platform
        /// nil when the name cannot be read off the URI: then every announcement does.
        case vault(String?)

        init(_ record: AccountKeyRecord) {
            switch record.wrapping {
            case .platform: self = .platform
            case .customer(let reference, _, _): self = .vault(reference.vaultName)
            }
        }

        func hears(_ vaultName: String?) -> Bool {
            switch self {
            case .platform: false
            case .unknown, .vault(nil): true
            case .vault(let name?): vaultName.map { $0.lowercased() == name } ?? true
            }
        }
    }

    private enum Step {
        case use(DataKey)
        case refuse(KeyUnavailable)
        case wait(Task<DataKey, any Error>)
    }

    /// The domain's key under its lease.
    func dataKey(_ domain: KeyDomain) async throws -> DataKey {
        switch nextStep(domain) {
        case .use(let key): return key
        case .refuse(let why): throw why
        case .wait(let task): return try await task.value
        }
    }

    /// The key if its lease runs and is not due: the fast path, without suspension.
    func keyAtHand(_ domain: KeyDomain) -> DataKey? {
        entries.withLock { $0[domain]?.key }.flatMap { $0.lease?.standing == .current ? $0 : nil }
    }

    private func nextStep(_ domain: KeyDomain) -> Step {
        entries.withLock { entries in
            let entry = entries[domain] ?? Entry()
            if let denial = entry.denial, core.clock.now() < denial.until, entry.loading == nil {
                return .refuse(denial.why)
            }
            if let key = entry.key, let lease = key.lease {
                switch lease.standing {
                case .current: return .use(key)
                case .due:
                    _ = load(domain, &entries[domain, default: Entry()])
                    return .use(key)
                case .overdue, .expired, .suspended, .dead: break
                }
            }
            return .wait(load(domain, &entries[domain, default: Entry()]))
        }
    }

    /// The load under way, or a new one.
    private func load(_ domain: KeyDomain, _ entry: inout Entry) -> Task<DataKey, any Error> {
        if let loading = entry.loading { return loading }
        let task = Task { try await self.finishLoading(domain) }
        entry.loading = task
        return task
    }

    private func finishLoading(_ domain: KeyDomain) async throws -> DataKey {
        while true {
            let epoch = entries.withLock { $0[domain]?.epoch ?? 0 }
            let outcome: Result<(AccountKeyRecord, SecretBytes), any Error>
            do {
                guard let active = try await slots.load(domain).active else { throw Self.noKey }
                outcome = .success((active.record, try await unwrap(active.record, of: domain)))
            } catch { outcome = .failure(error) }
            if let settled = settle(domain, epoch: epoch, outcome) { return try settled.get() }
        }
    }

    /// Puts the outcome into the entry; nil when an announcement came since the question was asked: ask again.
    private func settle(
        _ domain: KeyDomain, epoch: UInt64, _ outcome: Result<(AccountKeyRecord, SecretBytes), any Error>
    ) -> Result<DataKey, any Error>? {
        entries.withLock { entries -> Result<DataKey, any Error>? in
            var entry = entries[domain] ?? Entry()
            guard entry.epoch == epoch else { return nil }
            defer { entries[domain] = entry }
            entry.loading = nil
            switch outcome {
            case .success(let (record, secret)):
                entry.governor = Governor(record)
                entry.denial = nil
                let isGoverned = entry.governor != .platform
                if let key = entry.key, let lease = key.lease, lease.standing != .dead,
                    constantTimeEquals(key.commitment, record.commitment)
                {
                    lease.confirmed(isGoverned: isGoverned)
                    return .success(key)
                }
                let lease = KeyLease(isGoverned: isGoverned, clock: core.clock, limits: limits) { [weak self] in
                    _ = try await self?.dataKey(domain)
                }
                let key = DataKey(secret, of: domain, lease: lease)
                entry.key = key
                return .success(key)
            case .failure(let error as KeyUnavailable) where !error.isDenial:
                // Nobody said no: a key that was confirmed lately goes on, unless an announcement came since.
                if let key = entry.key, key.lease?.standing == .due || key.lease?.standing == .overdue {
                    return .success(key)
                }
                return .failure(error)
            case .failure(let error as KeyUnavailable):
                entry.key?.lease?.kill(error)
                entry.key = nil
                entry.denial = (error, core.clock.now().adding(seconds: limits.denialSeconds))
                return .failure(error)
            case .failure(let error):
                return .failure(error)
            }
        }
    }

    // MARK: Announcements

    /// Suspends every lease the vault governs before it returns, asks again for those in use, and follows a rotation.
    func vaultChanged(_ vaultName: String?) {
        entries.withLock { entries in
            for (domain, var entry) in entries where entry.governor.hears(vaultName) {
                entry.epoch += 1
                entry.denial = nil
                if let key = entry.key {
                    key.lease?.suspend()
                    _ = load(domain, &entry)
                }
                entries[domain] = entry
            }
        }
        // Announcements come in bursts: one look that starts after the last of them serves all.
        let isFirst = announced.withLock { names in
            defer { names.insert(vaultName) }
            return names.isEmpty
        }
        if isFirst { background.run { [self] in await followAnnounced() } }
    }

    /// The domain's wrapping changed: what was asked before does not count, and the key in memory answers to the new
    /// governor.
    func governorChanged(_ domain: KeyDomain) {
        entries.withLock { entries in
            var entry = entries[domain] ?? Entry()
            entry.epoch += 1
            entry.denial = nil
            entry.governor = .unknown
            if let key = entry.key {
                key.lease?.suspend()
                _ = load(domain, &entry)
            }
            entries[domain] = entry
        }
    }

    private func followAnnounced() async {
        let names = announced.withLock { names in
            defer { names = [] }
            return names
        }
        await followRotations { governor in names.contains { governor.hears($0) } }
    }

    /// Looks for a newer version of every customer key in use: for a timer, say once an hour. Announced rotations
    /// need no timer. One whose vault refuses is passed over, and looked at again the next time.
    public func followRotations() async { await followRotations { _ in true } }

    private func followRotations(where concerns: (Governor) -> Bool) async {
        guard let domains = try? await slots.domains() else { return }
        for domain in domains where !Task.isCancelled {
            guard let record = try? await slots.load(domain).active?.record, concerns(Governor(record)),
                case .customer(let reference, _, _) = record.wrapping, reference.keyVersion == nil
            else { continue }
            _ = try? await followRotation(domain)
        }
    }

    /// Lets go of keys nobody uses, and no vault has confirmed, for the length of the grace: their memory is wiped. A
    /// long operation that holds one asks for it again by the lease of that very key.
    func dropExpired() {
        entries.withLock { entries in
            for domain in Array(entries.keys)
            where entries[domain]?.governor != .platform && entries[domain]?.key?.lease?.isPastGrace == true
                && isKnownUniquelyReferenced(&entries[domain, default: Entry()].key)
            {
                entries[domain]?.key = nil
            }
        }
    }
}
