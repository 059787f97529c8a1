import EncryptionAtRest
import Foundation
import Testing

@testable import coffer

/// A search that finds nothing proves something only if it would find what is there.
@Suite struct PlaintextSearchTests {
    private let home = TestHome()
    private let text = Array("a sentence of some length that only one customer ever wrote".utf8)

    /// What a search for pieces of `opened` says of a file of `bytes`.
    private func findings(_ opened: [UInt8], in bytes: [UInt8]) throws -> [String] {
        let folder = home.path + "/searched"
        try FileManager.default.createDirectory(atPath: folder + "/below", withIntermediateDirectories: true)
        try Data(bytes).write(to: URL(fileURLWithPath: folder + "/below/file"))
        let search = PlaintextSearch()
        for kind in SealedStore.Opened.allCases { opened.withUnsafeBytes { search.add(kind, $0) } }
        try search.search(below: folder)
        #expect(search.files == 1)
        return search.findings
    }

    @Test(arguments: [0, 1, 1_000, (4 << 20) - 30, (4 << 20) - 1, 4 << 20])
    func aPieceAnywhereIsFound(offset: Int) throws {
        let filling = [UInt8](repeating: 0x2e, count: offset)
        #expect(try findings(text, in: filling + text) == ["below/file"])
        #expect(try findings(text, in: filling + text.reversed()) == [])
    }

    @Test func runsOfOneByteAreNoText() throws {
        let zeros = [UInt8](repeating: 0, count: 4_096)
        #expect(try findings(zeros, in: zeros) == [])
    }

    /// Each would be compared at every byte of a hole: with thousands of them a search would not end.
    @Test func noSampleBeginsWithARun() {
        let search = PlaintextSearch()
        ([UInt8](repeating: 0, count: 8) + text).prefix(PlaintextSearch.sampleBytes).withUnsafeBytes {
            search.add(.record, $0)
        }
        #expect(search.samples == 0)
    }

    /// Many of one kind leave room for the others.
    @Test func eachKindIsSampled() {
        let search = PlaintextSearch()
        for number in 0..<PlaintextSearch.sampleLimit {
            Array("record number \(number) of a great many".utf8).withUnsafeBytes { search.add(.record, $0) }
        }
        let before = search.samples
        text.withUnsafeBytes { search.add(.content, $0) }
        #expect(search.samples > before)
    }
}
