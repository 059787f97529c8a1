import CofferCore
import EncryptionAtRest
import HTTPEdge
import NIOCore
import NIOHTTP1
import StorageEngine
import TestSupport
import Testing

@testable import BlobService

/// Customer-provided keys: the codes and messages are those recorded from the live service
/// (specs/recorded/encryption-errors.json).
@Suite struct EncryptionTests {
    /// Earlier versions wrote small bodies inside their references (docs/format.md §8, form 2).
    @Test func aBodyInsideItsReferenceIsReadAndWrittenBeside() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "small", [("x-ms-meta-k", "v")])
        let (volume, partition) = try await blobs.volume("ccc")
        let row = try #require(try await volume.get(partition, [BlobKeys.base("a")])[0])
        let key = try await volume.accountKey()
        let now = try BlobSecrets(
            decoding: try await volume.open(row.sealed, at: row.key, in: partition, under: key),
            bodies: row.sealed.inlineBodies)
        let before = try await volume.seal(
            withBodyInside(now), of: [], at: row.key, in: partition, under: key)
        _ = try await volume.commit(
            partition, checks: [], writes: [.put(row.key, visible: row.visible, sealed: before)])
        #expect(await blobs.send(.GET, "/ccc/a").text == "small")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=snapshot").status == 201)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-k", "w")]).status == 200)
        let after = try #require(try await volume.get(partition, [BlobKeys.base("a")])[0])
        #expect(after.sealed.message.count < before.message.count && after.sealed != before)
        let read = await blobs.send(.GET, "/ccc/a")
        #expect(read.text == "small" && read.header("x-ms-meta-k") == "w")
    }

    /// The sealed part of a blob of one small body as version 1 wrote it.
    private func withBodyInside(_ secrets: BlobSecrets) -> [UInt8] {
        let extent = secrets.manifest.extents[0]
        var writer = RecordWriter()
        writer.byte(1)
        writer.pairs(secrets.metadata)
        writer.number(1)
        let length = (0..<8).reversed().map { UInt8(truncatingIfNeeded: extent.plaintextBytes >> ($0 * 8)) }
        writer.byteString([1, 2] + extent.extentID + length + extent.inlineCiphertext)
        for number: UInt64 in [1, 0, 1, 0, UInt64(extent.plaintextBytes)] { writer.number(number) }
        writer.flag(true)
        writer.optional(secrets.md5) { $0.byteString($1) }
        writer.pairs(secrets.tags)
        return writer.bytes
    }

    /// A row whose manifest leaves a body over is damaged, not merely odd.
    @Test func aBodyThatBelongsToNoReferenceIsRefused() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "one")
        await blobs.put("b", "two")
        let (volume, partition) = try await blobs.volume("ccc")
        let key = try await volume.accountKey()
        var secrets: [BlobSecrets] = []
        let rows = try await volume.get(partition, [BlobKeys.base("a"), BlobKeys.base("b")]).compactMap { $0 }
        for row in rows {
            let plain = try await volume.open(row.sealed, at: row.key, in: partition, under: key)
            secrets.append(try BlobSecrets(decoding: plain, bodies: row.sealed.inlineBodies))
        }
        let extents = secrets.flatMap(\.manifest.extents)
        let sealed = try await volume.seal(
            secrets[0].encoded(including: true), of: extents, at: rows[0].key, in: partition, under: key)
        _ = try await volume.commit(
            partition, checks: [], writes: [.put(rows[0].key, visible: rows[0].visible, sealed: sealed)])
        let refused = await blobs.send(.GET, "/ccc/a")
        #expect(refused.status == 500 && refused.code == "InternalError" && !refused.text.contains("one"))
        #expect(await blobs.send(.GET, "/ccc/b").text == "two")
    }

    @Test func ownKeys() async throws {
        let blobs = try await Blobs.withContainer()
        let hash = customerKey()[1].1
        let put = await blobs.put("a", "secret", customerKey() + [("x-ms-meta-k", "v")])
        #expect(put.status == 201 && put.header("x-ms-encryption-key-sha256") == hash)
        #expect(put.header("x-ms-request-server-encrypted") == "true")
        let get = await blobs.send(.GET, "/ccc/a", customerKey(algorithm: false))
        #expect(
            get.text == "secret" && get.header("x-ms-encryption-key-sha256") == hash && get.header("x-ms-meta-k") == "v"
        )
        #expect(get.header("Content-MD5") == put.header("Content-MD5"))

        let none = await blobs.send(.GET, "/ccc/a")
        #expect(none.status == 409 && none.code == "BlobUsesCustomerSpecifiedEncryption")
        #expect(
            none.text.contains(
                "The blob is encrypted with customer specified encryption, but it was not provided in the request."))
        let head = await blobs.send(.HEAD, "/ccc/a")
        #expect(head.status == 409 && head.code == "BlobUsesCustomerSpecifiedEncryption" && head.body.isEmpty)
        let wrong = await blobs.send(.GET, "/ccc/a", customerKey(8))
        #expect(wrong.status == 409 && wrong.code == "BlobCustomerSpecifiedEncryptionMismatch")
        #expect(
            wrong.text.contains(
                "The given customer specified encryption does not match the encryption used to encrypt the blob."))
        await blobs.put("plain", "text")
        let needless = await blobs.send(.GET, "/ccc/plain", customerKey())
        #expect(needless.status == 409 && needless.code == "BlobDoesNotUseCustomerSpecifiedEncryption")
        #expect(
            needless.text.contains(
                "The blob is not encrypted with customer specified encryption, but one was provided in the request."))

        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-k", "w")]).code
                == "BlobUsesCustomerSpecifiedEncryption")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-k", "w")] + customerKey()).status == 200)
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=properties", [("x-ms-blob-content-type", "text/plain")]).status == 200)
        let tags = "<Tags><TagSet><Tag><Key>z</Key><Value>9</Value></Tag></TagSet></Tags>"
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tags", body: Array(tags.utf8)).status == 204)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=snapshot").code == "BlobUsesCustomerSpecifiedEncryption")
        let snapshot = await blobs.send(.PUT, "/ccc/a?comp=snapshot", customerKey())
        let again = await blobs.send(.GET, "/ccc/a?snapshot=\(snapshot.header("x-ms-snapshot") ?? "")", customerKey())
        #expect(again.text == "secret" && again.header("x-ms-meta-k") == "w" && again.header("x-ms-tag-count") == "1")
        let list = await blobs.send(.GET, "/ccc?restype=container&comp=list&include=metadata")
        #expect(list.text.contains("<Metadata Encrypted=\"true\" />"))
        #expect(try list.xml()["Blobs"]?.children.first?["Properties"]?["CustomerProvidedKeySha256"]?.text == hash)
        #expect(await blobs.put("a", "another key now", customerKey(3)).status == 201)
        #expect(await blobs.send(.GET, "/ccc/a", customerKey(3)).text == "another key now")
        #expect(await blobs.send(.DELETE, "/ccc/a", [("x-ms-delete-snapshots", "include")]).status == 202)
    }

    @Test func badKeys() async throws {
        let blobs = try await Blobs.withContainer()
        let good = customerKey()
        for missing in 0..<3 {
            var headers = good
            headers.remove(at: missing)
            #expect(await blobs.put("a", "x", headers).code == "MissingRequiredHeader")
        }
        let short = [("x-ms-encryption-key", [UInt8](repeating: 9, count: 16).base64)] + good.dropFirst()
        let garbled = [("x-ms-encryption-key", "not base64!")] + good.dropFirst()
        let otherHash = [good[0], customerKey(1)[1], good[2]]
        let algorithm = [good[0], good[1], ("x-ms-encryption-algorithm", "AES128")]
        for headers in [short, garbled, otherHash, algorithm] {
            let answer = await blobs.put("a", "x", headers)
            #expect(answer.status == 400 && answer.code == "InvalidHeaderValue")
            #expect(!answer.text.contains(headers[0].1), "a key never comes back in an error")
        }
        let http = await blobs.send(.PUT, "/ccc/a", [("x-ms-blob-type", "BlockBlob")] + good, body: [1], scheme: .http)
        #expect(http.status == 400)
        #expect(await blobs.put("a", "x", [("x-ms-encryption-scope", "s")]).code == "EncryptionScopeNotAvailable")
    }

    @Test func blocksUnderOwnKeys() async throws {
        let blobs = try await Blobs.withContainer()
        let list = Array("<BlockList><Latest>QQ==</Latest></BlockList>".utf8)
        #expect(await blobs.send(.PUT, "/ccc/a?comp=block&blockid=QQ==", customerKey(), body: [65]).status == 201)
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", body: list).code == "BlobUsesCustomerSpecifiedEncryption")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=blocklist", customerKey(1), body: list).code
                == "BlobCustomerSpecifiedEncryptionMismatch")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=blocklist", customerKey(), body: list).status == 201)
        #expect(await blobs.send(.GET, "/ccc/a", customerKey()).text == "A")
        #expect(await blobs.send(.PUT, "/ccc/b?comp=block&blockid=QQ==", body: [65]).status == 201)
        #expect(
            await blobs.send(.PUT, "/ccc/b?comp=blocklist", customerKey(), body: list).code
                == "BlobDoesNotUseCustomerSpecifiedEncryption")
    }

    /// customer-managed-keys-overview.md: what answers 403 while the key is away, and what goes on.
    @Test func revokedCustomerKey() async throws {
        let blobs = try await Blobs.withContainer()
        let identity = Caller(kind: .managedIdentity, objectID: "o", tenantID: "t")
        blobs.vault.addVersion("k")
        blobs.vault.allow(identity)
        _ = try await blobs.store.accountKeys.useCustomerKey(
            KnownCallers.id, blobs.vault.reference("k"), as: identity)
        await blobs.put("a", String(repeating: "x", count: 40_000), [("x-ms-meta-k", "v")])
        await blobs.put("small", "x")
        blobs.vault.disable("k", "1")
        let refused: [Answer] = [
            await blobs.send(.GET, "/ccc/a"), await blobs.send(.HEAD, "/ccc/a"), await blobs.send(.GET, "/ccc/small"),
            await blobs.send(.GET, "/ccc?restype=container&comp=list&include=metadata"),
            await blobs.send(.GET, "/ccc/a?comp=metadata"), await blobs.send(.PUT, "/ccc/a?comp=metadata"),
            await blobs.send(.PUT, "/ccc/a?comp=snapshot"), await blobs.put("b", "x"),
            await blobs.send(.PUT, "/ccc/a?comp=tier", [("x-ms-access-tier", "Cool")]),
            await blobs.send(.PUT, "/ccc/b?comp=block&blockid=QQ==", body: [1]),
            await blobs.send(.PUT, "/ccc/b", [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/a")]),
        ]
        for answer in refused { #expect(answer.status == 403 && answer.code == "KeyVaultEncryptionKeyNotFound") }
        let list = try await blobs.send(.GET, "/ccc?restype=container&comp=list").xml()
        #expect(list["Blobs"]?.children.count == 2)
        #expect(await blobs.send(.GET, "/?comp=list").status == 200)
        #expect(await blobs.send(.GET, "/ccc?restype=container").status == 200)
        #expect(await blobs.send(.PUT, "/new?restype=container").status == 201)
        #expect(await blobs.send(.DELETE, "/ccc/small").status == 202)
        blobs.vault.enable("k", "1")
        #expect(await blobs.send(.GET, "/ccc/a").body.count == 40_000)
        blobs.vault.disable("k", "1")
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 202)
        #expect(await blobs.send(.DELETE, "/ccc?restype=container").status == 202)
    }

    /// Nothing a client sent lies readable in the engine but nothing is lost either.
    @Test func nothingReadableAtRest() async throws {
        let blobs = try await Blobs.withContainer()
        let marker = "THE-PLAINTEXT-MARKER"
        await blobs.put(marker, marker, [("x-ms-meta-k", marker)])
        await blobs.put("large", String(repeating: marker, count: 5_000))
        var found = false
        for partition in try await blobs.engine.partitions(after: nil, limit: .max) {
            for row in try await blobs.engine.scan(partition, from: .init([]), upTo: nil, limit: .max) {
                found = found || String(decoding: row.value, as: UTF8.self).contains(marker)
            }
        }
        for extent in try await blobs.engine.list(after: nil, limit: .max) {
            let bytes = try await blobs.engine.read(extent.location, range: 0..<extent.byteCount)
            found = found || String(decoding: bytes.readableBytesView, as: UTF8.self).contains(marker)
        }
        #expect(!found)
    }
}
