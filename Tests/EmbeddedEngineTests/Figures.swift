import CofferCore
import Foundation
import StorageEngine
import Testing

@testable import EmbeddedEngine

/// Printed on request only: COFFER_FIGURES=1 swift test --filter Figures
@Suite(.serialized, .enabled(if: ProcessInfo.processInfo.environment["COFFER_FIGURES"] != nil)) struct Figures {
    private func microseconds(_ body: () async throws -> Void) async rethrows -> Double {
        let start = ContinuousClock.now
        try await body()
        return (ContinuousClock.now - start) / .microseconds(1)
    }

    @Test func figures() async throws {
        let directory = TestDirectory(onDisk: true)
        let engine = try directory.open()
        let partition = Partition("account/container")
        for batch in 0..<20 {
            let writes = (0..<500).map {
                RowWrite.put(RowKey("blob name \(batch * 500 + $0)"), [UInt8](repeating: 7, count: 300))
            }
            _ = try await engine.commit(partition, checks: [], writes: writes)
        }
        let reads = 20_000
        let perRead =
            try await microseconds {
                for index in 0..<reads {
                    _ = try await engine.get(partition, [RowKey("blob name \(index * 7919 % 10_000)")])
                }
            } / Double(reads)
        print("FIGURE point read \(perRead) us")
        let scan = try await microseconds {
            _ = try await engine.scan(partition, from: RowKey("blob"), upTo: nil, limit: 5000)
        }
        print("FIGURE scan 5000 \(scan / 1000) ms")
        for callers in [1, 16, 64] {
            let each = 2000 / callers
            let time = try await microseconds {
                try await withThrowingTaskGroup { group in
                    for caller in 0..<callers {
                        group.addTask {
                            for index in 0..<each {
                                let key = RowKey("caller \(caller) \(index)")
                                _ = try await engine.commit(
                                    partition, checks: [.absent(key)],
                                    writes: [.put(key, [UInt8](repeating: 7, count: 300))])
                            }
                        }
                    }
                    try await group.waitForAll()
                }
            }
            print("FIGURE \(callers) callers \(Double(each * callers) / time * 1e6) commits/s")
        }
        for (size, count, callers) in [(16 << 10, 1000, 16), (256 << 10, 200, 16), (16 << 20, 16, 2)] {
            let time = try await microseconds {
                try await withThrowingTaskGroup { group in
                    for _ in 0..<callers {
                        group.addTask { for _ in 0..<count / callers { _ = try await extent(engine, 1, size) } }
                    }
                    try await group.waitForAll()
                }
            }
            let done = count / callers * callers
            print(
                "FIGURE extents of \(size >> 10) KiB, \(callers) callers: \(Double(done) / time * 1e6)/s, \(Double(done * size) / time) MB/s"
            )
        }
        engine.close()
    }
}
