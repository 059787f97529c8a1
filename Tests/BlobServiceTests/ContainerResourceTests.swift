import CofferCore
import Foundation
import NIOHTTP1
import ResourceProviders
import StorageAccount
import Synchronization
import TestSupport
import Testing

@testable import BlobService

/// The control plane's view of the containers that the data plane has.
@Suite struct ContainerResourceTests {
    private func answer(
        _ blobs: Blobs, _ method: ControlRequest.Method, _ name: String? = nil, _ properties: JSONValue? = nil,
        query: [String: String] = [:]
    ) async throws(ControlError) -> (status: Int, body: JSONValue) {
        let account = try! await blobs.accounts.account(named: "acct")
        var path = account.resourceID.appending("blobServices", "default", "containers")
        if let name { path = path.appending(name) }
        let response = try await blobs.service.containerResources(
            ControlRequest(
                method: method, path: path, query: query, apiVersion: "2025-01-01",
                body: properties.map { ["properties": $0] }, names: .coffer(domain: "coffer.test", port: nil)),
            account)
        if case .json(let value) = response.body { return (response.status, value) }
        return (response.status, .null)
    }
    /// `NNN Code` of the refusal.
    private func refusal(
        _ blobs: Blobs, _ method: ControlRequest.Method, _ name: String? = nil, _ properties: JSONValue? = nil,
        query: [String: String] = [:]
    ) async -> String {
        do throws(ControlError) {
            return "none: \(try await answer(blobs, method, name, properties, query: query).status)"
        } catch {
            return "\(error.status) \(error.code)"
        }
    }

    @Test func bothPlanesShowOneContainer() async throws {
        let blobs = try await Blobs()
        let made = try await answer(blobs, .put, "box", ["publicAccess": "Blob", "metadata": ["kind": "test"]])
        #expect(made.status == 201 && made.body["name"] == "box")
        #expect(made.body["type"] == "Microsoft.Storage/storageAccounts/blobServices/containers")
        #expect(made.body["id"]?.stringValue?.hasSuffix("/acct/blobServices/default/containers/box") == true)
        let seen = await blobs.send(.GET, "/box?restype=container")
        #expect(seen.header("x-ms-blob-public-access") == "blob" && seen.header("x-ms-meta-kind") == "test")
        #expect(seen.header("ETag").map { .string($0) } == made.body["etag"])

        #expect(await blobs.send(.PUT, "/other?restype=container", [("x-ms-meta-a", "1")]).status == 201)
        #expect(
            await blobs.send(
                .PUT, "/other?restype=container&comp=lease",
                [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "-1")]
            ).status == 201)
        let other = try await answer(blobs, .get, "other").body["properties"]
        #expect(other?["publicAccess"] == "None" && other?["metadata"] == ["a": "1"])
        #expect(other?["leaseStatus"] == "Locked" && other?["leaseState"] == "Leased")
        #expect(other?["leaseDuration"] == "Infinite" && other?["deleted"] == false)
        #expect(try await answer(blobs, .head, "other").body == .null)
    }

    /// Chosen when the container is made; to repeat any of it later changes nothing.
    @Test func theEncryptionOfAContainer() async throws {
        let blobs = try await Blobs()
        try await blobs.makeScope("one")
        let chosen: JSONValue = ["defaultEncryptionScope": "one", "denyEncryptionScopeOverride": true]
        let made = try await answer(blobs, .put, "box", chosen)
        #expect(made.status == 201 && made.body["properties"]?["defaultEncryptionScope"] == "one")
        #expect(made.body["properties"]?["denyEncryptionScopeOverride"] == true)
        let properties = await blobs.send(.GET, "/box?restype=container")
        #expect(properties.header("x-ms-default-encryption-scope") == "one")
        for same in [chosen, ["defaultEncryptionScope": "one"], ["denyEncryptionScopeOverride": true], [:]]
            as [JSONValue]
        {
            for method in [.put, .patch] as [ControlRequest.Method] {
                #expect(try await answer(blobs, method, "box", same).status == 200)
            }
        }
        for other in [
            ["defaultEncryptionScope": "$account-encryption-key"], ["denyEncryptionScopeOverride": false],
        ] as [JSONValue] {
            #expect(await refusal(blobs, .patch, "box", other) == "400 ContainerEncryptionScopeCannotBeUpdated")
        }
        for odd in [["defaultEncryptionScope": ["one"]], ["defaultEncryptionScope": ""]] as [JSONValue] {
            #expect(await refusal(blobs, .put, "two", odd) == "400 InvalidValuesForRequestParameters")
        }
        #expect(
            await refusal(blobs, .put, "two", ["denyEncryptionScopeOverride": true])
                == "400 InvalidRequestPropertyValue")
    }

    @Test func whatABodyDoesNotNameStays() async throws {
        let blobs = try await Blobs()
        let first = try await answer(blobs, .put, "box", ["publicAccess": "Container", "metadata": ["a": "1"]])
        blobs.clock.advance(seconds: 5)
        let again = try await answer(blobs, .put, "box", [:])
        #expect(again.status == 200 && again.body == first.body, "a PUT that says nothing changes nothing")
        let patched = try await answer(blobs, .patch, "box", ["metadata": ["b": "2"]])
        #expect(patched.status == 200 && patched.body["properties"]?["metadata"] == ["b": "2"])
        #expect(
            patched.body["properties"]?["publicAccess"] == "Container" && patched.body["etag"] != first.body["etag"])
        let put = try await answer(blobs, .put, "box", ["publicAccess": "None"])
        #expect(put.body["properties"]?["publicAccess"] == "None" && put.body["properties"]?["metadata"] == ["b": "2"])
        #expect(await blobs.send(.GET, "/box?restype=container").header("x-ms-blob-public-access") == nil)
    }

    @Test func deletionTakesTheBlobs() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", String(repeating: "x", count: 100_000))
        #expect(
            await blobs.send(
                .PUT, "/ccc?restype=container&comp=lease",
                [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60")]
            ).status == 201)
        #expect(await refusal(blobs, .delete, "ccc") == "412 LeaseIdMissing")
        blobs.clock.advance(seconds: 61)
        #expect(try await answer(blobs, .delete, "ccc").status == 200)
        #expect(await blobs.send(.GET, "/ccc/a").code == "ContainerNotFound")
        #expect(try await answer(blobs, .delete, "ccc").status == 204)
        #expect(await refusal(blobs, .get, "ccc") == "404 ContainerNotFound")
        #expect(await refusal(blobs, .patch, "ccc", [:]) == "404 ContainerNotFound")
    }

    @Test func listsByPrefixAndPage() async throws {
        let blobs = try await Blobs()
        for number in 1...5 { _ = try await answer(blobs, .put, "a-\(number)") }
        _ = try await answer(blobs, .put, "b-1")
        _ = try await answer(blobs, .put, "$logs")
        var names: [String] = []
        var query = ["$filter": "a-", "$maxpagesize": "2"]
        for page in 1...3 {
            let list = try await answer(blobs, .get, query: query).body
            names += (list["value"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
            let link = list["nextLink"]?.stringValue
            #expect((link != nil) == (page < 3))
            guard let link else { break }
            #expect(link.hasPrefix("https://management.coffer.test/subscriptions/"))
            query = Dictionary(
                uniqueKeysWithValues: link.split(separator: "?")[1].split(separator: "&").map { pair in
                    let parts = pair.split(separator: "=", maxSplits: 1)
                    return (parts[0].lowercased(), String(parts[1]).removingPercentEncoding!)
                })
        }
        #expect(names == (1...5).map { "a-\($0)" })
        let all = try await answer(blobs, .get, query: ["$include": "deleted"]).body["value"]?.arrayValue
        #expect(all?.compactMap { $0["name"]?.stringValue } == names + ["b-1"])
        #expect(await refusal(blobs, .get, query: ["$maxpagesize": "0"]).hasPrefix("400"))
        #expect(await refusal(blobs, .get, query: ["$include": "versions"]).hasPrefix("400"))
        #expect(await refusal(blobs, .get, query: ["$skiptoken": "elsewhere"]) == "400 InvalidQueryParameterValue")
        for method in [.put, .patch, .post, .delete] as [ControlRequest.Method] {
            #expect(await refusal(blobs, method) == "405 MethodNotAllowed")
        }
    }

    @Test(
        arguments: [
            ("Box", [:], "400 InvalidResourceName"), ("b", [:], "400 OutOfRangeInput"),
            ("box", ["publicAccess": "All"], "400 InvalidValuesForRequestParameters"),
            ("box", ["metadata": ["1a": "x"]], "400 InvalidMetadata"),
            ("box", ["metadata": ["a": 1]], "400 InvalidValuesForRequestParameters"),
            ("box", ["metadata": "a"], "400 InvalidValuesForRequestParameters"),
            ("box", ["defaultEncryptionScope": "mine"], "409 EncryptionScopeNotAvailable"),
            ("box", ["enableNfsV3RootSquash": true], "400 FeatureNotSupported"),
            ("box", ["immutableStorageWithVersioning": ["enabled": true]], "400 FeatureNotSupported"),
        ] as [(String, JSONValue, String)])
    func whatIsRefusedLeavesNothing(name: String, properties: JSONValue, expected: String) async throws {
        let blobs = try await Blobs()
        #expect(await refusal(blobs, .put, name, properties) == expected)
        #expect(try await answer(blobs, .get).body["value"] == [])
    }

    @Test func anAccountThatForbidsPublicAccessForbidsItHere() async throws {
        let blobs = try await Blobs()
        blobs.accounts.state.withLock { $0.allowsPublicAccess = false }
        #expect(await refusal(blobs, .put, "box", ["publicAccess": "Blob"]) == "409 PublicAccessNotPermitted")
        #expect(try await answer(blobs, .put, "box", ["publicAccess": "None"]).status == 201)
        #expect(await refusal(blobs, .patch, "box", ["publicAccess": "Container"]) == "409 PublicAccessNotPermitted")
    }
}
