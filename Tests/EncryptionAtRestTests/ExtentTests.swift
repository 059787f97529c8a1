import CofferCore
import NIOCore
import StorageEngine
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct ExtentTests {
    @Test(arguments: [0, 1, 16_383, 16_384, 16_385, 32_768, 32_769, 300_000, 2_500_000])
    func whatIsSealedIsOpened(count: Int) async throws {
        let store = try await Store.withAccount()
        let plaintext = store.randomness.bytes(count)
        let key = try await store.volume.accountKey()
        for expected in [nil, count, 1, 9 << 20] as [Int?] {
            let reference = try await store.write(plaintext, under: key, expected: .some(expected), piece: 70_001)
            #expect(reference.plaintextBytes == count)
            #expect(reference.isInline == (count == 0 || count <= 16_384 && (expected ?? 0) <= 16_384))
            #expect(reference.log2ChunkBytes == (reference.isInline ? 0 : (expected ?? 0) > 8 << 20 ? 16 : 14))
            #expect(try await store.read(reference, under: key) == plaintext)
            #expect(decoded(reference) == reference)
        }
    }

    @Test func randomRangesAgreeWithThePlaintext() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        for (count, expected) in [(1_300_000, nil), (3_000_000, 9 << 20), (9_000, nil)] as [(Int, Int?)] {
            let plaintext = store.randomness.bytes(count)
            let reference = try await store.write(plaintext, under: key, expected: .some(expected), piece: 65_536)
            for _ in 0..<60 {
                let start = store.randomness.number(0..<count + 10)
                let end = start + store.randomness.number(0..<count)
                let read = try await store.read(reference, start..<end, under: key)
                #expect(read == Array(plaintext[min(start, count)..<min(end, count)]))
            }
        }
    }
}

/// What an untrusted extent store could do to an extent, and that each of it is found.
@Suite struct ExtentIntegrityTests {
    private let length = 3 * 16_384 + 100

    private func sealed() async throws -> (Store, DataKey, ExtentReference, [UInt8]) {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let reference = try await store.write(store.randomness.bytes(length), under: key)
        let size = ExtentFormat.sealedBytes(of: reference)
        let bytes = Array(
            try await store.engine.read(ExtentLocation(reference.location), range: 0..<size).readableBytesView)
        return (store, key, reference, bytes)
    }

    /// Stores other bytes and a reference that names them.
    private func replaced(
        _ store: Store, _ reference: ExtentReference, _ bytes: [UInt8], plaintextBytes: Int? = nil, id: [UInt8]? = nil,
        wrapped: [UInt8]? = nil
    ) async throws -> ExtentReference {
        let writer = try await store.engine.create(expectedBytes: nil)
        try await writer.append(ByteBuffer(bytes: bytes))
        return ExtentReference(
            location: try await writer.finish().bytes, extentID: id ?? reference.extentID,
            plaintextBytes: plaintextBytes ?? reference.plaintextBytes, log2ChunkBytes: reference.log2ChunkBytes,
            wrappedKey: wrapped ?? reference.wrappedKey)
    }

    @Test func theLayoutIsTheDocumentedOne() async throws {
        let (store, _, reference, bytes) = try await sealed()
        #expect(bytes.count == 64 + length + 4 * 16)
        #expect(Array(bytes[0..<8]) == Array("XE01".utf8) + [1, 1, 14, 0])
        #expect(Array(bytes[8..<24]) == reference.extentID && Array(bytes[24..<40]) == store.account.bytes)
        #expect(Array(bytes[56..<60]) == [0, 0, 0, 0])
        #expect(crc32(Array("123456789".utf8)) == 0xcbf4_3926)
        #expect(reference.wrappedKey.count == 131)
    }

    @Test func aFlippedBitAnywhereFails() async throws {
        let (store, key, reference, bytes) = try await sealed()
        // Every bit of the header and of the last chunk's end, and one in each stretch of 97 bytes between.
        let bits =
            Array(0..<64 * 8) + Array(stride(from: 64 * 8, to: bytes.count * 8, by: 97 * 8 + 1))
            + Array((bytes.count - 20) * 8..<bytes.count * 8)
        for bit in bits {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            let reference = try await replaced(store, reference, damaged)
            #expect(await code { try await store.read(reference, under: key) } == .corrupt, "bit \(bit)")
        }
    }

    @Test func aFlippedBitInTheWrappedKeyFails() async throws {
        let (store, key, reference, bytes) = try await sealed()
        for bit in 0..<reference.wrappedKey.count * 8 {
            var wrapped = reference.wrappedKey
            wrapped[bit / 8] ^= 1 << UInt8(bit % 8)
            let reference = try await replaced(store, reference, bytes, wrapped: wrapped)
            let found = await code { try await store.read(reference, under: key) }
            #expect(found == .corrupt || (16..<19 * 8).contains(bit) && found == .keyMismatch, "bit \(bit)")
        }
    }

    @Test func truncationReorderingAndSwappingFail() async throws {
        let (store, key, reference, bytes) = try await sealed()
        let chunk = 16_384 + 16
        func chunks(_ order: [Int]) -> [UInt8] {
            var result = Array(bytes[..<64])
            for index in order {
                let start = 64 + index * chunk
                result += bytes[start..<min(start + chunk, bytes.count)]
            }
            return result
        }
        #expect(chunks([0, 1, 2, 3]) == bytes)
        let second = try await store.write(store.randomness.bytes(length), under: key)
        let otherBytes = Array(
            try await store.engine.read(ExtentLocation(second.location), range: 0..<bytes.count).readableBytesView)
        let mixed = Array(bytes[..<64]) + Array(otherBytes[64..<64 + chunk]) + Array(bytes[(64 + chunk)...])
        let forgeries: [(String, [UInt8], Int?)] = [
            ("chunks reordered", chunks([1, 0, 2, 3]), nil),
            ("a chunk repeated", chunks([0, 0, 2, 3]), nil),
            ("a chunk dropped", chunks([0, 2, 3]), length - 16_384),
            ("cut at a chunk's end", chunks([0, 1, 2]), 3 * 16_384),
            ("cut at a chunk's end, length kept", chunks([0, 1, 2]), nil),
            ("cut inside a chunk", Array(bytes.dropLast(50)), length - 50),
            ("cut to nothing", Array(bytes.prefix(80)), 0),
            ("a chunk behind the last", bytes + Array(bytes[64..<64 + chunk]), length + 16_384),
            ("a chunk of another extent", mixed, nil),
        ]
        for (what, forged, plaintextBytes) in forgeries {
            let forged = try await replaced(store, reference, forged, plaintextBytes: plaintextBytes)
            let found = await code {
                // An empty range asks for nothing: read the chunk itself.
                let reader = try ExtentReader(core: store.sealed.core, reference: forged, dataKey: key)
                _ = try await reader.open(0..<reader.format.chunkCount(plaintextBytes: forged.plaintextBytes))
            }
            #expect(found == .corrupt, "\(what)")
        }
    }

    @Test func extentsAndKeysCannotBeSwapped() async throws {
        let (store, key, reference, bytes) = try await sealed()
        let second = try await store.write(store.randomness.bytes(length), under: key)
        // The second's bytes under the first's reference, and the first's key under the second's name.
        let swapped = ExtentReference(
            location: second.location, extentID: reference.extentID, plaintextBytes: length, log2ChunkBytes: 14,
            wrappedKey: reference.wrappedKey)
        #expect(await code { try await store.read(swapped, under: key) } == .corrupt)
        let renamed = try await replaced(store, reference, bytes, id: second.extentID)
        #expect(await code { try await store.read(renamed, under: key) } == .corrupt)
        // A reference that says another chunk size.
        let resized = ExtentReference(
            location: reference.location, extentID: reference.extentID, plaintextBytes: length, log2ChunkBytes: 16,
            wrappedKey: reference.wrappedKey)
        #expect(await code { try await store.read(resized, under: key) } == .corrupt)
        // Another account's key.
        let other = store.sealed.volume(account: AccountID(bytes: Array(16..<32)))
        try await store.sealed.accountKeys.create(other.account)
        let otherKey = try await other.accountKey()
        #expect(
            await code { try await other.readExtent(reference, range: 0..<10, under: otherKey) { _ in } }
                == .keyMismatch)
    }

    @Test func aDeletedExtentIsAnErrorNotEmptiness() async throws {
        let (store, key, reference, _) = try await sealed()
        try await store.engine.delete(ExtentLocation(reference.location))
        #expect(await code { try await store.read(reference, under: key) } == .corrupt)
    }

    @Test func everyBitOfASmallBodyCounts() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let reference = try await store.write(Array("small".utf8), under: key)
        #expect(try await store.engine.list(after: nil, limit: 1).isEmpty)
        let encoded = reference.encoded + InlineBodies.encode([reference])
        for bit in 0..<encoded.count * 8 {
            var damaged = encoded
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            guard let reference = decoded(damaged, reference.encoded.count) else { continue }
            let found = await code { try await store.read(reference, under: key) }
            #expect(found == .corrupt || found == .keyMismatch, "bit \(bit)")
        }
    }

    @Test func referencesAreDecodedStrictly() async throws {
        let store = try await Store.withAccount()
        let key = try await store.volume.accountKey()
        let randomness = store.randomness
        for count in [0, 10, 20_000] {
            let reference = try await store.write(randomness.bytes(count), under: key)
            let encoded = reference.encoded
            #expect(decoded(reference) == reference)
            #expect(decoded(encoded + [0], encoded.count + 1) == nil)
            for count in 0..<encoded.count { #expect(decoded(Array(encoded.prefix(count)), count) == nil) }
            let beside = encoded + InlineBodies.encode([reference])
            for count in encoded.count..<beside.count {
                #expect(decoded(Array(beside.prefix(count)), encoded.count) == nil)
            }
            for _ in 0..<2_000 {
                var bytes = encoded
                for _ in 0..<randomness.number(1..<4) {
                    bytes[randomness.number(0..<bytes.count)] = UInt8(randomness.number(0..<256))
                }
                if let decoded = decoded(bytes, bytes.count) { #expect(decoded.encoded == bytes) }
            }
        }
    }
}

private func decoded(_ reference: ExtentReference) -> ExtentReference? {
    decoded(reference.encoded + InlineBodies.encode([reference]), reference.encoded.count)
}

/// `bytes` are those of a reference, `count`, and then what lies beside.
private func decoded(_ bytes: [UInt8], _ count: Int) -> ExtentReference? {
    var bodies = InlineBodies(bytes[count...])
    return ExtentReference(encoded: bytes[..<count], &bodies)
}
