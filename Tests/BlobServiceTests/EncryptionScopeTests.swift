import CofferCore
import EncryptionAtRest
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import BlobService
@testable import StorageAccount

/// Encryption scopes as writes name them: by header, by container, by SAS ("Encryption scopes for Blob storage").
@Suite struct EncryptionScopeTests {
    private static let header = "x-ms-encryption-scope"
    private let blobs: Blobs

    init() async throws {
        blobs = try await Blobs.withContainer()
        try await blobs.makeScope("one")
        try await blobs.makeScope("two")
    }
    private func scope(_ name: String) -> [(String, String)] { [(Self.header, name)] }

    @Test(arguments: [1, 100_000])
    func aBlobAnswersToItsScopeAlone(size: Int) async throws {
        let text = String(repeating: "x", count: size)
        let put = await blobs.put("a", text, scope("one") + [("x-ms-meta-k", "v")])
        #expect(put.status == 201 && put.header(Self.header) == "one")
        let read = await blobs.send(.GET, "/ccc/a")
        #expect(read.text == text && read.header(Self.header) == "one" && read.header("x-ms-meta-k") == "v")
        let list = try await blobs.send(.GET, "/ccc?restype=container&comp=list&include=metadata").xml()
        #expect(list["Blobs"]?.children.first?["Properties"]?["EncryptionScope"]?.text == "one")
        #expect(list["Blobs"]?.children.first?["Metadata"]?["k"]?.text == "v")

        blobs.disableScope("two")
        #expect(await blobs.send(.GET, "/ccc/a").text == text)
        blobs.disableScope("one")
        let refused = await blobs.send(.GET, "/ccc/a")
        #expect(refused.status == 409 && refused.code == "EncryptionScopeNotAvailable")
        blobs.enableScope("one")
        #expect(await blobs.send(.GET, "/ccc/a").text == text)
    }

    /// The row and the extent do not open under the account's key, nor under another scope's.
    @Test func theKeysAreApart() async throws {
        await blobs.put("a", "text", scope("one"))
        let (volume, partition) = try await blobs.volume("ccc")
        let row = try #require(try await volume.get(partition, [BlobKeys.base("a")])[0])
        for key in [try await volume.accountKey(), try await volume.scopeKey("two")] {
            await #expect(throws: SealedStoreError.self) {
                _ = try await volume.open(row.sealed, at: row.key, in: partition, under: key)
            }
        }
        let key = try await volume.scopeKey("one")
        #expect(try await !volume.open(row.sealed, at: row.key, in: partition, under: key).isEmpty)
    }

    @Test func changesNameTheScopeTheBlobHas() async throws {
        await blobs.put("a", "text", scope("one"))
        for (target, headers) in [
            ("/ccc/a?comp=metadata", [("x-ms-meta-k", "v")]), ("/ccc/a?comp=snapshot", []),
        ] {
            #expect(await blobs.send(.PUT, target, headers).code == "BlobUsesCustomerSpecifiedEncryption")
            let other = await blobs.send(.PUT, target, headers + scope("two"))
            #expect(other.status == 409 && other.code == "BlobCustomerSpecifiedEncryptionMismatch")
            let same = await blobs.send(.PUT, target, headers + scope("one"))
            #expect(same.status < 300 && same.header(Self.header) == "one")
        }
        #expect(await blobs.send(.GET, "/ccc/a").header("x-ms-meta-k") == "v")
        await blobs.put("plain", "text")
        #expect(
            await blobs.send(.PUT, "/ccc/plain?comp=metadata", scope("one")).code
                == "BlobDoesNotUseCustomerSpecifiedEncryption")
        // What takes no such header goes by what the blob has.
        #expect(await blobs.send(.PUT, "/ccc/a?comp=properties", [("x-ms-blob-content-type", "a/b")]).status == 200)
        let tags = Array("<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags>".utf8)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tags", body: tags).status == 204)
        #expect(await blobs.send(.GET, "/ccc/a?comp=tags").text.contains("<Value>v</Value>"))
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tier", [("x-ms-access-tier", "Cool")]).status == 200)
        #expect(await blobs.send(.GET, "/ccc/a?comp=blocklist").status == 200)
        // A write of the whole may choose anew.
        #expect(await blobs.put("a", "new", scope("two")).header(Self.header) == "two")
        #expect(await blobs.put("a", "newer").header(Self.header) == nil)
        #expect(await blobs.send(.GET, "/ccc/a").text == "newer")
    }

    @Test func blocksAppendsAndPages() async throws {
        let list = Array("<BlockList><Latest>QQ==</Latest></BlockList>".utf8)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=QQ==", scope("one"), body: [65]).status == 201)
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list).code == "BlobUsesCustomerSpecifiedEncryption")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", scope("two"), body: list).code
                == "BlobCustomerSpecifiedEncryptionMismatch")
        let committed = await blobs.send(.PUT, "/ccc/a?comp=blocklist", scope("one"), body: list)
        #expect(committed.status == 201 && committed.header(Self.header) == "one")
        #expect(await blobs.send(.GET, "/ccc/a").text == "A")

        let append = [("x-ms-blob-type", "AppendBlob")]
        #expect(await blobs.send(.PUT, "/ccc/log", append + scope("one")).status == 201)
        #expect(
            await blobs.send(.PUT, "/ccc/log?comp=appendblock", body: [66]).code
                == "BlobUsesCustomerSpecifiedEncryption")
        #expect(await blobs.send(.PUT, "/ccc/log?comp=appendblock", scope("one"), body: [66]).status == 201)
        #expect(await blobs.send(.GET, "/ccc/log").text == "B")

        let page = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "1024")]
        #expect(await blobs.send(.PUT, "/ccc/disk", page + scope("one")).status == 201)
        let write = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")]
        let bytes = [UInt8](repeating: 7, count: 512)
        #expect(
            await blobs.send(.PUT, "/ccc/disk?comp=page", write + scope("two"), body: bytes).code
                == "BlobCustomerSpecifiedEncryptionMismatch")
        #expect(await blobs.send(.PUT, "/ccc/disk?comp=page", write + scope("one"), body: bytes).status == 201)
        #expect(await blobs.send(.GET, "/ccc/disk").body.prefix(513) == bytes + [0])
        #expect(await blobs.send(.GET, "/ccc/disk?comp=pagelist").text.contains("<End>511</End>"))
    }

    @Test func copiesTakeTheScopeOfTheRequest() async throws {
        await blobs.put("a", "text", scope("one"))
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")]
        for (name, chosen) in [("same", "one"), ("other", "two"), ("plain", nil)] as [(String, String?)] {
            let copied = await blobs.send(.PUT, "/ccc/\(name)", source + (chosen.map(scope) ?? []))
            #expect(copied.status == 202 && copied.header(Self.header) == chosen)
            let read = await blobs.send(.GET, "/ccc/\(name)")
            #expect(read.text == "text" && read.header(Self.header) == chosen)
        }
        blobs.disableScope("one")
        #expect(await blobs.send(.GET, "/ccc/same").status == 409)
        #expect(await blobs.send(.GET, "/ccc/other").text == "text")
        #expect(await blobs.send(.GET, "/ccc/plain").text == "text")
        #expect(await blobs.send(.PUT, "/ccc/late", source).status == 409)
        let key = await blobs.send(.PUT, "/ccc/own", source + customerKey())
        #expect(key.status == 400, "a copy is never sealed under another key than was asked for")
    }

    // MARK: The container

    private func makeContainer(_ name: String, _ headers: [(String, String)]) async -> Answer {
        await blobs.send(.PUT, "/\(name)?restype=container", headers)
    }

    @Test func aContainersDefault() async throws {
        #expect(await makeContainer("box", [("x-ms-default-encryption-scope", "one")]).status == 201)
        let properties = await blobs.send(.GET, "/box?restype=container")
        #expect(properties.header("x-ms-default-encryption-scope") == "one")
        #expect(properties.header("x-ms-deny-encryption-scope-override") == "false")
        func put(_ name: String, _ headers: [(String, String)] = []) async -> Answer {
            await blobs.send(.PUT, "/box/\(name)", [("x-ms-blob-type", "BlockBlob")] + headers, body: [1])
        }
        #expect(await put("a").header(Self.header) == "one")
        #expect(await blobs.send(.PUT, "/box/a?comp=metadata", [("x-ms-meta-k", "v")]).status == 200)
        #expect(await put("b", scope("two")).header(Self.header) == "two")
        #expect(await put("c", scope("$account-encryption-key")).header(Self.header) == nil)
        #expect(await put("d", customerKey()).header(Self.header) == nil)
        #expect(await blobs.send(.GET, "/box/d", customerKey()).status == 200)
        let list = try await blobs.send(.GET, "/?comp=list").xml()
        let box = list["Containers"]?.children.first?["Properties"]
        #expect(box?["DefaultEncryptionScope"]?.text == "one" && box?["DenyEncryptionScopeOverride"]?.text == "false")
    }

    @Test func aContainerThatDeniesOthers() async throws {
        let denying = [("x-ms-deny-encryption-scope-override", "true")]
        #expect(await makeContainer("box", denying).code == "MissingRequiredHeader")
        #expect(await makeContainer("box", denying + [("x-ms-default-encryption-scope", "one")]).status == 201)
        func put(_ headers: [(String, String)]) async -> Answer {
            await blobs.send(.PUT, "/box/a", [("x-ms-blob-type", "BlockBlob")] + headers, body: [1])
        }
        for headers in [scope("two"), scope("$account-encryption-key"), customerKey()] {
            let refused = await put(headers)
            #expect(refused.status == 403 && refused.code == "RequestForbiddenByContainerEncryptionPolicy")
        }
        #expect(await put([]).header(Self.header) == "one")
        #expect(await put(scope("one")).header(Self.header) == "one")
    }

    /// However content gets into a container that denies other scopes, it answers to the container's.
    @Test func noWayAroundADenial() async throws {
        let denying = [("x-ms-deny-encryption-scope-override", "true"), ("x-ms-default-encryption-scope", "one")]
        #expect(await makeContainer("box", denying).status == 201)
        await blobs.put("source", "text")
        let source = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/source")]
        let page = [("x-ms-page-write", "update"), ("x-ms-range", "bytes=0-511")]
        let list = Array("<BlockList><Latest>QQ==</Latest></BlockList>".utf8)
        let ways: [(String, [(String, String)], [UInt8])] = [
            ("copy", source, []), ("fromurl", source + [("x-ms-blob-type", "BlockBlob")], []),
            ("blocks?comp=block&blockid=QQ==", [], [65]), ("blocks?comp=blocklist", [], list),
            ("log", [("x-ms-blob-type", "AppendBlob")], []), ("log?comp=appendblock", [], [65]),
            ("disk", [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", "512")], []),
            ("disk?comp=page", page, [UInt8](repeating: 1, count: 512)), ("log?comp=metadata", [], []),
            ("log?comp=snapshot", [], []),
        ]
        for (target, headers, body) in ways {
            for chosen in [scope("two"), scope("$account-encryption-key")] {
                let refused = await blobs.send(.PUT, "/box/\(target)", headers + chosen, body: body)
                #expect(refused.code == "RequestForbiddenByContainerEncryptionPolicy", "\(target)")
            }
            #expect(await blobs.send(.PUT, "/box/\(target)", headers, body: body).status < 300, "\(target)")
        }
        blobs.withGrant("racwl", .container("box"), encryptionScope: "two")
        let signed = await blobs.send(.PUT, "/box/a", [("x-ms-blob-type", "BlockBlob")], body: [1])
        #expect(signed.code == "RequestForbiddenByContainerEncryptionPolicy")
        blobs.asCaller(.accountKey)
        blobs.disableScope("one")
        for name in ["copy", "fromurl", "blocks", "log", "disk"] {
            #expect(await blobs.send(.GET, "/box/\(name)").status == 409, "\(name)")
        }
    }

    @Test func whatIsRefusedLeavesNothing() async throws {
        for name in ["none", "One"] {
            #expect(await blobs.put("a", "x", scope(name)).code == "EncryptionScopeNotAvailable")
            let container = await makeContainer("box", [("x-ms-default-encryption-scope", name)])
            #expect(container.status == 409 && container.code == "EncryptionScopeNotAvailable")
        }
        blobs.disableScope("one")
        #expect(await blobs.put("a", "x", scope("one")).status == 409)
        #expect(await blobs.put("a", "x", scope("two") + customerKey()).code == "InvalidHeaderValue")
        let odd = [("x-ms-default-encryption-scope", "two"), ("x-ms-deny-encryption-scope-override", "maybe")]
        #expect(await makeContainer("box", odd).code == "InvalidHeaderValue")
        #expect(try await blobs.rows("ccc") == 0)
        #expect(try await blobs.send(.GET, "/?comp=list").xml()["Containers"]?.children.count == 1)
    }

    // MARK: The SAS

    @Test func aSignatureThatNamesAScope() async throws {
        blobs.withGrant("racwl", .container("ccc"), encryptionScope: "one")
        #expect(await blobs.put("a", "text").header(Self.header) == "one")
        #expect(await blobs.put("a", "text", scope("one")).status == 201)
        let other = await blobs.put("a", "text", scope("two"))
        #expect(other.status == 400 && other.code == "InvalidHeaderValue")
        let key = await blobs.put("a", "text", customerKey())
        #expect(key.status == 403 && key.code == "AuthorizationFailure")
        // Reads go by what the blob has.
        blobs.withGrant("r", .container("ccc"), encryptionScope: "two")
        #expect(await blobs.send(.GET, "/ccc/a").text == "text")
    }

    // MARK: Revocation

    /// A scope's own key in a vault is revoked apart from the account's.
    @Test func aScopeUnderACustomersKey() async throws {
        let identity = Caller(kind: .managedIdentity, objectID: "o", tenantID: "t")
        blobs.vault.addVersion("k")
        blobs.vault.allow(identity)
        _ = try await blobs.store.accountKeys.useCustomerKey(
            KnownCallers.id, scope: "one", blobs.vault.reference("k"), as: identity)
        await blobs.put("a", "under the scope", scope("one") + [("x-ms-meta-k", "v")])
        await blobs.put("b", "under the account", [("x-ms-meta-k", "v")])
        blobs.vault.disable("k", "1")
        let refused = await blobs.send(.GET, "/ccc/a")
        #expect(refused.status == 403 && refused.code == "KeyVaultEncryptionKeyNotFound")
        #expect(await blobs.send(.GET, "/ccc/b").text == "under the account")
        let list = await blobs.send(.GET, "/ccc?restype=container&comp=list&include=metadata")
        #expect(list.status == 200 && list.text.contains("<Metadata Encrypted=\"true\" />"))
        #expect(list.text.contains("<k>v</k>"), "the other blob's")
        blobs.vault.enable("k", "1")
        #expect(await blobs.send(.GET, "/ccc/a").text == "under the scope")
        blobs.vault.disable("k", "1")
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 202)
    }

    /// An upload whose scope is disabled while its body comes leaves nothing.
    @Test func anUploadEndsWithItsScope() async throws {
        let body = [UInt8](repeating: 1, count: 100_000)
        let refused = await blobs.send(
            .PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")] + scope("one"), body: body, declared: body.count,
            meanwhile: { blobs.disableScope("one") })
        #expect(refused.status == 409 && refused.code == "EncryptionScopeNotAvailable")
        #expect(try await blobs.rows("ccc") == 0)
        #expect(try await blobs.extentCount == 0)
    }

    /// Who holds the key when the scope is disabled is cut off in the middle of the download.
    @Test func aDownloadEndsWithItsScope() async throws {
        await blobs.put("a", String(repeating: "x", count: 4 << 20), scope("one"))
        let (volume, partition) = try await blobs.volume("ccc")
        let row = try #require(try await volume.get(partition, [BlobKeys.base("a")])[0])
        let key = try await volume.scopeKey("one")
        let secrets = try BlobSecrets(
            decoding: try await volume.open(row.sealed, at: row.key, in: partition, under: key),
            bodies: row.sealed.inlineBodies)
        let received = Mutex(0)
        await #expect(throws: KeyUnavailable.self) {
            try await volume.read(secrets.manifest.pieces(of: 0..<(4 << 20)), under: key) { piece in
                received.withLock { $0 += piece.readableBytes }
                blobs.disableScope("one")
            }
        }
        #expect(received.withLock { $0 } == 1 << 20)
    }

    // MARK: Records

    /// What names a scope comes back from its row; a row of before names none, and any other bytes are refused or give
    /// one record.
    @Test func recordsComeBack() throws {
        let random = SeededRandomness(92)
        for type in [BlobType.block, .append, .page] {
            for scope in [nil, "one"] {
                var record = BlobRecord(etag: ETag(number: 7), at: blobs.clock.now())
                record.type = type
                record.encryptionScope = scope
                if type == .page { record.pages = PageMapRoot(id: random.bytes(PageMapRoot.idBytes)) }
                let bytes = record.encoded()
                #expect(try BlobRecord(decoding: bytes).encryptionScope == scope)
                let block = BlockRecord(
                    id: "QQ==", length: 1, uploaded: blobs.clock.now(), customerKeySHA256: nil, encryptionScope: scope,
                    releasable: [])
                #expect(try BlockRecord(decoding: block.encoded()).encryptionScope == scope)
                for _ in 0..<500 {
                    var mutated = bytes
                    mutated[Int(random.bytes(1)[0]) % bytes.count] ^= 1 << (random.bytes(1)[0] % 8)
                    guard let read = try? BlobRecord(decoding: mutated) else { continue }
                    #expect(read.encoded() == mutated)
                }
            }
        }
    }
}
