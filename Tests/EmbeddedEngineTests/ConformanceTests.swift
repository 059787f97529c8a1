import StorageEngine
import StorageEngineTesting
import Testing

@testable import EmbeddedEngine

@Suite struct ConformanceTests {
    @Test(arguments: MetadataStoreConformance.checks, EngineFormat.allCases)
    func keepsMetadataPromise(check: MetadataStoreConformance.Check, format: EngineFormat) async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(format: format))
        try await check.run(engine)
        engine.close()
    }

    @Test(arguments: ExtentStoreConformance.checks)
    func keepsExtentPromise(check: ExtentStoreConformance.Check) async throws {
        let directory = TestDirectory(onDisk: true)
        let engine = try directory.open()
        try await check.run(engine)
        engine.close()
    }

    /// Everything again with segments and caches so small that every road around them is taken.
    @Test(arguments: ExtentStoreConformance.checks)
    func keepsExtentPromiseInTightSpaces(check: ExtentStoreConformance.Check) async throws {
        let directory = TestDirectory()
        let engine = try directory.open(options: .init(segmentBytes: 64 << 10, openFilesLimit: 4))
        try await check.run(engine)
        engine.close()
    }

    /// All checks on one engine, one after the other, opened anew between them.
    @Test func keepsPromisesAcrossRestarts() async throws {
        let directory = TestDirectory()
        for check in MetadataStoreConformance.checks where check.name != "values up to a mebibyte come back whole" {
            let engine = try directory.open()
            try await check.run(engine)
            engine.close()
        }
    }
}
