import CPlatform
import CofferCore
import Foundation
import NIOPosix

/// Runs `TokenSession` in a process of its own, which ends with its one answer.
///
/// A token's module is a stranger's code. It may crash or hang, keep threads and descriptors, or change what it shares
/// with us: SoftHSM sets up, in its own way, the same libcrypto that the vaults' keys come from. None of it reaches the
/// server, and neither does the PIN.
enum TokenProcess {
    /// Longest wait for an answer: a token over a network may take seconds, a module that hangs would take for ever.
    private static let limit = Duration.seconds(60)
    /// Longest wait for the module to log out and end, once the answer is here.
    private static let farewell = Duration.seconds(5)
    /// The process ends itself after so long, also when nobody is left who would end it.
    static let lifetimeSeconds: UInt32 = 75
    private static let answerBytesLimit = 4_096
    /// Most of what the module says on standard output and error that is passed on, in bytes.
    private static let chatterBytesLimit = 64 << 10

    /// Throws `CommandFailure`, or `PINRefusal`.
    static func run(
        _ operation: TokenSession.Operation, by uri: TokenKeyURI, version: UInt32, _ input: SecretBytes
    ) async throws -> SecretBytes {
        precondition(input.count == operation.inputBytes)
        // A thread that may block: the cooperative pool's must not.
        return try await NIOThreadPool.singleton.runIfActive {
            try exchange(
                ["/proc/self/exe", "root-key", InToken.name, operation.rawValue, String(version), uri.text], input,
                answerBytes: operation.outputBytes)
        }
    }

    private static func exchange(_ arguments: [String], _ input: SecretBytes, answerBytes: Int) throws -> SecretBytes {
        var request: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &request) == 0 else { throw failure(String(cString: strerror(errno))) }
        defer { close(request[0]) }
        // It fits into the socket's room, and both ends are still ours.
        let written = input.withUnsafeBytes { write(request[1], $0.baseAddress, $0.count) }
        close(request[1])
        guard written == input.count else { throw failure(String(cString: strerror(errno))) }
        let environment = ProcessInfo.processInfo.environment.map { "\($0.key)=\($0.value)" }
        var processID: pid_t = 0
        var output: Int32 = -1
        var errors: Int32 = -1
        let result = withCStrings(arguments) { arguments in
            withCStrings(environment) { environment in
                coffer_spawn(arguments, environment, [request[0]], 1, &processID, &output, &errors)
            }
        }
        guard result == 0 else { throw failure(String(cString: strerror(result))) }
        defer {
            close(output)
            close(errors)
        }
        var speech = Speech(errors: errors)
        let answer = Result { try collect(output, &speech) }
        if case .success((_, inTime: true)) = answer { letEnd(processID, &speech) }
        // What it may still do, and what it has started, is of no use.
        kill(-processID, SIGKILL)
        var status: Int32 = 0
        while waitpid(processID, &status, 0) < 0 && errno == EINTR {}
        let (bytes, inTime) = try answer.get()
        return try TokenAnswer.read(bytes, keyBytes: answerBytes, inTime: inTime)
    }

    /// The answer's bytes, empty when the process ended without one, and whether it came before the limit.
    private static func collect(_ output: Int32, _ speech: inout Speech) throws -> (SecretBytes, inTime: Bool) {
        let end = ContinuousClock.now + limit
        var inTime = true
        let bytes = try SecretBytes(capacity: answerBytesLimit) { memory in
            var count = 0
            while true {
                let left = end - ContinuousClock.now
                guard left > .zero else {
                    inTime = false
                    return count
                }
                guard try speech.relay(until: output, left) else { continue }
                let got = Foundation.read(output, memory.baseAddress! + count, memory.count - count)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { return count }
                count += got
                // Not its end, which a process that the module started may hold off.
                if TokenAnswer.isWhole(UnsafeRawBufferPointer(rebasing: memory[..<count])) { return count }
            }
        }
        return (bytes, inTime)
    }

    /// Lets the module log out: a session that is cut off may stay open in a token over a network.
    private static func letEnd(_ processID: pid_t, _ speech: inout Speech) {
        let end = ContinuousClock.now + farewell
        var information = siginfo_t()
        while waitid(P_PID, id_t(processID), &information, WEXITED | WNOHANG | WNOWAIT) == 0, information.si_signo == 0,
            ContinuousClock.now < end
        {
            _ = try? speech.relay(until: -1, .milliseconds(20))
        }
    }

    /// What the module says to people on standard output and error: passed on up to a limit, and read beyond it, so
    /// that it never waits for us.
    private struct Speech {
        var errors: Int32
        private var passed = 0

        init(errors: Int32) { self.errors = errors }

        /// Waits for `other` or for speech, and passes that on. Returns whether `other` can be read.
        mutating func relay(until other: Int32, _ time: Duration) throws -> Bool {
            // A descriptor of -1 is passed over.
            var waiting = [
                pollfd(fd: other, events: Int16(POLLIN), revents: 0),
                pollfd(fd: errors, events: Int16(POLLIN), revents: 0),
            ]
            let ready = poll(&waiting, 2, Int32(max(1, time / .milliseconds(1))))
            if ready < 0, errno != EINTR { throw failure(String(cString: strerror(errno))) }
            guard ready > 0 else { return false }
            if waiting[1].revents != 0 {
                var buffer = [UInt8](repeating: 0, count: 4_096)
                let got = Foundation.read(errors, &buffer, buffer.count)
                if got <= 0 { errors = -1 }
                if got > 0, passed < chatterBytesLimit { FileHandle.standardError.write(Data(buffer.prefix(got))) }
                passed += max(got, 0)
            }
            return waiting[0].revents != 0
        }
    }

    private static func failure(_ reason: String) -> CommandFailure {
        CommandFailure("The process for the token cannot be started: \(reason).")
    }

    private static func withCStrings<Result>(
        _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
    ) -> Result {
        var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return body(pointers)
    }
}

/// What the token's process writes: how far its login is, then a byte that tells the kind of answer, two with the
/// length of what follows (most significant first), and that: a key, or a text for people.
enum TokenAnswer: UInt8 {
    case done = 0
    case failed = 1
    case pinRefused = 2

    enum Login: UInt8 {
        case begins = 3
        case succeeded = 4
    }

    private static let headBytes = 3
    /// A longer text is cut: whole, it fits what is read of an answer.
    private static let textBytesLimit = 4_000

    static func write(_ body: () throws -> SecretBytes) -> SecretBytes {
        func answer(_ kind: TokenAnswer, _ content: UnsafeRawBufferPointer) -> SecretBytes {
            SecretBytes(count: headBytes + content.count) {
                $0[0] = kind.rawValue
                $0[1] = UInt8(content.count >> 8)
                $0[2] = UInt8(content.count & 0xff)
                UnsafeMutableRawBufferPointer(rebasing: $0[headBytes...]).copyMemory(from: content)
            }
        }
        func answer(_ kind: TokenAnswer, _ text: String) -> SecretBytes {
            Array(text.utf8.prefix(textBytesLimit)).withUnsafeBytes { answer(kind, $0) }
        }
        do {
            return try body().withUnsafeBytes { answer(.done, $0) }
        } catch let refusal as PINRefusal {
            return answer(.pinRefused, refusal.description)
        } catch {
            return answer(.failed, CommandFailure.reason(error))
        }
    }

    /// How far the login is, the answer's kind, and its content as far as it is here; nil where it does not say.
    private static func parts(_ answer: UnsafeRawBufferPointer) -> (
        login: Login?, kind: TokenAnswer?, length: Int?, content: Slice<UnsafeRawBufferPointer>
    ) {
        let steps = answer.prefix(while: { Login(rawValue: $0) != nil })
        let rest = answer[steps.endIndex...]
        let length =
            rest.count >= headBytes ? Int(rest[rest.startIndex + 1]) << 8 | Int(rest[rest.startIndex + 2]) : nil
        return (
            steps.last.flatMap(Login.init(rawValue:)), rest.first.flatMap(TokenAnswer.init(rawValue:)), length,
            rest.dropFirst(headBytes)
        )
    }

    static func isWhole(_ answer: UnsafeRawBufferPointer) -> Bool {
        let parts = parts(answer)
        return parts.kind != nil && parts.length.map { parts.content.count >= $0 } ?? false
    }

    /// The key, of exactly `keyBytes`. Throws what the process wrote, or what its silence means.
    static func read(_ answer: SecretBytes, keyBytes: Int, inTime: Bool) throws -> SecretBytes {
        try answer.withUnsafeBytes { answer in
            let (login, kind, length, content) = parts(answer)
            switch inTime && length == content.count ? kind : nil {
            case .done where content.count == keyBytes: return SecretBytes(copying: content)
            case .failed: throw CommandFailure(String(decoding: content, as: UTF8.self))
            case .pinRefused: throw PINRefusal(String(decoding: content, as: UTF8.self))
            case .done, nil: throw silence(login, inTime: inTime)
            }
        }
    }

    private static func silence(_ login: Login?, inTime: Bool) -> any Error {
        let what =
            inTime
            ? "The token's module ended its process without an answer"
            : "The token did not answer within the time for it"
        guard login == .begins else {
            return CommandFailure("\(what). What it said stands above, if anything; see to the token and its software.")
        }
        return PINRefusal(
            "\(what) to the PIN, which it may have counted as wrong. What it said stands above, if anything. Log in by hand, "
                + "with 'pkcs11-tool --module MODULE --login --test' for instance, then start again.")
    }
}
