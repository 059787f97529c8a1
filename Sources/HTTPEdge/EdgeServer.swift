public import CofferCore
import Glibc
import Logging
public import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// The server's listeners: one TLS port for all services by host name, one plain http port, and one gateway port.
///
/// Start it with `start`, read the ports it got, end it with `shutdown`.
public final class EdgeServer: Sendable {
    /// The TCP ports the listeners have; nil where the configuration left one out.
    public var tlsPort: Int? { shared.ports.tls }
    public var plainPort: Int? { shared.ports.plain }
    public var gatewayPort: Int? { shared.ports.gateway }

    private let shared: EdgeShared
    private let listeners: [any Channel]

    private init(shared: EdgeShared, listeners: [any Channel]) {
        self.shared = shared
        self.listeners = listeners
    }

    /// Opens the listeners; when it returns they accept connections.
    ///
    /// `group` is NIO's shared one, with a thread per core, unless given. `service` names the service of an endpoint,
    /// or nil for one this server does not have (501). It is asked for every request, on an event loop. Throws
    /// `IOError` or `SocketAddressError` when a port cannot be opened.
    public static func start(
        _ configuration: EdgeConfiguration, authority: CertificateAuthority,
        group: (any EventLoopGroup)? = nil,
        service: @escaping @Sendable (Endpoint) -> (any WireService)?
    ) async throws -> EdgeServer {
        let group = group ?? MultiThreadedEventLoopGroup.singleton
        let shared = EdgeShared(configuration: configuration, authority: authority, group: group, service: service)
        var listeners: [any Channel] = []
        do {
            var ports = EdgePorts()
            for (door, port) in [
                (Door.tls, configuration.tlsPort), (.plain, configuration.plainPort),
                (.gateway, configuration.gatewayPort),
            ] {
                guard let port else { continue }
                let opened = try await open(door, port: port, attempts: 8, shared: shared, group: group)
                listeners += opened.channels
                ports[door] = opened.port
            }
            shared.ports = ports
        } catch {
            for listener in listeners { try? await listener.close() }
            throw error
        }
        return EdgeServer(shared: shared, listeners: listeners)
    }

    /// Stops accepting, lets running requests finish for at most `gracefully`, then breaks off what is left. Idle
    /// connections are closed at once. Returns whether every request could finish.
    @discardableResult
    public func shutdown(gracefully within: TimeAmount) async -> Bool {
        for listener in listeners { try? await listener.close() }
        for state in shared.loopStates.values { state.executor.loop.execute { state.drain() } }
        if await shared.waitUntilEmpty(atMost: within) { return true }
        for state in shared.loopStates.values { state.executor.loop.execute { state.closeAll() } }
        _ = await shared.waitUntilEmpty(atMost: .seconds(6))
        return false
    }

    private static func open(
        _ door: Door, port wanted: Int, attempts: Int, shared: EdgeShared, group: any EventLoopGroup
    ) async throws -> (channels: [any Channel], port: Int) {
        var channels: [any Channel] = []
        var port = wanted
        var lastError: (any Error)?
        for address in shared.configuration.addresses {
            do {
                let channel = try await bootstrap(door, shared: shared, group: group).bind(host: address, port: port)
                    .get()
                channels.append(channel)
                // The first address chooses a free port; the others take the same.
                if port == 0 { port = channel.localAddress?.port ?? 0 }
            } catch {
                lastError = error
                let code = (error as? IOError)?.errnoCode
                if code == EADDRNOTAVAIL || code == EAFNOSUPPORT {
                    shared.configuration.logger.warning(
                        "this machine lacks an address", metadata: ["address": .string(address)])
                    continue
                }
                for channel in channels { try? await channel.close() }
                // The port that is free on one address need not be so on the next.
                guard code == EADDRINUSE, wanted == 0, attempts > 1 else { throw error }
                return try await open(door, port: 0, attempts: attempts - 1, shared: shared, group: group)
            }
        }
        guard !channels.isEmpty else { throw lastError ?? ChannelError.unknownLocalAddress }
        return (channels, port)
    }

    private static func bootstrap(_ door: Door, shared: EdgeShared, group: any EventLoopGroup) -> ServerBootstrap {
        ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.maxMessagesPerRead, value: 64)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            // Large reads halve the cost of large uploads; the allocator comes down again for small requests.
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 1_024, initial: 4_096, maximum: 256 * 1_024)
            )
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.writeBufferWaterMark, value: .init(low: 128 * 1_024, high: 512 * 1_024))
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try shared.accept(channel, door) }
            }
    }
}

/// Which listener a connection came to.
enum Door: Sendable { case tls, plain, gateway }

struct EdgePorts: Sendable {
    var tls: Int?
    var plain: Int?
    var gateway: Int?

    subscript(door: Door) -> Int? {
        get {
            switch door {
            case .tls: tls
            case .plain: plain
            case .gateway: gateway
            }
        }
        set {
            switch door {
            case .tls: tls = newValue
            case .plain: plain = newValue
            case .gateway: gateway = newValue
            }
        }
    }
}

/// What all connections of one server share.
final class EdgeShared: Sendable {
    let configuration: EdgeConfiguration
    let serverNames: ServerNames
    let service: @Sendable (Endpoint) -> (any WireService)?
    let loopStates: [ObjectIdentifier: LoopState]
    let anyLoop: any EventLoop
    private let portsBox = Mutex(EdgePorts())
    private let population = Mutex(Population())
    private let refusedHosts = Mutex(LineBudget(linesPerMinute: 10))

    private struct Population {
        var open = 0
        var waiter: CheckedContinuation<Bool, Never>?
    }

    init(
        configuration: EdgeConfiguration, authority: CertificateAuthority, group: any EventLoopGroup,
        service: @escaping @Sendable (Endpoint) -> (any WireService)?
    ) {
        self.configuration = configuration
        self.service = service
        serverNames = ServerNames(authority: authority, configuration: configuration)
        var states: [ObjectIdentifier: LoopState] = [:]
        for loop in group.makeIterator() {
            states[ObjectIdentifier(loop)] = LoopState(
                loop: loop, clock: configuration.clock, randomness: configuration.randomness)
        }
        loopStates = states
        anyLoop = group.any()
    }

    var ports: EdgePorts {
        get { portsBox.withLock { $0 } }
        set { portsBox.withLock { $0 = newValue } }
    }

    /// Counts a new connection in and gives it its pipeline. Runs on the connection's loop.
    func accept(_ channel: any Channel, _ door: Door) throws {
        let loopState = loopStates[ObjectIdentifier(channel.eventLoop)]!
        let limit = configuration.limits.connections
        let open = population.withLock {
            $0.open += 1
            return $0.open
        }
        loopState.add(channel)
        channel.closeFuture.whenComplete { [self] _ in
            loopState.remove(channel)
            leave()
        }
        // A few above the limit get a polite answer; a flood does not.
        guard open <= limit + limit / 8 + 16, !loopState.isDraining else { throw Refusal.tooManyConnections }
        let isOverLimit = open > limit
        let pipelines = Pipelines(shared: self)
        switch door {
        case .tls: try pipelines.addTLS(to: channel, loopState, isOverLimit: isOverLimit)
        case .plain: try pipelines.addRequests(to: channel, loopState, entrance: .plain, isOverLimit: isOverLimit)
        case .gateway:
            try channel.pipeline.syncOperations.addHandler(
                HandshakeTimer(timeout: configuration.limits.handshakeTimeout))
            try channel.pipeline.syncOperations.addHandler(
                GatewayHandler(pipelines: pipelines, loopState: loopState, isOverLimit: isOverLimit))
        }
    }

    /// A client asked the gateway for a host of somebody else. Its user sees little more than that it failed, so the
    /// log says what was asked for. `authority` holds only what a host name may (`Authority`).
    func logRefused(_ authority: String) {
        guard let omitted = refusedHosts.withLock({ $0.take(at: configuration.clock.now()) }) else { return }
        configuration.logger.notice(
            "the gateway refused a host or port that is not this server's",
            metadata: omitted == 0
                ? ["host": .string(authority)] : ["host": .string(authority), "unlogged": .stringConvertible(omitted)])
    }

    private func leave() {
        let waiter = population.withLock { population -> CheckedContinuation<Bool, Never>? in
            population.open -= 1
            return population.open == 0 ? population.waiter.take() : nil
        }
        waiter?.resume(returning: true)
    }

    /// True as soon as no connection is left, false when that took too long.
    func waitUntilEmpty(atMost time: TimeAmount) async -> Bool {
        await withCheckedContinuation { continuation in
            let isEmpty = population.withLock {
                if $0.open > 0 { $0.waiter = continuation }
                return $0.open == 0
            }
            guard !isEmpty else { return continuation.resume(returning: true) }
            anyLoop.scheduleTask(in: time) { [self] in
                population.withLock { $0.waiter.take() }?.resume(returning: false)
            }
        }
    }
}
