import CofferCore
import NIOHTTP1
import StorageAccount
import Synchronization
import Testing

@testable import BlobService

/// Every operation asks for its own right: SAS letters and scope, role actions, public access.
@Suite struct AuthorizationTests {
    private static let blockList = Array("<BlockList/>".utf8)
    private static let tags = Array("<Tags><TagSet/></Tags>".utf8)

    struct Operation: Sendable, CustomStringConvertible {
        let method: HTTPMethod
        let target: String
        var headers: [(String, String)] = []
        var body: [UInt8] = []
        /// SAS letters of which each one suffices.
        let letters: String
        let type: Character
        let isReachedByBlobSAS: Bool
        let isReachedByContainerSAS: Bool
        var description: String { "\(method) \(target)" }
    }
    private static func blob(
        _ method: HTTPMethod, _ query: String, _ letters: String, _ headers: [(String, String)] = [],
        _ body: [UInt8] = []
    ) -> Operation {
        Operation(
            method: method, target: "/ccc/a" + query, headers: headers, body: body, letters: letters, type: "o",
            isReachedByBlobSAS: true,
            isReachedByContainerSAS: true)
    }
    private static func container(
        _ method: HTTPMethod, _ query: String, _ letters: String, bySAS: Bool = false,
        _ headers: [(String, String)] = []
    ) -> Operation {
        Operation(
            method: method, target: "/ccc?restype=container" + query, headers: headers, letters: letters, type: "c",
            isReachedByBlobSAS: false, isReachedByContainerSAS: bySAS)
    }
    static let operations: [Operation] = [
        blob(.GET, "", "r"), blob(.HEAD, "", "r"), blob(.GET, "?comp=blocklist", "r"), blob(.DELETE, "", "d"),
        blob(.PUT, "", "w", [("x-ms-blob-type", "BlockBlob")], [1]),
        blob(.PUT, "?comp=block&blockid=QQ==", "wc", [], [1]),
        blob(.PUT, "?comp=blocklist", "w", [], blockList), blob(.PUT, "?comp=metadata", "w"),
        blob(.PUT, "?comp=properties", "w"),
        blob(.PUT, "?comp=snapshot", "cw"), blob(.PUT, "?comp=tier", "w", [("x-ms-access-tier", "Cool")]),
        blob(.PUT, "?comp=lease", "wd", [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "15")]),
        blob(.GET, "?comp=tags", "t"), blob(.PUT, "?comp=tags", "t", [], tags),
        container(.GET, "&comp=list", "l", bySAS: true), container(.GET, "", "r"),
        container(.PUT, "&comp=metadata", "w"),
        container(.GET, "&comp=acl", ""), container(.PUT, "&comp=acl", ""), container(.DELETE, "", "d"),
        container(.PUT, "&comp=lease", "wd", [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "15")]),
        Operation(
            method: .GET, target: "/?comp=list", letters: "l", type: "s", isReachedByBlobSAS: false,
            isReachedByContainerSAS: false),
    ]

    @Test(arguments: operations) func sharedAccessSignatures(_ operation: Operation) async throws {
        func send(_ permissions: String, _ scope: SharedAccessGrant.Scope) async throws -> Int {
            let blobs = try await Blobs.withContainer()
            await blobs.put("a", "1")
            blobs.withGrant(permissions, scope)
            return await blobs.send(operation.method, operation.target, operation.headers, body: operation.body).status
        }
        let all = "racwdxyltmeopif"
        for letter in all {
            let status = try await send(String(letter), .account(resourceTypes: "sco"))
            #expect((200..<300).contains(status) == operation.letters.contains(letter), "\(letter): \(status)")
            if !operation.letters.contains(letter) { #expect(status == 403) }
        }
        let others = "sco".filter { $0 != operation.type }
        #expect(try await send(all, .account(resourceTypes: LetterSet(stringLiteral: others))) == 403)
        let isOpen = !operation.letters.isEmpty
        #expect((try await send(all, .container("ccc")) < 300) == (operation.isReachedByContainerSAS && isOpen))
        #expect(try await send(all, .container("other")) == 403)
        #expect(
            (try await send(all, .blob(container: "ccc", blob: "a")) < 300) == (operation.isReachedByBlobSAS && isOpen))
        #expect(try await send(all, .blob(container: "ccc", blob: "b")) == 403)
        #expect(
            try await send(all, .snapshot(container: "ccc", blob: "a", snapshot: "2026-01-01T00:00:00.0000000Z")) == 403
        )
    }

    @Test(arguments: operations) func noCredentialsNoRoles(_ operation: Operation) async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "1")
        for caller in [StorageCaller.anonymous, .principal(Caller(kind: .user, objectID: "o", tenantID: "t"))] {
            blobs.asCaller(caller)
            let status = await blobs.send(operation.method, operation.target, operation.headers, body: operation.body)
                .status
            #expect(status == 401 || status == 403)
        }
        blobs.asCaller(.accountKey)
        #expect(await blobs.send(.GET, "/ccc/a").text == "1")
    }

    @Test func createWithoutOverwrite() async throws {
        let blobs = try await Blobs.withContainer()
        blobs.withGrant("c", .container("ccc"))
        #expect(await blobs.put("a", "1").status == 201)
        let again = await blobs.put("a", "2")
        #expect(again.status == 403 && again.code == "UnauthorizedBlobOverwrite")
    }

    @Test func roles() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "1")
        let root = "Microsoft.Storage/storageAccounts/blobServices/containers"
        blobs.asCaller(.principal(Caller(kind: .user, objectID: "o", tenantID: "t")))
        func grant(_ actions: String...) {
            blobs.accounts.state.withLock { $0.granted = Set(actions.map { root + $0 }) }
        }
        grant("/blobs/read")
        #expect(await blobs.send(.GET, "/ccc/a").status == 200)
        #expect(await blobs.send(.GET, "/ccc?restype=container&comp=list").status == 200)
        #expect(await blobs.put("a", "2").code == "AuthorizationPermissionMismatch")
        grant("/blobs/write")
        #expect(await blobs.put("a", "2").status == 201)
        #expect(await blobs.send(.GET, "/ccc/a").status == 403)
        grant("/blobs/add/action")
        #expect(await blobs.put("b", "2").status == 201)
        #expect(await blobs.put("b", "2").code == "UnauthorizedBlobOverwrite")
        grant("/write")
        #expect(await blobs.send(.PUT, "/new?restype=container").status == 201)
        #expect(await blobs.send(.DELETE, "/new?restype=container").status == 403)
    }

    @Test func publicAccess() async throws {
        let blobs = try await Blobs.withContainer()
        for (name, level) in [("open", "container"), ("half", "blob")] {
            #expect(
                await blobs.send(.PUT, "/\(name)?restype=container", [("x-ms-blob-public-access", level)]).status == 201
            )
            _ = await blobs.send(.PUT, "/\(name)/a", [("x-ms-blob-type", "BlockBlob")], body: [49])
        }
        blobs.asCaller(.anonymous)
        #expect(await blobs.send(.GET, "/open/a").text == "1")
        #expect(await blobs.send(.GET, "/half/a").text == "1")
        #expect(await blobs.send(.GET, "/open?restype=container&comp=list").status == 200)
        #expect(await blobs.send(.GET, "/half?restype=container&comp=list").status == 401)
        #expect(await blobs.send(.GET, "/ccc/a").code == "NoAuthenticationInformation")
        #expect(
            await blobs.send(.GET, "/none/a").code == "NoAuthenticationInformation",
            "nothing tells which containers exist")
        #expect(await blobs.send(.PUT, "/open/b", [("x-ms-blob-type", "BlockBlob")], body: [1]).status == 401)
        #expect(await blobs.send(.DELETE, "/open/a").status == 401)
        blobs.accounts.state.withLock { $0.allowsPublicAccess = false }
        #expect(await blobs.send(.GET, "/open/a").code == "PublicAccessNotPermitted")
        blobs.asCaller(.accountKey)
        #expect(
            await blobs.send(.PUT, "/more?restype=container", [("x-ms-blob-public-access", "blob")]).code
                == "PublicAccessNotPermitted")
    }
}
