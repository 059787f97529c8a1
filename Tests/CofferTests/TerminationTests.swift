import Foundation
import Testing

@testable import coffer

/// How the real program ends.
@Suite struct TerminationTests {
    /// A service manager may ask for the end at once, and waits long for one that is not heard.
    @Test func aServerEndsInGoodOrderAsSoonAsItIsReady() async throws {
        let program = try CofferProgram()
        for _ in 0..<5 {
            try await program.serving { _ in }
            #expect(!FileManager.default.fileExists(atPath: program.home.path + "/data/run.json"))
        }
    }

    @Test func aHangUpIsNotHeardUnderNohup() async throws {
        let program = try CofferProgram(through: ["nohup"])
        try await program.serving { state in
            #expect(kill(state.pid, SIGHUP) == 0)
            let status = try await program.run("status")
            #expect(status.code == 0)
        }
    }

    @Test func aHangUpEndsIt() async throws {
        let program = try CofferProgram()
        try await program.serving { state in #expect(kill(state.pid, SIGHUP) == 0) }
    }
}
