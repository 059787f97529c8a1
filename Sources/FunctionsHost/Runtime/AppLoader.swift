internal import CofferCore
internal import ResourceProviders

/// From a site's settings to a running app: download, check, unpack in memory, read the functions.
struct AppLoader: Sendable {
    let services: HostServices
    private static let packageSetting = "WEBSITE_RUN_FROM_PACKAGE"

    func load(_ site: Site, settings: ResolvedSettings) async throws(HostFailure) -> RunningApp {
        if let status = settings.failure(of: Self.packageSetting) {
            throw HostFailure(
                message:
                    "The Key Vault reference in \(Self.packageSetting) is not resolved (\(status.status.rawValue)). "
                    + "\(status.details)"
            )
        }
        let value = settings.value(Self.packageSetting)?.reveal().trimmed ?? ""
        guard !value.isEmpty, value != "0" else {
            return RunningApp(
                site: site, settings: settings, host: nil, catalog: .empty, package: nil, worker: nil,
                workerMissing: nil)
        }
        guard value.lowercased().hasPrefix("https://") || value.lowercased().hasPrefix("http://") else {
            throw HostFailure(
                message:
                    Self.packageSetting
                    + (value == "1" ? "=1 (a package in the site's own folder)" : " without https://")
                    + " is not supported; "
                    + "set it to the https URL of a ZIP package.")
        }
        do {
            let zip = try await source(for: site).fetch(RedactedString(value))
            let package = try Package(
                zip, of: site.name.lowercased(), limits: services.configuration.packageLimits,
                memory: services.packageMemory)
            return try app(site, settings, package)
        } catch let error as PackageError {
            throw HostFailure(message: error.message)
        } catch let error as HostConfiguration.Malformed {
            throw HostFailure(message: error.message)
        } catch {
            throw HostFailure(message: "The package cannot be mounted.")
        }
    }

    private func source(for site: Site) -> PackageSource {
        let identities = services.identities
        var bearer: (@Sendable () async throws -> RedactedString)?
        if let identity = site.identity {
            bearer = { try await identities.issueToken(for: identity, audience: "https://storage.azure.com/").token }
        }
        return PackageSource(
            http: services.http, names: services.configuration.names, clock: services.clock,
            limits: services.configuration.packageLimits,
            bearer: bearer)
    }

    private func app(_ site: Site, _ settings: ResolvedSettings, _ package: Package) throws -> RunningApp {
        func setting(_ name: String) -> String? { settings.value(name)?.reveal() }
        let host = try HostConfiguration(parsing: package.configuration["host.json"], expand: setting)
        let catalog = try FunctionCatalog(package: package, host: host, setting: setting)
        guard let handler = host.customHandler else {
            let missing =
                "This server runs custom handlers only; host.json has no customHandler section "
                + "(FUNCTIONS_WORKER_RUNTIME is '\(setting("FUNCTIONS_WORKER_RUNTIME") ?? "")')."
            return RunningApp(
                site: site, settings: settings, host: host, catalog: catalog, package: package, worker: nil,
                workerMissing: missing)
        }
        let configuration = services.configuration
        let sandbox = try Sandbox(network: configuration.workerNetwork)
        let hostName = services.hostName(of: site)
        let worker = Worker(
            Worker.Description(
                site: site,
                sandboxed: Sandbox.Worker(
                    site: site.name, executable: executable(handler, package), arguments: handler.arguments,
                    workingDirectory: handler.workingDirectory, unpackedBytes: package.unpackedBytes, dataBytes: nil,
                    controlGroup: nil, network: nil,
                    sharedFiles: configuration.workerFiles),
                package: package,
                environment: WorkerEnvironment.variables(
                    of: site, settings: settings, hostName: hostName, instanceID: configuration.instanceID,
                    added: configuration.workerEnvironment),
                identityEndpoint: configuration.identityEndpoint, network: configuration.workerNetwork,
                openPorts: configuration.workerPorts, memoryBytes: configuration.workerMemoryBytes,
                readinessSeconds: host.readinessTimeoutSeconds),
            Worker.Services(
                sandbox: sandbox, group: services.group, logs: services.logs, identities: services.identityEndpoint,
                clock: services.clock,
                randomness: services.randomness, logger: services.logger))
        return RunningApp(
            site: site, settings: settings, host: host, catalog: catalog, package: package, worker: worker,
            workerMissing: nil)
    }

    /// Below the app's root when the package has such a file, otherwise by PATH.
    private func executable(_ handler: HostConfiguration.CustomHandler, _ package: Package) -> String {
        var path = handler.executablePath.replacing("\\", with: "/")
        while path.hasPrefix("./") { path = String(path.dropFirst(2)) }
        return package.files.contains(path) ? Sandbox.root + "/" + path : path
    }
}
