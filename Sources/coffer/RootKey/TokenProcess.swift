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
                ["/proc/self/exe", "root-key", InToken.name, operation.rawValue, String(version), uri.text], input)
        }
    }

    private static func exchange(_ arguments: [String], _ input: SecretBytes) throws -> SecretBytes {
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
        let answer = Result { try collect(output, errors) }
        // It has answered, or never will; what it may still do is of no use.
        kill(processID, SIGKILL)
        var status: Int32 = 0
        while waitpid(processID, &status, 0) < 0 && errno == EINTR {}
        return try TokenAnswer.read(answer.get())
    }

    /// The answer's bytes; empty when the process ended without one.
    private static func collect(_ output: Int32, _ errors: Int32) throws -> SecretBytes {
        let end = ContinuousClock.now + limit
        var chatter = 0
        return try SecretBytes(capacity: answerBytesLimit) { memory in
            var count = 0
            while true {
                // A descriptor of -1 is passed over.
                var waiting = [
                    pollfd(fd: output, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: chatter < chatterBytesLimit ? errors : -1, events: Int16(POLLIN), revents: 0),
                ]
                let left = max(0, (end - ContinuousClock.now) / .milliseconds(1))
                let ready = poll(&waiting, 2, Int32(left))
                if ready < 0, errno == EINTR { continue }
                guard ready > 0 else {
                    throw CommandFailure(
                        "The token did not answer within \(limit.components.seconds) seconds. See to the token and its "
                            + "module, then start again.")
                }
                if waiting[1].revents != 0 { chatter += relay(errors) ?? chatterBytesLimit }
                guard waiting[0].revents != 0 else { continue }
                let got = Foundation.read(output, memory.baseAddress! + count, memory.count - count)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { return count }
                count += got
            }
        }
    }

    /// Passes on what the module says to people. nil at its end.
    private static func relay(_ errors: Int32) -> Int? {
        var buffer = [UInt8](repeating: 0, count: 4_096)
        let got = Foundation.read(errors, &buffer, buffer.count)
        guard got > 0 else { return nil }
        FileHandle.standardError.write(Data(buffer.prefix(got)))
        return got
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

/// What the token's process writes: a byte that tells the kind, then a key, or a text for people.
enum TokenAnswer: UInt8 {
    case done = 0
    case failed = 1
    case pinRefused = 2

    static func write(_ body: () throws -> SecretBytes) -> SecretBytes {
        func text(_ kind: TokenAnswer, _ text: String) -> SecretBytes {
            SecretBytes(copying: [kind.rawValue] + Array(text.utf8))
        }
        do {
            return try body().withUnsafeBytes { key in
                SecretBytes(count: key.count + 1) {
                    $0[0] = TokenAnswer.done.rawValue
                    UnsafeMutableRawBufferPointer(rebasing: $0[1...]).copyMemory(from: key)
                }
            }
        } catch let refusal as PINRefusal {
            return text(.pinRefused, refusal.description)
        } catch {
            return text(.failed, CommandFailure.reason(error))
        }
    }

    static func read(_ answer: SecretBytes) throws -> SecretBytes {
        try answer.withUnsafeBytes { answer in
            guard let kind = answer.first.flatMap(TokenAnswer.init(rawValue:)) else {
                throw CommandFailure(
                    "The token's module ended its process without an answer. What it said stands above, if anything; update "
                        + "or correct the token's software.")
            }
            switch kind {
            case .done: return SecretBytes(copying: answer.dropFirst())
            case .failed: throw CommandFailure(String(decoding: answer.dropFirst(), as: UTF8.self))
            case .pinRefused: throw PINRefusal(String(decoding: answer.dropFirst(), as: UTF8.self))
            }
        }
    }
}
