import CofferCore
import NIOCore
import StorageEngine
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct VerificationTests {
    let partition = VolumePartition.container("c")

    private func filled() async throws -> (Store, FakeVault, ExtentReference) {
        let (store, vault) = try await Store.withCustomerKey()
        let key = try await store.volume.accountKey()
        let customer = store.volume.customerProvidedKey(store.randomness.secret(32))
        let reference = try await store.write(store.randomness.bytes(100_000), under: key)
        let own = try await store.write(store.randomness.bytes(100_000), under: customer)
        let small = try await store.write([1, 2, 3], under: key)
        let sealed = try await store.volume.seal(small.encoded, of: [small], at: [1], in: partition, under: key)
        let sealedOwn = try await store.volume.seal([1], of: [], at: [2], in: partition, under: customer)
        _ = try await store.volume.commit(
            partition, checks: [],
            writes: [
                .put([1], visible: [], sealed: sealed),
                .put([2], visible: [], sealed: sealedOwn),
                .put([3], visible: [1], sealed: .none),
            ],
            linking: [reference, own])
        _ = try await store.sealed.records(.identity, "x").commit([.put("a", [1]), .put("b", [2])])
        return (store, vault, reference)
    }

    @Test func aSoundStoreIsCounted() async throws {
        let (store, _, _) = try await filled()
        let report = try await store.sealed.verify()
        #expect(report.isSound && report.problems.isEmpty && report.unavailableAccounts.isEmpty)
        #expect(report.recordsOpened == 2 && report.accountsOpened == 1 && report.rowsOpened == 3)
        #expect(report.sealedPartsOpened == 1 && report.sealedPartsUnchecked == 1)
        #expect(report.extentsOpened == 1 && report.extentsUnchecked == 1)
        #expect(report.chunksOpened == 7 && report.plaintextBytesOpened == 100_003)
        #expect(report.smallBodiesOpened == 1)
        let quick = try await store.sealed.verify(depth: .metadata)
        #expect(quick.isSound && quick.chunksOpened == 1 && quick.extentsOpened == 1)
    }

    @Test func aCustomersKeyThatCannotBeHadIsNotDamage() async throws {
        let (store, vault, _) = try await filled()
        vault.refuse(identity)
        let report = try await store.sealed.verify()
        #expect(report.isSound)
        #expect(report.unavailableAccounts.map(\.code) == ["KeyVaultAccessTokenCannotBeAcquired"])
        #expect(report.extentsOpened == 0 && report.extentsUnchecked == 2 && report.sealedPartsUnchecked == 2)
    }

    @Test func damageIsFoundAndNamed() async throws {
        let (store, _, reference) = try await filled()
        try await store.engine.delete(ExtentLocation(reference.location))
        for (name, key) in [
            (Partition("r/identity/x"), RowKey("b")), (store.volume.engine(partition), RowKind.data.key([1])),
        ] {
            var value = try await store.engine.get(name, [key])[0]!.value
            value[value.count - 1] ^= 1
            _ = try await store.engine.commit(name, checks: [], writes: [.put(key, value)])
        }
        _ = try await store.engine.commit(Partition("strange"), checks: [], writes: [.put(RowKey("k"), [])])
        let lost = store.sealed.volume(account: AccountID(bytes: Array(16..<32)))
        _ = try await lost.commit(.account, checks: [], writes: [.put([1], visible: [], sealed: .none)])
        let report = try await store.sealed.verify()
        #expect(!report.isSound && report.problemCount == 5)
        #expect(
            report.problems.map(\.kind.rawValue).sorted()
                == ["missingAccountKey", "missingExtent", "notAuthentic", "notAuthentic", "unknownPartition"])
        #expect(report.recordsOpened == 1)
    }

    @Test func aBodyThatIsGoneIsFound() async throws {
        let (store, _, _) = try await filled()
        let row = try #require(try await store.volume.get(partition, [[1]])[0])
        let part = SealedPart(row.sealed.message)
        _ = try await store.volume.commit(partition, checks: [], writes: [.put([1], visible: [], sealed: part)])
        let report = try await store.sealed.verify()
        #expect(report.problems.map(\.kind) == [.notAuthentic] && report.smallBodiesOpened == 0)
    }

    @Test func aDamagedChunkIsFoundOnlyByReadingEverything() async throws {
        let (store, _, _) = try await filled()
        let key = try await store.volume.accountKey()
        let sealer = try await store.volume.createExtent(under: key, expectedBytes: 50_000)
        try await sealer.append(ByteBuffer(bytes: store.randomness.bytes(50_000)))
        let reference = try await sealer.finish()
        let location = ExtentLocation(reference.location)
        var bytes = Array(
            try await store.engine.read(location, range: 0..<ExtentFormat.sealedBytes(of: reference)).readableBytesView)
        bytes[70] ^= 1
        let writer = try await store.engine.create(expectedBytes: nil)
        try await writer.append(ByteBuffer(bytes: bytes))
        let damaged = ExtentReference(
            location: try await writer.finish().bytes, extentID: reference.extentID,
            plaintextBytes: reference.plaintextBytes,
            log2ChunkBytes: reference.log2ChunkBytes, wrappedKey: reference.wrappedKey)
        store.sealed.core.unlinked.add(ExtentLocation(damaged.location), at: store.clock.now())
        _ = try await store.volume.commit(partition, checks: [], writes: [], linking: [damaged])
        #expect(try await store.sealed.verify(depth: .metadata).isSound)
        let report = try await store.sealed.verify()
        #expect(report.problems.map(\.kind) == [.notAuthentic])
    }
}
