import CofferCore
import NIOCore
import StorageEngine
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
            #expect(ExtentReference(encoded: reference.encoded) == reference)
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
