/// One promise of an engine, as a function that throws `ConformanceFailure` when it is broken.
///
/// A test target runs them all: `@Test(arguments: MetadataStoreConformance.checks) func conforms(check: …) { try await
/// check.run(engine) }`. Every check uses partitions of its own, so they may share one engine and run in parallel.
public struct ConformanceCheck<Engine: Sendable>: Sendable, CustomStringConvertible {
    public let name: String
    public let run: @Sendable (Engine) async throws -> Void
    public var description: String { name }
}

public struct ConformanceFailure: Error, CustomStringConvertible {
    public let description: String
}

func require(_ condition: Bool, _ message: @autoclosure () -> String, line: Int = #line) throws {
    if !condition { throw ConformanceFailure(description: "\(message()) (line \(line))") }
}

func requireEqual<Value: Equatable>(
    _ found: Value, _ expected: Value, _ message: @autoclosure () -> String, line: Int = #line
) throws {
    if found != expected {
        throw ConformanceFailure(description: "\(message()): found \(found), expected \(expected) (line \(line))")
    }
}

/// A sequence of numbers that is the same in every run (SplitMix64).
struct FixedSequence: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}
