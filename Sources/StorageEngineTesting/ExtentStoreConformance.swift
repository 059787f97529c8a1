internal import NIOCore
public import StorageEngine

/// What every `ExtentStore` promises.
public enum ExtentStoreConformance {
    public typealias Check = ConformanceCheck<any ExtentStore>

    public static let checks: [Check] = [
        Check(name: "what was appended is read, whatever the size and its announcement", run: roundTrips),
        Check(name: "any range is read, and none beyond the end", run: ranges),
        Check(name: "an extent without bytes is an extent", run: emptyExtent),
        Check(name: "aborted and dropped writers leave nothing", run: abandoned),
        Check(name: "a writer ends with finish", run: ended),
        Check(name: "delete is idempotent, and the extent is not found after it", run: deletion),
        Check(name: "list gives each finished extent once, in pages", run: listing),
        Check(name: "locations are unique and up to 64 bytes", run: locations),
        Check(name: "many writers at once do not mix", run: concurrentWriters),
        Check(name: "reads go on while others delete", run: readsBesideDeletes),
        Check(name: "a location of nobody is not found", run: strangeLocations),
    ]

    /// Bytes that tell at which offset of which extent they belong.
    static func pattern(_ seed: Int, _ count: Int) -> ByteBuffer {
        var random = FixedSequence(seed: UInt64(seed))
        let block = random.bytes(1016)
        var buffer = ByteBufferAllocator().buffer(capacity: count + 1024)
        while buffer.readableBytes < count {
            buffer.writeInteger(buffer.readableBytes)
            buffer.writeBytes(block)
        }
        return buffer.readSlice(length: count)!
    }

    static func write(
        _ store: any ExtentStore, _ bytes: ByteBuffer, piece: Int = 64 << 10, expectedBytes: Int?
    ) async throws -> ExtentLocation {
        let writer = try await store.create(expectedBytes: expectedBytes)
        var rest = bytes
        while let slice = rest.readSlice(length: min(piece, rest.readableBytes)), slice.readableBytes > 0 {
            try await writer.append(slice)
        }
        return try await writer.finish()
    }

    private static func listed(_ store: any ExtentStore, pageSize: Int = 1000) async throws -> [ExtentListing] {
        var found: [ExtentListing] = []
        while true {
            let page = try await store.list(after: found.last?.location, limit: pageSize)
            try require(page.count <= pageSize, "a page of \(page.count) for a limit of \(pageSize)")
            if page.isEmpty { return found }
            found += page
        }
    }

    private static func code(_ body: () async throws(StorageEngineError) -> Void) async -> StorageEngineError.Code? {
        do throws(StorageEngineError) {
            try await body()
            return nil
        } catch {
            return error.code
        }
    }

    private static func roundTrips(_ store: any ExtentStore) async throws {
        let sizes = [1, 63, 64, 4096, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_001]
        for size in sizes {
            let bytes = pattern(size, size)
            for announced in [size, nil, 10, 2 << 20] {
                let location = try await write(store, bytes, expectedBytes: announced)
                try require(
                    try await store.read(location, range: 0..<size) == bytes,
                    "\(size) bytes announced as \(announced ?? -1) differ")
                try await store.delete(location)
            }
        }
        let whole = pattern(5, 2_500_000)
        let location = try await write(store, whole, piece: 2_000_000, expectedBytes: nil)
        try require(try await store.read(location, range: 0..<2_500_000) == whole, "two large pieces differ")
        try await store.delete(location)
    }

    private static func ranges(_ store: any ExtentStore) async throws {
        for size in [100_000, 1_300_000] {
            let bytes = pattern(1, size)
            let location = try await write(store, bytes, expectedBytes: size)
            for range in [0..<1, 0..<0, size..<size, 1..<2, 4095..<4097, 5..<99_999, size - 1..<size, 0..<size] {
                let found = try await store.read(location, range: range)
                try require(
                    found == bytes.getSlice(at: bytes.readerIndex + range.lowerBound, length: range.count)!,
                    "range \(range)")
            }
            for range in [0..<size + 1, size..<size + 1, size - 1..<size + 4096, 10 << 40..<(10 << 40) + 1] {
                let code = await code { () throws(StorageEngineError) in
                    _ = try await store.read(location, range: range)
                }
                try requireEqual(code, .corrupt, "range \(range) of \(size) bytes")
            }
            try await store.delete(location)
        }
    }

    private static func emptyExtent(_ store: any ExtentStore) async throws {
        let location = try await write(store, ByteBuffer(), expectedBytes: 0)
        try requireEqual(try await store.read(location, range: 0..<0).readableBytes, 0, "bytes")
        try require(
            try await listed(store).contains { $0.location == location && $0.byteCount == 0 }, "it is not listed")
        try await store.delete(location)
    }

    private static func abandoned(_ store: any ExtentStore) async throws {
        let before = Set(try await listed(store).map(\.location))
        for size in [10_000, 2_000_000] {
            let aborted = try await store.create(expectedBytes: size)
            try await aborted.append(pattern(1, size))
            await aborted.abort()
            let code = await code { () throws(StorageEngineError) in _ = try await aborted.finish() }
            try require(code != nil, "an aborted writer finished")
            do {
                let dropped = try await store.create(expectedBytes: size)
                try await dropped.append(pattern(2, size))
            }
        }
        let sizes = Set([10_000, 2_000_000])
        let left = try await listed(store).filter { !before.contains($0.location) && sizes.contains($0.byteCount) }
        try requireEqual(left.count, 0, "extents that nobody finished")
    }

    private static func ended(_ store: any ExtentStore) async throws {
        let writer = try await store.create(expectedBytes: 3)
        try await writer.append(pattern(1, 3))
        let location = try await writer.finish()
        let again = await code { () throws(StorageEngineError) in _ = try await writer.finish() }
        try require(again != nil, "a writer finished twice")
        let append = await code { () throws(StorageEngineError) in try await writer.append(pattern(1, 3)) }
        try require(append != nil, "a finished writer took more bytes")
        await writer.abort()
        try requireEqual(
            try await store.read(location, range: 0..<3), pattern(1, 3), "abort after finish took the extent away")
        try await store.delete(location)
    }

    private static func deletion(_ store: any ExtentStore) async throws {
        for size in [5000, 1_500_000] {
            let neighbour = try await write(store, pattern(1, size), expectedBytes: size)
            let location = try await write(store, pattern(2, size), expectedBytes: size)
            let other = try await write(store, pattern(3, size), expectedBytes: size)
            try await store.delete(location)
            try await store.delete(location)
            let code = await code { () throws(StorageEngineError) in _ = try await store.read(location, range: 0..<size)
            }
            try requireEqual(code, .notFound, "reading a deleted extent of \(size) bytes")
            try require(try await !listed(store).contains { $0.location == location }, "a deleted extent is listed")
            try require(
                try await store.read(neighbour, range: 0..<size) == pattern(1, size), "the extent before was damaged")
            try require(
                try await store.read(other, range: 0..<size) == pattern(3, size), "the extent behind was damaged")
            try await store.delete(neighbour)
            try await store.delete(other)
            try await store.delete(location)
        }
    }

    private static func listing(_ store: any ExtentStore) async throws {
        var written: [ExtentLocation: Int] = [:]
        for (seed, size) in [7, 100, 1_200_000, 9, 2_000_000, 70_000, 11].enumerated() {
            written[try await write(store, pattern(seed, size), expectedBytes: size)] = size
        }
        for pageSize in [1, 2, 1000] {
            let found = try await listed(store, pageSize: pageSize)
            try requireEqual(Set(found.map(\.location)).count, found.count, "extents listed twice")
            let mine = found.filter { written[$0.location] != nil }
            try requireEqual(mine.count, written.count, "extents listed in pages of \(pageSize)")
            try require(mine.allSatisfy { $0.byteCount == written[$0.location] && $0.isRecent }, "sizes and ages")
        }
        // Deleting the extent where a page ended does not confuse the next page.
        let first = try await listed(store).filter { written[$0.location] != nil }
        try await store.delete(first[2].location)
        let rest = try await store.list(after: first[2].location, limit: 1000).filter { written[$0.location] != nil }
        try requireEqual(rest.map(\.location), first[3...].map(\.location), "after a deleted extent")
        for location in written.keys { try await store.delete(location) }
    }

    private static func locations(_ store: any ExtentStore) async throws {
        var seen: Set<ExtentLocation> = []
        for round in 0..<20 {
            let location = try await write(store, pattern(round, 10), expectedBytes: 10)
            try require(
                location.bytes.count <= 64 && !location.bytes.isEmpty, "a location of \(location.bytes.count) bytes")
            try require(seen.insert(location).inserted, "a location was given twice")
            try await store.delete(location)
        }
    }

    private static func concurrentWriters(_ store: any ExtentStore) async throws {
        try await withThrowingTaskGroup { group in
            for seed in 0..<24 {
                group.addTask {
                    let size = seed % 6 == 0 ? 1_100_000 + seed : 1000 * seed + 1
                    let location = try await write(
                        store, pattern(seed, size), piece: 30_000, expectedBytes: seed % 2 == 0 ? size : nil)
                    try require(
                        try await store.read(location, range: 0..<size) == pattern(seed, size), "extent \(seed) differs"
                    )
                    try await store.delete(location)
                }
            }
            try await group.waitForAll()
        }
    }

    private static func readsBesideDeletes(_ store: any ExtentStore) async throws {
        let kept = try await write(store, pattern(1, 200_000), expectedBytes: 200_000)
        try await withThrowingTaskGroup { group in
            for seed in 2..<8 {
                group.addTask {
                    let size = 50_000
                    let location = try await write(store, pattern(seed, size), expectedBytes: size)
                    async let deletion: Void = store.delete(location)
                    var found: ByteBuffer?
                    let code = await code { () throws(StorageEngineError) in
                        found = try await store.read(location, range: 0..<size)
                    }
                    try require(code == nil || code == .notFound, "reading beside a deletion")
                    try require(found == nil || found == pattern(seed, size), "half a deleted extent was read")
                    try await deletion
                }
            }
            try await group.waitForAll()
        }
        try require(try await store.read(kept, range: 0..<200_000) == pattern(1, 200_000), "an extent nobody deleted")
        try await store.delete(kept)
    }

    private static func strangeLocations(_ store: any ExtentStore) async throws {
        var random = FixedSequence(seed: 11)
        for count in [0, 1, 2, 8, 9, 24, 25, 26, 64] {
            for kind in [0, 1, 2, 3, 0xff] as [UInt8] {
                let location = ExtentLocation(Array(([kind] + random.bytes(64)).prefix(count)))
                let code = await code { () throws(StorageEngineError) in
                    _ = try await store.read(location, range: 0..<1)
                }
                try requireEqual(code, .notFound, "location \(location.bytes)")
            }
        }
    }
}
