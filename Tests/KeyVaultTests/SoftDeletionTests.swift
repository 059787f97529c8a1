import CofferCore
import NIOHTTP1
import ResourceProviders
import StorageEngine
import TestSupport
import Testing

@testable import KeyVault

@Suite struct SoftDeletionTests {
    @Test(arguments: [ObjectKind.key, .secret])
    func anObjectGoesAndComesBack(kind: ObjectKind) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault(more: ["softDeleteRetentionInDays": 7])
        let live = "/\(kind.plural)/o"
        let deleted = "/\(kind.deletedPlural)/o"
        func make() async -> TestVaults.Answer {
            kind == .key
                ? await vaults.owned(.POST, live + "/create", ["kty": "EC"])
                : await vaults.owned(.PUT, live, ["value": "v"])
        }
        #expect(await make().body["attributes"]?["recoveryLevel"] == "CustomizedRecoverable+Purgeable")
        _ = await make()
        #expect(await vaults.owned(.GET, deleted).status == 404)
        let gone = await vaults.owned(.DELETE, live)
        #expect(gone.status == 200)
        let now = vaults.clock.now().unixSeconds
        #expect(gone.body["recoveryId"]?.stringValue == "https://vault1.vault.coffer.localhost\(deleted)")
        #expect(gone.body["deletedDate"] == .integer(now))
        #expect(gone.body["scheduledPurgeDate"] == .integer(now + 7 * 86_400))
        #expect(gone.body["value"] == nil)
        for (method, path) in [
            (HTTPMethod.GET, live), (.GET, live + "/versions"), (.DELETE, live), (.PATCH, live),
            (.POST, live + "/backup"),
        ] {
            let answer = await vaults.send(method, path, method == .PATCH ? [:] : nil, as: vaults.owner)
            #expect(answer.status == 404 && answer.code == "\(kind.title)NotFound", "\(method) \(path)")
        }
        let taken = await make()
        #expect(taken.status == 409 && taken.code == "Conflict" && taken.innerCode == "ObjectIsDeletedButRecoverable")
        #expect((await vaults.owned(.GET, "/\(kind.plural)")).body["value"] == [])
        #expect((await vaults.owned(.GET, "/\(kind.deletedPlural)")).body["value"]?.arrayValue?.count == 1)
        #expect(await vaults.owned(.POST, deleted + "/recover").status == 200)
        #expect((await vaults.owned(.GET, live + "/versions")).body["value"]?.arrayValue?.count == 2)
        _ = await vaults.owned(.DELETE, live)
        #expect(await vaults.owned(.DELETE, deleted).status == 204)
        #expect(await vaults.owned(.DELETE, deleted).status == 404)
        #expect(await make().status == 200)
        #expect((await vaults.owned(.GET, live + "/versions")).body["value"]?.arrayValue?.count == 1)
    }

    @Test func purgeProtectionRefusesPurgeUntilTheRetentionIsOver() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault(purgeProtection: true, more: ["softDeleteRetentionInDays": 10])
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "v"])
        _ = await vaults.owned(.DELETE, "/secrets/s")
        let refused = await vaults.owned(.DELETE, "/deletedsecrets/s")
        #expect(refused.status == 403 && refused.code == "Forbidden")
        vaults.clock.advance(days: 9)
        await vaults.service.performDueWork()
        #expect(await vaults.owned(.GET, "/deletedsecrets/s").status == 200)
        vaults.clock.advance(days: 1)
        await vaults.service.performDueWork()
        #expect(await vaults.owned(.GET, "/deletedsecrets/s").status == 404)
    }

    @Test func aDeletedKeyLeavesMemory() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.POST, "/keys/k/create", ["kty": "RSA"])
        #expect(await vaults.owned(.POST, "/keys/k/wrapkey", ["alg": "RSA-OAEP", "value": "AAAA"]).status == 200)
        #expect(vaults.service.handles.count == 1)
        _ = await vaults.owned(.DELETE, "/keys/k")
        #expect(vaults.service.handles.count == 0)
        #expect(await vaults.owned(.POST, "/keys/k/wrapkey", ["alg": "RSA-OAEP", "value": "AAAA"]).status == 404)
    }

    @Test func whatIsPastItsRetentionIsNotRecovered() async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault(more: ["softDeleteRetentionInDays": 7])
        _ = await vaults.owned(.PUT, "/secrets/s", ["value": "v"])
        _ = await vaults.owned(.DELETE, "/secrets/s")
        vaults.clock.advance(days: 7)
        let refused = await vaults.owned(.POST, "/deletedsecrets/s/recover")
        #expect(refused.status == 409 && refused.innerCode == "ObjectIsBeingDeleted")
        let again = await vaults.owned(.PUT, "/secrets/s", ["value": "v"])
        #expect(again.status == 409 && again.innerCode == "ObjectIsBeingDeleted")
        #expect(await vaults.owned(.GET, "/secrets/s").status == 404)
    }

    @Test func oneFailureHoldsUpNoOtherPurge() async throws {
        let vaults = try await TestVaults()
        for vault in ["vault1", "vault2"] {
            try await vaults.makeVault(vault, more: ["softDeleteRetentionInDays": 7])
            for name in ["a", "b"] {
                _ = await vaults.owned(.PUT, "/secrets/\(name)", ["value": "v"], vault: vault)
                _ = await vaults.owned(.DELETE, "/secrets/\(name)", vault: vault)
            }
        }
        vaults.clock.advance(days: 7)
        vaults.engine.interrupt(where: { $0.writes.contains("secret/a") }) { _ throws(StorageEngineError) in
            throw StorageEngineError(.unavailable, "the disk is gone")
        }
        await vaults.service.performDueWork()
        func isThere(_ name: String, _ vault: String) async -> Bool {
            await vaults.owned(.GET, "/deletedsecrets/\(name)", vault: vault).status == 200
        }
        var left: [String] = []
        for vault in ["vault1", "vault2"] {
            for name in ["a", "b"] where await isThere(name, vault) { left.append("\(vault)/\(name)") }
        }
        #expect(left == ["vault1/a"])
        await vaults.service.performDueWork()
        #expect(await !isThere("a", "vault1"))
    }

    @Test(arguments: [ObjectKind.key, .secret])
    func whatIsMadeWhileItsVaultIsPurgedDoesNotOutliveIt(kind: ObjectKind) async throws {
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        _ = await vaults.owned(.PUT, "/secrets/before", ["value": "v"])
        vaults.engine.interrupt(where: { $0.writes.contains("\(kind.rawValue)/late") }) { _ in
            let id = TestVaults.vaultID("vault1")
            _ = try? await vaults.control(.delete, id)
            let purge = ResourceID(
                "/subscriptions/\(TestVaults.subscription)/providers/Microsoft.KeyVault/locations/eastus/"
                    + "deletedVaults/vault1/purge")
            #expect((try? await vaults.control(.post, purge))?.status == 200)
        }
        let late =
            kind == .key
            ? await vaults.owned(.POST, "/keys/late/create", ["kty": "EC"])
            : await vaults.owned(.PUT, "/secrets/late", ["value": "v"])
        #expect(late.status == 404 && late.code == "VaultNotFound")
        #expect(try await vaults.objectKeys() == ["purged"])
    }
}
