public import StorageEngine

/// What every `MetadataStore` promises.
public enum MetadataStoreConformance {
    public typealias Check = ConformanceCheck<any MetadataStore>

    public static let checks: [Check] = [
        Check(name: "get answers in the order asked, nil for absent rows", run: getOrder),
        Check(name: "what is remembered is what get answers", run: remembered),
        Check(name: "scan is ordered by unsigned bytes and half open", run: scanOrder),
        Check(name: "scan honours its limit", run: scanLimit),
        Check(name: "keys and values are any bytes, empty ones too", run: anyBytes),
        Check(name: "partitions do not see one another", run: partitionsAreApart),
        Check(name: "a check that fails rejects the whole commit", run: failedCheckWritesNothing),
        Check(name: "each kind of check holds and fails as documented", run: checkKinds),
        Check(name: "versions grow, through deletion too", run: versionsGrow),
        Check(name: "the last write of a key in a commit counts", run: lastWriteCounts),
        Check(name: "limits are kept", run: limits),
        Check(name: "values up to a mebibyte come back whole", run: largeValues),
        Check(name: "partitions are listed while they have rows", run: partitionList),
        Check(name: "concurrent increments lose nothing", run: concurrentIncrements),
        Check(name: "of commits that expect the same version one succeeds", run: oneWinner),
        Check(name: "readers see whole commits", run: snapshots),
        Check(name: "random operations agree with a dictionary", run: model),
    ]

    private static func put(_ store: any MetadataStore, _ partition: Partition, _ rows: [String: String]) async throws {
        let writes = rows.map { RowWrite.put(RowKey($0), Array($1.utf8)) }
        _ = try committed(await store.commit(partition, checks: [], writes: writes))
    }

    private static func committed(_ result: CommitResult, line: Int = #line) throws -> RowVersion {
        guard case .committed(let version) = result else {
            throw ConformanceFailure(description: "a commit was refused (line \(line))")
        }
        return version
    }

    private static func keys(_ rows: [Row]) -> [String] { rows.map { String(decoding: $0.key.bytes, as: UTF8.self) } }

    private static func all(_ store: any MetadataStore, _ partition: Partition) async throws -> [Row] {
        try await store.scan(partition, from: RowKey([]), upTo: nil, limit: .max)
    }

    // MARK: Reading

    private static func getOrder(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance get")
        try await put(store, partition, ["a": "1", "b": "2", "c": "3"])
        let rows = try await store.get(partition, [RowKey("c"), RowKey("x"), RowKey("a"), RowKey("c")])
        try requireEqual(
            rows.map { $0.map { String(decoding: $0.value, as: UTF8.self) } }, ["3", nil, "1", "3"], "values")
        try requireEqual(try await store.get(partition, []).count, 0, "get of nothing")
        try requireEqual(
            try await store.get(Partition("conformance absent"), [RowKey("a")]), [nil], "an absent partition")
    }

    private static func remembered(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance remembered")
        let keys = [RowKey("a"), RowKey("b")]
        func agrees(_ what: String) async throws {
            // A read may be what makes the engine remember: asked before it and after.
            let before = store.remembered(partition, keys)
            let rows = try await store.get(partition, keys)
            for known in [before, store.remembered(partition, keys)] {
                if let known { try requireEqual(known, rows, what) }
            }
        }
        try await agrees("nothing")
        try await put(store, partition, ["a": "1"])
        try await agrees("one row")
        try await put(store, partition, ["a": "2", "b": "3"])
        try await agrees("both rows")
        _ = try committed(await store.commit(partition, checks: [], writes: [.delete(RowKey("a"))]))
        try await agrees("after a deletion")
    }

    private static func scanOrder(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance scan")
        let bytes: [[UInt8]] = [
            [0], [0, 0], [0, 1], [1], [0x7f], [0x7f, 0xff], [0x80], [0xfe, 0xff], [0xff], [0xff, 0],
        ]
        let writes = bytes.shuffled(using: &sequence).map { RowWrite.put(RowKey($0), $0) }
        _ = try committed(await store.commit(partition, checks: [], writes: writes))
        try requireEqual(try await all(store, partition).map(\.key.bytes), bytes, "order")
        let part = try await store.scan(partition, from: RowKey([0, 1]), upTo: RowKey([0x80]), limit: 100)
        try requireEqual(part.map(\.key.bytes), [[0, 1], [1], [0x7f], [0x7f, 0xff]], "from is inside, upTo is not")
        let between = try await store.scan(partition, from: RowKey([2]), upTo: RowKey([3]), limit: 100)
        try requireEqual(between.count, 0, "an empty range")
        let backward = try await store.scan(partition, from: RowKey([9]), upTo: RowKey([1]), limit: 100)
        try requireEqual(backward.count, 0, "a range that ends before it begins")
        let prefix = try await store.scan(partition, from: RowKey([0xff]), upTo: RowKey([0xff]).prefixEnd, limit: 100)
        try requireEqual(prefix.map(\.key.bytes), [[0xff], [0xff, 0]], "a prefix of 0xff has no end")
    }

    private static var sequence: FixedSequence {
        get { FixedSequence(seed: 7) }
        set {}
    }

    private static func scanLimit(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance limit")
        try await put(store, partition, ["a": "", "b": "", "c": "", "d": ""])
        try requireEqual(
            keys(try await store.scan(partition, from: RowKey("b"), upTo: nil, limit: 2)), ["b", "c"], "limit 2")
        try requireEqual(try await store.scan(partition, from: RowKey("a"), upTo: nil, limit: 0).count, 0, "limit 0")
    }

    private static func anyBytes(_ store: any MetadataStore) async throws {
        let partition = Partition([0, 0xff, 0x27, 0])
        let every = Array(UInt8.min...UInt8.max)
        let writes: [RowWrite] = [.put(RowKey([]), []), .put(RowKey(every), every), .put(RowKey([0]), [0])]
        _ = try committed(await store.commit(partition, checks: [], writes: writes))
        let rows = try await store.get(partition, [RowKey([]), RowKey(every), RowKey([0])])
        try requireEqual(rows.map { $0?.value }, [[], every, [0]], "values")
        try requireEqual(rows.map { $0?.key.bytes }, [[], every, [0]], "keys")
    }

    private static func partitionsAreApart(_ store: any MetadataStore) async throws {
        let one = Partition("conformance apart"), other = Partition("conformance apart ")
        try await put(store, one, ["k": "one"])
        try await put(store, other, ["k": "other", "l": "other"])
        _ = try committed(await store.commit(one, checks: [], writes: [.delete(RowKey("l"))]))
        try requireEqual(try await all(store, one).map(\.value), [Array("one".utf8)], "one")
        try requireEqual(try await all(store, other).count, 2, "other")
    }

    // MARK: Committing

    private static func failedCheckWritesNothing(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance atomic")
        try await put(store, partition, ["a": "1"])
        let before = try await all(store, partition)
        let result = try await store.commit(
            partition, checks: [.present(RowKey("a")), .absent(RowKey("z")), .present(RowKey("missing"))],
            writes: [.put(RowKey("a"), [9]), .put(RowKey("b"), [9]), .delete(RowKey("a"))])
        try requireEqual(result, .conflict, "result")
        try requireEqual(try await all(store, partition), before, "rows")
    }

    private static func checkKinds(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance checks")
        let a = RowKey("a"), b = RowKey("b")
        let first = try committed(await store.commit(partition, checks: [.absent(a)], writes: [.put(a, [1])]))
        func holds(_ check: RowCheck) async throws -> Bool {
            try await store.commit(partition, checks: [check], writes: []) != .conflict
        }
        try require(try await holds(.present(a)), "present")
        try require(try await !holds(.absent(a)), "absent of a present row")
        try require(try await holds(.absent(b)), "absent")
        try require(try await !holds(.present(b)), "present of an absent row")
        try require(try await holds(.unchanged(a, first)), "unchanged")
        try require(try await !holds(.unchanged(b, first)), "unchanged of an absent row")
        let second = try committed(
            await store.commit(partition, checks: [.unchanged(a, first)], writes: [.put(a, [1])]))
        try require(try await !holds(.unchanged(a, first)), "unchanged after the same value was written again")
        try require(try await holds(.unchanged(a, second)), "unchanged with the new version")
        try requireEqual(
            try await store.get(partition, [a])[0]?.version, second, "the version a commit answers is the row's")
    }

    private static func versionsGrow(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance versions")
        let key = RowKey("k")
        var last = RowVersion(0)
        for round in 0..<5 {
            let written = try committed(await store.commit(partition, checks: [], writes: [.put(key, [UInt8(round)])]))
            try require(written.number > last.number, "version \(written.number) after \(last.number)")
            let deleted = try committed(
                await store.commit(partition, checks: [.unchanged(key, written)], writes: [.delete(key)]))
            try require(deleted.number > written.number, "version of a deletion")
            try requireEqual(
                try await store.commit(partition, checks: [.unchanged(key, written)], writes: []), .conflict, "deleted")
            last = written
        }
    }

    private static func lastWriteCounts(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance order")
        let writes: [RowWrite] = [
            .put(RowKey("a"), [1]), .put(RowKey("a"), [2]), .put(RowKey("b"), [1]), .delete(RowKey("b")),
            .delete(RowKey("c")),
            .put(RowKey("c"), [3]),
        ]
        _ = try committed(await store.commit(partition, checks: [], writes: writes))
        try requireEqual(try await all(store, partition).map(\.value), [[2], [3]], "rows")
    }

    private static func limits(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance limits")
        let longest = RowKey([UInt8](repeating: 7, count: MetadataStoreProperties.keyBytesLimit))
        let longestName = Partition([UInt8](repeating: 8, count: MetadataStoreProperties.partitionBytesLimit))
        _ = try committed(await store.commit(longestName, checks: [], writes: [.put(longest, [1])]))
        try requireEqual(try await store.get(longestName, [longest])[0]?.value, [1], "the longest key")
        func isRefused(_ partition: Partition, _ writes: [RowWrite]) async -> Bool {
            do throws(StorageEngineError) {
                _ = try await store.commit(partition, checks: [], writes: writes)
                return false
            } catch {
                return error.code == .limitExceeded
            }
        }
        try require(await isRefused(partition, [.put(RowKey(longest.bytes + [0]), [])]), "a key that is too long")
        try require(
            await isRefused(Partition(longestName.bytes + [0]), [.put(RowKey("a"), [])]),
            "a partition name that is too long")
        let tooLarge = [UInt8](repeating: 0, count: store.properties.valueBytesLimit + 1)
        try require(
            await isRefused(partition, [.put(RowKey("a"), []), .put(RowKey("b"), tooLarge)]),
            "a value that is too large")
        let tooMany = [RowWrite](repeating: .delete(RowKey("a")), count: store.properties.writesPerCommitLimit + 1)
        try require(await isRefused(partition, tooMany), "too many writes")
        try requireEqual(try await all(store, partition).count, 0, "nothing was written")
    }

    private static func largeValues(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance large")
        var random = FixedSequence(seed: 3)
        let block = random.bytes(4096)
        for size in [4095, 4096, 8192, 16_383, 65_536, 1 << 20] where size <= store.properties.valueBytesLimit {
            let value = Array([[UInt8]](repeating: block, count: size / 4096 + 1).joined().prefix(size))
            _ = try committed(await store.commit(partition, checks: [], writes: [.put(RowKey("k"), value)]))
            try require(try await store.get(partition, [RowKey("k")])[0]?.value == value, "a value of \(size) bytes")
            try require(try await all(store, partition)[0].value == value, "a value of \(size) bytes in a scan")
        }
    }

    private static func partitionList(_ store: any MetadataStore) async throws {
        let names = ["conformance list a", "conformance list b", "conformance list c"].map { Partition($0) }
        for name in names { try await put(store, name, ["k": "v", "l": "v"]) }
        func listed() async throws -> [Partition] {
            // Other checks may run beside this one: only its own partitions count, read in small pages.
            var found: [Partition] = []
            var after: Partition?
            while true {
                let page = try await store.partitions(after: after, limit: 2)
                guard let last = page.last else { break }
                try require(page.count <= 2, "a page of partitions is too long")
                found += page
                after = last
            }
            let ordered = found.sorted { $0.bytes.lexicographicallyPrecedes($1.bytes) }
            try requireEqual(found, ordered, "the order of partitions")
            return found.filter { names.contains($0) }
        }
        try requireEqual(try await listed(), names, "partitions")
        _ = try committed(await store.commit(names[1], checks: [], writes: [.delete(RowKey("k"))]))
        try requireEqual(try await listed(), names, "with one row left")
        _ = try committed(
            await store.commit(names[1], checks: [], writes: [.delete(RowKey("l")), .delete(RowKey("m"))]))
        try requireEqual(try await listed(), [names[0], names[2]], "without rows")
        try await put(store, names[1], ["again": "v"])
        try requireEqual(try await listed(), names, "with a row again")
        try requireEqual(keys(try await all(store, names[1])), ["again"], "rows of a partition that was empty")
    }

    // MARK: Concurrency

    private static func concurrentIncrements(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance increments")
        let key = RowKey("counter")
        let writers = 8, increments = 10
        try await withThrowingTaskGroup { group in
            for _ in 0..<writers {
                group.addTask {
                    for _ in 0..<increments {
                        while true {
                            let row = try await store.get(partition, [key])[0]
                            let check = row.map { RowCheck.unchanged(key, $0.version) } ?? .absent(key)
                            let value = (row?.value.first ?? 0) + 1
                            if try await store.commit(partition, checks: [check], writes: [.put(key, [value])])
                                != .conflict
                            {
                                break
                            }
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        try requireEqual(try await store.get(partition, [key])[0]?.value, [UInt8(writers * increments)], "the sum")
    }

    private static func oneWinner(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance winner")
        let key = RowKey("k")
        let start = try committed(await store.commit(partition, checks: [], writes: [.put(key, [0])]))
        let winners = try await withThrowingTaskGroup(of: Bool.self) { group in
            for writer in 1...16 {
                group.addTask {
                    try await store.commit(
                        partition, checks: [.unchanged(key, start)], writes: [.put(key, [UInt8(writer)])]) != .conflict
                }
            }
            return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        try requireEqual(winners, 1, "winners")
    }

    private static func snapshots(_ store: any MetadataStore) async throws {
        let partition = Partition("conformance snapshots")
        let keys = (0..<8).map { RowKey("row \($0)") }
        func write(_ value: UInt8) async throws {
            _ = try committed(await store.commit(partition, checks: [], writes: keys.map { .put($0, [value]) }))
        }
        try await write(0)
        try await withThrowingTaskGroup { group in
            group.addTask { for value in 1...40 { try await write(UInt8(value)) } }
            for _ in 0..<3 {
                group.addTask {
                    var last: UInt8 = 0
                    for _ in 0..<40 {
                        let scanned = Set(try await all(store, partition).map(\.value))
                        let got = Set(try await store.get(partition, keys).map { $0?.value })
                        try require(scanned.count == 1 && got.count == 1, "half a commit was seen")
                        let now = scanned.first!.first!
                        try require(now >= last, "time went backwards")
                        last = now
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Random commits against a dictionary that does the same.
    private static func model(_ store: any MetadataStore) async throws {
        var random = FixedSequence(seed: 20)
        let partitions = (0..<3).map { Partition("conformance model \($0)") }
        var model: [Partition: [RowKey: Row]] = [:]
        for _ in 0..<200 {
            let partition = partitions[Int(random.next() % 3)]
            func key() -> RowKey { RowKey((0..<(random.next() % 3)).map { _ in UInt8(random.next() % 4) }) }
            var rows = model[partition] ?? [:]
            let checks = (0..<(random.next() % 3)).map { _ -> RowCheck in
                let key = key()
                switch random.next() % 4 {
                case 0: return .absent(key)
                case 1: return .present(key)
                default: return rows[key].map { .unchanged(key, $0.version) } ?? .absent(key)
                }
            }
            let writes = (0..<(1 + random.next() % 4)).map { _ -> RowWrite in
                random.next() % 3 == 0 ? .delete(key()) : .put(key(), random.bytes(Int(random.next() % 300)))
            }
            let expected = checks.allSatisfy { check in
                switch check {
                case .absent(let key): rows[key] == nil
                case .present(let key): rows[key] != nil
                case .unchanged(let key, let version): rows[key]?.version == version
                }
            }
            switch try await store.commit(partition, checks: checks, writes: writes) {
            case .conflict:
                try require(!expected, "a commit was refused whose checks hold")
            case .committed(let version):
                try require(expected, "a commit was accepted whose checks fail")
                for write in writes {
                    switch write {
                    case .put(let key, let value): rows[key] = Row(key: key, value: value, version: version)
                    case .delete(let key): rows[key] = nil
                    }
                }
                model[partition] = rows
            }
            try require(
                try await all(store, partition) == (model[partition] ?? [:]).values.sorted { $0.key < $1.key },
                "the rows differ")
        }
    }
}
