import CofferCore
import Crypto
import EncryptionAtRest
import HTTPEdge
import NIOHTTP1
import TestSupport
import Testing

@testable import BlobService

@Suite struct BlobTests {
    @Test func putAndGet() async throws {
        let blobs = try await Blobs.withContainer()
        let put = await blobs.put(
            "hello.txt", "hello, world",
            [("Content-Type", "text/plain"), ("x-ms-meta-k", "v"), ("x-ms-blob-cache-control", "no-store")])
        #expect(put.status == 201)
        #expect(put.header("Content-MD5") == Array(Insecure.MD5.hash(data: Array("hello, world".utf8))).base64)
        #expect(put.header("x-ms-request-server-encrypted") == "true")
        let get = await blobs.send(.GET, "/ccc/hello.txt")
        #expect(get.status == 200 && get.text == "hello, world")
        #expect(get.header("Content-Type") == "text/plain" && get.header("Cache-Control") == "no-store")
        #expect(get.header("x-ms-meta-k") == "v" && get.header("x-ms-blob-type") == "BlockBlob")
        #expect(get.header("x-ms-server-encrypted") == "true" && get.header("ETag") == put.header("ETag"))
        #expect(get.header("Last-Modified") == blobs.clock.now().rfc1123)
        let head = await blobs.send(.HEAD, "/ccc/hello.txt")
        #expect(head.status == 200 && head.body.isEmpty && head.header("x-ms-access-tier") == "Hot")
        #expect(head.header("Content-MD5") == put.header("Content-MD5"))
        let none = await blobs.send(.HEAD, "/ccc/none")
        #expect(none.status == 404 && none.code == "BlobNotFound" && none.body.isEmpty)
        let overwritten = await blobs.put("hello.txt", "again")
        #expect(overwritten.header("ETag") != put.header("ETag"), "the clock stands still, the tag must not")
        #expect(await blobs.send(.DELETE, "/ccc/hello.txt").status == 202)
        #expect(await blobs.send(.DELETE, "/ccc/hello.txt").code == "BlobNotFound")
    }

    @Test(arguments: ["a%20b", "%E2%82%AC.txt", "a/b//c", "a%2Fb", "x%25y", "%0A", "..%2F", "a+b&c='d'"])
    func oddNames(_ name: String) async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await blobs.put(name, "odd").status == 201)
        #expect(await blobs.send(.GET, "/ccc/\(name)").text == "odd")
        let list = try await blobs.send(.GET, "/ccc?restype=container&comp=list").xml()
        let listed = try #require(list["Blobs"]?["Blob"]?["Name"]?.text)
        #expect(listed == percentDecodedName(name) || listed == "%0A")
    }
    private func percentDecodedName(_ name: String) -> String? { percentDecoded(name) }

    @Test func bodiesThatDoNotMatchLeaveNothing() async throws {
        let blobs = try await Blobs.withContainer()
        let body = [UInt8](repeating: 1, count: 50_000)
        let type = [("x-ms-blob-type", "BlockBlob")]
        let short = await blobs.send(.PUT, "/ccc/a", type, body: body, declared: 60_000)
        #expect(short.status == 400)
        let long = await blobs.send(.PUT, "/ccc/a", type, body: body, declared: 40_000)
        #expect(long.status == 413)
        #expect(
            await blobs.send(.PUT, "/ccc/a", type, body: body, declared: .some(nil)).code
                == "MissingContentLengthHeader")
        let zero = [UInt8](repeating: 0, count: 16).base64
        #expect(await blobs.send(.PUT, "/ccc/a", type + [("Content-MD5", zero)], body: body).code == "Md5Mismatch")
        #expect(await blobs.send(.PUT, "/ccc/a", type + [("Content-MD5", "x")], body: body).code == "InvalidMd5")
        #expect(
            await blobs.send(.PUT, "/ccc/a", type + [("x-ms-blob-content-md5", zero)], body: body).code == "Md5Mismatch"
        )
        #expect(
            await blobs.send(.PUT, "/ccc/a", type + [("x-ms-content-crc64", "AAAAAAAAAAA=")], body: body).code
                == "Crc64Mismatch")
        #expect(
            await blobs.send(.PUT, "/ccc/a", [("x-ms-blob-type", "PageBlob")]).code == "MissingRequiredHeader")
        #expect(await blobs.send(.PUT, "/ccc/a").code == "MissingRequiredHeader")
        #expect(await blobs.send(.GET, "/ccc/a").code == "BlobNotFound")
        #expect(try await blobs.extentCount == 0)
    }

    @Test func crc64() async throws {
        var crc = CRC64()
        Array("123456789".utf8).withUnsafeBytes { crc.update($0) }
        #expect(
            crc.value == 0xae8b_1486_0a79_9888,
            "the check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms")
        var split = CRC64()
        let bytes = (0..<1_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        for start in stride(from: 0, to: 1_000, by: 13) {
            bytes[start..<min(1_000, start + 13)].withUnsafeBytes { split.update($0) }
        }
        var whole = CRC64()
        bytes.withUnsafeBytes { whole.update($0) }
        #expect(split.value == whole.value)
    }

    @Test func ranges() async throws {
        let blobs = try await Blobs.withContainer()
        let random = SeededRandomness(3)
        for size in [1, 1_000, 16_384, 16_385, 70_000, 600_000] {
            let content = random.bytes(size)
            #expect(await blobs.send(.PUT, "/ccc/r", [("x-ms-blob-type", "BlockBlob")], body: content).status == 201)
            #expect(await blobs.send(.GET, "/ccc/r").body == content)
            for _ in 0..<20 {
                let low = random.number(0..<size)
                let high = random.number(low..<(size + 10))
                let answer = await blobs.send(.GET, "/ccc/r", [("x-ms-range", "bytes=\(low)-\(high)")])
                let last = min(high, size - 1)
                #expect(answer.status == 206)
                #expect(answer.body == Array(content[low...last]))
                #expect(answer.header("Content-Range") == "bytes \(low)-\(last)/\(size)")
            }
            let tail = await blobs.send(
                .GET, "/ccc/r", [("Range", "bytes=\(size - 1)-"), ("x-ms-range-get-content-md5", "true")])
            #expect(tail.body == [content[size - 1]])
            #expect(tail.header("Content-MD5") == Array(Insecure.MD5.hash(data: [content[size - 1]])).base64)
            #expect(tail.header("x-ms-blob-content-md5") == Array(Insecure.MD5.hash(data: content)).base64)
            let beyond = await blobs.send(.GET, "/ccc/r", [("Range", "bytes=\(size)-")])
            #expect(
                beyond.status == 416 && beyond.code == "InvalidRange"
                    && beyond.header("Content-Range") == "bytes */\(size)")
            #expect(await blobs.send(.GET, "/ccc/r", [("Range", "bytes=-5")]).status == 200)
        }
        #expect(await blobs.put("empty", "").status == 201)
        #expect(await blobs.send(.GET, "/ccc/empty").status == 200)
        #expect(await blobs.send(.GET, "/ccc/empty", [("x-ms-range", "bytes=0-33554431")]).status == 416)
    }

    @Test func conditions() async throws {
        let blobs = try await Blobs.withContainer()
        let etag = try #require(await blobs.put("a", "1").header("ETag"))
        let now = blobs.clock.now()
        let before = now.adding(seconds: -10).rfc1123
        let after = now.adding(seconds: 10).rfc1123
        let other = "\"0x8D0000000000000\""
        // header, value, status of a read, status of a write (Set Blob Metadata)
        let matrix: [([(String, String)], Int, Int)] = [
            ([("If-Match", etag)], 200, 200), ([("If-Match", "*")], 200, 200), ([("If-Match", other)], 412, 412),
            ([("If-None-Match", etag)], 304, 412), ([("If-None-Match", other)], 200, 200),
            ([("If-None-Match", "*")], 400, 412),
            ([("If-Modified-Since", before)], 200, 200), ([("If-Modified-Since", after)], 304, 412),
            ([("If-Unmodified-Since", before)], 412, 412), ([("If-Unmodified-Since", after)], 200, 200),
            ([("If-None-Match", etag), ("If-Modified-Since", before)], 200, 200),
            ([("If-None-Match", etag), ("If-Modified-Since", after)], 304, 412),
            ([("If-Match", etag), ("If-Unmodified-Since", before)], 412, 412),
        ]
        for (headers, read, write) in matrix {
            let get = await blobs.send(.GET, "/ccc/a", headers)
            #expect(get.status == read, "\(headers)")
            if read == 304 { #expect(get.body.isEmpty) }
            #expect(await blobs.send(.HEAD, "/ccc/a", headers).status == read, "\(headers)")
            let fresh = try await Blobs.withContainer()
            let freshTag = try #require(await fresh.put("a", "1").header("ETag"))
            let freshHeaders = headers.map { ($0.0, $0.1 == etag ? freshTag : $0.1) }
            #expect(await fresh.send(.PUT, "/ccc/a?comp=metadata", freshHeaders).status == write, "\(headers)")
        }
        let exists = await blobs.put("a", "2", [("If-None-Match", "*")])
        #expect(exists.status == 409 && exists.code == "BlobAlreadyExists")
        #expect(await blobs.put("new", "2", [("If-None-Match", "*")]).status == 201)
        #expect(await blobs.put("newer", "2", [("If-Match", "*")]).status == 412)
        #expect(await blobs.send(.DELETE, "/ccc/a", [("If-Match", other)]).status == 412)
    }

    @Test func leases() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "1")
        let id = "1f812371-a41d-49e6-b123-f4b542e851c5"
        func lease(_ action: String, _ more: [(String, String)] = []) async -> Answer {
            await blobs.send(.PUT, "/ccc/a?comp=lease", [("x-ms-lease-action", action)] + more)
        }
        let etag = await blobs.send(.HEAD, "/ccc/a").header("ETag")
        let acquired = await lease("acquire", [("x-ms-lease-duration", "15"), ("x-ms-proposed-lease-id", id)])
        #expect(acquired.status == 201 && acquired.header("x-ms-lease-id") == id && acquired.header("ETag") == etag)
        let head = await blobs.send(.HEAD, "/ccc/a")
        #expect(head.header("x-ms-lease-state") == "leased" && head.header("x-ms-lease-duration") == "fixed")
        for write in [
            await blobs.put("a", "2"), await blobs.send(.DELETE, "/ccc/a"),
            await blobs.send(.PUT, "/ccc/a?comp=metadata"),
            await blobs.send(.PUT, "/ccc/a?comp=properties"),
            await blobs.send(.PUT, "/ccc/a?comp=block&blockid=QQ==", body: [1]),
        ] { #expect(write.status == 412 && write.code == "LeaseIdMissing") }
        #expect(await blobs.send(.GET, "/ccc/a").status == 200)
        let other = [("x-ms-lease-id", "00000000-0000-0000-0000-000000000001")]
        #expect(await blobs.send(.GET, "/ccc/a", other).code == "LeaseIdMismatchWithBlobOperation")
        #expect(await blobs.put("a", "2", [("x-ms-lease-id", id)]).status == 201)
        #expect(await lease("acquire", [("x-ms-lease-duration", "15")]).code == "LeaseAlreadyPresent")
        #expect(await lease("renew", [("x-ms-lease-id", id)]).status == 200)
        blobs.clock.advance(seconds: 16)
        #expect(await blobs.send(.GET, "/ccc/a", [("x-ms-lease-id", id)]).code == "LeaseLost")
        #expect(await blobs.put("a", "3").status == 201)
        #expect(await lease("renew", [("x-ms-lease-id", id)]).status == 409)
        #expect(await blobs.put("a", "4", [("x-ms-lease-id", id)]).code == "LeaseNotPresentWithBlobOperation")
        #expect(await lease("acquire", [("x-ms-lease-duration", "14")]).code == "InvalidHeaderValue")
        #expect(await lease("steal").code == "InvalidHeaderValue")
    }

    @Test func attributes() async throws {
        let blobs = try await Blobs.withContainer()
        await blobs.put("a", "1", [("Content-Type", "text/plain"), ("x-ms-tags", "x=1&y=a%20b")])
        #expect(await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-Key", "v")]).status == 200)
        let properties = await blobs.send(.PUT, "/ccc/a?comp=properties", [("x-ms-blob-content-language", "de")])
        #expect(properties.status == 200)
        let head = await blobs.send(.HEAD, "/ccc/a")
        #expect(head.header("x-ms-meta-Key") == "v" && head.header("Content-Language") == "de")
        #expect(head.header("Content-Type") == "application/octet-stream", "a header that is not sent is cleared")
        #expect(head.header("Content-MD5") == nil)
        #expect(head.header("x-ms-tag-count") == "2")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-1bad", "v")]).code == "InvalidMetadata")
        #expect(
            await blobs.send(.PUT, "/ccc/a?comp=metadata", [("x-ms-meta-big", String(repeating: "x", count: 8_192))])
                .code == "MetadataTooLarge")
        let tags = try await blobs.send(.GET, "/ccc/a?comp=tags").xml()
        #expect(tags["TagSet"]?.children.map { $0["Value"]?.text } == ["1", "a b"])
        let newTags = "<Tags><TagSet><Tag><Key>z</Key><Value>9</Value></Tag></TagSet></Tags>"
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tags", body: Array(newTags.utf8)).status == 204)
        #expect(await blobs.send(.HEAD, "/ccc/a").header("x-ms-tag-count") == "1")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tier", [("x-ms-access-tier", "Cool")]).status == 200)
        #expect(await blobs.send(.HEAD, "/ccc/a").header("x-ms-access-tier") == "Cool")
        #expect(await blobs.send(.PUT, "/ccc/a?comp=tier", [("x-ms-access-tier", "Archive")]).status == 501)
        #expect(await blobs.send(.GET, "/ccc/a").text == "1")
    }

    @Test func snapshots() async throws {
        let blobs = try await Blobs.withContainer()
        let one = String(repeating: "1", count: 40_000)
        await blobs.put("a", one, [("x-ms-meta-k", "v")])
        let first = await blobs.send(.PUT, "/ccc/a?comp=snapshot")
        let time = try #require(first.header("x-ms-snapshot"))
        let second = await blobs.send(.PUT, "/ccc/a?comp=snapshot", [("x-ms-meta-n", "2")])
        let secondTime = try #require(second.header("x-ms-snapshot"))
        #expect(time < secondTime, "two snapshots at one time still differ")
        await blobs.put("a", "new")
        #expect(await blobs.send(.GET, "/ccc/a?snapshot=\(time)").text == one)
        #expect(await blobs.send(.HEAD, "/ccc/a?snapshot=\(time)").header("x-ms-meta-k") == "v")
        #expect(await blobs.send(.HEAD, "/ccc/a?snapshot=\(secondTime)").header("x-ms-meta-n") == "2")
        let list = try await blobs.send(.GET, "/ccc?restype=container&comp=list&include=snapshots").xml()
        #expect(list["Blobs"]?.children.map { $0["Snapshot"]?.text } == [time, secondTime, nil])
        #expect(await blobs.send(.DELETE, "/ccc/a").code == "SnapshotsPresent")
        #expect(await blobs.send(.DELETE, "/ccc/a?snapshot=\(time)").status == 202)
        #expect(await blobs.send(.GET, "/ccc/a?snapshot=\(secondTime)").text == one, "the extent has another holder")
        #expect(await blobs.send(.DELETE, "/ccc/a", [("x-ms-delete-snapshots", "only")]).status == 202)
        #expect(await blobs.send(.GET, "/ccc/a").text == "new")
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 202)
        #expect(await blobs.send(.GET, "/ccc/a?snapshot=\(secondTime)").code == "BlobNotFound")
    }

    @Test func copies() async throws {
        let blobs = try await Blobs.withContainer()
        _ = await blobs.send(.PUT, "/ddd?restype=container")
        let text = String(repeating: "copy", count: 20_000)
        await blobs.put("a", text, [("Content-Type", "text/plain"), ("x-ms-meta-k", "v")])
        let url = "https://acct.blob.core.coffer.test/ccc/a"
        for target in ["/ccc/b", "/ddd/b"] {
            let copy = await blobs.send(.PUT, target, [("x-ms-copy-source", url)])
            #expect(copy.status == 202 && copy.header("x-ms-copy-status") == "success")
            let get = await blobs.send(.GET, target)
            #expect(get.text == text && get.header("x-ms-meta-k") == "v" && get.header("Content-Type") == "text/plain")
            #expect(get.header("x-ms-copy-source") == url && get.header("x-ms-copy-progress") == "80000/80000")
        }
        #expect(await blobs.send(.DELETE, "/ccc/a").status == 202)
        #expect(await blobs.send(.GET, "/ccc/b").text == text, "the copy holds the extents too")
        let fromURL = await blobs.send(
            .PUT, "/ccc/x?sig=writer",
            [
                ("x-ms-blob-type", "BlockBlob"),
                ("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/b?sig=reader"),
            ]
                + customerKey())
        #expect(fromURL.status == 201)
        #expect(await blobs.send(.GET, "/ccc/x", customerKey()).text == text)
        #expect(
            await blobs.send(.PUT, "/ccc/y", [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/none")]).code
                == "BlobNotFound")
        #expect(await blobs.send(.PUT, "/ccc/y", [("x-ms-copy-source", "https://example.org/c/a")]).status == 400)
        #expect(
            await blobs.send(.PUT, "/ccc/y", [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/x")]).code
                == "CannotVerifyCopySource", "the source has a key of its own")
        #expect(
            await blobs.send(.PUT, "/ccc/b?comp=copy&copyid=1", [("x-ms-copy-action", "abort")]).code
                == "NoPendingCopyOperation")
    }

    @Test func appendBlobs() async throws {
        let blobs = try await Blobs.withContainer()
        #expect(await blobs.send(.PUT, "/ccc/log", [("x-ms-blob-type", "AppendBlob")]).status == 201)
        let first = await blobs.send(.PUT, "/ccc/log?comp=appendblock", body: Array("one,".utf8))
        #expect(first.status == 201 && first.header("x-ms-blob-append-offset") == "0")
        let second = await blobs.send(
            .PUT, "/ccc/log?comp=appendblock", [("x-ms-blob-condition-appendpos", "4")], body: Array("two".utf8))
        #expect(second.header("x-ms-blob-committed-block-count") == "2")
        #expect(await blobs.send(.GET, "/ccc/log").text == "one,two")
        #expect(
            await blobs.send(.PUT, "/ccc/log?comp=appendblock", [("x-ms-blob-condition-appendpos", "4")], body: [1])
                .code
                == "AppendPositionConditionNotMet")
        #expect(
            await blobs.send(.PUT, "/ccc/log?comp=appendblock", [("x-ms-blob-condition-maxsize", "7")], body: [1]).code
                == "MaxBlobSizeConditionNotMet")
        #expect(await blobs.send(.PUT, "/ccc/log?comp=appendblock").code == "InvalidHeaderValue")
        await blobs.put("empty", "")
        let empty = [("x-ms-copy-source", "https://acct.blob.core.coffer.test/ccc/empty?sig=reader")]
        #expect(await blobs.send(.PUT, "/ccc/log?comp=appendblock", empty).code == "InvalidHeaderValue")
        await blobs.put("block", "x")
        #expect(await blobs.send(.PUT, "/ccc/block?comp=appendblock", body: [1]).code == "InvalidBlobType")
        #expect(await blobs.send(.PUT, "/ccc/log?comp=seal").status == 200)
        #expect(await blobs.send(.PUT, "/ccc/log?comp=appendblock", body: [1]).code == "BlobIsSealed")
    }

    @Test(
        arguments: [
            (HTTPMethod.PUT, "/ccc/a?comp=undelete", 409), (.PUT, "/ccc/a?comp=incrementalcopy", 501),
            (.GET, "/ccc/a?versionid=x", 409),
            (.PUT, "/ccc/a?comp=nonsense", 400), (.PATCH, "/ccc/a", 405), (.POST, "/?comp=batch", 501),
            (.GET, "/ccc/a?snapshot=nonsense", 400),
            (.GET, "/ccc/%zz", 400), (.GET, "/ccc?restype=container&comp=list&include=versions", 409),
        ] as [(HTTPMethod, String, Int)]) func refusals(_ method: HTTPMethod, _ target: String, _ status: Int)
        async throws
    {
        let blobs = try await Blobs.withContainer()
        let answer = await blobs.send(method, target)
        #expect(answer.status == status)
        #expect(try answer.xml()["Code"]?.text == answer.code)
    }
}
