import StorageEngine
import StorageEngineTesting
import Testing

@Suite struct InMemoryEngineTests {
    @Test(arguments: MetadataStoreConformance.checks)
    func keepsMetadataPromise(check: MetadataStoreConformance.Check) async throws {
        try await check.run(InMemoryEngine())
    }

    @Test(arguments: ExtentStoreConformance.checks)
    func keepsExtentPromise(check: ExtentStoreConformance.Check) async throws {
        try await check.run(InMemoryEngine())
    }

    @Test func prefixEnd() {
        #expect(RowKey("a/").prefixEnd == RowKey("a0"))
        #expect(RowKey([1, 0xff, 0xff]).prefixEnd == RowKey([2]))
        #expect(RowKey([0xff, 0xff]).prefixEnd == nil)
        #expect(RowKey([]).prefixEnd == nil)
    }
}
