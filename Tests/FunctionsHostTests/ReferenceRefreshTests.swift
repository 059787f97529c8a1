import CofferCore
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// References that are read again while the app runs.
struct ReferenceRefreshTests {
    private let world: World
    private let host: SiteHost

    init() async throws {
        let storage = "DefaultEndpointsProtocol=https;EndpointSuffix=core.windows.net;AccountName=keys;AccountKey=AAAA"
        world = try await World(settings: [
            "A": "@Microsoft.KeyVault(VaultName=vault1;SecretName=a)",
            "AzureWebJobsStorage": "@Microsoft.KeyVault(VaultName=vault1;SecretName=storage)",
            "Broken": "@Microsoft.KeyVault(VaultName=vault1;SecretName=none)",
        ]) { $0.identity = testIdentity }
        world.vaults.allow(testIdentity)
        world.vaults.put("a", "one", version: "v1")
        world.vaults.put("storage", storage, version: "v1")
        host = try #require(world.runtime.entry(named: "myapp")).host
    }

    private func status(_ name: String) async throws -> KeyVaultReferenceStatus.Status? {
        try await world.runtime.keyVaultReferences(of: world.id).appSettings[name]?.status
    }
    private func refresh() async throws { try await world.runtime.refreshKeyVaultReferences(of: world.id) }

    @Test func aVaultOutOfReachChangesNothing() async throws {
        let app = try await host.app()
        world.vaults.revokeAll()
        try await refresh()
        #expect(try await status("A") == .accessToKeyVaultDenied)
        // Made of the values in force.
        #expect(try await world.runtime.hostKeys(of: world.id).functionKeys.map(\.name) == ["default"])
        world.vaults.allow(testIdentity)
        try await refresh()
        #expect(try await status("A") == .resolved)
        // Nothing is new: no restart.
        #expect(host.loadedApp() === app)
    }

    @Test func aNewValueWaitsForThoseThatHaveGone() async throws {
        let app = try await host.app()
        world.vaults.put("a", "two", version: "v2")
        let storage = try #require(world.vaults.state.withLock { $0.secrets.removeValue(forKey: "storage") })
        try await refresh()
        #expect(host.loadedApp() === app)
        #expect(try await status("AzureWebJobsStorage") == .secretNotFound)
        // Still new when the other is back.
        world.vaults.put("storage", storage.value.reveal(), version: storage.version)
        try await refresh()
        #expect(try await host.app().settings.value("A")?.reveal() == "two")
        #expect(host.loadedApp() !== app)
    }

    @Test func aReferenceThatNeverHadAValueHoldsNothingUp() async throws {
        let app = try await host.app()
        #expect(try await status("Broken") == .secretNotFound)
        world.vaults.put("a", "two", version: "v2")
        world.clock.advance(seconds: SiteHost.referenceLifetimeSeconds)
        await host.maintain()
        #expect(try await host.app().settings.value("A")?.reveal() == "two")
        #expect(host.loadedApp() !== app)
    }

    /// The keys' settings are read anew when they fail; the worker goes on with what it was started with.
    @Test func whatWasReadAnewForTheKeysIsStillNewToTheWorker() async throws {
        _ = try #require(world.vaults.state.withLock { $0.secrets.removeValue(forKey: "storage") })
        let app = try await host.app()
        #expect(app.settings.value("A")?.reveal() == "one")
        world.vaults.put("a", "two", version: "v2")
        world.clock.advance(seconds: SiteHost.settingsRetrySeconds)
        for _ in 0..<2 {
            await #expect(throws: (any Error).self) { try await world.runtime.hostKeys(of: world.id) }
        }
        #expect(host.loadedApp() === app)
        try await refresh()
        #expect(try await host.app().settings.value("A")?.reveal() == "two")
    }
}
