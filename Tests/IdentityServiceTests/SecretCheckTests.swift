import CofferCore
import Dispatch
import Foundation
import Synchronization
import Testing

@testable import IdentityService

/// How often, and how many at once, the slow hash of a client secret is computed.
@Suite struct SecretCheckTests {
    private static let now = Timestamp(iso8601: "2026-11-22T03:00:00Z")!

    /// Counts hashes; each waits while the gate is shut.
    private final class Hashing: Sendable {
        private struct State {
            var count = 0
            var running = 0
            var most = 0
        }
        private let state = Mutex(State())
        private let gate = DispatchSemaphore(value: 0)
        private let isOpen: Bool
        init(isOpen: Bool = true) { self.isOpen = isOpen }

        func matches(_ record: ClientSecret, _ secret: String) -> Bool {
            state.withLock {
                $0.count += 1
                $0.running += 1
                $0.most = max($0.most, $0.running)
            }
            if !isOpen { gate.wait() }
            state.withLock { $0.running -= 1 }
            return record.matches(secret)
        }
        func letThrough(_ count: Int) { for _ in 0..<count { gate.signal() } }
        var count: Int { state.withLock { $0.count } }
        var most: Int { state.withLock { $0.most } }
    }

    private func secret(endsIn seconds: Int64 = 3_600) -> (value: String, record: ClientSecret) {
        let (value, record) = ClientSecret.generate(
            displayName: nil, start: Self.now, end: Self.now.adding(seconds: seconds), rounds: 10,
            randomness: SystemRandomness())
        return (value.reveal(), record)
    }
    private func checks(_ hashing: Hashing) -> SecretChecks {
        SecretChecks(key: SystemRandomness().secret(32)) { hashing.matches($0, $1) }
    }

    @Test func aProvenSecretIsHashedOnceAndARemovedOneIsRefusedAtOnce() async throws {
        let hashing = Hashing()
        let checks = checks(hashing)
        let (first, second) = (secret(), secret(endsIn: 60))
        let records = [first.record, second.record]
        for _ in 0..<5 {
            #expect(try await checks.check(first.value, among: records, appID: "a", at: Self.now) == .valid)
        }
        #expect(hashing.count == 1)
        // The proof is of this secret, for this application.
        #expect(try await checks.check(second.value, among: records, appID: "a", at: Self.now) == .valid)
        #expect(hashing.count == 3)
        #expect(try await checks.check(first.value, among: [second.record], appID: "b", at: Self.now) == .wrong)
        #expect(hashing.count == 4)
        // Time is asked each time, and so is whether the record is still there.
        let later = Self.now.adding(seconds: 60)
        #expect(try await checks.check(second.value, among: records, appID: "a", at: later) == .expired)
        #expect(hashing.count == 4)
        #expect(try await checks.check(first.value, among: [second.record], appID: "a", at: Self.now) == .wrong)
        #expect(try await checks.check(first.value, among: [], appID: "a", at: Self.now) == .wrong)
        #expect(try await checks.check(first.value, among: records, appID: "a", at: Self.now) == .valid)
    }

    @Test func wrongSecretsWaitOneBehindTheOtherAndTooManyAreThrottled() async throws {
        let hashing = Hashing(isOpen: false)
        let checks = checks(hashing)
        let good = secret()
        hashing.letThrough(1)
        #expect(try await checks.check(good.value, among: [good.record], appID: "a", at: Self.now) == .valid)

        let admitted = SecretChecks.Limits.waitingForOneApplication
        let throttled = 5
        await withTaskGroup(of: SecretChecks.Verdict?.self) { group in
            for number in 0..<admitted + throttled {
                group.addTask {
                    try? await checks.check("wrong \(number)", among: [good.record], appID: "a", at: Self.now)
                }
            }
            // The gate is shut: whoever is answered now was turned away.
            for _ in 0..<throttled { #expect(await group.next() == .some(nil)) }
            // A secret that proved itself waits for nobody.
            let known = try? await checks.check(good.value, among: [good.record], appID: "a", at: Self.now)
            #expect(known == .valid)
            // Another application still has room.
            group.addTask { try? await checks.check("wrong", among: [good.record], appID: "b", at: Self.now) }
            hashing.letThrough(admitted + 1)
            for _ in 0...admitted { #expect(await group.next() == .some(.wrong)) }
        }
        #expect(hashing.most == 1)
        hashing.letThrough(1)
        #expect(try await checks.check("wrong", among: [good.record], appID: "a", at: Self.now) == .wrong)
    }

    @Test func allApplicationsTogetherHaveABound() async throws {
        let checks = checks(Hashing())
        for number in 0..<SecretChecks.Limits.waiting { try checks.begin("app \(number)") }
        #expect(throws: SecretChecks.Throttled.self) { try checks.begin("one more") }
        checks.end("app 0")
        try checks.begin("one more")
    }

    @Test func theTokenEndpointAnswers429AndServesProvenSecrets() async throws {
        let tenant = try await Tenant()
        func signIn(_ secret: String) async -> (status: Int, body: JSONValue) {
            await tenant.login([
                "grant_type": "client_credentials", "client_id": tenant.administrator.clientID,
                "client_secret": secret, "scope": "https://vault.azure.net/.default",
            ])
        }
        #expect(await signIn(tenant.secret).status == 200)
        let appID = tenant.administrator.clientID
        let checks = tenant.identity.secretChecks
        for _ in 0..<SecretChecks.Limits.waitingForOneApplication { try checks.begin(appID) }
        let refused = await signIn("wrong")
        #expect(refused.status == 429)
        #expect(refused.body["error"] == "temporarily_unavailable" && refused.body["error_codes"] == [90_055])
        #expect(await signIn(tenant.secret).status == 200)
        for _ in 0..<SecretChecks.Limits.waitingForOneApplication { checks.end(appID) }
        #expect(await signIn("wrong").body["error_codes"] == [7_000_215])
    }
}
