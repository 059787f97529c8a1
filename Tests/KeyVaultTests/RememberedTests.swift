import CofferCore
import NIOHTTP1
import ResourceProviders
import Synchronization
import TestSupport
import Testing

@testable import KeyVault

/// Decoded records and open keys are kept in memory; what they say must never outlive a change.
@Suite struct RememberedTests {
    /// A way to take a used key away and to give it back.
    struct Link: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let status: Int
        /// Whether the open key leaves memory with the cut.
        var closesKey = true
        let cut: @Sendable (TestVaults, Caller) async throws -> Void
        let join: @Sendable (TestVaults, Caller) async throws -> Void
    }

    private static let key = "/keys/k"
    private static let id = TestVaults.vaultID("vault1")
    private static func policies(_ kind: String, _ caller: Caller, keys: [String]) -> (TestVaults) async throws -> Void
    {
        { vaults in
            _ = try await vaults.control(
                .put, id.appending("accessPolicies", kind),
                ["properties": ["accessPolicies": [TestVaults.policy(caller, keys: keys)]]])
        }
    }
    private static func patch(_ properties: JSONValue) -> (TestVaults) async throws -> Void {
        { vaults in _ = try await vaults.control(.patch, id, ["properties": properties]) }
    }
    private static func update(_ body: JSONValue) -> (TestVaults) async -> Void {
        { vaults in #expect(await vaults.owned(.PATCH, key, body).status == 200) }
    }

    static let links = [
        Link(
            testDescription: "the version is disabled", status: 403,
            cut: { vaults, _ in await update(["attributes": ["enabled": false]])(vaults) },
            join: { vaults, _ in await update(["attributes": ["enabled": true]])(vaults) }),
        Link(
            testDescription: "the operation is taken off the version", status: 403,
            cut: { vaults, _ in await update(["key_ops": ["wrapKey"]])(vaults) },
            join: { vaults, _ in await update(["key_ops": ["wrapKey", "unwrapKey"]])(vaults) }),
        Link(
            testDescription: "the permission is removed from the policy", status: 403,
            cut: { vaults, caller in try await policies("remove", caller, keys: ["unwrapKey"])(vaults) },
            join: { vaults, caller in try await policies("add", caller, keys: ["unwrapKey"])(vaults) }),
        Link(
            testDescription: "the policy is replaced", status: 403,
            cut: { vaults, caller in try await policies("replace", caller, keys: ["get"])(vaults) },
            join: { vaults, caller in try await policies("replace", caller, keys: ["unwrapKey"])(vaults) }),
        Link(
            testDescription: "the vault answers to roles instead", status: 403,
            cut: { vaults, _ in try await patch(["enableRbacAuthorization": true])(vaults) },
            join: { vaults, _ in try await patch(["enableRbacAuthorization": false])(vaults) }),
        Link(
            testDescription: "the role is removed", status: 403, closesKey: false,
            cut: { vaults, caller in vaults.removeRoles(of: caller) },
            join: { vaults, caller in vaults.assign(caller, role: "Key Vault Crypto User", at: id) }),
        Link(
            testDescription: "the firewall shuts", status: 403,
            cut: { vaults, _ in try await patch(["publicNetworkAccess": "Disabled"])(vaults) },
            join: { vaults, _ in try await patch(["publicNetworkAccess": "Enabled"])(vaults) }),
        Link(
            testDescription: "the key is deleted", status: 404,
            cut: { vaults, _ in #expect(await vaults.owned(.DELETE, key).status == 200) },
            join: { vaults, _ in #expect(await vaults.owned(.POST, "/deletedkeys/k/recover").status == 200) }),
        Link(
            testDescription: "the vault is deleted", status: 404,
            cut: { vaults, _ in _ = try await vaults.control(.delete, id) },
            join: { vaults, _ in
                let body: JSONValue = ["location": "eastus", "properties": ["createMode": "recover"]]
                _ = try await vaults.control(.put, id, body)
            }),
    ]

    @Test(arguments: links)
    func whatIsCutIsRefusedAtOnceAndWorksWhenJoined(link: Link) async throws {
        let vaults = try await TestVaults()
        let user = TestVaults.caller(5)
        try await vaults.makeVault(policies: [TestVaults.policy(user, keys: ["unwrapKey"])])
        if !link.closesKey {
            try await Self.patch(["enableRbacAuthorization": true])(vaults)
            vaults.assign(user, role: "Key Vault Crypto User", at: Self.id)
            vaults.assign(vaults.owner, role: "Key Vault Crypto Officer", at: Self.id)
        }
        #expect(await vaults.owned(.POST, Self.key + "/create", ["kty": "RSA"]).status == 200)
        let wrapped = await vaults.owned(.POST, Self.key + "/wrapkey", ["alg": "RSA-OAEP-256", "value": "c2VjcmV0"])
        let body: JSONValue = ["alg": "RSA-OAEP-256", "value": try #require(wrapped.body["value"])]
        func unwrap() async -> TestVaults.Answer { await vaults.send(.POST, Self.key + "/unwrapkey", body, as: user) }
        for _ in 0..<2 {
            for _ in 0..<3 { #expect(await unwrap().body["value"] == "c2VjcmV0") }
            #expect(vaults.service.objects.count == 1 && vaults.service.handles.count == 1)
            try await link.cut(vaults, user)
            #expect(vaults.service.handles.count == (link.closesKey ? 0 : 1))
            for _ in 0..<2 { #expect(await unwrap().status == link.status) }
            try await link.join(vaults, user)
        }
        #expect(await unwrap().body["value"] == "c2VjcmV0")
    }

    @Test func aVerifiedTokenIsRefusedOnceItExpires() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let token = TestTokens.token(
            for: vaults.owner, audience: TestVaults.names.own.vaultAudience, now: vaults.clock.now())
        func list() async -> Int { await vaults.send(.GET, "/keys", as: nil, token: token).status }
        for _ in 0..<3 { #expect(await list() == 200) }
        vaults.clock.advance(seconds: 3_599)
        #expect(await list() == 200)
        vaults.clock.advance(seconds: 1)
        for _ in 0..<2 { #expect(await list() == 401) }
    }

    @Test func timeIsAskedOnEveryUse() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let expiry = JSONValue.integer(vaults.clock.now().unixSeconds + 60)
        #expect(
            await vaults.owned(.POST, "/keys/k/create", ["kty": "EC", "attributes": ["exp": expiry]]).status == 200)
        let digest = JSONValue.string([UInt8](repeating: 1, count: 32).base64URL)
        func sign() async -> TestVaults.Answer {
            await vaults.owned(.POST, "/keys/k/sign", ["alg": "ES256", "value": digest])
        }
        for _ in 0..<2 { #expect(await sign().status == 200) }
        vaults.clock.advance(seconds: 60)
        #expect(await sign().innerCode == "KeyExpired")
    }

    @Test func aNewVersionIsTheNewestAtOnceAndTheOldOneStays() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        var versions: [String] = []
        for number in 1...3 {
            let set = await vaults.owned(.PUT, "/secrets/s", ["value": .string("value \(number)")])
            versions.append(try #require(set.body["id"]?.stringValue?.split(separator: "/").last.map(String.init)))
            for _ in 0..<2 {
                #expect(await vaults.owned(.GET, "/secrets/s").body["value"] == .string("value \(number)"))
                for (index, version) in versions.enumerated() {
                    let old = await vaults.owned(.GET, "/secrets/s/\(version.uppercased())")
                    #expect(old.body["value"] == .string("value \(index + 1)"))
                }
            }
        }
        #expect(await vaults.owned(.PATCH, "/secrets/s/\(versions[0])", ["contentType": "a/b"]).status == 200)
        #expect(await vaults.owned(.GET, "/secrets/s/\(versions[0])").body["contentType"] == "a/b")
        #expect(await vaults.owned(.GET, "/secrets/s").body["contentType"] == nil)
        #expect(await vaults.owned(.GET, "/secrets/s/\(String(repeating: "0", count: 32))").status == 404)
        // A name that was asked for in vain exists as soon as it is made.
        #expect(await vaults.owned(.GET, "/secrets/late").status == 404)
        #expect(await vaults.owned(.PUT, "/secrets/late", ["value": "now"]).status == 200)
        #expect(await vaults.owned(.GET, "/secrets/late").body["value"] == "now")
    }

    /// Readers run all the while, so that something is being read and remembered whenever the writer writes.
    @Test func whoAsksAfterAnAcknowledgedChangeSeesIt() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        #expect(await vaults.owned(.POST, "/keys/k/create", ["kty": "EC"]).status == 200)
        let digest = JSONValue.string([UInt8](repeating: 1, count: 32).base64URL)
        @Sendable func sign() async -> Int {
            await vaults.owned(.POST, "/keys/k/sign", ["alg": "ES256", "value": digest]).status
        }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    while !Task.isCancelled {
                        #expect([200, 403].contains(await sign()))
                        await Task.yield()
                    }
                }
            }
            for round in 0..<100 {
                let isEnabled = round % 2 == 1
                let body: JSONValue = ["attributes": ["enabled": .bool(isEnabled)]]
                #expect(await vaults.owned(.PATCH, "/keys/k", body).status == 200)
                #expect(await sign() == (isEnabled ? 200 : 403))
            }
            group.cancelAll()
        }
    }
}

@Suite struct KeyHandlesTests {
    private static let now = Timestamp(unixSeconds: 1_790_000_000)
    private func name(_ number: Int) -> KeyHandles.Name { .init(vault: "v", key: "k\(number)", version: "1") }
    private func keep(_ number: Int, in handles: KeyHandles, at seconds: Int64) throws {
        let ticket = handles.ticket()
        handles.keep(
            try .generate(.ec(.p256)), as: name(number), ticket: ticket, at: Self.now.adding(seconds: seconds))
    }
    private func isKept(_ number: Int, in handles: KeyHandles) -> Bool {
        handles.find(name(number), at: Self.now) != nil
    }

    @Test func aKeyThatLeavesIsFreed() throws {
        let handles = KeyHandles(limit: 4)
        try keep(1, in: handles, at: 0)
        weak let key = handles.find(name(1), at: Self.now)
        #expect(key != nil)
        handles.drop(vault: "v", key: "k2")
        #expect(key != nil)
        handles.drop(vault: "v", key: "k1")
        #expect(key == nil)
    }

    @Test func theLongestUnusedMakesRoom() throws {
        let handles = KeyHandles(limit: 3)
        for number in 1...3 { try keep(number, in: handles, at: Int64(number)) }
        _ = handles.find(name(1), at: Self.now.adding(seconds: 10))
        try keep(4, in: handles, at: 11)
        #expect(handles.count == 3)
        #expect(isKept(1, in: handles) && !isKept(2, in: handles) && isKept(3, in: handles) && isKept(4, in: handles))
    }

    @Test func whatWasReadBeforeADropIsNotKeptAfterIt() throws {
        let handles = KeyHandles(limit: 3)
        let ticket = handles.ticket()
        handles.drop(vault: "v")
        handles.keep(try .generate(.ec(.p256)), as: name(1), ticket: ticket, at: Self.now)
        #expect(handles.count == 0)
    }

    /// With a key `k`, and what signs with it and answers the status.
    private func vaultsWithKey() async throws -> (TestVaults, sign: () async -> Int) {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        #expect(await vaults.owned(.POST, "/keys/k/create", ["kty": "EC"]).status == 200)
        let body: JSONValue = ["alg": "ES256", "value": .string([UInt8](repeating: 1, count: 32).base64URL)]
        return (vaults, { await vaults.owned(.POST, "/keys/k/sign", body).status })
    }

    @Test func aKeyDisabledBetweenTheDecisionAndItsReadingIsNotKept() async throws {
        let (vaults, sign) = try await vaultsWithKey()
        vaults.engine.interrupt(where: { $0.reads.contains { $0.hasPrefix("key-version/k/") } }) { _ in
            let update: JSONValue = ["attributes": ["enabled": false]]
            #expect(await vaults.owned(.PATCH, "/keys/k", update).status == 200)
        }
        #expect(await sign() == 200)
        #expect(vaults.service.handles.count == 0)
        #expect(await sign() == 403)
    }

    @Test func anIdleKeyLeavesMemoryAndIsReadAgain() async throws {
        let (vaults, sign) = try await vaultsWithKey()
        #expect(await sign() == 200)
        vaults.clock.advance(seconds: 200)
        #expect(await sign() == 200)
        vaults.clock.advance(seconds: 200)
        vaults.service.forgetIdleKeys()
        #expect(vaults.service.handles.count == 1)
        vaults.clock.advance(seconds: 101)
        vaults.service.forgetIdleKeys()
        #expect(vaults.service.handles.count == 0)
        #expect(await sign() == 200)
        #expect(vaults.service.handles.count == 1)
    }
}

@Suite struct RecordMemoryTests {
    private struct Unknown: Error {}

    /// What lies in a store, and how often it was read.
    private final class Shelf: Sendable {
        private let state = Mutex((value: 1, reads: 0))
        func read() -> Int? {
            state.withLock {
                $0.reads += 1
                return $0.value
            }
        }
        func write(_ value: Int) { state.withLock { $0.value = value } }
        var reads: Int { state.withLock { $0.reads } }
    }

    @Test func remembersUntilAWrite() async throws {
        let memory = RecordMemory<Int>(limit: 10)
        let shelf = Shelf()
        for _ in 0..<3 { #expect(try await memory.value("a") { shelf.read() } == 1) }
        #expect(shelf.reads == 1)
        await memory.writing("b") {}
        #expect(try await memory.value("a") { shelf.read() } == 1)
        #expect(shelf.reads == 1)
        await memory.writing("a") { shelf.write(2) }
        #expect(try await memory.value("a") { shelf.read() } == 2)
        #expect(shelf.reads == 2)
        // Nobody knows whether a write that failed was carried out.
        await #expect(throws: Unknown.self) {
            try await memory.writing("a") {
                shelf.write(3)
                throw Unknown()
            }
        }
        #expect(try await memory.value("a") { shelf.read() } == 3)
    }

    @Test func aReadingThatAWriteOvertookIsNotKept() async throws {
        let memory = RecordMemory<Int>(limit: 10)
        let shelf = Shelf()
        let stale = try await memory.value("a") {
            let before = shelf.read()
            await memory.writing("a") { shelf.write(2) }
            return before
        }
        #expect(stale == 1)
        #expect(try await memory.value("a") { shelf.read() } == 2)
    }

    @Test func nothingIsRememberedWhileAWriteRuns() async throws {
        let memory = RecordMemory<Int>(limit: 10)
        let shelf = Shelf()
        try await memory.writing("a") {
            let inside = try await memory.writing("a") { try await memory.value("a") { shelf.read() } }
            // The outer write still runs when the inner one is over.
            let outside = try await memory.value("a") { shelf.read() }
            #expect(inside == 1 && outside == 1)
            shelf.write(2)
        }
        #expect(memory.count == 0)
        #expect(try await memory.value("a") { shelf.read() } == 2)
        #expect(memory.count == 1)
    }

    @Test func absenceAndFailureAreNotRemembered() async throws {
        let memory = RecordMemory<Int>(limit: 10)
        #expect(try await memory.value("a") { nil } == nil)
        await #expect(throws: Unknown.self) { try await memory.value("a") { throw Unknown() } }
        #expect(try await memory.value("a") { 7 } == 7)
        #expect(try await memory.value("a") { 8 } == 7)
    }

    @Test func hasABound() async throws {
        let memory = RecordMemory<Int>(limit: 3)
        for number in 0..<20 {
            #expect(try await memory.value("n\(number % 7)", "p\(number)") { number } == number)
            #expect(memory.count <= 3)
        }
        await memory.writing("n5") {}
        #expect(memory.count <= 3)
    }
}
