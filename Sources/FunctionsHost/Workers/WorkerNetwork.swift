internal import Foundation
internal import Glibc

/// Which network workers see.
public enum WorkerNetwork: String, Sendable, CaseIterable {
    /// Each worker one of its own, with a way out to the network; of the machine's loopback, Coffer's ports alone.
    case isolated
    /// The machine's: a worker reaches whatever listens on the loopback, the handlers of other apps included.
    case host
}

/// The network one worker has to itself: a namespace that `pasta` (package passt) joins to the machine's in user mode.
///
/// `pasta` takes connections to the handler's port on the machine's loopback to the same port inside, and those to
/// Coffer's ports inside back to Coffer. What else the worker sends leaves as if the server had sent it, so a packet to
/// a loopback address must never get that far: a program needs no privilege to bind a socket to a device (ip(7),
/// `IP_PKTINFO`), and pasta would take such a packet to the machine's loopback. A filter in the namespace, which the
/// worker cannot change, drops it.
struct IsolatedNetwork: Sendable, Equatable {
    static let device = "/dev/net/tun"
    /// What pasta holds, beside the worker's own memory.
    static let memoryBytes = 64 << 20
    /// Where a worker asks for names when the machine itself asks a server on its loopback. Link-local: nobody routes
    /// it.
    static let resolverAddress = "169.254.1.53"

    /// The handler's, on both sides.
    var port: Int
    /// Coffer's own, which the worker finds on its loopback too.
    var openPorts: [Int]
    var machine: MachineNetwork

    /// Of `pasta`, without the namespace; none holds a space.
    var arguments: [String] {
        var arguments = ["--config-net", "--no-map-gw", "-t", "127.0.0.1/\(port)", "-u", "none", "-U", "none", "-T"]
        arguments.append(openPorts.isEmpty ? "none" : openPorts.map(String.init).joined(separator: ","))
        if machine.asksOwnLoopbackForNames { arguments += ["--dns-forward", Self.resolverAddress] }
        // pasta copies the addresses of the interface that leads outside. Without one it needs made-up ones (RFC 5737).
        if !machine.leadsOutside {
            arguments += [
                "-4", "-i", "lo", "-I", "eth0", "-M", "02:00:00:00:00:01", "-a", "192.0.2.2", "-n", "24", "-g",
                "192.0.2.1",
            ]
        }
        return arguments
    }

    static let filter = """
        table inet worker {
          chain output {
            type filter hook output priority 0;
            oifname != "lo" ip daddr { 0.0.0.0/8, 127.0.0.0/8 } drop
            oifname != "lo" ip6 daddr { ::/127, ::ffff:0:0/96 } drop
          }
        }
        """

    /// What `pasta` and the tools around it said when they ended, for the server's log; nil when they said nothing.
    static func toolsWords(_ report: String) -> String? {
        // It logs to a system logger that a small machine does not have.
        let lines = report.split(separator: "\n").map(\.trimmed).filter { !$0.isEmpty && !$0.hasSuffix("to syslog") }
        return lines.isEmpty ? nil : String(lines.joined(separator: "; ").prefix(500))
    }
    /// For callers, whoever they are, and for the app's logs: without the tools' words, which tell of the machine.
    static let failure =
        "The worker has no network of its own, or lost it. It needs \(device), user namespaces and nf_tables on the "
        + "server, whose log has what the tools said; \(alternative)"
    static let alternative =
        "'coffer serve --worker-network host' does without, and lets every app reach the machine's loopback."
}

/// What a worker's network takes over from the machine's when it is made.
struct MachineNetwork: Sendable, Equatable {
    /// Whether there is a default route.
    var leadsOutside: Bool
    var asksOwnLoopbackForNames: Bool
    /// For the worker: the machine's resolv.conf(5), with reachable servers. One on `::1` is left out: what is asked at
    /// an address of IPv4 pasta carries to a resolver of IPv4 only.
    var resolverConfiguration: String

    init(routes: String, routes6: String, resolverConfiguration: String) {
        // /proc/net/route: interface, destination, …, mask in the eighth column.
        let default4 = routes.split(separator: "\n").dropFirst().contains { line in
            let fields = line.split(whereSeparator: \.isWhitespace)
            return fields.count > 7 && fields[1] == "00000000" && fields[7] == "00000000"
        }
        // /proc/net/ipv6_route: destination, prefix length, …, interface. The loopback has one that leads nowhere.
        let default6 = routes6.split(separator: "\n").contains { line in
            let fields = line.split(whereSeparator: \.isWhitespace)
            return fields.count > 9 && fields[0].allSatisfy { $0 == "0" } && fields[1] == "00" && fields[9] != "lo"
        }
        leadsOutside = default4 || default6
        var lines: [String] = []
        var asksLoopback = false
        for line in resolverConfiguration.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            let words = line.split(whereSeparator: \.isWhitespace)
            let server = words.count > 1 && words[0] == "nameserver" ? words[1] : ""
            if server.hasPrefix("127.") {
                asksLoopback = true
                lines.append("nameserver \(IsolatedNetwork.resolverAddress)")
            } else if server != "::1" {
                lines.append(line)
            }
        }
        asksOwnLoopbackForNames = asksLoopback
        self.resolverConfiguration = lines.joined(separator: "\n")
    }

    static func now() -> MachineNetwork {
        func text(_ path: String) -> String {
            FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
        }
        return MachineNetwork(
            routes: text("/proc/net/route"), routes6: text("/proc/net/ipv6_route"),
            resolverConfiguration: text("/etc/resolv.conf"))
    }
}
