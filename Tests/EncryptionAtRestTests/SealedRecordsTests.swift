import CofferCore
import StorageEngine
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct SealedRecordsTests {
    @Test func whatIsWrittenIsReadInOrder() async throws {
        let records = try Store().sealed.records(.vault, "vault-1")
        let committed = try await records.commit([
            .put("b", [2]), .put("a/2", [1, 2]), .put("a/1", [1, 1]), .put("a/10", []),
        ])
        guard case .committed(let version) = committed else { throw Failure.unexpected }
        #expect(try await records.get("b")?.value == [2])
        #expect(try await records.get("none") == nil)
        #expect(try await records.get(["b", "x", "a/10"]).map { $0?.value } == [[2], nil, []])
        #expect(try await records.scan(prefix: "a/").map(\.key) == ["a/1", "a/10", "a/2"])
        #expect(try await records.scan(prefix: "a/", after: "a/1").map(\.key) == ["a/10", "a/2"])
        #expect(try await records.scan(prefix: "a/", after: "a/1", limit: 1).map(\.key) == ["a/10"])
        #expect(try await records.scan(prefix: "a/", after: "b").isEmpty)
        #expect(try await records.scan(prefix: "").count == 4)
        #expect(try await records.commit(checks: [.absent("b")], [.delete("b")]) == .conflict)
        #expect(try await records.commit(checks: [.unchanged("b", version)], [.delete("b")]) != .conflict)
        #expect(try await records.commit(checks: [.unchanged("b", version)], []) == .conflict)
    }

    @Test func partitionsAreNamedByDomain() async throws {
        let store = try Store()
        for name in ["x", "", "x/y"] { _ = try await store.sealed.records(.resources, name).commit([.put("k", [1])]) }
        _ = try await store.sealed.records(.identity, "other").commit([.put("k", [1])])
        #expect(try await store.sealed.partitions(of: .resources) == ["", "x", "x/y"])
        #expect(try await store.sealed.partitions(of: .sites).isEmpty)
    }

    @Test func aValueOpensOnlyWhereItWasPut() async throws {
        let store = try Store()
        let records = store.sealed.records(.vault, "v")
        _ = try await records.commit([.put("k", Array("secret".utf8))])
        let row = try await store.engine.get(Partition("r/vault/v"), [RowKey("k")])[0]!
        for (partition, key) in [("r/vault/v", "l"), ("r/vault/w", "k"), ("r/identity/v", "k")] {
            _ = try await store.engine.commit(Partition(partition), checks: [], writes: [.put(RowKey(key), row.value)])
        }
        #expect(await code { try await records.get("l") } == .corrupt)
        #expect(await code { try await store.sealed.records(.vault, "w").get("k") } == .corrupt)
        #expect(await code { try await store.sealed.records(.identity, "v").get("k") } == .corrupt)
        let other = try Store(engine: store.engine, root: rootKey(8))
        #expect(await code { try await other.sealed.records(.vault, "v").get("k") } == .corrupt)
        let newer = try Store(engine: store.engine, root: rootKey(version: 2))
        let error = await #expect(throws: SealedStoreError.self) {
            try await newer.sealed.records(.vault, "v").get("k")
        }
        #expect(error?.message.contains("root key version 1") == true)
    }

    @Test func aFlippedBitAnywhereFails() async throws {
        let store = try Store()
        let records = store.sealed.records(.audit, "a")
        _ = try await records.commit([.put("k", Array("value".utf8))])
        let partition = Partition("r/audit/a")
        let value = try await store.engine.get(partition, [RowKey("k")])[0]!.value
        for bit in 0..<value.count * 8 {
            var damaged = value
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            _ = try await store.engine.commit(partition, checks: [], writes: [.put(RowKey("k"), damaged)])
            #expect(await code { try await records.get("k") } == .corrupt, "bit \(bit)")
        }
        for count in 0..<value.count {
            _ = try await store.engine.commit(
                partition, checks: [], writes: [.put(RowKey("k"), Array(value.prefix(count)))])
            #expect(await code { try await records.get("k") } == .corrupt, "first \(count) bytes")
        }
    }
}

enum Failure: Error { case unexpected }
