internal import AsyncHTTPClient
public import CofferCore
public import HTTPEdge
public import Logging
public import NIOCore
public import ResourceProviders
internal import Synchronization

/// The running half of App Service and Functions: one host per site, its keys, its package, its worker. The control
/// plane calls it; the gate serves from it.
///
/// It follows `SiteStore` by itself: a change of settings, identity or state restarts or stops the host, a deletion
/// ends it. Callers have authorized: nothing here asks who calls.
public final class FunctionRuntime: Sendable {
    /// What is known of one site: replaced as a whole when its rules change.
    struct Entry: Sendable {
        let host: SiteHost
        let policy: SitePolicy
        let meter: UsageMeter
    }
    private struct State {
        var entries: [String: Entry] = [:]
        var maintenance: Task<Void, Never>?
        var isShutDown = false
    }
    private static let usageIntervalSeconds: Int64 = 10
    /// Every so many usage intervals.
    private static let maintenanceInterval = 6
    private static let handlerConnections = 64

    let services: HostServices
    private let state = Mutex(State())

    /// `sites` must be loaded. `identityEndpoint` gives workers their `IDENTITY_HEADER`;
    /// `configuration.identityEndpoint` is its address.
    public init(
        sites: SiteStore, vaults: any VaultSecrets, http: any OutboundHTTP, identities: any ManagedIdentities,
        identityEndpoint: (any IdentityEndpointRegistry)? = nil, logs: any FunctionLogSink = DiscardedFunctionLogs(),
        configuration: FunctionsHostConfiguration, group: any EventLoopGroup, clock: any WallClock,
        randomness: any Randomness,
        logger: Logger
    ) {
        var client = HTTPClient.Configuration(redirectConfiguration: .disallow, timeout: .init(connect: .seconds(5)))
        client.httpVersion = .http1Only
        client.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = Self.handlerConnections
        services = HostServices(
            configuration: configuration, sites: sites, vaults: vaults, http: http, identities: identities,
            identityEndpoint: identityEndpoint, logs: logs,
            handlers: HTTPClient(eventLoopGroupProvider: .shared(group), configuration: client),
            packageMemory: PackageMemory(limitBytes: configuration.packageLimits.mountedBytes), group: group,
            clock: clock,
            randomness: randomness, logger: logger)
        sites.onChange { [weak self] change in self?.follow(change) }
        for site in sites.sites() { add(site, usage: nil) }
    }

    /// Reads the day's usage of every site and begins the periodic work: usage is written every 10 seconds, idle
    /// workers end, references are read again after a day.
    public func start() async throws {
        for site in services.sites.sites() { add(site, usage: try await services.sites.usage(of: site.name)) }
        let task = Task.detached { [weak self] in
            var round = 0
            while !Task.isCancelled {
                try? await Task.sleep(for: .seconds(Self.usageIntervalSeconds))
                guard let self, !Task.isCancelled else { return }
                round += 1
                await self.saveUsage()
                if round.isMultiple(of: Self.maintenanceInterval) {
                    for entry in self.entries() { await entry.host.maintain() }
                }
            }
        }
        state.withLock { $0.maintenance = task }
    }

    /// Ends every worker, writes the usage, closes connections. Returns when no worker is left.
    public func shutdown() async {
        let (task, entries) = state.withLock { state in
            state.isShutDown = true
            return (state.maintenance, Array(state.entries.values))
        }
        task?.cancel()
        await withTaskGroup(of: Void.self) { group in
            for entry in entries { group.addTask { await entry.host.shutDown() } }
        }
        await task?.value
        await saveUsage()
        try? await services.handlers.shutdown()
    }

    /// What the edge asks at a handshake: for a site and for its scm name; other endpoints get TLS 1.2.
    public func minimumTLSVersion(of endpoint: Endpoint) -> Transport.TLSVersion {
        switch endpoint {
        case .site(let name): entry(named: name)?.policy.minimumTLSVersion ?? .v1_2
        case .scm(let name): entry(named: name)?.policy.scmMinimumTLSVersion ?? .v1_2
        default: .v1_2
        }
    }

    /// The platform's refusal of a request for a site's scm name (network rules, TLS), before credentials; nil when
    /// there is none.
    public func scmRefusal(of request: Request, site name: String) -> Response? {
        guard let entry = entry(named: name) else { return noSite(named: name) }
        return entry.policy.scmRefusal(of: request)
    }

    // MARK: Sites

    /// What a name answers under which no site is served.
    func noSite(named name: String) -> Response {
        services.sites.isDamaged(site: name) ? Pages.damaged() : Pages.siteNotFound()
    }

    func entry(named name: String) -> Entry? {
        state.withLock { $0.entries[name] ?? $0.entries[name.lowercased()] }
    }
    private func entries() -> [Entry] { state.withLock { Array($0.entries.values) } }

    func entry(_ id: ResourceID) throws(FunctionsError) -> Entry {
        guard let entry = entry(named: id.name), entry.policy.site.id == id else {
            throw FunctionsError(.siteNotFound, "The site '\(id.name)' was not found.")
        }
        return entry
    }

    private func add(_ site: Site, usage: UsageRecord?) {
        let entry = Entry(host: SiteHost(site, services), policy: SitePolicy(site), meter: UsageMeter(usage))
        state.withLock { state in
            guard !state.isShutDown else { return }
            if let old = state.entries[site.name.lowercased()] {
                state.entries[site.name.lowercased()] = Entry(
                    host: old.host, policy: old.policy, meter: usage == nil ? old.meter : entry.meter)
            } else {
                state.entries[site.name.lowercased()] = entry
            }
        }
    }

    private func follow(_ change: SiteChange) {
        switch change {
        case .created(let site): add(site, usage: nil)
        case .updated(let old, let new):
            let host: SiteHost? = state.withLock { state in
                guard let entry = state.entries[new.name.lowercased()] else { return nil }
                state.entries[new.name.lowercased()] = Entry(
                    host: entry.host, policy: SitePolicy(new), meter: entry.meter)
                return entry.host
            }
            if Self.needsRestart(old, new) { host?.restart() }
        case .deleted(let site):
            let entry = state.withLock { $0.entries.removeValue(forKey: site.name.lowercased()) }
            if let host = entry?.host { Task.detached { await host.shutDown() } }
        }
    }

    /// What a worker was started with.
    private static func needsRestart(_ old: Site, _ new: Site) -> Bool {
        old.secrets.appSettings != new.secrets.appSettings
            || old.secrets.connectionStrings != new.secrets.connectionStrings
            || old.identity != new.identity || old.keyVaultReferenceIdentity != new.keyVaultReferenceIdentity
            || old.state != new.state
            || old.config.linuxFxVersion != new.config.linuxFxVersion
    }

    private func saveUsage() async {
        for entry in entries() {
            guard let usage = entry.meter.unwritten() else { continue }
            do {
                try await services.sites.save(usage, of: entry.policy.site.name)
                entry.meter.noteWritten(usage)
            } catch {
                services.logger.warning(
                    "usage not written", metadata: ["site": "\(entry.policy.site.name)", "error": "\(error)"])
            }
        }
    }

    /// Forgets the resolved settings, the package and the keys in memory, and starts again from their sources. Returns
    /// at once: the gate answers 503 with the reason if it fails, and tries again with later requests.
    public func restart(_ id: ResourceID) async throws(FunctionsError) { try entry(id).host.restart() }

    /// Sets the site's state, durably; the gate answers 403 while it is stopped.
    public func start(_ id: ResourceID) async throws { try await services.sites.update(id) { $0.state = .running } }
    public func stop(_ id: ResourceID) async throws { try await services.sites.update(id) { $0.state = .stopped } }

    /// Mounts the package if it is not; one that failed is tried again.
    public func syncTriggers(_ id: ResourceID) async throws(FunctionsError) { _ = try await app(id) }
    public func status(_ id: ResourceID) async throws(FunctionsError) -> HostStatus {
        try await entry(id).host.status()
    }

    // MARK: Functions

    private func app(_ id: ResourceID) async throws(FunctionsError) -> RunningApp {
        let entry = try entry(id)
        do throws(HostFailure) {
            return try await entry.host.app()
        } catch { throw FunctionsError(.hostNotRunning, error.message) }
    }

    /// Of the mounted package, sorted by name; waits for a start under way. Throws `.hostNotRunning` when the package
    /// could not be mounted; empty for a site without one.
    public func functions(of id: ResourceID) async throws(FunctionsError) -> [FunctionDescription] {
        let app = try await app(id)
        return app.catalog.functions.map { Self.description($0, app) }
    }
    public func function(_ name: String, of id: ResourceID) async throws(FunctionsError) -> FunctionDescription {
        let app = try await app(id)
        guard let function = app.catalog.function(name) else {
            throw FunctionsError(.functionNotFound, "The function '\(name)' was not found in the package.")
        }
        return Self.description(function, app)
    }
    private static func description(_ function: Function, _ app: RunningApp) -> FunctionDescription {
        FunctionDescription(
            name: function.name, config: function.config, files: function.files, isDisabled: function.isDisabled,
            language: app.host?.customHandler == nil
                ? app.settings.value("FUNCTIONS_WORKER_RUNTIME")?.reveal() ?? "" : "Custom",
            invokePath: function.invokePath(prefix: app.catalog.routePrefix),
            errors: function.errors + (app.workerMissing.map { [$0] } ?? []))
    }

    // MARK: Keys

    public func hostKeys(of id: ResourceID) async throws(FunctionsError) -> HostKeys {
        try await entry(id).host.keys().hostKeys()
    }
    /// A nil value is generated. `.masterKey` ignores the name.
    public func setHostKey(
        _ kind: HostKeyKind, _ name: String, to value: RedactedString?, of id: ResourceID
    ) async throws(FunctionsError) -> KeyChange {
        try await entry(id).host.keys().setHostKey(kind, name, to: value)
    }
    public func deleteHostKey(_ kind: HostKeyKind, _ name: String, of id: ResourceID) async throws(FunctionsError) {
        try await entry(id).host.keys().deleteHostKey(kind, name)
    }
    /// Throws `.functionNotFound`; makes the `default` key when the function has none yet.
    public func functionKeys(_ function: String, of id: ResourceID) async throws(FunctionsError) -> [AccessKey] {
        let name = try await self.function(function, of: id).name
        return try await entry(id).host.keys().functionKeys(name)
    }
    public func setFunctionKey(
        _ name: String, to value: RedactedString?, function: String, of id: ResourceID
    ) async throws(FunctionsError) -> KeyChange {
        let function = try await self.function(function, of: id).name
        return try await entry(id).host.keys().setFunctionKey(name, to: value, function: function)
    }
    public func deleteFunctionKey(_ name: String, function: String, of id: ResourceID) async throws(FunctionsError) {
        let function = try await self.function(function, of: id).name
        try await entry(id).host.keys().deleteFunctionKey(name, function: function)
    }

    /// A token for the site's host that opens what the master key opens, for five minutes. Dies with the key it is
    /// signed with.
    public func issueToken(of id: ResourceID) async throws(FunctionsError) -> RedactedString {
        guard let token = try await entry(id).host.tokens().issue(now: services.clock.now()) else {
            throw FunctionsError(
                .secretStoreUnavailable,
                "No key of the app can sign a token: AzureWebEncryptionKey is hexadecimal, of at least "
                    + "\(TokenKeys.shortestBytes) bytes.")
        }
        return token
    }

    // MARK: Key Vault references

    public func keyVaultReferences(of id: ResourceID) async throws(FunctionsError) -> KeyVaultReferences {
        try await entry(id).host.references()
    }
    /// Resolves all again now; the host restarts when a value changed.
    public func refreshKeyVaultReferences(of id: ResourceID) async throws(FunctionsError) {
        try await entry(id).host.refreshReferences()
    }
}
