import CofferCore
import Foundation
import HTTPEdge
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// Known answers of microsoft/security-utilities and of the original host.
struct MarvinTests {
    static let vectors: [(seed: UInt64, data: [UInt8], hash: UInt64, checksum: UInt32)] = [
        (0xd53c_d9ce_cd08_93b7, Array("abc".utf8), 0x22c7_4339_4927_69bf, 0x6be0_2a86),
        (0x0ddd_deee_efff_f000, Array("abcdefghijklmnopqrstuvwxyz".utf8), 0xa128_eb7e_7260_aca2, 0xd348_47dc),
        (0x004f_b61a_001b_dbcc, [], 0x30ed_35c1_00cd_3c7d, 0x3020_09bc),
        (0x004f_b61a_001b_dbcc, [0xaf], 0x48e7_3fc7_7d75_ddc1, 0x3592_e206),
        (0x004f_b61a_001b_dbcc, [0xe7, 0x0f], 0xb5f6_e1fc_485d_bff8, 0xfdab_5e04),
        (0x004f_b61a_001b_dbcc, [0x37, 0xf4, 0x95], 0xf0b0_7c78_9b8c_f7e8, 0x6b3c_8b90),
        (0x004f_b61a_001b_dbcc, [0x86, 0x42, 0xdc, 0x59], 0x7008_f2e8_7e9c_f556, 0x0e94_07be),
        (0x004f_b61a_001b_dbcc, [0x15, 0x3f, 0xb7, 0x98, 0x26], 0xe6c0_8c6d_a2af_a997, 0x446f_25fa),
        (0x004f_b61a_001b_dbcc, [0x09, 0x32, 0xe6, 0x24, 0x6c, 0x47], 0x6f04_bf1a_5ea2_4060, 0x31a6_ff7a),
        (0x004f_b61a_001b_dbcc, [0xab, 0x42, 0x7e, 0xa8, 0xd1, 0x0f, 0xc7], 0xe118_47e4_f067_8c41, 0x117f_cba5),
        (0x804f_b61a_001b_dbcc, [], 0x10a9_d5d3_996f_d65d, 0x89c6_038e),
        (0x804f_b61a_801b_dbcc, [0x00], 0xa37f_b0da_2eca_e06c, 0x8db5_50b6),
        (0x804f_b61a_801b_dbcc, [0xff], 0xfece_f370_701a_e054, 0x8ed4_1324),
    ]
    @Test func knownAnswers() {
        for vector in Self.vectors {
            #expect(Marvin32.hash64(vector.data, seed: vector.seed) == vector.hash)
            #expect(Marvin32.checksum32(vector.data, seed: vector.seed) == vector.checksum)
        }
    }

    @Test func wholeKeys() {
        let zeros = [UInt8](repeating: 0, count: 33)
        let counting = (0..<33).map { UInt8($0) }
        let ones = [UInt8](repeating: 255, count: 33)
        let a = String(repeating: "A", count: 44)
        #expect(IdentifiableSecret.encode(zeros, .master).reveal() == a + "AzFu-N70jA==")
        #expect(IdentifiableSecret.encode(zeros, .system).reveal() == a + "AzFuT-TO3g==")
        #expect(IdentifiableSecret.encode(zeros, .function).reveal() == a + "AzFuZg7Zjw==")
        let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
        #expect(IdentifiableSecret.encode(counting, .master).reveal() == text + "AzFuFuYcng==")
        #expect(IdentifiableSecret.encode(counting, .system).reveal() == text + "AzFuXnL4iA==")
        #expect(IdentifiableSecret.encode(counting, .function).reveal() == text + "AzFusvnZbw==")
        let u = String(repeating: "_", count: 44)
        #expect(IdentifiableSecret.encode(ones, .master).reveal() == u + "AzFummE1PQ==")
        #expect(IdentifiableSecret.encode(ones, .system).reveal() == u + "AzFuC7uVjQ==")
        #expect(IdentifiableSecret.encode(ones, .function).reveal() == u + "AzFuOQkoRg==")
    }

    @Test func validationTellsKindsApart() {
        for _ in 0..<200 {
            let key = IdentifiableSecret.generate(.function, randomness: SystemRandomness())
            #expect(key.reveal().wholeMatch(of: /[A-Za-z0-9_-]{44}AzFu[A-Za-z0-9_-]{5}[AQgw]==/) != nil)
            #expect(IdentifiableSecret.isValid(key, .function))
            #expect(!IdentifiableSecret.isValid(key, .master))
            var bytes = Array(key.reveal().utf8)
            bytes[3] = bytes[3] == 65 ? 66 : 65
            #expect(!IdentifiableSecret.isValid(RedactedString(String(decoding: bytes, as: UTF8.self)), .function))
        }
        #expect(!IdentifiableSecret.isValid(RedactedString("short"), .function))
    }
}

struct DataProtectionTests {
    static let material = "0F75CA46E7EBDD39E4CA6B074D1F9A5972B849A55F91A248"
    private let modifier = (0..<16).map { UInt8($0) }
    private let iv = (16..<32).map { UInt8($0) }

    private func ring(_ hex: String, id: UUID = DataProtectionKeyRing.defaultKeyID) -> DataProtectionKeyRing {
        DataProtectionKeyRing(current: .init(id: id, material: SecretBytes(copying: [UInt8](hex: hex)!)), others: [])
    }

    @Test func knownKeyOfTheFramework() throws {
        // `ring` and `others` do not matter: the framework's test gives its own additional data.
        let sealed = try DataProtectionKeyRing.protect(
            [2, 3, 4], material: Array("master key".utf8), aad: [6, 5, 4, 3], keyModifier: modifier, iv: iv)
        #expect(
            sealed.base64
                == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+36j4yWJOjBgOJxmYDYwhLnYqFxw+9mNh/cudy"
                + "PrWmJmw4d/dmGaLJLLut2udiAAA="
        )
    }

    @Test func knownPayloads() throws {
        let zero = ring(Self.material).protect(Array("test string".utf8), keyModifier: modifier, iv: iv).base64URL
        #expect(
            zero
                == "CfDJ8AAAAAAAAAAAAAAAAAAAAAAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eH0QEBMOYmvX0"
                + "pRPVwksb37c4ecgxOrozSw_CvM1O1s4ysmlSdP9jR"
                + "vmLIvp6t_ox2Q")
        let counting = ring((0..<32).map { UInt8($0) }.hex)
        let master = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAzFuFuYcng=="
        #expect(
            counting.protect(Array(master.utf8), keyModifier: modifier, iv: iv).base64URL
                == "CfDJ8AAAAAAAAAAAAAAAAAAAAAAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHxAKh6V0Yf1x"
                + "aNnx9ErGNrppYB9xjfzyRNnmUz5u4q1i1McyR7b030"
                + "DsC89zp1fBD4xW65kzRX-B68ofF435LxlSPlLT5uiQuUzqTOAgPNZuB90M-cAA9oysxAVmoijiQg")
        let named = ring(Self.material, id: UUID(uuidString: "7b7a2d4e-6d4f-4a3a-9b0e-0c6b1f3d5a11")!)
        let text =
            "CfDJ8E4tentPbTpKmw4Max89WhEAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eH2N6MK8AeKn3"
            + "UQ_LbGAjvPafw17EC3vZqiUID4TvwT534fDdOA_igCKeB"
            + "qQT22YATQ"
        #expect(named.protect(Array("hello".utf8), keyModifier: modifier, iv: iv).base64URL == text)
        #expect(try named.unprotect(text).value.reveal() == "hello")
    }

    @Test func everyChangedByteIsRefused() throws {
        let ring = ring(Self.material)
        let good = [UInt8](base64URL: ring.protect(RedactedString("value"), randomness: SystemRandomness()))!
        #expect(try ring.unprotect(good.base64URL).value.reveal() == "value")
        for index in good.indices {
            var bad = good
            bad[index] ^= 1
            #expect(throws: DataProtectionKeyRing.Failure.self) { try ring.unprotect(bad.base64URL) }
        }
        for count in good.indices {
            #expect(throws: DataProtectionKeyRing.Failure.self) { try ring.unprotect(good.prefix(count).base64URL) }
        }
    }

    @Test func ringFromSettings() throws {
        let platform = RedactedString(String(repeating: "ab", count: 32))
        let id = "7b7a2d4e-6d4f-4a3a-9b0e-0c6b1f3d5a11"
        let old = try #require(DataProtectionKeyRing(settings: [:], platformKey: platform))
        let settings = [
            "AzureWebPrimaryEncryptionKey": RedactedString(id),
            "AzureWebEncryptionKey_\(id)": RedactedString(Self.material),
        ]
        let new = try #require(DataProtectionKeyRing(settings: settings, platformKey: platform))
        let text = old.protect(RedactedString("kept"), randomness: SystemRandomness())
        #expect(try new.unprotect(text).value.reveal() == "kept")
        #expect(try new.unprotect(text).isStale)
        #expect(try !new.unprotect(new.protect(RedactedString("x"), randomness: SystemRandomness())).isStale)
        #expect(
            DataProtectionKeyRing(settings: ["AzureWebEncryptionKey": RedactedString("zz")], platformKey: platform)
                == nil)
        #expect(
            DataProtectionKeyRing.decryptionKeyID("AzureWebEncryptionKey", RedactedString(Self.material))
                == "AzureWebEncryptionKey=aca+g/MHeUIA+hw8N6/xqdfOoDVvaymSCLcT3ceEq68=;")
    }
}

struct SecretsDocumentTests {
    @Test func readsLegacyAndCurrent() throws {
        let v0 = try SecretsDocument(parsing: Array(#"{"masterKey":"m","functionKey":"f"}"#.utf8), scope: .host)
        #expect(v0.master?.value.reveal() == "m")
        #expect(v0.keys.map(\.name) == ["default"])
        #expect(
            try SecretsDocument(parsing: Array(#"{"key":"k"}"#.utf8), scope: .function("f")).keys.first?.value.reveal()
                == "k")
        #expect(try SecretsDocument(parsing: Array(#"{"key":null}"#.utf8), scope: .function("f")).keys.isEmpty)
        let bad = [
            #"{}"#, #"[]"#, "", #"{"masterKey":{}}"#, #"{"masterKey":{"name":"a","value":"b"},"functionKeys":1}"#,
            #"{"keys":[1]}"#,
        ]
        for text in bad {
            #expect(throws: SecretsDocument.Malformed.self) {
                try SecretsDocument(parsing: Array(text.utf8), scope: .host)
            }
        }
        #expect(throws: SecretsDocument.Malformed.self) {
            try SecretsDocument(parsing: Array(#"{"keys":[1]}"#.utf8), scope: .function("f"))
        }
    }

    @Test func writesWhatItReads() throws {
        var document = SecretsDocument(
            master: .init(name: "master", value: RedactedString("m"), encrypted: true),
            keys: [.init(name: "default", value: RedactedString("f"), encrypted: false)],
            systemKeys: [.init(name: "x_extension", value: RedactedString("s"), encrypted: true)])
        document.hostName = "h"
        document.decryptionKeyID = "k"
        #expect(try SecretsDocument(parsing: document.serialized(scope: .host), scope: .host) == document)
    }

    @Test func hostileDocumentsNeverCrash() {
        var generator = SystemRandomNumberGenerator()
        let seed = Array(
            #"{"masterKey":{"name":"m","value":"v","encrypted":true},"functionKeys":[{"name":"a","value":"b"}]}"#
                .utf8)
        for _ in 0..<2_000 {
            var bytes = seed
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let index = Int.random(in: bytes.indices, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.remove(at: index)
                default: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: index)
                }
            }
            guard let document = try? SecretsDocument(parsing: bytes, scope: .host) else { continue }
            #expect((try? SecretsDocument(parsing: document.serialized(scope: .host), scope: .host)) == document)
        }
    }
}

struct KeyringTests {
    @Test func makesKeysOnceAndKeepsThemEncrypted() async throws {
        let world = try await World()
        async let first = world.runtime.hostKeys(of: world.id)
        async let second = world.runtime.hostKeys(of: world.id)
        let (a, b) = try await (first, second)
        #expect(a == b)
        #expect(IdentifiableSecret.isValid(a.masterKey, .master))
        #expect(IdentifiableSecret.isValid(a.functionKeys[0].value, .function))
        let stored = try #require(world.storage.bytes(World.secrets + "/myapp/host.json"))
        let text = String(decoding: stored, as: UTF8.self)
        #expect(!text.contains(a.masterKey.reveal()))
        let document = try SecretsDocument(parsing: stored, scope: .host)
        #expect(document.master?.encrypted == true)
        #expect(
            document.master?.value.reveal().hasPrefix("CfDJ8AAAAAAAAAAAAAAAAAAAAAAAA") == true
                || document.decryptionKeyID != nil)
        #expect(document.hostName == "myapp.azurewebsites.coffer.localhost")
        try await world.runtime.restart(world.id)
        #expect(try await world.runtime.hostKeys(of: world.id) == a)
    }

    @Test func settingRenewingAndDeleting() async throws {
        let world = try await World()
        let made = try await world.runtime.setHostKey(
            .functionKeys, "partner", to: RedactedString("value-1"), of: world.id)
        #expect(made.isNew && made.key.value.reveal() == "value-1")
        let renewed = try await world.runtime.setHostKey(.functionKeys, "PARTNER", to: nil, of: world.id)
        #expect(!renewed.isNew && IdentifiableSecret.isValid(renewed.key.value, .function))
        #expect(try await world.runtime.hostKeys(of: world.id).functionKeys.map(\.name) == ["default", "PARTNER"])
        try await world.runtime.deleteHostKey(.functionKeys, "partner", of: world.id)
        await #expect(throws: FunctionsError.self) {
            try await world.runtime.deleteHostKey(.functionKeys, "partner", of: world.id)
        }
        await #expect(throws: FunctionsError.self) {
            try await world.runtime.deleteHostKey(.masterKey, "_master", of: world.id)
        }
        let old = try await world.runtime.hostKeys(of: world.id).masterKey
        let new = try await world.runtime.setHostKey(.masterKey, "_master", to: nil, of: world.id)
        #expect(new.isNew && new.key.value != old)
        await #expect(throws: FunctionsError.self) {
            try await world.runtime.setHostKey(.functionKeys, "a/b", to: nil, of: world.id)
        }
        let system = try await world.runtime.setHostKey(.systemKeys, "x_extension", to: nil, of: world.id)
        #expect(IdentifiableSecret.isValid(system.key.value, .system))
    }

    /// Azure Functions, `StrictHISModeEnabled`.
    @Test func strictModeTakesGeneratedKeysOnly() async throws {
        let world = try await World()
        let chosen = RedactedString("value-1")
        _ = try await world.runtime.setHostKey(.masterKey, "_master", to: chosen, of: world.id)
        func status(_ key: RedactedString) async -> Int {
            let request = world.get("/admin/host/status", headers: ["x-functions-key": key.reveal()])
            return Int(await world.gate.respond(to: request).status.code)
        }
        #expect(await status(chosen) == 200)
        try await world.sites.update(world.id) {
            $0.secrets.appSettings["AzureWebJobsFeatureFlags"] = RedactedString("Other, StrictHISModeEnabled")
        }
        #expect(await status(chosen) == 401)
        await #expect(throws: FunctionsError.self) {
            try await world.runtime.setHostKey(.functionKeys, "partner", to: chosen, of: world.id)
        }
        let generated = try await world.runtime.setHostKey(.masterKey, "_master", to: nil, of: world.id)
        #expect(await status(generated.key.value) == 200)
        let own = IdentifiableSecret.generate(.function, randomness: SystemRandomness())
        _ = try await world.runtime.setHostKey(.functionKeys, "partner", to: own, of: world.id)
        await #expect(throws: FunctionsError.self, "a checksum tells the kind of key") {
            try await world.runtime.setHostKey(.systemKeys, "x_extension", to: own, of: world.id)
        }
    }

    @Test func plantedClearKeysAreNotAccepted() async throws {
        let world = try await World()
        _ = try await world.runtime.hostKeys(of: world.id)
        let url = World.secrets + "/myapp/host.json"
        var document = try SecretsDocument(parsing: try #require(world.storage.bytes(url)), scope: .host)
        document.master = .init(name: "master", value: RedactedString("planted"), encrypted: false)
        world.storage.put(url, document.serialized(scope: .host))
        try await world.runtime.restart(world.id)
        let keys = try await world.runtime.hostKeys(of: world.id)
        #expect(keys.masterKey.reveal() != "planted")
        #expect(
            try await world.send(world.get("/admin/host/status", headers: ["x-functions-key": "planted"])).status == 401
        )
        #expect(
            world.storage.state.withLock {
                $0.blobs.keys.contains {
                    $0.contains("/myapp/host.snapshot.2026-03-01 12.00.00") || $0.contains("snapshot")
                }
            })
    }

    @Test func unknownKeysReadTheStoreAtMostOnceAMinute() async throws {
        let world = try await World()
        _ = try await world.runtime.hostKeys(of: world.id)
        let url = World.secrets + "/myapp/host.json"
        func tryKey() async throws { _ = try await world.send(world.get("/admin/host/status?code=unknown")) }
        try await tryKey()
        let before = world.storage.requests(for: url)
        for _ in 0..<20 { try await tryKey() }
        #expect(world.storage.requests(for: url) == before)
        world.clock.advance(seconds: 61)
        try await tryKey()
        #expect(world.storage.requests(for: url) == before + 1)
    }

    @Test func storeRefusalsSayWhy() async throws {
        let world = try await World()
        world.storage.refuse("https://keys.", with: 403)
        await #expect { try await world.runtime.hostKeys(of: world.id) } throws: { error in
            (error as? FunctionsError)?.message.contains("AzureWebJobsStorage") == true
        }
        let answer = try await world.send(world.get("/admin/host/status?code=x"))
        #expect(answer.status == 503 && answer.body.contains("403"))
        world.storage.refuse("https://keys.", with: 0)
        _ = try await world.runtime.hostKeys(of: world.id)
        let files = try await World(settings: ["AzureWebJobsSecretStorageType": "files"])
        await #expect(throws: FunctionsError.self) { try await files.runtime.hostKeys(of: files.id) }
        let none = try await World(settings: ["AzureWebJobsStorage": "nonsense"])
        await #expect(throws: FunctionsError.self) { try await none.runtime.hostKeys(of: none.id) }
    }

    @Test func keysInAVault() async throws {
        let settings = [
            "AzureWebJobsSecretStorageType": "KeyVault",
            "AzureWebJobsSecretStorageKeyVaultUri": "https://vault1.vault.coffer.localhost/",
        ]
        let world = try await World(settings: settings) { $0.identity = testIdentity }
        await #expect(throws: FunctionsError.self) { try await world.runtime.hostKeys(of: world.id) }
        world.vaults.allow(testIdentity)
        let keys = try await world.runtime.hostKeys(of: world.id)
        #expect(world.vaults.names == ["host--functionKey--default", "host--masterKey--master"])
        #expect(world.vaults.state.withLock { $0.secrets["host--masterKey--master"]?.value } == keys.masterKey)
        _ = try await world.runtime.setHostKey(.systemKeys, "my_ext.x", to: RedactedString("v"), of: world.id)
        #expect(world.vaults.names.contains("host--systemKey--my-095ext-046x"))
        #expect(try await world.runtime.hostKeys(of: world.id).systemKeys.map(\.name) == ["my_ext.x"])
        // Only what changed got a new version.
        #expect(world.vaults.state.withLock { $0.sets.count } == 3)
        try await world.runtime.deleteHostKey(.systemKeys, "my_ext.x", of: world.id)
        #expect(world.vaults.names.count == 2)
        world.vaults.revokeAll()
        try await world.runtime.restart(world.id)
        await #expect(throws: FunctionsError.self) { try await world.runtime.hostKeys(of: world.id) }
    }

    /// The app has no identity: it asks the vault as a service principal whose secret it holds.
    @Test func keysInAVaultAsAServicePrincipal() async throws {
        let prefix = "AzureWebJobsSecretStorageKeyVault"
        var settings = [
            "AzureWebJobsSecretStorageType": "KeyVault",
            prefix + "Uri": "https://vault1.vault.coffer.localhost/", prefix + "ClientId": "client",
            prefix + "TenantId": "tenant",
        ]
        let half = try await World(settings: settings)
        half.vaults.allow(testIdentity)
        await #expect(throws: FunctionsError.self, "a secret is missing") {
            try await half.runtime.hostKeys(of: half.id)
        }
        settings[prefix + "ClientSecret"] = "wrong"
        let wrong = try await World(settings: settings)
        wrong.vaults.allow(testIdentity)
        await #expect(throws: FunctionsError.self) { try await wrong.runtime.hostKeys(of: wrong.id) }
        #expect(wrong.vaults.names == [])
        settings[prefix + "ClientSecret"] = "tneilc"
        let world = try await World(settings: settings)
        world.vaults.allow(testIdentity)
        _ = try await world.runtime.hostKeys(of: world.id)
        #expect(world.vaults.names == ["host--functionKey--default", "host--masterKey--master"])
    }

    @Test func movingTheKeysToAnEmptyStoreLocksNobodyOut() async throws {
        let world = try await World { $0.identity = testIdentity }
        world.vaults.allow(testIdentity)
        let before = try await world.runtime.hostKeys(of: world.id)
        try await world.sites.update(world.id) { site in
            site.secrets.appSettings["AzureWebJobsSecretStorageType"] = RedactedString("keyvault")
            site.secrets.appSettings["AzureWebJobsSecretStorageKeyVaultUri"] = RedactedString(
                "https://vault1.vault.coffer.localhost/")
        }
        #expect(try await world.runtime.hostKeys(of: world.id) == before)
        #expect(world.vaults.state.withLock { $0.secrets["host--masterKey--master"]?.value } == before.masterKey)
    }

    /// Deleting the documents is the operator's way to have new keys; what the host remembers must not undo it.
    @Test func emptyingTheStoreInUseMakesNewKeys() async throws {
        let world = try await World()
        let before = try await world.runtime.hostKeys(of: world.id)
        world.storage.state.withLock { $0.blobs.removeAll() }
        try await world.runtime.restart(world.id)
        #expect(try await world.runtime.hostKeys(of: world.id).masterKey != before.masterKey)
    }

    @Test func vaultNamesAreInverse() {
        for name in ["test-function", "a_b%c d.e", "plain", "é", "-", "a-12b", "-0451"] {
            #expect(VaultKeyRepository.denormalized(VaultKeyRepository.normalized(name)) == name)
        }
        #expect(VaultKeyRepository.normalized("test-function") == "test-045function")
    }

    @Test func sharedKeySignature() async throws {
        // Azure Storage, "Authorize with Shared Key": the shape of the string to sign.
        var request = OutboundRequest(
            method: .PUT, url: "https://acct.blob.core.windows.net/c/b%20c.json?comp=block&blockid=x", body: [1, 2, 3])
        request.headers = [
            "Content-Type": "application/json", "x-ms-version": "2021-12-02", "x-ms-date": "d", "If-Match": "\"e\"",
        ]
        #expect(
            StorageCredential.stringToSign(request, account: "acct")
                == "PUT\n\n\n3\n\napplication/json\n\n\n\"e\"\n\n\n\nx-ms-date:d\n"
                + "x-ms-version:2021-12-02\n/acct/c/b%20c.json\nblockid:x\ncomp:block"
        )
    }
}
