import CofferCore
import Foundation
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// What a worker's network takes from the machine's, and what is said when it cannot be made.
struct NetworkTests {
    private let routes = """
        Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
        eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0

        """
    private let lonely6 =
        "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 "
        + "ffffffff 00000001 00000000 00200200       lo\n"

    private func machine(_ resolver: String = "", routes: String? = nil, routes6: String? = nil) -> MachineNetwork {
        MachineNetwork(
            routes: routes ?? self.routes, routes6: routes6 ?? lonely6, resolverConfiguration: resolver)
    }

    @Test func knowsADefaultRoute() {
        #expect(!machine().leadsOutside)
        let gateway = "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        #expect(machine(routes: routes + gateway).leadsOutside)
        // Half of the addresses is not all of them.
        let half = gateway.replacing(" 00000000 0 0 0\n", with: " 00000080 0 0 0\n")
        #expect(!machine(routes: routes + half).leadsOutside)
        #expect(machine(routes6: lonely6 + lonely6.replacing("      lo", with: "    eth0")).leadsOutside)
        #expect(!machine(routes: "", routes6: "").leadsOutside)
    }

    @Test func namesAreAskedWhereTheWorkerCanAsk() {
        let plain = machine("search example.org\nnameserver 192.0.2.53\n")
        #expect(!plain.asksOwnLoopbackForNames)
        #expect(plain.resolverConfiguration == "search example.org\nnameserver 192.0.2.53\n")
        for server in ["127.0.0.53", "127.0.0.1"] {
            let local = machine("nameserver \(server)\noptions edns0\n# nameserver 127.0.0.1\n")
            #expect(local.asksOwnLoopbackForNames)
            #expect(local.resolverConfiguration == "nameserver 169.254.1.53\noptions edns0\n# nameserver 127.0.0.1\n")
        }
        // Nothing listens on the worker's own.
        let both = machine("nameserver ::1\nnameserver 127.0.0.53\n")
        #expect(both.asksOwnLoopbackForNames && both.resolverConfiguration == "nameserver 169.254.1.53\n")
        let newer = machine("nameserver ::1\nnameserver 2001:db8::53\n")
        #expect(!newer.asksOwnLoopbackForNames && newer.resolverConfiguration == "nameserver 2001:db8::53\n")
    }

    @Test func onlyTheHandlersAndCoffersPortsAreCarried() {
        let gateway = "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        let connected = IsolatedNetwork(port: 4_000, openPorts: [1, 2], machine: machine(routes: gateway + gateway))
        #expect(
            connected.arguments.joined(separator: " ")
                == "--config-net --no-map-gw -t 127.0.0.1/4000 -u none -U none -T 1,2")
        let alone = IsolatedNetwork(port: 4_000, openPorts: [], machine: machine("nameserver 127.0.0.53"))
        #expect(
            alone.arguments.joined(separator: " ")
                == "--config-net --no-map-gw -t 127.0.0.1/4000 -u none -U none -T none --dns-forward 169.254.1.53 "
                + "-4 -i lo -I eth0 -M 02:00:00:00:00:01 -a 192.0.2.2 -n 24 -g 192.0.2.1")
    }

    @Test func refusalsSayWhatToDo() {
        #expect(IsolatedNetwork.toolsWords("") == nil)
        #expect(IsolatedNetwork.toolsWords("Failed to send 45 bytes to syslog\n") == nil)
        let report = "pasta ended\nFailed to send 45 bytes to syslog\nNo tun\n"
        #expect(IsolatedNetwork.toolsWords(report) == "pasta ended; No tun")
        #expect(IsolatedNetwork.failure.contains("/dev/net/tun"))
        #expect(IsolatedNetwork.failure.contains("--worker-network host"))
        for (tool, package) in [("pasta", "passt"), ("nft", "nftables"), ("unshare", "util-linux")] {
            let error = #expect(throws: PackageError.self) {
                try Sandbox.checkNetworkTools { $0 == tool ? nil : "/usr/bin/" + $0 }
            }
            #expect(error?.message.contains("Workers need \(tool)") == true)
            #expect(error?.message.contains("apt install \(package)") == true)
        }
    }
}

private final class Greeting: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(NIOAny(ByteBuffer(string: "hello")), promise: nil)
    }
}

/// Real workers in a real network.
@Suite(.enabled(if: canSandbox))
struct WorkerNetworkTests {
    private let handler = """
        #!/usr/bin/python3
        import os, json, signal, socket, sys
        from http.server import BaseHTTPRequestHandler, HTTPServer
        signal.signal(signal.SIGTERM, lambda *a: (print("told to end", flush=True), os._exit(0)))
        def reached(port):
            try: return socket.create_connection(("127.0.0.1", port), timeout=5).recv(5).decode()
            except OSError as error: return type(error).__name__
        class H(BaseHTTPRequestHandler):
            def do_GET(s):
                ports = [int(p) for p in s.path.partition("?")[2].split(",") if p]
                b = json.dumps({"port": int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"]),
                    "reached": [reached(p) for p in ports]}).encode()
                s.send_response(200); s.send_header("Content-Length", str(len(b))); s.end_headers()
                s.wfile.write(b)
            def log_message(s, *a): pass
        HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
        """

    private func world(_ network: WorkerNetwork, openPorts: [Int] = []) async throws -> World {
        let world = try await World(
            settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package], network: network, openPorts: openPorts)
        let zip = handlerPackage(level: "anonymous", handler: handler)
        world.storage.put(World.package, Array(zip.build().readableBytesView))
        return world
    }

    /// Says "hello" to whoever connects.
    private func greeter() async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Greeting())
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    @Test(arguments: WorkerNetwork.allCases)
    func loopbackIsCoffersPortsOnly(network: WorkerNetwork) async throws {
        let open = try await greeter()
        let closed = try await greeter()
        let ports = [try #require(open.localAddress?.port), try #require(closed.localAddress?.port)]
        let world = try await world(network, openPorts: [ports[0]])
        let answer = try await world.send(world.get("/api/HttpTrigger1?\(ports[0]),\(ports[1])"))
        #expect(answer.status == 200)
        let reached = try JSONValue(parsing: Array(answer.body.utf8))["reached"]?.arrayValue
        #expect(reached == ["hello", network == .host ? "hello" : "ConnectionRefusedError"])
        await world.runtime.shutdown()
        // Its last words come through a pipe, which is read to its end after the process is gone.
        func hasSpoken() -> Bool { world.logs.entries.withLock { $0.contains { $0.message == "told to end" } } }
        for _ in 0..<1_000 where !hasSpoken() { try await Task.sleep(for: .milliseconds(10)) }
        #expect(hasSpoken())
        // Nothing that carries the network speaks in the app's name.
        #expect(
            world.logs.entries.withLock { $0.allSatisfy { $0.category != "Worker" || $0.message == "told to end" } })
        try await open.close()
        try await closed.close()
    }

    @Test func aWorkerThatLosesItsNetworkStartsAgain() async throws {
        let world = try await world(.isolated)
        let first = try await world.send(world.get("/api/HttpTrigger1"))
        let port = try #require(try JSONValue(parsing: Array(first.body.utf8))["port"]?.intValue)
        let listener = try #require(ProcessTree.listener(onPort: Int(port)))
        let carriers = ProcessTree.descendants(of: getpid()).filter {
            ProcessTree.name(of: $0).hasPrefix("pas") && ProcessTree.holds(listener, below: $0)
        }
        #expect(carriers.count == 1)
        for carrier in carriers { kill(carrier, SIGKILL) }
        var answer = first
        while answer.status != 503 { answer = try await world.send(world.get("/api/HttpTrigger1")) }
        // What the operator needs; the tools' own words are in the server's log alone.
        #expect(answer.body.contains("The worker has no network of its own") && !answer.body.contains("pasta"))
        #expect(world.logs.entries.withLock { $0.contains { $0.message.hasPrefix(IsolatedNetwork.failure) } })
        #expect(world.logs.entries.withLock { $0.allSatisfy { !$0.message.contains("pasta ended") } })
        world.clock.advance(seconds: 2)
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 200)
        await world.runtime.shutdown()
    }
}
