import CofferCore
import NIOCore
import StorageEngine
import TestSupport
import Testing

@testable import EncryptionAtRest

@Suite struct AccountVolumeTests {
    let partition = VolumePartition.container("c1")

    @Test func rowsAreReadWithTheirPartsAndInOrder() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        let key = try await volume.accountKey()
        let sealed = try await volume.seal(Array("inner".utf8), of: [], at: [2], in: partition, under: key)
        let committed = try await volume.commit(
            partition, checks: [.absent([2])],
            writes: [
                .put([2], visible: [9, 9], sealed: sealed), .put([1], visible: [], sealed: .none),
                .put([2, 0], visible: [1], sealed: .none),
            ])
        guard case .committed(let version) = committed else { throw Failure.unexpected }
        let rows = try await volume.get(partition, [[2], [7], [1]])
        #expect(rows.map { $0?.visible } == [[9, 9], nil, []])
        #expect(
            try await volume.open(rows[0]!.sealed, at: [2], in: partition, under: key) == Array("inner".utf8))
        #expect(try await volume.scan(partition, from: [], upTo: nil, limit: 10).map(\.key) == [[1], [2], [2, 0]])
        #expect(try await volume.scan(partition, from: [2], upTo: [2, 0], limit: 10).map(\.key) == [[2]])
        #expect(try await volume.scan(partition, from: [], upTo: nil, limit: 2).map(\.key) == [[1], [2]])
        #expect(try await volume.scan(.account, from: [], upTo: nil, limit: 2).isEmpty)
        #expect(try await volume.commit(partition, checks: [.absent([2])], writes: []) == .conflict)
        #expect(
            try await volume.commit(partition, checks: [.unchanged([2], version)], writes: [.delete([2])]) != .conflict)
        #expect(try await volume.commit(partition, checks: [.present([2])], writes: []) == .conflict)
    }

    /// Link and garbage rows lie in the same engine partition and must never come out of a scan.
    @Test func scansShowDataRowsOnly() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        let key = try await volume.accountKey()
        let extents = try await [
            store.write(store.randomness.bytes(20_000), under: key),
            store.write(store.randomness.bytes(20_000), under: key),
        ]
        _ = try await volume.commit(
            partition, checks: [], writes: [.put([0xff], visible: [], sealed: .none)], linking: extents)
        _ = try await volume.commit(partition, checks: [], writes: [], releasing: [extents[0]])
        #expect(try await volume.scan(partition, from: [], upTo: nil, limit: 10).map(\.key) == [[0xff]])
        let kinds = try await store.engine.scan(volume.engine(partition), from: RowKey([]), upTo: nil, limit: 10).map(
            \.key.bytes.first)
        #expect(kinds == [0x64, 0x67, 0x6c])
    }

    @Test func aSealedPartOpensOnlyWhereItWasSealed() async throws {
        let store = try await Store.withAccount()
        let other = AccountID(bytes: Array(16..<32))
        try await store.sealed.accountKeys.create(other)
        let volume = store.volume
        let key = try await volume.accountKey()
        let customer = volume.customerProvidedKey(store.randomness.secret(32))
        let sealed = try await volume.seal([1, 2, 3], of: [], at: [5], in: partition, under: key)
        #expect(await code { try await volume.open(sealed, at: [6], in: partition, under: key) } == .corrupt)
        #expect(await code { try await volume.open(sealed, at: [5], in: .account, under: key) } == .corrupt)
        #expect(await code { try await volume.open(sealed, at: [5], in: partition, under: customer) } == .keyMismatch)
        let otherVolume = store.sealed.volume(account: other)
        let otherKey = try await otherVolume.accountKey()
        #expect(
            await code { try await otherVolume.open(sealed, at: [5], in: partition, under: otherKey) } == .keyMismatch)
        let message = sealed.message
        for bit in 0..<message.count * 8 {
            var damaged = message
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            let found = await code { try await volume.open(SealedPart(damaged), at: [5], in: partition, under: key) }
            #expect(found == .corrupt || (16..<19 * 8).contains(bit) && found == .keyMismatch, "bit \(bit)")
        }
        for count in 0..<message.count {
            let cut = SealedPart(Array(message.prefix(count)))
            #expect(await code { try await volume.open(cut, at: [5], in: partition, under: key) } == .corrupt)
        }
    }

    @Test func aSealedPartOpensOnlyWithItsBodies() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        let key = try await volume.accountKey()
        var bodies: [ExtentReference] = []
        for value in 1...3 { bodies.append(try await store.write([UInt8(value)], under: key)) }
        let (one, two, three) = (bodies[0], bodies[1], bodies[2])
        let sealed = try await volume.seal([7], of: [one, two], at: [5], in: partition, under: key)
        #expect(try await volume.open(sealed, at: [5], in: partition, under: key) == [7])
        let others: [[ExtentReference]] = [
            [], [one], [two], [two, one], [one, two, two], [one, three], [one, two, three],
        ]
        for others in others {
            let part = SealedPart(sealed.message, bodies: InlineBodies.encode(others))
            #expect(await code { try await volume.open(part, at: [5], in: partition, under: key) } == .corrupt)
        }
        let cut = SealedPart(sealed.message, bodies: sealed.bodies.dropLast())
        #expect(await code { try await volume.open(cut, at: [5], in: partition, under: key) } == .corrupt)
        // Bodies beside a part that has none.
        let alone = try await volume.seal([7], of: [], at: [5], in: partition, under: key)
        let part = SealedPart(alone.message, bodies: sealed.bodies)
        #expect(await code { try await volume.open(part, at: [5], in: partition, under: key) } == .corrupt)
    }

    @Test func aRowOpensOnlyWhereItWasPut() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        _ = try await volume.commit(partition, checks: [], writes: [.put([1], visible: [1], sealed: .none)])
        let row = try await store.engine.get(volume.engine(partition), [RowKind.data.key([1])])[0]!
        _ = try await store.engine.commit(
            volume.engine(partition), checks: [], writes: [.put(RowKind.data.key([2]), row.value)])
        #expect(await code { try await volume.get(partition, [[2]]) } == .corrupt)
        let elsewhere = VolumePartition.container("c2")
        _ = try await store.engine.commit(volume.engine(elsewhere), checks: [], writes: [.put(row.key, row.value)])
        #expect(await code { try await volume.get(elsewhere, [[1]]) } == .corrupt)
        let other = store.sealed.volume(account: AccountID(bytes: Array(16..<32)))
        _ = try await store.engine.commit(other.engine(partition), checks: [], writes: [.put(row.key, row.value)])
        #expect(await code { try await other.get(partition, [[1]]) } == .corrupt)
    }

    @Test func aCustomerProvidedKeyTakesTheAccountKeysPlace() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        let secret = store.randomness.bytes(32)
        let key = volume.customerProvidedKey(SecretBytes(copying: secret))
        let same = volume.customerProvidedKey(SecretBytes(copying: secret))
        let other = volume.customerProvidedKey(store.randomness.secret(32))
        let account = try await volume.accountKey()
        #expect(account.customerProvidedKeySHA256 == nil)
        #expect(
            key.customerProvidedKeySHA256?.count == 44
                && key.customerProvidedKeySHA256 == same.customerProvidedKeySHA256)
        #expect(key.customerProvidedKeySHA256 != other.customerProvidedKeySHA256)
        for count in [100, 100_000] {
            let plaintext = store.randomness.bytes(count)
            let reference = try await store.write(plaintext, under: key)
            #expect(try await store.read(reference, under: same) == plaintext)
            #expect(await code { try await store.read(reference, under: other) } == .keyMismatch)
            #expect(await code { try await store.read(reference, under: account) } == .keyMismatch)
        }
        // Even the account's own bytes brought as a customer's key are another key.
        let twin = volume.customerProvidedKey(SecretBytes(copying: account.secret.withUnsafeBytes { Array($0) }))
        #expect(twin.domainID != account.domainID)
    }

    @Test func nothingTheEngineHoldsIsReadable() async throws {
        let store = try await Store.withAccount()
        let volume = store.volume
        let key = try await volume.accountKey()
        let mark = Array("PLAINTEXT-MARK-PLAINTEXT-MARK".utf8)
        let body = Array(repeatElement(mark, count: 4_000).joined())
        let large = try await store.write(body, under: key)
        let small = try await store.write(Array(body.prefix(5_000)), under: key)
        let manifest = try await volume.seal(small.encoded + mark, of: [small], at: [1], in: partition, under: key)
        _ = try await volume.commit(
            partition, checks: [], writes: [.put([1], visible: mark, sealed: manifest)],
            linking: [large])
        _ = try await store.sealed.records(.storage, "accounts").commit([.put("k", mark)])
        let secret = key.secret.withUnsafeBytes { Array($0) }
        var bytesSeen = 0
        for contents in try await everything(in: store.engine) {
            bytesSeen += contents.count
            #expect(!contents.contains(Array(mark.prefix(8))))
            #expect(!contents.contains(secret))
        }
        #expect(bytesSeen > body.count)
    }

    private func everything(in engine: InMemoryEngine) async throws -> [[UInt8]] {
        var all: [[UInt8]] = []
        for partition in try await engine.partitions(after: nil, limit: 1_000) {
            all += try await engine.scan(partition, from: RowKey([]), upTo: nil, limit: 10_000).flatMap {
                [$0.key.bytes, $0.value]
            }
        }
        for listing in try await engine.list(after: nil, limit: 1_000) {
            all.append(Array(try await engine.read(listing.location, range: 0..<listing.byteCount).readableBytesView))
        }
        return all
    }

    @Test func rowContentsAreDecodedStrictly() {
        let randomness = SeededRandomness(3)
        for _ in 0..<500 {
            let visible = randomness.bytes(randomness.number(0..<40))
            let sealed = randomness.bytes(randomness.number(0..<40))
            let encoded = RowContents.encode(visible: visible, sealed: sealed)
            let decoded = RowContents(encoded)
            #expect(decoded?.visible == visible && decoded?.sealed == sealed)
            for count in 0..<5 + visible.count { #expect(RowContents(Array(encoded.prefix(count))) == nil) }
            let noise = randomness.bytes(randomness.number(0..<60))
            if let decoded = RowContents(noise) {
                #expect(RowContents.encode(visible: decoded.visible, sealed: decoded.sealed) == noise)
            }
        }
    }
}
