import AccessControl
import CofferCore
import EncryptionAtRest
import HTTPEdge
import NIOHTTP1
import ResourceProviders
import StorageEngine
import Synchronization
import Testing

@testable import StorageAccount

/// Microsoft.Storage as az asks it.
struct AccountResourceTests {
    private let fixture: Fixture
    init() throws { fixture = try Fixture() }

    private static let provider = ResourceID("/subscriptions/\(Fixture.subscription)/providers/Microsoft.Storage")

    @Test func aNewAccountIsComplete() async throws {
        let account = try await fixture.create("contoso1", ["tags": ["a": "b"]])
        let read = try await fixture.control(.get, Fixture.id("CONTOSO1".lowercased()))
        #expect(account == read)
        #expect(account["id"]?.stringValue == Fixture.id("contoso1").description)
        #expect(account["type"] == "Microsoft.Storage/storageAccounts")
        #expect(account["location"] == "eastus" && account["kind"] == "StorageV2" && account["tags"] == ["a": "b"])
        #expect(account["sku"] == ["name": "Standard_LRS", "tier": "Standard"])
        let properties = try #require(account["properties"])
        #expect(properties["provisioningState"] == "Succeeded" && properties["statusOfPrimary"] == "available")
        #expect(properties["primaryEndpoints"]?["blob"] == "https://contoso1.blob.core.coffer.localhost:8443/")
        #expect(properties["supportsHttpsTrafficOnly"] == true && properties["allowBlobPublicAccess"] == false)
        #expect(properties["minimumTlsVersion"] == "TLS1_2" && properties["accessTier"] == "Hot")
        #expect(properties["networkAcls"]?["defaultAction"] == "Allow")
        #expect(properties["encryption"]?["keySource"] == "Microsoft.Storage")
        #expect(properties["encryption"]?["keyvaultproperties"] == nil)
        #expect(properties["encryption"]?["services"]?["blob"]?["enabled"] == true)
        #expect(properties["creationTime"] == "2026-11-22T00:00:00.0000000Z")
        #expect(properties["keyCreationTime"]?["key1"] == "2026-11-22T00:00:00.0000000Z")
        #expect(account["identity"] == nil)
    }

    /// As a crash in the middle of a deletion leaves it: the account is gone, its identity is not.
    @Test func aNewAccountNeverGetsAnEarlierOnesIdentity() async throws {
        let left = try await fixture.directory.systemAssignedIdentity(of: Fixture.id("contoso1"), displayName: "")
        let account = try await fixture.create("contoso1", ["identity": ["type": "SystemAssigned"]])
        let principal = try #require(account["identity"]?["principalId"]?.stringValue)
        #expect(principal != left.principalID)
        // Nor does one that asks for an identity later.
        try await fixture.create("contoso2")
        let other = try await fixture.directory.systemAssignedIdentity(of: Fixture.id("contoso2"), displayName: "")
        let identity: JSONValue = ["identity": ["type": "SystemAssigned"]]
        let changed = try await fixture.control(.patch, Fixture.id("contoso2"), identity)
        let made = try #require(changed["identity"]?["principalId"]?.stringValue)
        #expect(made != other.principalID)
        // Its own it keeps.
        let again = try await fixture.control(.patch, Fixture.id("contoso2"), identity)
        #expect(again["identity"]?["principalId"]?.stringValue == made)
    }

    @Test func keysAppearOnlyWhereTheyAreAskedFor() async throws {
        let account = try await fixture.create("contoso1")
        let keys = try await fixture.keys("contoso1")
        #expect(keys.count == 2 && keys[0] != keys[1] && [UInt8](base64: keys[0])?.count == 64)
        let lists = try await fixture.control(.get, Self.provider.appending("storageAccounts"))
        for key in keys {
            #expect(!"\(account)".contains(key) && !"\(lists)".contains(key))
        }
        let secrets = try await fixture.service.directory.account(named: "contoso1")!.keys
        #expect(!"\(secrets)".contains(keys[0]) && "\(secrets.keys[0].secret)" == "<redacted>")
    }

    @Test func everythingOutlivesARestart() async throws {
        try await fixture.create("contoso1", ["identity": ["type": "SystemAssigned"]])
        try await fixture.patch("contoso1", ["allowBlobPublicAccess": true, "minimumTlsVersion": "TLS1_3"])
        let before = try await fixture.control(.get, Fixture.id("contoso1"))
        let again = fixture.restarted()
        #expect(try await fixture.control(.get, Fixture.id("contoso1"), service: again) == before)
        let keys = try await fixture.control(.post, Fixture.id("contoso1").appending("listKeys"), service: again)
        #expect(keys["keys"]?.arrayValue?.first?["value"]?.stringValue == (try await fixture.keys("contoso1"))[0])
        #expect(try await again.account(named: "contoso1").allowsBlobPublicAccess)
    }

    @Test func namesAreRuledAndTaken() async throws {
        for name in ["ab", "Contoso", "has-hyphen", String(repeating: "a", count: 25), "ümlaut"] {
            #expect(
                await fixture.refusal(.put, Fixture.id(name), Fixture.plainAccount) == "400 AccountNameInvalid",
                "\(name)")
        }
        try await fixture.create("contoso1")
        let elsewhere = Fixture.id(
            "contoso1", group: ResourceID("/subscriptions/\(Fixture.subscription)/resourceGroups/rg2"))
        #expect(
            await fixture.refusal(.put, elsewhere, Fixture.plainAccount) == "409 StorageAccountInAnotherResourceGroup")
        #expect(await fixture.refusal(.get, elsewhere) == "404 ResourceNotFound")
        let moved = Fixture.plainAccount.merged(with: ["location": "westus"])
        #expect(await fixture.refusal(.put, Fixture.id("contoso1"), moved) == "409 InvalidResourceLocation")
        let check = Self.provider.appending("checkNameAvailability")
        func reason(_ name: String) async throws -> String? {
            try await fixture.control(
                .post, check, ["name": .string(name), "type": "Microsoft.Storage/storageAccounts"])["reason"]?
                .stringValue
        }
        #expect(try await reason("contoso1") == "AlreadyExists")
        #expect(try await reason("No") == "AccountNameInvalid")
        #expect(try await reason("contoso2") == nil)
    }

    @Test func whatIsNotKnownIsRefused() async throws {
        func put(_ changes: JSONValue) async -> String {
            await fixture.refusal(.put, Fixture.id("contoso1"), Fixture.plainAccount.merged(with: changes))
        }
        #expect(await put(["kind": "Blob"]) == "400 InvalidValuesForRequestParameters")
        #expect(await put(["kind": .null]) == "400 InvalidRequestContent")
        #expect(await put(["sku": ["name": "Standard_XRS"]]) == "400 InvalidValuesForRequestParameters")
        #expect(await put(["sku": ["name": "Standard_LRS"], "kind": "FileStorage"]) == "400 InvalidSkuForKind")
        #expect(await put(["location": .null]) == "400 LocationRequired")
        #expect(await put(["kind": "BlobStorage"]) == "400 AccountPropertyIsInvalid")
        #expect(await put(["properties": ["accessTier": "Warm"]]) == "400 InvalidValuesForRequestParameters")
        #expect(await put(["properties": ["isHnsEnabled": true]]) == "400 FeatureNotSupported")
        #expect(await put(["properties": ["minimumTlsVersion": "SSL"]]) == "400 InvalidValuesForRequestParameters")
        #expect(
            await put(["properties": ["networkAcls": ["ipRules": [["value": "x"]]]]])
                == "400 InvalidValuesForRequestParameters")
        #expect(await put(["identity": ["type": "UserAssigned"]]) == "400 FeatureNotSupported")
        #expect(
            await put(["properties": ["encryption": ["requireInfrastructureEncryption": true]]])
                == "400 FeatureNotSupported")
        #expect(await put(["properties": ["encryption": ["keySource": "Microsoft.Keyvault"]]]) == "400 BadRequest")
        #expect(await put(["tags": ["a": 1]]) == "400 InvalidValuesForRequestParameters")
        #expect(await fixture.refusal(.get, Fixture.id("contoso1")) == "404 ResourceNotFound")
        #expect(await fixture.refusal(.patch, Fixture.id("contoso1"), [:]) == "404 ResourceNotFound")
    }

    @Test func updatesChangeOnlyWhatTheySay() async throws {
        try await fixture.create("contoso1", ["tags": ["a": "b"]])
        let before = try await fixture.control(.get, Fixture.id("contoso1"))
        var after = try await fixture.patch(
            "contoso1", ["allowSharedKeyAccess": false, "keyPolicy": ["keyExpirationPeriodInDays": 30]])
        #expect(after["properties"]?["allowSharedKeyAccess"] == false)
        #expect(after["properties"]?["keyPolicy"] == ["keyExpirationPeriodInDays": 30])
        after["properties"]?["allowSharedKeyAccess"] = nil
        after["properties"]?["keyPolicy"] = nil
        #expect(after == before)
        // What az does: the answer of a GET comes back whole.
        #expect(try await fixture.patch("contoso1", before["properties"]!)["tags"] == ["a": "b"])
    }

    @Test func everyActionIsAsked() async throws {
        try await fixture.create("contoso1")
        let other = Caller(kind: .user, objectID: "77777777-7777-4777-8777-777777777777", tenantID: Fixture.tenant)
        let id = Fixture.id("contoso1")
        let denied = "403 AuthorizationFailed"
        func outcomes() async -> [String] {
            [
                await fixture.refusal(.get, id, as: other),
                await fixture.refusal(.patch, id, ["tags": [:]], as: other),
                await fixture.refusal(.post, id.appending("listKeys"), as: other),
                await fixture.refusal(.post, id.appending("regenerateKey"), ["keyName": "key2"], as: other),
                await fixture.refusal(.get, id.appending("blobServices", "default"), as: other),
                await fixture.refusal(.put, id.appending("blobServices", "default"), ["properties": [:]], as: other),
                await fixture.refusal(.delete, id, as: other),
            ]
        }
        #expect(await outcomes() == Array(repeating: denied, count: 7))
        #expect(await fixture.refusal(.get, Fixture.id("nothere"), as: other) == denied)
        fixture.assign([(other.objectID, BuiltInRoles.reader, id)])
        #expect(await outcomes() == ["none", denied, denied, denied, "none", denied, denied])
        fixture.assign([(other.objectID, "81a9662b-bebf-436f-a333-f67b29880f12", id)])
        #expect(await outcomes() == [denied, denied, "none", "none", denied, denied, denied])
        fixture.assign([(other.objectID, BuiltInRoles.contributor, Fixture.group)])
        #expect(await outcomes() == Array(repeating: "none", count: 7))
    }

    @Test func listsShowWhatTheCallerMayRead() async throws {
        try await fixture.create("contoso1")
        try await fixture.create("contoso2")
        let other = Caller(kind: .user, objectID: "77777777-7777-4777-8777-777777777777", tenantID: Fixture.tenant)
        fixture.assign([(other.objectID, BuiltInRoles.reader, Fixture.id("contoso2"))])
        func names(_ caller: Caller, _ scope: ResourceID) async throws -> [String] {
            let list = try await fixture.control(
                .get, scope.appending("providers", "Microsoft.Storage", "storageAccounts"), as: caller)
            return (list["value"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
        }
        #expect(try await names(fixture.owner, Fixture.group) == ["contoso1", "contoso2"])
        #expect(
            try await names(fixture.owner, ResourceID("/subscriptions/\(Fixture.subscription)")) == [
                "contoso1", "contoso2",
            ])
        #expect(try await names(other, Fixture.group) == ["contoso2"])
        #expect(
            try await names(fixture.owner, ResourceID("/subscriptions/\(Fixture.subscription)/resourceGroups/rg2"))
                == [])
        #expect(
            try await fixture.service.trackedResources(below: Fixture.group).map(\.id.name) == ["contoso1", "contoso2"])
    }

    @Test func deletionTakesEverything() async throws {
        try await fixture.create("contoso1", ["identity": ["type": "SystemAssigned"]])
        let view = try await fixture.service.account(named: "contoso1")
        let key = try await view.volume.accountKey()
        try key.checkLease()
        #expect(try await fixture.control(.delete, Fixture.id("contoso1"))["status"] == 200)
        #expect(try await fixture.control(.delete, Fixture.id("contoso1"))["status"] == 204)
        await #expect(throws: StorageError.self) { try await fixture.service.account(named: "contoso1") }
        await #expect(throws: (any Error).self) { try await view.volume.accountKey() }
        #expect(fixture.directory.identity(of: Fixture.id("contoso1")) == nil)
        // The name is free, and nothing comes back with it.
        try await fixture.create("contoso1")
        #expect(try await fixture.service.account(named: "contoso1").id != view.id)
        #expect(try await fixture.restarted().account(named: "contoso1").id != view.id)
    }

    /// Who has the name of a deleted account by the time its deletion is finished.
    enum Successor: CaseIterable { case none, sameResource, withoutIdentity, elsewhere }

    /// A deletion whose identity could not be removed is finished at the next start, and takes nothing from an account
    /// of the same name that came meanwhile.
    @Test(arguments: Successor.allCases)
    func aDeletionIsFinishedAtTheNextStart(successor: Successor) async throws {
        let id = Fixture.id("contoso1")
        let elsewhere = Fixture.id("contoso1", group: Fixture.group.parent.appending("resourceGroups", "rg2"))
        let identity: JSONValue = ["identity": ["type": "SystemAssigned"]]
        try await fixture.create("contoso1", identity)
        let deleted = try #require(fixture.directory.identity(of: id))
        fixture.directory.isAvailable.withLock { $0 = false }
        #expect(await fixture.refusal(.delete, id) != "none")
        #expect(try await fixture.engine.list(after: nil, limit: 9).isEmpty)
        fixture.directory.isAvailable.withLock { $0 = true }
        switch successor {
        case .none: break
        case .sameResource: try await fixture.create("contoso1", identity)
        case .withoutIdentity: try await fixture.create("contoso1")
        case .elsewhere: _ = try await fixture.control(.put, elsewhere, Fixture.plainAccount.merged(with: identity))
        }
        let kept = fixture.directory.identity(of: successor == .elsewhere ? elsewhere : id)
        #expect(try await fixture.restarted().directory.all().count == (successor == .none ? 0 : 1))
        let left = fixture.directory.identity(of: id)
        #expect(left?.principalID == (successor == .sameResource ? kept?.principalID : nil))
        #expect(left?.principalID != deleted.principalID)
        if successor == .elsewhere { #expect(fixture.directory.identity(of: elsewhere) != nil) }
    }

    private static let nobody = "deleting/" + [UInt8](repeating: 7, count: 16).hex

    @Test(arguments: ["account/contoso1", "keys/contoso1", "blob/contoso1"])
    func aDamagedRecordDarkensItsAccountAlone(key: String) async throws {
        try await fixture.create("contoso1")
        try await fixture.create("contoso2")
        let partition = Partition("r/storage/accounts")
        _ = try await fixture.engine.commit(partition, checks: [], writes: [.put(RowKey(key), [1, 1, 0])])
        let restarted = fixture.restarted()
        #expect(try await restarted.account(named: "contoso2").name == "contoso2")
        await #expect(throws: (any Error).self) { try await restarted.account(named: "contoso1") }
        #expect(try await restarted.directory.all().map(\.record.name) == ["contoso2"])
        // Not free for somebody else, either.
        await #expect(throws: (any Error).self) {
            try await fixture.control(.put, Fixture.id("contoso1"), Fixture.plainAccount, service: restarted)
        }
        await #expect(throws: ControlError.self) {
            try await fixture.control(
                .post, Self.provider.appending("checkNameAvailability"), ["name": "contoso1"], service: restarted)
        }
        // A group that may hold it is not taken for empty, also when nobody has looked yet.
        await #expect(throws: ControlError.self) {
            try await fixture.restarted().requireAllTracked(below: ResourceID("/subscriptions/s"))
        }
        try await fixture.service.requireAllTracked(below: ResourceID("/subscriptions/s"))
        #expect(try await restarted.trackedResources(below: Fixture.group).map(\.id.name) == ["contoso2"])
    }

    @Test func aDamagedDeletionDarkensNobody() async throws {
        try await fixture.create("contoso1")
        _ = try await fixture.engine.commit(
            Partition("r/storage/accounts"), checks: [], writes: [.put(RowKey(Self.nobody), [1, 1, 0])])
        #expect(try await fixture.restarted().account(named: "contoso1").name == "contoso1")
    }

    @Test func concurrentChangesAllCount() async throws {
        try await fixture.create("contoso1")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for i in 0..<16 {
                group.addTask {
                    if i.isMultiple(of: 2) {
                        _ = try await fixture.control(
                            .post, Fixture.id("contoso1").appending("regenerateKey"), ["keyName": "key1"])
                    } else {
                        try await fixture.patch("contoso1", ["allowBlobPublicAccess": .bool(i % 4 == 1)])
                    }
                }
            }
            try await group.waitForAll()
        }
        let memory = try await fixture.keys("contoso1")
        let disk = try await fixture.control(
            .post, Fixture.id("contoso1").appending("listKeys"), service: fixture.restarted())
        #expect(disk["keys"]?.arrayValue?.first?["value"]?.stringValue == memory[0])
    }

    @Test func blobServiceProperties() async throws {
        try await fixture.create("contoso1")
        let id = Fixture.id("contoso1").appending("blobServices", "default")
        let cors: JSONValue = [
            "allowedOrigins": ["https://a.example"], "allowedMethods": ["GET"], "allowedHeaders": ["*"],
            "exposedHeaders": [],
            "maxAgeInSeconds": 10,
        ]
        let off: JSONValue = ["enabled": false]
        let set = try await fixture.control(
            .put, id, ["properties": ["cors": ["corsRules": [cors]], "deleteRetentionPolicy": off]])
        #expect(set["properties"]?["deleteRetentionPolicy"]?["enabled"] == false)
        let read = try await fixture.control(.get, id)
        #expect(read["properties"]?["cors"]?["corsRules"] == [cors])
        let account = try await fixture.restarted().account(named: "contoso1")
        let kept = try await fixture.restarted().blobServiceProperties(of: account)
        #expect(!kept.deleteRetentionPolicy.isEnabled && kept.corsRules.count == 1)
        for change in [["isVersioningEnabled": true], ["changeFeed": ["enabled": true]]] as [JSONValue] {
            #expect(await fixture.refusal(.put, id, ["properties": change]) == "400 FeatureNotSupported")
        }
        for name in ["deleteRetentionPolicy", "containerDeleteRetentionPolicy"] {
            let promise: JSONValue = ["properties": .object([name: ["enabled": true, "days": 7]])]
            #expect(await fixture.refusal(.put, id, promise) == "400 FeatureNotSupported", "nothing deleted is kept")
        }
    }

    @Test func containersAreAskedForByTheirOwnActions() async throws {
        try await fixture.create("contoso1")
        let containers = Fixture.id("contoso1").appending("blobServices", "default", "containers")
        let box = containers.appending("box")
        #expect(await fixture.refusal(.get, containers) == "501 NotImplemented", "nobody serves them yet")
        let served = Mutex<[String]>([])
        fixture.service.attachContainers { request, account throws(ControlError) in
            served.withLock { $0.append("\(request.method.rawValue) \(account.name) \(request.path.name)") }
            return .empty(204)
        }
        let other = Caller(kind: .user, objectID: "77777777-7777-4777-8777-777777777777", tenantID: Fixture.tenant)
        let denied = "403 AuthorizationFailed"
        func outcomes() async -> [String] {
            [
                await fixture.refusal(.get, containers, as: other), await fixture.refusal(.get, box, as: other),
                await fixture.refusal(.put, box, [:], as: other), await fixture.refusal(.patch, box, [:], as: other),
                await fixture.refusal(.delete, box, as: other),
            ]
        }
        #expect(await outcomes() == Array(repeating: denied, count: 5))
        #expect(served.withLock { $0 } == [])
        fixture.assign([(other.objectID, BuiltInRoles.reader, Fixture.id("contoso1"))])
        #expect(await outcomes() == ["none", "none", denied, denied, denied])
        // A role on one container reaches that one only.
        fixture.assign([(other.objectID, BuiltInRoles.contributor, box)])
        #expect(await outcomes() == [denied, "none", "none", "none", "none"])
        #expect(await fixture.refusal(.get, containers.appending("boxes"), as: other) == denied)
        #expect(
            served.withLock { $0 } == [
                "GET contoso1 containers", "GET contoso1 box", "GET contoso1 box", "PUT contoso1 box",
                "PATCH contoso1 box", "DELETE contoso1 box",
            ])
        let elsewhere = Fixture.id("contoso1").appending("blobServices", "second", "containers")
        #expect(await fixture.refusal(.get, elsewhere) == "404 ResourceNotFound")
        #expect(await fixture.refusal(.post, box.appending("lease"), [:]) == "501 NotImplemented")
    }

    @Test func catalogue() async throws {
        try await fixture.create("contoso1")
        #expect(try await fixture.control(.get, Self.provider.appending("skus"))["value"]?.arrayValue?.isEmpty == false)
        let usages = try await fixture.control(.get, Self.provider.appending("locations", "eastus", "usages"))
        #expect(usages["value"]?.arrayValue?.first?["currentValue"] == 1)
        #expect(try await fixture.control(.get, ResourceID("/providers/Microsoft.Storage/operations"))["value"] != nil)
    }
}
