internal import CofferCore
internal import Foundation
internal import Logging
internal import ResourceProviders
internal import Synchronization

/// Why a site's host cannot serve. The message goes to callers.
struct HostFailure: Error, Sendable, Equatable {
    let message: String
}

/// A package that is mounted and its worker.
final class RunningApp: Sendable {
    let site: Site
    let settings: ResolvedSettings
    let host: HostConfiguration?
    let catalog: FunctionCatalog
    /// nil for an app without one.
    let package: Package?
    /// nil when no function can need one.
    let worker: Worker?
    /// nil when the worker is there.
    let workerMissing: String?
    /// Asked for over the admin API; ends with the app, in a restart.
    let isDraining = Atomic(false)

    init(
        site: Site, settings: ResolvedSettings, host: HostConfiguration?, catalog: FunctionCatalog,
        package: Package?, worker: Worker?, workerMissing: String?
    ) {
        self.package = package
        self.site = site
        self.settings = settings
        self.host = host
        self.catalog = catalog
        self.worker = worker
        self.workerMissing = workerMissing
    }
}

/// One site's host: its settings resolved, its package mounted, its keys at hand; loaded when somebody asks, and again
/// after `restart`.
actor SiteHost {
    private enum Content {
        case unloaded
        case loading(Task<Result<RunningApp, HostFailure>, Never>)
        case loaded(RunningApp)
        case failed(HostFailure, until: Timestamp, attempts: Int64)
    }
    private struct Settings {
        /// What the app and its keys are made of, until a restart.
        let inForce: Task<ResolvedSettings, Never>
        var readAt: Timestamp
        /// How the references stood when they were last read again; nil before that.
        var later: KeyVaultReferences?
    }
    /// Between two attempts to load what failed: doubles from one second up to this.
    static let longestRetrySeconds: Int64 = 30
    /// References without a version are read again after so long (App Service, "Use Key Vault references": 24 hours).
    static let referenceLifetimeSeconds: Int64 = 86_400
    static let settingsRetrySeconds: Int64 = 5

    private let services: HostServices
    private var site: Site
    private var content = Content.unloaded
    private var settings: Settings?
    private var keyring: Keyring? {
        willSet { if let keyring { formerKeyring = keyring } }
    }
    private var siteTokens: SiteTokens?
    /// What tokens' keys are made of when references were read again since the start: a key taken away takes its
    /// tokens away, though the app goes on with the values it was started with.
    private var tokenSettings: ResolvedSettings?
    /// Counts what made older tokens' keys void.
    private var tokenEpoch = 0
    /// The keys before the last restart: what a new, empty store begins with.
    private var formerKeyring: Keyring?
    /// Counts restarts: what an earlier generation loaded is thrown away.
    private var generation = 0
    private var isShutDown = false
    private let startedAt: Timestamp
    private struct Outside {
        /// The loaded app, for the gate, which does not wait for the actor.
        var app: RunningApp?
        /// Set at once by `restart`, obeyed by the actor before anything else: no later caller meets what was before.
        var mustRestart = false
        /// Workers of earlier apps on their way out.
        var ending: Task<Void, Never>?

        /// From here on nobody meets the app; its worker ends by itself.
        mutating func endApp() {
            guard let worker = app?.worker else { return app = nil }
            app = nil
            let earlier = ending
            ending = Task.detached {
                await worker.stop()
                await earlier?.value
            }
        }
    }
    /// What others see and ask without waiting for the actor; both change together, or an app that answers one restart
    /// would be stopped by another, or missed by it.
    private let outside = Mutex(Outside())

    /// For lines that come by the admin API.
    nonisolated let logAllowance = Mutex(LineAllowance())

    init(_ site: Site, _ services: HostServices) {
        self.site = site
        self.services = services
        startedAt = services.clock.now()
    }

    // MARK: The app

    nonisolated func app() async throws(HostFailure) -> RunningApp {
        if let app = loadedApp() { return app }
        return try await load()
    }

    nonisolated func loadedApp() -> RunningApp? { outside.withLock { $0.app } }

    private func load() async throws(HostFailure) -> RunningApp {
        obeyRestart()
        var attempts: Int64 = 0
        switch content {
        case .loaded(let app): return app
        case .loading(let task): return try await task.value.get()
        case .failed(let failure, let until, let count):
            guard services.clock.now() >= until else { throw failure }
            attempts = count
            // A reference may have been the cause.
            forgetSettings()
            keyring = nil
        case .unloaded: break
        }
        let generation = generation
        let site = site
        let resolving = resolvedSettings()
        let services = services
        let task = Task.detached { () -> Result<RunningApp, HostFailure> in
            do throws(HostFailure) {
                return .success(try await AppLoader(services: services).load(site, settings: await resolving.value))
            } catch { return .failure(error) }
        }
        content = .loading(task)
        let result = await task.value
        obeyRestart()
        guard generation == self.generation else {
            // Restarted meanwhile: this one is of yesterday.
            if case .success(let app) = result { await app.worker?.stop() }
            return try await load()
        }
        switch result {
        case .success(let app):
            guard publish(app) else {
                await app.worker?.stop()
                return try await load()
            }
            content = .loaded(app)
            log(.information, "Host started: \(app.catalog.functions.count) functions found.")
            return app
        case .failure(let failure):
            let delay = min(1 << min(attempts, 16), Self.longestRetrySeconds)
            content = .failed(failure, until: services.clock.now().adding(seconds: delay), attempts: attempts + 1)
            services.logger.warning(
                "site cannot start", metadata: ["site": "\(site.name)", "reason": "\(failure.message)"])
            log(.error, failure.message)
            throw failure
        }
    }

    /// False when a restart was asked for: it has looked for an app to stop already, and would not find this one.
    private func publish(_ app: RunningApp) -> Bool {
        outside.withLock { outside in
            if !outside.mustRestart { outside.app = app }
            return !outside.mustRestart
        }
    }

    /// Starts over with the site as it is now: settings, keys, package and worker. Returns at once; loading begins by
    /// itself.
    nonisolated func restart() {
        outside.withLock { outside in
            outside.mustRestart = true
            outside.endApp()
        }
        Task.detached { await self.loadAfterRestart() }
    }

    private func loadAfterRestart() async {
        obeyRestart()
        if site.state == .running { _ = try? await load() }
    }

    private func obeyRestart() {
        let must = outside.withLock { outside in
            defer { outside.mustRestart = false }
            return outside.mustRestart
        }
        guard must, !isShutDown else { return }
        site = services.sites.site(named: site.name) ?? site
        generation += 1
        content = .unloaded
        forgetSettings()
        keyring = nil
    }

    /// Ends for good. Returns when the worker is gone, and those that restarts before have ended.
    func shutDown() async {
        isShutDown = true
        generation += 1
        let ending = outside.withLock { outside in
            outside.endApp()
            return outside.ending
        }
        if case .loading(let task) = content {
            Task.detached { if case .success(let app) = await task.value { await app.worker?.stop() } }
        }
        content = .failed(
            HostFailure(message: "The server is shutting down."), until: Timestamp(microseconds: .max / 2), attempts: 0)
        await ending?.value
    }

    // MARK: Settings and keys

    private func forgetSettings() {
        settings = nil
        tokenSettings = nil
        forgetTokens()
    }
    private func forgetTokens() {
        siteTokens = nil
        tokenEpoch += 1
    }

    private func resolvedSettings() -> Task<ResolvedSettings, Never> {
        obeyRestart()
        if let settings { return settings.inForce }
        let resolver = SettingsResolver(vaults: services.vaults, names: services.configuration.names)
        let site = site
        let task = Task.detached { await resolver.resolve(site) }
        settings = Settings(inForce: task, readAt: services.clock.now())
        return task
    }

    func references() async -> KeyVaultReferences {
        let first = await resolvedSettings().value.references
        return settings?.later ?? first
    }

    /// Reads the references again; restarts when a value changed, unless another has gone: a vault that cannot be
    /// reached now changes nothing. The values the app was started with stay in force until a restart, so that what is
    /// new is still new the next time; only how the references stand is kept.
    func refreshReferences() async {
        guard let task = settings?.inForce else { return }
        // What the worker runs with; the keys' part may have been read anew since.
        let inForce = await task.value
        let old = loadedApp()?.settings ?? inForce
        let resolver = SettingsResolver(vaults: services.vaults, names: services.configuration.names)
        let new = await resolver.resolve(site)
        // Read anew meanwhile, for a restart or after a failure: that is what is in force.
        guard settings?.inForce == task else { return }
        settings?.readAt = services.clock.now()
        settings?.later = new.references
        // A vault that does not answer has taken nothing away.
        if TokenKeys.settingNames.allSatisfy({ new.failure(of: $0)?.status != .fetchTimedOut }) {
            tokenSettings = new
            forgetTokens()
        }
        if !new.hasSameValues(as: old), new.hasAllValues(of: old) { restart() }
    }

    func refreshOldReferences() async {
        guard let settings, services.clock.now() >= settings.readAt.adding(seconds: Self.referenceLifetimeSeconds)
        else {
            return
        }
        await refreshReferences()
    }

    func keys() async throws(FunctionsError) -> Keyring {
        obeyRestart()
        if let keyring { return keyring }
        let generation = generation
        let settings = await resolvedSettings().value
        let platformKey = try await platformKey()
        guard generation == self.generation else { return try await keys() }
        if let keyring { return keyring }
        do throws(FunctionsError) {
            let made = try KeyringFactory(services: services).make(
                site, settings, platformKey: platformKey, after: formerKeyring)
            keyring = made
            return made
        } catch {
            // A reference may have been the cause: read it again, though not with every request.
            if let known = self.settings,
                services.clock.now() >= known.readAt.adding(seconds: Self.settingsRetrySeconds)
            {
                forgetSettings()
            }
            throw error
        }
    }

    private func platformKey() async throws(FunctionsError) -> RedactedString {
        do {
            return try await services.sites.platformKey(of: site.id, randomness: services.randomness)
        } catch {
            throw FunctionsError(.secretStoreUnavailable, "The site's own encryption key cannot be read.")
        }
    }

    /// Apart from `keys`: a token opens the admin API of a site whose key store cannot be reached.
    func tokens() async throws(FunctionsError) -> SiteTokens {
        obeyRestart()
        if let siteTokens { return siteTokens }
        let epoch = tokenEpoch
        let inForce = await resolvedSettings().value
        let platformKey = try await platformKey()
        // Whoever asks after a change of the keys is never answered by those before it.
        obeyRestart()
        guard epoch == tokenEpoch else { return try await tokens() }
        let made = SiteTokens(
            siteName: site.name, keys: TokenKeys(settings: tokenSettings ?? inForce, platformKey: platformKey))
        siteTokens = made
        return made
    }

    /// Whether the admin API is for the platform alone. Unknown means yes.
    func isAdminIsolated() async -> Bool {
        let name = "FUNCTIONS_ADMIN_ISOLATION_ENABLED"
        let settings = await resolvedSettings().value
        return settings.failure(of: name) != nil || settings.value(name)?.reveal() == "1"
    }

    // MARK: Status

    func status() async -> HostStatus {
        site = services.sites.site(named: site.name) ?? site
        let state: HostStatus.State
        var errors: [String] = []
        if site.state == .stopped {
            state = .stopped
        } else {
            do throws(HostFailure) {
                let app = try await app()
                errors = app.catalog.functions.flatMap { function in
                    function.errors.map { "The '\(function.name)' function is in error: \($0)" }
                }
                state = .running
            } catch {
                errors = [error.message]
                state = .error
            }
        }
        return HostStatus(
            id: site.name.lowercased(), state: state, version: FunctionsHostConfiguration.runtimeVersion,
            instanceID: services.configuration.instanceID,
            processUptimeMilliseconds: (services.clock.now().microseconds - startedAt.microseconds) / 1_000,
            errors: errors)
    }

    /// Every minute: idle workers end, old references are read again.
    func maintain() async {
        await refreshOldReferences()
        guard services.sites.site(named: site.name)?.config.alwaysOn != true,
            let worker = loadedApp()?.worker
        else { return }
        await worker.stopIfIdle(since: services.clock.now().adding(seconds: -services.configuration.workerIdleSeconds))
    }

    private func log(_ level: FunctionLogEntry.Level, _ message: String) {
        services.logs.write(
            FunctionLogEntry(
                time: services.clock.now(), site: site.id, level: level, category: "Host.Startup", message: message))
    }
}
