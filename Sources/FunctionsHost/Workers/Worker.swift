internal import CofferCore
internal import Foundation
internal import Glibc
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import ResourceProviders
internal import Synchronization

/// Why no worker can take a request now.
struct WorkerUnavailable: Error, Sendable, Equatable {
    let message: String
    let retryAfterSeconds: Int64
}

/// One app's custom handler: started when a request wants it, watched, started again after it fell, ended with its
/// host.
actor Worker {
    struct Description: Sendable {
        var site: Site
        var sandboxed: Sandbox.Worker
        var package: Package
        var environment: [String: RedactedString]
        var identityEndpoint: String?
        var network: WorkerNetwork
        /// Coffer's own.
        var openPorts: [Int]
        var memoryBytes: Int
        var readinessSeconds: Int64
    }
    struct Services: Sendable {
        var sandbox: Sandbox
        var group: any EventLoopGroup
        var logs: any FunctionLogSink
        var identities: (any IdentityEndpointRegistry)?
        var clock: any WallClock
        var randomness: any Randomness
        var logger: Logger
        var launch: @Sendable (_ arguments: [String], _ descriptors: [Int32]) async throws -> WorkerProcess = {
            try await WorkerProcess.launch($0, descriptors: $1)
        }
    }
    private struct Snapshot {
        /// Set while it is ready.
        var port: Int?
        var processID: pid_t?
        /// Callers that want it and have no port yet.
        var waiting = 0
        /// Callers that have its port.
        var outstanding = 0
        var lastUsed: Timestamp
    }

    static let drainSeconds = 10
    static let graceSeconds = 5

    private let description: Description
    private let services: Services
    private var state = WorkerState()
    private var process: WorkerProcess?
    private var starting: Task<Void, Never>?
    private var group: ControlGroup?
    /// What went wrong with its network.
    private var networkReport: MemoryFile?
    private var identityHeader: RedactedString?
    /// Counts starts, so that news of an earlier process does not touch a later one.
    private var run = 0
    /// What the gate reads without waiting for the actor.
    private let snapshot: Mutex<Snapshot>

    init(_ description: Description, _ services: Services) {
        self.description = description
        self.services = services
        snapshot = Mutex(Snapshot(lastUsed: services.clock.now()))
    }

    // MARK: Requests

    /// The port of a ready worker, started for this if need be. nil when `limit` callers have it or wait for it. Every
    /// port must be paired with `release`.
    nonisolated func acquire(limit: Int) async throws(WorkerUnavailable) -> Int? {
        guard beginWaiting(limit: limit) else { return nil }
        if let port = takePort() { return port }
        do throws(WorkerUnavailable) {
            try await becomeReady()
        } catch {
            stopWaiting()
            throw error
        }
        if let port = takePort() { return port }
        stopWaiting()
        throw WorkerUnavailable(message: "The worker ended just now.", retryAfterSeconds: 1)
    }
    private nonisolated func beginWaiting(limit: Int) -> Bool {
        snapshot.withLock { snapshot in
            guard snapshot.waiting + snapshot.outstanding < limit else { return false }
            snapshot.waiting += 1
            return true
        }
    }
    private nonisolated func stopWaiting() { snapshot.withLock { $0.waiting -= 1 } }
    /// For one who waits.
    private nonisolated func takePort() -> Int? {
        snapshot.withLock { snapshot in
            guard let port = snapshot.port else { return nil }
            snapshot.waiting -= 1
            snapshot.outstanding += 1
            return port
        }
    }
    nonisolated func release() {
        let now = services.clock.now()
        snapshot.withLock { snapshot in
            snapshot.outstanding -= 1
            snapshot.lastUsed = now
        }
    }
    private nonisolated var outstanding: Int { snapshot.withLock { $0.outstanding } }
    /// Who has its port or waits for it.
    nonisolated var callers: Int { snapshot.withLock { $0.waiting + $0.outstanding } }

    /// Resident memory of the worker's processes; nil while nothing runs.
    nonisolated func residentBytes() -> Int? {
        snapshot.withLock { $0.processID }.map { ProcessTree.residentBytes(of: $0) }
    }

    private func becomeReady() async throws(WorkerUnavailable) {
        if case .launch = state.wanted(now: services.clock.now()) { launch() }
        await starting?.value
        switch state.phase {
        case .ready: return
        case .stopped: throw WorkerUnavailable(message: "The app is restarting.", retryAfterSeconds: 1)
        case .coolingDown(let until):
            let wait = max(1, until.unixSeconds - services.clock.now().unixSeconds)
            throw WorkerUnavailable(message: state.lastFailure ?? "The worker ended.", retryAfterSeconds: wait)
        case .idle, .starting:
            throw WorkerUnavailable(message: state.lastFailure ?? "The worker is starting.", retryAfterSeconds: 1)
        }
    }

    // MARK: Starting

    private func launch() {
        run += 1
        let number = run
        starting = Task.detached { await self.start(number) }
    }

    private func start(_ number: Int) async {
        guard number == run else { return }
        do {
            let port = try Self.freePort()
            let process = try await makeProcess(port: port)
            guard number == run else {
                // Stopped while it was launched: nobody else knows of this process, nor reads what it says. `end` waits
                // for this.
                process.kill()
                close(process.standardOutput)
                close(process.standardError)
                _ = await process.ending()
                return
            }
            self.process = process
            forwardOutput(of: process)
            Task.detached { await self.ended(number, process.ending()) }
            if let failure = await readiness(of: process, port: port) {
                await fail(number, failure)
                return
            }
            guard !process.hasEnded else {
                // Before those who wait ask why; whoever else hears of it finds it done.
                ended(number, await process.ending())
                return
            }
            guard number == run else { return }
            _ = state.becameReady(now: services.clock.now())
            guard case .ready = state.phase else { return }
            snapshot.withLock { snapshot in
                snapshot.port = port
                snapshot.processID = process.processID
                snapshot.lastUsed = services.clock.now()
            }
        } catch let error as WorkerProcess.LaunchFailure {
            didEnd(number, "The worker could not be started: \(error.message).")
        } catch {
            didEnd(number, "The worker could not be started.")
        }
    }

    private func makeProcess(port: Int) async throws -> WorkerProcess {
        var worker = description.sandboxed
        let group = ControlGroup(
            name: "\(description.site.name.lowercased())-\(services.randomness.bytes(4).hex)",
            memoryBytes: description.memoryBytes + description.package.unpackedBytes
                + (description.network == .isolated ? IsolatedNetwork.memoryBytes : 0))
        self.group = group
        worker.controlGroup = group?.processesFile
        worker.dataBytes = group == nil ? description.memoryBytes : nil
        if let identity = description.site.identity { identityHeader = services.identities?.register(identity) }
        var environment = description.environment
        let perStart = WorkerEnvironment.perStart(
            port: port, workerID: services.randomness.uuidString(), identityEndpoint: description.identityEndpoint,
            identityHeader: identityHeader)
        environment.merge(perStart) { _, new in new }
        let settings = try MemoryFile(name: "coffer-settings")
        try settings.append(Sandbox.script(environment: environment))
        settings.seal()
        var memory = [settings]
        if description.network == .isolated {
            let machine = MachineNetwork.now()
            worker.network = IsolatedNetwork(port: port, openPorts: description.openPorts, machine: machine)
            let report = try MemoryFile(name: "coffer-network")
            let resolver = try MemoryFile(name: "coffer-resolver")
            try resolver.append(Array(machine.resolverConfiguration.utf8))
            networkReport = report
            memory += [report, resolver]
        }
        // The report is written, the others are read from their beginning.
        var files = [description.package.archive.reopened()]
        files += memory.map { $0 === networkReport ? fcntl($0.descriptor, F_DUPFD_CLOEXEC, 0) : $0.reopened() }
        defer { for file in files where file >= 0 { close(file) } }
        guard files.allSatisfy({ $0 >= 0 }) else {
            throw WorkerProcess.LaunchFailure(message: "the server is out of file descriptors")
        }
        return try await services.launch(services.sandbox.commandLine(worker), files)
    }

    /// nil once the handler listens; why not, otherwise.
    private func readiness(of process: WorkerProcess, port: Int) async -> String? {
        let deadline = NIODeadline.now() + .seconds(description.readinessSeconds)
        while NIODeadline.now() < deadline {
            if process.hasEnded { return nil }
            // The table is read piece by piece while other sockets come and go, so a line can be missed: look again.
            if await listens(process, port: port), let listener = ProcessTree.listener(onPort: port) {
                return isOwn(listener, process)
                    ? nil : "Another program listens on the port that was meant for the worker."
            }
            try? await Task.sleep(for: .milliseconds(25))
        }
        return
            "The worker did not listen on FUNCTIONS_CUSTOMHANDLER_PORT within \(description.readinessSeconds) seconds."
    }

    /// Whether somebody takes the worker's connections. In its own network, only the handler's socket tells: pasta
    /// takes connections from the start.
    private func listens(_ process: WorkerProcess, port: Int) async -> Bool {
        if description.network == .isolated {
            let inside = ProcessTree.isolated(below: process.processID).first
            return inside.flatMap { ProcessTree.listener(onPort: port, seenBy: $0) } != nil
        }
        let bootstrap = ClientBootstrap(group: services.group).connectTimeout(.seconds(1))
        guard let channel = try? await bootstrap.connect(host: "127.0.0.1", port: port).get() else { return false }
        try? await channel.close()
        return true
    }

    /// Whether the worker's sandbox took its port of the machine's loopback: nobody else must get its requests. As root
    /// each app that shares the machine's network has a user of its own; otherwise the socket must be held in the
    /// sandbox.
    private func isOwn(_ listener: ProcessTree.Listener, _ process: WorkerProcess) -> Bool {
        services.sandbox.runsAsRoot && description.network == .host
            ? listener.user == Sandbox.userID(of: description.site.name)
            : ProcessTree.holds(listener, below: process.processID)
    }

    private func forwardOutput(of process: WorkerProcess) {
        let site = description.site.id
        let logs = services.logs
        let clock = services.clock
        func forward(_ descriptor: Int32, _ level: FunctionLogEntry.Level) {
            let bootstrap = NIOPipeBootstrap(group: services.group).channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        LineReader { line in
                            logs.write(
                                FunctionLogEntry(
                                    time: clock.now(), site: site, level: level, category: "Worker", message: line))
                        })
                }
            }
            bootstrap.takingOwnershipOfDescriptor(input: descriptor).whenFailure { _ in close(descriptor) }
        }
        forward(process.standardOutput, .information)
        forward(process.standardError, .error)
    }

    // MARK: Ending

    private func ended(_ number: Int, _ ending: WorkerProcess.Ending) {
        guard number == run else { return }
        let report = networkReport.map { String(decoding: $0.contents(limit: 4_096), as: UTF8.self) } ?? ""
        guard let words = IsolatedNetwork.toolsWords(report) else {
            didEnd(number, "The worker \(ending.description).")
            return
        }
        services.logger.warning(
            "worker has no network", metadata: ["site": "\(description.site.name)", "tools": "\(words)"])
        didEnd(number, IsolatedNetwork.failure)
    }

    private func didEnd(_ number: Int, _ reason: String) {
        guard number == run else { return }
        let identityHeader = identityHeader
        forgetProcess()
        revoke(identityHeader)
        let action = state.ended(reason, now: services.clock.now())
        guard case .retry(let delay) = action else { return }
        report("\(reason) Starting it again in \(delay) s.")
        // A worker that is let go of meanwhile, and its package with it, does not wait for this.
        Task.detached { [weak self] in
            try? await Task.sleep(for: .seconds(delay))
            await self?.retry(number)
        }
    }

    private func retry(_ number: Int) {
        guard number == run, case .coolingDown = state.phase else { return }
        if case .launch = state.wanted(now: services.clock.now()) { launch() }
    }

    private func fail(_ number: Int, _ reason: String) async {
        guard number == run else { return }
        guard case .terminate = state.readinessFailed(reason, now: services.clock.now()) else { return }
        let process = process
        process?.kill()
        _ = await process?.ending()
        didEnd(number, reason)
    }

    private func forgetProcess() {
        process = nil
        group = nil
        networkReport = nil
        identityHeader = nil
        snapshot.withLock { snapshot in
            snapshot.port = nil
            snapshot.processID = nil
        }
    }

    private func revoke(_ identityHeader: RedactedString?) {
        if let identityHeader { services.identities?.revoke(identityHeader) }
    }

    /// Ends the worker if nobody asked for it since `limit`.
    func stopIfIdle(since limit: Timestamp) async {
        let isIdle = snapshot.withLock {
            $0.waiting == 0 && $0.outstanding == 0 && $0.lastUsed < limit && $0.port != nil
        }
        guard isIdle, case .terminate = state.idledOut() else { return }
        await end(gracefully: true)
    }

    /// For good: lets requests under way finish for a while, then asks the handler to end, then ends it. Returns when
    /// it is gone.
    func stop() async {
        guard case .terminate(let gracefully) = state.stop() else { return }
        await end(gracefully: gracefully)
    }

    private func end(gracefully: Bool) async {
        run += 1
        let process = process
        let group = group
        let launch = starting
        let identityHeader = identityHeader
        // New requests find no port from here on; those under way keep theirs.
        forgetProcess()
        if let process {
            if gracefully { await finish(process) } else { process.kill() }
            _ = await process.ending()
        }
        // What was being launched has no process yet: its launch ends that.
        await launch?.value
        // Not before: calls under way may ask for tokens to their end.
        revoke(identityHeader)
        // The sandbox's first process is gone; those inside follow it.
        await group?.remove()
    }

    /// Waits for the calls under way, then for the handler to end as it is asked to; not for long, either of them.
    private func finish(_ process: WorkerProcess) async {
        for _ in 0..<(Self.drainSeconds * 20) where outstanding > 0 {
            try? await Task.sleep(for: .milliseconds(50))
        }
        process.terminate()
        let killer = Task.detached {
            try? await Task.sleep(for: .seconds(Self.graceSeconds))
            if !Task.isCancelled { process.kill() }
        }
        _ = await process.ending()
        killer.cancel()
    }

    private func report(_ message: String) {
        services.logger.warning("worker ended", metadata: ["site": "\(description.site.name)", "reason": "\(message)"])
        services.logs.write(
            FunctionLogEntry(
                time: services.clock.now(), site: description.site.id, level: .error, category: "Host.Worker",
                message: message))
    }

    /// A port of 127.0.0.1 that is free now. The handler takes it a moment later; readiness checks that it was the one
    /// who did.
    private static func freePort() throws -> Int {
        let file = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard file >= 0 else { throw WorkerProcess.LaunchFailure(message: "the server is out of file descriptors") }
        defer { close(file) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                bind(file, generic, length) == 0 ? getsockname(file, generic, &length) : -1
            }
        }
        guard result == 0 else { throw WorkerProcess.LaunchFailure(message: "the server has no free port") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
