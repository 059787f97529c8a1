internal import CofferCore
internal import Crypto
internal import Foundation
internal import NIOPosix
internal import Synchronization

/// Checks client secrets against their records: the known ones at once, the others by the slow hash, a few at a time.
///
/// Hashing is what a stranger can make the server do: it has one thread of its own, a bounded queue, and a smaller
/// bound for each application, so that a flood of wrong secrets for one leaves room for the others. A secret that
/// proved itself before takes no place in the queue.
final class SecretChecks: Sendable {
    enum Limits {
        /// Requests whose secrets wait for the slow hash or are at it.
        static let waiting = 64
        static let waitingForOneApplication = 16
        /// Proofs remembered; above this many the memory starts anew.
        static let proofs = 1_024
    }
    enum Verdict { case valid, expired, wrong }
    /// Too many requests wait already.
    struct Throttled: Error {}

    private struct State {
        /// Which secret a client proved, by a MAC of the application and the secret.
        var proofs: [[UInt8]: String] = [:]
        var waiting: [String: Int] = [:]
        var waitingCount = 0
    }
    private let key: SymmetricKey
    private let state = Mutex(State())
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let matches: @Sendable (ClientSecret, String) -> Bool

    /// `key` is this process's own; what is remembered under it means nothing elsewhere. `matches` is the slow hash.
    init(key: SecretBytes, matches: @escaping @Sendable (ClientSecret, String) -> Bool = { $0.matches($1) }) {
        self.key = key.withUnsafeBytes { SymmetricKey(data: $0) }
        self.matches = matches
        thread.start()
    }
    deinit { thread.shutdownGracefully { _ in } }

    /// Whether `secret` is one of `records` at `now`; `.expired` when it is one that is not in force. The records are
    /// the application's of this moment: a proof names one of them, and a removed one is refused at once.
    func check(_ secret: String, among records: [ClientSecret], appID: String, at now: Timestamp) async throws
        -> Verdict
    {
        let tag = tag(appID, secret)
        let known = state.withLock { $0.proofs[tag] }
        if let known, let record = records.first(where: { $0.keyID == known }) { return verdict(record, now) }
        try begin(appID)
        defer { end(appID) }
        for record in records {
            guard try await thread.runIfActive({ [matches] in matches(record, secret) }) else { continue }
            state.withLock { state in
                if state.proofs.count >= Limits.proofs { state.proofs = [:] }
                state.proofs[tag] = record.keyID
            }
            return verdict(record, now)
        }
        return .wrong
    }

    private func verdict(_ record: ClientSecret, _ now: Timestamp) -> Verdict {
        record.end > now && record.start <= now ? .valid : .expired
    }

    private func tag(_ appID: String, _ secret: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Data("\(appID.lowercased())\n\(secret)".utf8), using: key))
    }

    func begin(_ appID: String) throws {
        let isAdmitted = state.withLock { state in
            let ofOne = state.waiting[appID, default: 0]
            guard state.waitingCount < Limits.waiting, ofOne < Limits.waitingForOneApplication else { return false }
            state.waiting[appID] = ofOne + 1
            state.waitingCount += 1
            return true
        }
        guard isAdmitted else { throw Throttled() }
    }
    func end(_ appID: String) {
        state.withLock { state in
            let others = state.waiting[appID, default: 1] - 1
            state.waiting[appID] = others > 0 ? others : nil
            state.waitingCount -= 1
        }
    }
}

extension IdentityService {
    /// The service principal of the application that `secret` is one of. Throws `LoginError`.
    func authenticate(_ clientID: String, secret: String) async throws -> ServicePrincipal {
        let tenant = installation.tenantID
        guard UUID(uuidString: clientID) != nil,
            let principal = try await directory.principal(ofApplication: clientID)?.value,
            principal.kind == .application
        else { throw LoginError.applicationNotFound(clientID, tenant: tenant) }
        let application = try await directory.application(clientID)?.value
        let verdict: SecretChecks.Verdict
        do {
            verdict = try await secretChecks.check(
                secret, among: (application?.secrets ?? []) + principal.secrets, appID: principal.appID,
                at: clock.now())
        } catch is SecretChecks.Throttled {
            throw LoginError.throttled
        }
        switch verdict {
        case .wrong: throw LoginError.wrongSecret(principal.appID)
        case .expired: throw LoginError.expiredSecret(principal.appID)
        case .valid: break
        }
        guard principal.isEnabled else { throw LoginError.disabled(principal.appID) }
        return principal
    }
}
