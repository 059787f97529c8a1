import CofferCore
import Crypto
import Foundation
import NIOCore
import StorageEngine
import Synchronization
import TestSupport
import Testing

@testable import EncryptionAtRest

/// Hands out the bytes of a vector, in the order in which the format draws them.
private final class VectorRandomness: Randomness {
    private let bytes: Mutex<[UInt8]>
    init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }
    func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        bytes.withLock { bytes in
            precondition(bytes.count >= buffer.count, "the vector draws less")
            buffer.copyBytes(from: bytes.prefix(buffer.count))
            bytes.removeFirst(buffer.count)
        }
    }
    var isUsedUp: Bool { bytes.withLock { $0.isEmpty } }
}

/// A vector, read as the JSON it is.
private struct Vector {
    let value: Any
    subscript(name: String) -> Vector { Vector(value: (value as! [String: Any])[name]!) }
    func has(_ name: String) -> Bool { (value as! [String: Any])[name] != nil }
    var list: [Vector] { (value as! [Any]).map { Vector(value: $0) } }
    var text: String { value as! String }
    var number: Int { (value as! NSNumber).intValue }
    var bytes: [UInt8] { [UInt8](hex: text)! }
    var scope: String? { self["scope"].text.isEmpty ? nil : self["scope"].text }
    var account: AccountID { AccountID(bytes: self["account"].bytes) }
    var dataKey: DataKey {
        let secret = SecretBytes(copying: self["key"].bytes)
        switch DataKey.Kind(rawValue: UInt8(self["kind"].number))! {
        case .account, .scope: return DataKey(secret, of: KeyDomain(account, scope: scope), lease: nil)
        case .customerProvided: return DataKey(customerProvided: secret, account: account)
        }
    }
}

/// docs/format.md §13: what an independent implementation wrote is written and read here byte for byte.
@Suite struct FormatVectorTests {
    private let vectors: Vector
    init() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "Vectors/format-v1.json")
        vectors = Vector(value: try JSONSerialization.jsonObject(with: Data(contentsOf: file)))
    }

    private var root: RootKey { RootKey(version: 1, key: SecretBytes(copying: vectors["derivation"]["rootKey"].bytes)) }

    private func store(_ root: RootKey? = nil, random: [UInt8] = []) throws -> (
        SealedStore, InMemoryEngine, VectorRandomness
    ) {
        let engine = InMemoryEngine()
        let randomness = VectorRandomness(random)
        let store = try SealedStore(
            metadata: engine, extents: engine, rootKey: root ?? self.root, clock: FixedClock(), randomness: randomness)
        return (store, engine, randomness)
    }

    /// Compares what happened with what a vector expects: "opens", or a code and a reason that the message must give.
    private func check(_ vector: Vector, _ body: () async throws -> Void) async {
        let expected = vector["expect"].text
        let reasons = [
            "not authentic": "does not open", "root key version": "root key version",
            "unknown format": "not in a format",
            "no active slot": "no encryption key", "wrong key": "unwraps to another key",
        ]
        do {
            try await body()
            #expect(expected == "opens", "\(vector["name"].text)")
        } catch let error as SealedStoreError {
            let parts = expected.components(separatedBy: ": ")
            #expect("\(error.code)" == parts[0], "\(vector["name"].text)")
            if parts.count == 2 {
                #expect(error.message.contains(reasons[parts[1]]!), "\(vector["name"].text): \(error.message)")
            }
        } catch { Issue.record(error, "\(vector["name"].text)") }
    }

    @Test func xaes256gcm() {
        for vector in vectors["xaes256gcm"].list {
            let cipher = vector["key"].bytes.withUnsafeBytes { XAES256GCM(key: $0) }
            let additional = vector["additional"].bytes
            let sealed = cipher.seal(
                vector["plaintext"].bytes, additional: additional, randomness: VectorRandomness(vector["random"].bytes))
            #expect(sealed == vector["sealed"].bytes)
            #expect(cipher.open(sealed, additional: additional) == vector["plaintext"].bytes)
            #expect(cipher.open(sealed, additional: additional + [0]) == nil)
        }
    }

    @Test func derivedKeys() {
        #expect(SealedStore.pageKey(root).withUnsafeBytes { Array($0) } == vectors["derivation"]["metadataPages"].bytes)
        for vector in vectors["derivation"]["dataKeys"].list {
            let key = vector.dataKey
            #expect(key.domainID == vector["domain"].bytes)
            #expect(key.commitment == vector["commitment"].bytes)
            // Ciphers do not give their keys back: they must seal what the derived key seals.
            for (cipher, name) in [(key.rows, "rows"), (key.inline, "inline")] {
                let other = vector[name].bytes.withUnsafeBytes { XAES256GCM(key: $0) }
                #expect(
                    other.open(cipher.seal([1], additional: [], randomness: SeededRandomness(1)), additional: []) == [1]
                )
            }
        }
    }

    @Test func records() async throws {
        for vector in vectors["records"].list {
            let key = RootKey(
                version: UInt32(vector["rootKeyVersion"].number), key: SecretBytes(copying: vector["rootKey"].bytes))
            let (store, engine, randomness) = try store(key, random: vector["random"].bytes)
            let domain = RecordDomain(rawValue: vector["domain"].text)!
            let records = store.records(domain, vector["partition"].text)
            let partition = Partition("r/\(domain.rawValue)/\(vector["partition"].text)")
            let row = RowKey(vector["key"].text)
            if vector["expect"].text == "opens" {
                _ = try await records.commit([.put(vector["key"].text, vector["value"].bytes)])
                #expect(
                    try await engine.get(partition, [row])[0]?.value == vector["sealed"].bytes, "\(vector["name"].text)"
                )
                #expect(randomness.isUsedUp)
            }
            _ = try await engine.commit(partition, checks: [], writes: [.put(row, vector["sealed"].bytes)])
            await check(vector) {
                let value = try await records.get(vector["key"].text)?.value
                #expect(value == vector["value"].bytes)
            }
        }
    }

    @Test func accountKeyRecords() async throws {
        let vectors = vectors["accountKeys"]
        for vector in vectors["records"].list {
            let plaintext = vector["plaintext"].bytes
            if ["opens", "decodes"].contains(vector["expect"].text) {
                #expect(AccountKeyRecord(plaintext)?.encoded == plaintext, "\(vector["name"].text)")
            }
            if vector["expect"].text == "decodes" { continue }
            let (store, engine, _) = try store()
            let row = RowKey(
                vector["account"].bytes + Array((vector["scope"].text + vector["slot"].text).utf8))
            _ = try await engine.commit(Partition("k"), checks: [], writes: [.put(row, vector["sealed"].bytes)])
            await check(vector) {
                let volume = store.volume(account: vector.account)
                let key: DataKey
                if let scope = vector.scope {
                    key = try await volume.scopeKey(scope)
                } else {
                    key = try await volume.accountKey()
                }
                #expect(key.secret.withUnsafeBytes { Array($0) } == vector["accountKey"].bytes)
            }
        }
        // A new account draws its key, then the nonces of the wrapping and of the record.
        let first = vectors["records"].list[0]
        let (store, engine, randomness) = try store(
            random: first["accountKey"].bytes + vectors["platformWrapRandom"].bytes + first["random"].bytes)
        try await store.accountKeys.create(first.account)
        let row = RowKey(first["account"].bytes + Array("A".utf8))
        #expect(try await engine.get(Partition("k"), [row])[0]?.value == first["sealed"].bytes)
        #expect(randomness.isUsedUp)
    }

    @Test func volumeRows() async throws {
        let account = vectors["volume"].account
        for vector in vectors["volume"]["rows"].list {
            let (store, engine, _) = try store(random: vector["random"].bytes)
            let volume = store.volume(account: account)
            let partition = VolumePartition(name: vector["partition"].text)
            let name = Partition(Array("v/".utf8) + account.bytes + Array("/\(vector["partition"].text)".utf8))
            let row = RowKey([0x64] + vector["key"].bytes)
            if vector["expect"].text == "opens" {
                _ = try await volume.commit(
                    partition, checks: [],
                    writes: [
                        .put(
                            vector["key"].bytes, visible: vector["visible"].bytes,
                            sealed: SealedPart(vector["sealedPart"].bytes, bodies: vector["bodies"].bytes[...]))
                    ])
                #expect(try await engine.get(name, [row])[0]?.value == vector["sealed"].bytes)
            }
            _ = try await engine.commit(name, checks: [], writes: [.put(row, vector["sealed"].bytes)])
            await check(vector) {
                let read = try await volume.get(partition, [vector["key"].bytes])[0]
                #expect(read?.visible == vector["visible"].bytes)
                #expect(
                    read?.sealed == SealedPart(vector["sealedPart"].bytes, bodies: vector["bodies"].bytes[...]))
            }
        }
    }

    @Test func sealedParts() async throws {
        for vector in vectors["volume"]["sealedParts"].list {
            let (store, _, _) = try store(random: vector["random"].bytes)
            let volume = store.volume(account: vector.account)
            let partition = VolumePartition(name: vector["partition"].text)
            if vector["expect"].text == "opens" {
                let ids = vector["bodies"].list.map(\.bytes)
                let bodies = ids.map { ExtentReference(inline: [], extentID: $0, plaintextBytes: 0) }
                let sealed = try await volume.seal(
                    vector["plaintext"].bytes, of: bodies, at: vector["rowKey"].bytes, in: partition,
                    under: vector.dataKey)
                #expect(sealed.message == vector["sealed"].bytes)
            }
            await check(vector) {
                let ids = vector["bodies"].list.map(\.bytes)
                let bodies = ids.map { id in
                    ExtentReference(
                        inline: [UInt8](repeating: 0, count: InlineExtent.overheadBytes), extentID: id,
                        plaintextBytes: 0)
                }
                let part = SealedPart(vector["sealed"].bytes, bodies: InlineBodies.encode(bodies))
                let opened = try await volume.open(
                    part, at: vector["rowKey"].bytes, in: partition, under: vector.dataKey)
                #expect(opened == vector["plaintext"].bytes)
            }
        }
    }

    @Test func wrappedExtentKeys() async throws {
        for vector in vectors["extents"]["wrappedKeys"].list {
            await check(vector) {
                let aead = try WrappedExtentKey.open(
                    vector["wrapped"].bytes, of: vector["extentID"].bytes, under: vector.dataKey)
                // The cipher does not give its key back: it must open what the key sealed.
                let box = try AES.GCM.seal(
                    [7] as [UInt8], using: SymmetricKey(data: vector["dek"].bytes),
                    nonce: AES.GCM.Nonce(data: [UInt8](repeating: 0, count: 12)))
                var output: UInt8 = 0
                let isOpen = Array(box.ciphertext).withUnsafeBytes { input in
                    Array(box.tag).withUnsafeBytes { tag in
                        [UInt8](repeating: 0, count: 12).withUnsafeBytes { nonce in
                            aead.open(
                                input, tag: tag, to: &output, nonce: nonce, additional: .init(start: nil, count: 0))
                        }
                    }
                }
                #expect(isOpen && output == 7)
            }
        }
    }

    private func pattern(_ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 * 31 + ($0 >> 8) * 7 + 5) }
    }
    private func sha256(_ bytes: [UInt8]) -> String { Array(SHA256.hash(data: bytes)).hex }

    @Test func extents() async throws {
        for vector in vectors["extents"]["extents"].list {
            let name = vector["name"].text
            let plaintext = pattern(vector["plaintextBytes"].number)
            let randomness = VectorRandomness(vector["random"].bytes)
            let k = vector["log2ChunkBytes"].number
            var chunks = ChunkSealer(
                dataKey: vector.dataKey, expectedBytes: k == 16 ? 9 << 20 : plaintext.count, randomness: randomness)
            var input = ByteBuffer(bytes: plaintext)
            var sealed: [UInt8] = []
            while let batch = chunks.absorb(&input) { sealed += batch.readableBytesView }
            sealed += chunks.finish().readableBytesView
            #expect(
                sealed.count == vector["sealedBytes"].number && sha256(sealed) == vector["sealedSHA256"].text, "\(name)"
            )
            #expect(Array(sealed.prefix(64)) == vector["header"].bytes && randomness.isUsedUp)
            if vector.has("sealed") { #expect(sealed == vector["sealed"].bytes) }

            let (store, engine, _) = try store()
            let writer = try await engine.create(expectedBytes: nil)
            try await writer.append(ByteBuffer(bytes: sealed))
            let reference = chunks.reference(at: try await writer.finish())
            #expect(reference.encoded == vector["referenceAtLocation1"].bytes, "\(name)")
            #expect(try await read(store, reference, vector.dataKey) == plaintext, "\(name)")
            for forgery in vector["forgeries"].list {
                let forged = self.forged(sealed, forgery, chunkBytes: (1 << k) + 16)
                #expect(sha256(forged) == forgery["sha256"].text)
                let writer = try await engine.create(expectedBytes: nil)
                try await writer.append(ByteBuffer(bytes: forged))
                let forgedReference = ExtentReference(
                    location: try await writer.finish().bytes, extentID: reference.extentID,
                    plaintextBytes: forgery["plaintextBytes"].number, log2ChunkBytes: reference.log2ChunkBytes,
                    wrappedKey: reference.wrappedKey)
                await check(forgery) { _ = try await read(store, forgedReference, vector.dataKey) }
            }
        }
    }

    private func forged(_ sealed: [UInt8], _ forgery: Vector, chunkBytes: Int) -> [UInt8] {
        var forged = sealed
        if forgery.has("flipBit") { forged[forgery["flipBit"].number / 8] ^= 1 << UInt8(forgery["flipBit"].number % 8) }
        if forgery.has("chunks") {
            forged = Array(sealed.prefix(64))
            for chunk in forgery["chunks"].list {
                let start = 64 + chunk.number * chunkBytes
                forged += sealed[start..<min(start + chunkBytes, sealed.count)]
            }
        }
        return forged
    }

    /// Every chunk, with the header.
    private func read(_ store: SealedStore, _ reference: ExtentReference, _ key: DataKey) async throws -> [UInt8] {
        let reader = try ExtentReader(core: store.core, reference: reference, dataKey: key)
        let count = reader.format.chunkCount(plaintextBytes: reference.plaintextBytes)
        return Array(try await reader.open(0..<count).readableBytesView)
    }

    @Test func inlineBodies() async throws {
        for vector in vectors["extents"]["inline"].list {
            let (store, _, randomness) = try store(random: vector["random"].bytes)
            let volume = store.volume(account: vector.account)
            let plaintext =
                vector.has("plaintext") ? vector["plaintext"].bytes : pattern(vector["plaintextBytes"].number)
            let reference = try await volume.sealInline(ByteBuffer(bytes: plaintext), under: vector.dataKey)
            let body = Array(InlineBodies.encode([reference]))
            #expect(reference.encoded == vector["reference"].bytes && randomness.isUsedUp)
            #expect(sha256(body) == vector["bodySHA256"].text)
            if vector.has("body") { #expect(body == vector["body"].bytes) }
            var bodies = InlineBodies(body[...])
            let decoded = try #require(ExtentReference(encoded: vector["reference"].bytes[...], &bodies))
            #expect(bodies.isAtEnd)
            let opened = try await volume.openInline(decoded, range: 0..<plaintext.count, under: vector.dataKey)
            #expect(opened.map { Array($0.readableBytesView) } == plaintext)
            // What earlier versions wrote.
            guard vector.has("referenceWithBodyInside") else { continue }
            var none = InlineBodies([])
            #expect(ExtentReference(encoded: vector["referenceWithBodyInside"].bytes[...], &none) == reference)
        }
    }

    @Test func encodings() {
        for vector in vectors["encodings"]["references"].list {
            let zeros = vector.has("thenZeros") ? vector["thenZeros"].number : 0
            let encoded = vector["encoded"].bytes + [UInt8](repeating: 0, count: zeros)
            var none = InlineBodies([])
            let decoded = ExtentReference(encoded: encoded[...], &none)
            #expect((decoded != nil) == (vector["expect"].text == "decodes"), "\(vector["name"].text)")
            if let decoded { #expect(decoded.encoded == encoded) }
        }
        for vector in vectors["encodings"]["links"].list {
            let decoded = LinkRow(vector["encoded"].bytes)
            #expect((decoded != nil) == (vector["expect"].text == "decodes"), "\(vector["name"].text)")
            if let decoded { #expect(decoded.encoded == vector["encoded"].bytes && decoded.count == 3) }
        }
        for vector in vectors["encodings"]["garbage"].list {
            let decoded = GarbageRow(vector["encoded"].bytes)
            #expect((decoded != nil) == (vector["expect"].text == "decodes"), "\(vector["name"].text)")
            if let decoded { #expect(decoded.encoded == vector["encoded"].bytes) }
        }
    }
}
