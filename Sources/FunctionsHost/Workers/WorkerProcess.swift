internal import CPlatform
internal import Foundation
internal import Glibc
internal import Synchronization

/// A child process and the thread that made it and waits for it.
///
/// The same thread does both: the kernel sends a child its parent-death signal when the *thread* that made it ends, and
/// threads of a pool may end at any time.
final class WorkerProcess: Sendable {
    struct Ending: Sendable, Equatable {
        let description: String
    }
    private enum State {
        case running(waiting: [CheckedContinuation<Ending, Never>])
        case ended(Ending)
    }

    let processID: pid_t
    /// Reading ends; whoever made the process closes them.
    let standardOutput: Int32
    let standardError: Int32
    private let state: Mutex<State>

    private init(processID: pid_t, standardOutput: Int32, standardError: Int32) {
        self.processID = processID
        self.standardOutput = standardOutput
        self.standardError = standardError
        state = Mutex(.running(waiting: []))
    }

    struct LaunchFailure: Error {
        let message: String
    }

    /// Starts `arguments` with an almost empty environment. `descriptors` become 3, 4, … in the child; the caller still
    /// owns them.
    static func launch(_ arguments: [String], descriptors: [Int32]) async throws -> WorkerProcess {
        try await withCheckedThrowingContinuation { (launched: CheckedContinuation<WorkerProcess, any Error>) in
            let thread = Thread {
                let process: WorkerProcess
                do {
                    process = try spawn(arguments, descriptors)
                } catch {
                    launched.resume(throwing: error)
                    return
                }
                launched.resume(returning: process)
                process.reap()
            }
            thread.name = "worker"
            thread.stackSize = 256 << 10
            thread.start()
        }
    }

    private func reap() {
        var status: Int32 = 0
        while waitpid(processID, &status, 0) < 0 && errno == EINTR {}
        let signal = status & 0x7f
        let description = signal == 0 ? "exited with code \((status >> 8) & 0xff)" : "was ended by signal \(signal)"
        let waiting: [CheckedContinuation<Ending, Never>] = state.withLock { state in
            guard case .running(let waiting) = state else { return [] }
            state = .ended(Ending(description: description))
            return waiting
        }
        for continuation in waiting { continuation.resume(returning: Ending(description: description)) }
    }

    var hasEnded: Bool { state.withLock { if case .ended = $0 { true } else { false } } }

    func ending() async -> Ending {
        await withCheckedContinuation { continuation in
            let ended: Ending? = state.withLock { state in
                switch state {
                case .ended(let ending): return ending
                case .running(let waiting):
                    state = .running(waiting: waiting + [continuation])
                    return nil
                }
            }
            if let ended { continuation.resume(returning: ended) }
        }
    }

    /// Asks the handler itself to end: the sandbox's own processes would take it with them at once.
    func terminate() {
        guard !hasEnded else { return }
        for child in ProcessTree.workers(below: processID) where ProcessTree.name(of: child) != "bwrap" {
            kill(child, SIGTERM)
        }
    }
    /// Ends everything: the sandbox dies with its outer process.
    func kill() {
        state.withLock { state in
            // Under the lock: after `reap` the number may belong to another process.
            guard case .running = state else { return }
            _ = Glibc.kill(processID, SIGKILL)
        }
    }
    private func kill(_ id: pid_t, _ signal: Int32) { _ = Glibc.kill(id, signal) }

    private static func spawn(_ arguments: [String], _ descriptors: [Int32]) throws(LaunchFailure) -> WorkerProcess {
        var processID: pid_t = 0
        var output: Int32 = -1
        var errors: Int32 = -1
        let result = withCStrings(arguments) { argv in
            withCStrings(["PATH=" + Sandbox.path, "LANG=C.UTF-8"]) { environment in
                coffer_spawn(argv, environment, descriptors, descriptors.count, &processID, &output, &errors)
            }
        }
        guard result == 0 else {
            throw LaunchFailure(message: "the sandbox cannot be started (\(String(cString: strerror(result))))")
        }
        return WorkerProcess(processID: processID, standardOutput: output, standardError: errors)
    }
}

private func withCStrings<Result>(_ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return body(pointers)
}

/// What /proc tells about a worker's processes.
enum ProcessTree {
    private static let processesLimit = 4_096

    /// Children, their children and so on, in no order.
    static func descendants(of root: pid_t) -> [pid_t] {
        var found: [pid_t] = []
        var open = [root]
        while let next = open.popLast(), found.count < processesLimit {
            guard let tasks = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(next)/task") else {
                continue
            }
            for task in tasks {
                let children =
                    text("/proc/\(next)/task/\(task)/children")?.split(separator: " ").compactMap { pid_t($0.trimmed) }
                    ?? []
                found += children
                open += children
            }
        }
        return found
    }

    static func name(of process: pid_t) -> String {
        text("/proc/\(process)/comm")?.split(separator: "\n").first.map(String.init) ?? ""
    }

    /// Those of the descendants that have another network than this process.
    static func isolated(below root: pid_t) -> [pid_t] {
        func network(_ process: String) -> String? {
            try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/net")
        }
        let own = network("self")
        return descendants(of: root).filter { process in network(String(process)).map { $0 != own } ?? false }
    }

    /// The sandbox's inside: without what carries its network, if it has one of its own.
    static func workers(below root: pid_t) -> [pid_t] {
        let isolated = isolated(below: root)
        return isolated.isEmpty ? descendants(of: root) : isolated
    }

    /// Resident memory of the worker's processes, shared pages counted once per process: bytes.
    static func residentBytes(of root: pid_t) -> Int {
        let pages = workers(below: root).reduce(0) { sum, process in
            let fields = text("/proc/\(process)/statm")?.split(separator: " ") ?? []
            return sum + (fields.count > 1 ? Int(fields[1]) ?? 0 : 0)
        }
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// A socket that listens for connections to 127.0.0.1.
    struct Listener: Equatable {
        let user: UInt32
        let inode: String
    }

    /// Who gets connections to a TCP port of 127.0.0.1: a socket of that address, of all IPv4 addresses, or of all IPv6
    /// addresses that takes IPv4 too (`::`, what many runtimes listen on unasked). nil when nobody does. In the network
    /// of `process`, or in this process's own.
    static func listener(onPort port: Int, seenBy process: pid_t? = nil) -> Listener? {
        let folder = "/proc/\(process.map { String($0) } ?? "self")/net"
        // An IPv4 socket wins over one of both families: the kernel asks it first.
        return listener(onPort: port, in: folder + "/tcp", addresses: ["0100007F", "00000000"])
            ?? listener(
                onPort: port, in: folder + "/tcp6",
                addresses: ["0000000000000000FFFF00000100007F", "00000000000000000000000000000000"])
    }
    private static func listener(onPort port: Int, in table: String, addresses: Set<Substring>) -> Listener? {
        for line in text(table)?.split(separator: "\n").dropFirst() ?? [] {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            guard fields.count > 9, fields[3] == "0A", let user = UInt32(fields[7]) else { continue }
            let address = fields[1].split(separator: ":")
            guard address.count == 2, Int(address[1], radix: 16) == port, addresses.contains(address[0]) else {
                continue
            }
            return Listener(user: user, inode: String(fields[9]))
        }
        return nil
    }

    /// Whether the process or one below it holds the socket.
    static func holds(_ listener: Listener, below root: pid_t) -> Bool {
        let socket = "socket:[\(listener.inode)]"
        return ([root] + descendants(of: root)).contains { process in
            let folder = "/proc/\(process)/fd"
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            return names.contains {
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)")) == socket
            }
        }
    }

    private static func text(_ path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: path) else { return nil }
        return String(decoding: data, as: UTF8.self)
    }
}
