import CofferCore
import EncryptionAtRest
import NIOHTTP1
import StorageAccount
import Synchronization
import TestSupport
import Testing

@testable import BlobService

@Suite struct ContainerTests {
    @Test func lifeOfAContainer() async throws {
        let blobs = try await Blobs()
        let created = await blobs.send(
            .PUT, "/ccc?restype=container", [("x-ms-meta-Owner", "me"), ("x-ms-client-request-id", "mine")])
        #expect(created.status == 201)
        #expect(created.header("ETag")?.hasPrefix("\"0x8") == true)
        #expect(created.header("x-ms-request-id") == "00000000-0000-4000-8000-000000000000")
        #expect(created.header("x-ms-client-request-id") == "mine")
        #expect(created.header("x-ms-version") == "2025-11-05")
        let again = await blobs.send(.PUT, "/ccc?restype=container")
        #expect(again.status == 409 && again.code == "ContainerAlreadyExists")
        #expect(try again.xml()["Code"]?.text == "ContainerAlreadyExists")

        let properties = await blobs.send(.GET, "/ccc?restype=container")
        #expect(properties.status == 200)
        #expect(properties.header("x-ms-meta-Owner") == "me")
        #expect(properties.header("x-ms-lease-status") == "unlocked")
        #expect(properties.header("ETag") == created.header("ETag"))

        let changed = await blobs.send(.PUT, "/ccc?restype=container&comp=metadata", [("x-ms-meta-k", "v")])
        #expect(changed.status == 200 && changed.header("ETag") != created.header("ETag"))
        let metadata = await blobs.send(.HEAD, "/ccc?restype=container&comp=metadata")
        #expect(metadata.header("x-ms-meta-k") == "v" && metadata.header("x-ms-meta-Owner") == nil)

        await blobs.put("a", "text")
        #expect(await blobs.send(.DELETE, "/ccc?restype=container").status == 202)
        let gone = await blobs.send(.HEAD, "/ccc?restype=container")
        #expect(gone.status == 404 && gone.code == "ContainerNotFound" && gone.body.isEmpty)
        #expect(await blobs.send(.GET, "/ccc/a").code == "ContainerNotFound")
        #expect(await blobs.send(.PUT, "/ccc?restype=container").status == 201)
        #expect(
            await blobs.send(.GET, "/ccc/a").code == "BlobNotFound", "a new container of the same name begins empty")
    }

    @Test func deletingAContainerLeavesNoRow() async throws {
        let blobs = try await Blobs.withContainer()
        let large = String(repeating: "x", count: 40_000)
        for name in ["a", "b", "c/d"] { await blobs.put(name, large) }
        _ = await blobs.send(.PUT, "/ccc/a?comp=snapshot")
        _ = await blobs.send(.PUT, "/ccc/z?comp=block&blockid=QQ==", body: Array(large.utf8))
        let id = try #require(try await blobs.service.container("ccc", of: blobs.accounts.account(named: "acct")))
            .record.id
        #expect(await blobs.send(.DELETE, "/ccc?restype=container").status == 202)
        let volume = blobs.store.volume(account: KnownCallers.id)
        #expect(try await volume.scan(.container(id), from: [], upTo: nil, limit: 10).isEmpty)
        #expect(try await volume.scan(.account, from: [], upTo: nil, limit: 10).isEmpty)
    }

    @Test(arguments: ["ab", "Abc", "a--b", "-abc", "abc-", "a_b", String(repeating: "a", count: 64)])
    func badNames(_ name: String) async throws {
        let answer = await (try Blobs()).send(.PUT, "/\(name)?restype=container")
        #expect(answer.status == 400)
    }

    @Test func accessPolicies() async throws {
        let blobs = try await Blobs.withContainer()
        let body = """
            <?xml version="1.0" encoding="utf-8"?><SignedIdentifiers><SignedIdentifier><Id>p1</Id><AccessPolicy>\
            <Start>2026-01-01T00:00:00Z</Start><Expiry>2027-01-01T00:00:00.0000000Z</Expiry><Permission>rl</Permission>\
            </AccessPolicy></SignedIdentifier><SignedIdentifier><Id>p2</Id></SignedIdentifier></SignedIdentifiers>
            """
        let set = await blobs.send(
            .PUT, "/ccc?restype=container&comp=acl", [("x-ms-blob-public-access", "blob")], body: Array(body.utf8))
        #expect(set.status == 200)
        let read = await blobs.send(.GET, "/ccc?restype=container&comp=acl")
        #expect(read.header("x-ms-blob-public-access") == "blob")
        let identifiers = try read.xml().all("SignedIdentifier")
        #expect(identifiers.map { $0["Id"]?.text } == ["p1", "p2"])
        #expect(identifiers[0]["AccessPolicy"]?["Permission"]?.text == "rl")
        let policy = try await blobs.service.storedAccessPolicy(
            "p1", container: "ccc", account: blobs.accounts.account(named: "acct"))
        #expect(
            policy
                == StoredAccessPolicy(
                    start: Timestamp(iso8601: "2026-01-01"), expiry: Timestamp(iso8601: "2027-01-01"), permissions: "rl"
                ))
        #expect(
            try await blobs.service.storedAccessPolicy(
                "p9", container: "ccc", account: blobs.accounts.account(named: "acct")) == nil)
        let six =
            "<SignedIdentifiers>" + (1...6).map { "<SignedIdentifier><Id>\($0)</Id></SignedIdentifier>" }.joined()
            + "</SignedIdentifiers>"
        #expect(await blobs.send(.PUT, "/ccc?restype=container&comp=acl", body: Array(six.utf8)).status == 400)
        #expect(
            await blobs.send(.PUT, "/ccc?restype=container&comp=acl", body: Array("<a>".utf8)).code
                == "InvalidXmlDocument")
    }

    @Test func leases() async throws {
        let blobs = try await Blobs.withContainer()
        let id = "1f812371-a41d-49e6-b123-f4b542e851c5"
        let acquired = await blobs.send(
            .PUT, "/ccc?restype=container&comp=lease",
            [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "15"), ("x-ms-proposed-lease-id", id)])
        #expect(acquired.status == 201 && acquired.header("x-ms-lease-id") == id)
        #expect(await blobs.send(.DELETE, "/ccc?restype=container").code == "LeaseIdMissing")
        let wrong = await blobs.send(
            .DELETE, "/ccc?restype=container", [("x-ms-lease-id", "1f812371-a41d-49e6-b123-f4b542e851c6")])
        #expect(wrong.status == 412 && wrong.code == "LeaseIdMismatchWithContainerOperation")
        let broken = await blobs.send(.PUT, "/ccc?restype=container&comp=lease", [("x-ms-lease-action", "break")])
        #expect(broken.status == 202 && broken.header("x-ms-lease-time") == "15")
        blobs.clock.advance(seconds: 15)
        #expect(await blobs.send(.DELETE, "/ccc?restype=container").status == 202)
    }

    @Test func listing() async throws {
        let blobs = try await Blobs()
        for name in ["alpha", "beta", "bravo"] {
            _ = await blobs.send(.PUT, "/\(name)?restype=container", [("x-ms-meta-n", name)])
        }
        let first = try await blobs.send(.GET, "/?comp=list&maxresults=2&include=metadata").xml()
        #expect(first["Containers"]?.children.map { $0["Name"]?.text } == ["alpha", "beta"])
        #expect(first["Containers"]?.children[0]["Metadata"]?["n"]?.text == "alpha")
        let marker = try #require(first["NextMarker"]?.text)
        let second = try await blobs.send(.GET, "/?comp=list&maxresults=2&marker=\(marker)").xml()
        #expect(
            second["Containers"]?.children.map { $0["Name"]?.text } == ["bravo"] && second["NextMarker"]?.text == "")
        let some = try await blobs.send(.GET, "/?comp=list&prefix=b&include=").xml()
        #expect(some["Containers"]?.children.count == 2)
        #expect(await blobs.send(.GET, "/?comp=list&maxresults=0").code == "OutOfRangeQueryParameterValue")
        #expect(await blobs.send(.GET, "/?comp=list&marker=nonsense").status == 400)
    }

    @Test func serviceOperations() async throws {
        let blobs = try await Blobs.withContainer()
        let information = await blobs.send(.GET, "/?restype=account&comp=properties")
        #expect(
            information.header("x-ms-sku-name") == "Standard_LRS"
                && information.header("x-ms-account-kind") == "StorageV2")
        let rules = """
            <StorageServiceProperties><Cors><CorsRule><AllowedOrigins>https://a.test</AllowedOrigins><AllowedMethods>GET,PUT</AllowedMethods>\
            <AllowedHeaders>x-ms-*</AllowedHeaders><ExposedHeaders>ETag</ExposedHeaders><MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule></Cors>\
            </StorageServiceProperties>
            """
        #expect(await blobs.send(.PUT, "/?restype=service&comp=properties", body: Array(rules.utf8)).status == 202)
        let read = try await blobs.send(.GET, "/?restype=service&comp=properties").xml()
        #expect(read["Cors"]?["CorsRule"]?["AllowedOrigins"]?.text == "https://a.test")
        let preflight = await blobs.send(
            .OPTIONS, "/ccc/a",
            [
                ("Origin", "https://a.test"), ("Access-Control-Request-Method", "PUT"),
                ("Access-Control-Request-Headers", "x-ms-blob-type"),
            ])
        #expect(preflight.status == 200 && preflight.header("Access-Control-Max-Age") == "60")
        let refused = await blobs.send(
            .OPTIONS, "/ccc/a", [("Origin", "https://b.test"), ("Access-Control-Request-Method", "PUT")])
        #expect(refused.status == 403 && refused.code == "CorsPreflightFailure")
        let actual = await blobs.send(.GET, "/ccc/none", [("Origin", "https://a.test")])
        #expect(actual.status == 404 && actual.header("Access-Control-Allow-Origin") == "https://a.test")
        let softDelete =
            "<StorageServiceProperties><DeleteRetentionPolicy><Enabled>true</Enabled><Days>7</Days></DeleteRetentionPolicy></StorageServiceProperties>"
        #expect(await blobs.send(.PUT, "/?restype=service&comp=properties", body: Array(softDelete.utf8)).status == 409)
        #expect(await blobs.send(.GET, "/?restype=service&comp=stats").status == 400)
        blobs.asCaller(.principal(Caller(kind: .user, objectID: "o", tenantID: "t")))
        let info = "<KeyInfo><Start>2026-11-22T00:00:00Z</Start><Expiry>2026-11-23T00:00:00Z</Expiry></KeyInfo>"
        let delegation = "/?restype=service&comp=userdelegationkey"
        // Refused before anybody reads what was sent.
        #expect(await blobs.send(.POST, delegation, body: Array("<".utf8)).status == 403)
        let action = "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"
        _ = blobs.accounts.state.withLock { $0.granted.insert(action) }
        #expect(await blobs.send(.POST, delegation, body: Array("<".utf8)).status == 400)
        let key = try await blobs.send(.POST, delegation, body: Array(info.utf8)).xml()
        #expect(key["SignedOid"]?.text == "o" && key["Value"]?.text == "c2VjcmV0")
    }

    /// A commit of unknown outcome may have happened: what it took away must not go on out of the cache.
    @Test func whatMayHaveBeenWithdrawnIsReadAnew() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await blobs.send(.PUT, "/open?restype=container", [("x-ms-blob-public-access", "blob")]).status == 201)
        _ = await blobs.send(.PUT, "/open/a", [("x-ms-blob-type", "BlockBlob")], body: [49])
        blobs.asCaller(.anonymous)
        #expect(await blobs.send(.GET, "/open/a").text == "1")
        blobs.asCaller(.accountKey)
        blobs.faults.fail(at: 0, .after)
        #expect(await blobs.send(.PUT, "/open?restype=container&comp=acl").status == 500)
        blobs.faults.heal()
        blobs.asCaller(.anonymous)
        #expect(await blobs.send(.GET, "/open/a").code == "NoAuthenticationInformation")

        blobs.asCaller(.accountKey)
        #expect(await blobs.send(.GET, "/open/a").text == "1")
        blobs.faults.fail(at: 0, .after)
        #expect(await blobs.send(.DELETE, "/open?restype=container").status == 500)
        blobs.faults.heal()
        #expect(await blobs.send(.GET, "/open/a").code == "ContainerNotFound")
    }
}
