import CofferCore
import NIOPosix
import ResourceProviders
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// Remembers what was told it, in order.
private final class Journal<Event: Sendable>: Sendable {
    private let events = Mutex<[Event]>([])
    func add(_ event: Event) { events.withLock { $0.append(event) } }
    var all: [Event] { events.withLock { $0 } }
}

private final class Headers: IdentityEndpointRegistry {
    let revoked = Journal<RedactedString>()
    func register(_ identity: ManagedIdentity) -> RedactedString { RedactedString("header") }
    func revoke(_ header: RedactedString) { revoked.add(header) }
}

/// A worker without its host: a real sandbox, started when the test says so.
@Suite(.enabled(if: canSandbox))
struct WorkerLifeTests {
    private func worker(
        identities: (any IdentityEndpointRegistry)? = nil,
        launch: (@Sendable ([String], [Int32]) async throws -> WorkerProcess)? = nil
    ) throws -> Worker {
        var site = Site(
            id: ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Web/sites/Alone"),
            kind: "functionapp,linux", location: "eastus", created: Timestamp(unixSeconds: 0),
            secrets: SiteSecrets(publishingCredentials: .generate(siteName: "Alone", randomness: SystemRandomness())))
        site.identity = testIdentity
        let package = try Package(
            handlerPackage().build(), of: "alone", limits: PackageLimits(),
            memory: PackageMemory(limitBytes: 1 << 30))
        var services = Worker.Services(
            sandbox: try Sandbox(network: .isolated), group: MultiThreadedEventLoopGroup.singleton, logs: TestLogs(),
            identities: identities, clock: FixedClock(), randomness: SystemRandomness(), logger: silentLogger)
        if let launch { services.launch = launch }
        return Worker(
            Worker.Description(
                site: site,
                sandboxed: Sandbox.Worker(
                    site: site.name, executable: Sandbox.root + "/handler", arguments: [], workingDirectory: "",
                    unpackedBytes: package.unpackedBytes, dataBytes: nil, controlGroup: nil, network: nil,
                    sharedFiles: []),
                package: package, environment: [:], identityEndpoint: "http://127.0.0.1:1/msi/token",
                network: .isolated, openPorts: [], memoryBytes: 256 << 20, readinessSeconds: 30),
            services)
    }

    @Test func stopReturnsWhenAProcessUnderLaunchIsGone() async throws {
        let launches = Journal<Void>()
        let hasReturned = Journal<Bool>()
        let launched = Journal<WorkerProcess>()
        let worker = try worker { arguments, descriptors in
            launches.add(())
            // Until it was stopped, if it returns without this; a stop that waits has long begun to.
            for _ in 0..<10_000 where hasReturned.all.isEmpty { await Task.yield() }
            let process = try await WorkerProcess.launch(arguments, descriptors: descriptors)
            launched.add(process)
            return process
        }
        let call = Task { try await worker.acquire(limit: 1) }
        while launches.all.isEmpty { await Task.yield() }
        await worker.stop()
        hasReturned.add(true)
        #expect(launched.all.map(\.hasEnded) == [true])
        await #expect(throws: WorkerUnavailable.self) { try await call.value }
    }

    @Test func aCallUnderWayKeepsItsIdentityToItsEnd() async throws {
        let headers = Headers()
        let worker = try worker(identities: headers)
        _ = try #require(try await worker.acquire(limit: 2))
        let stop = Task { await worker.stop() }
        // Refused to others: it drains.
        while (try? await worker.acquire(limit: 2)) != nil { worker.release() }
        #expect(headers.revoked.all.isEmpty)
        worker.release()
        await stop.value
        #expect(headers.revoked.all == [RedactedString("header")])
    }
}
