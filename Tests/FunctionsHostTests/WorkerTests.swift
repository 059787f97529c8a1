import CofferCore
import Foundation
import NIOCore
import NIOHTTP1
import Testing

@testable import FunctionsHost

/// From the package to the answer, with a real sandbox and a real Python handler.
@Suite(.enabled(if: canSandbox))
struct WorkerTests {
    @Test func servesThroughTheGate() async throws {
        let world = try await World(settings: [
            "WEBSITE_RUN_FROM_PACKAGE": World.package, "GREETING": "it's $HOME `x` \"é\"", "A:B": "colon", "LD_PRELOAD_": "x",
        ])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        defer { Task { await world.runtime.shutdown() } }
        let keys = try await world.runtime.hostKeys(of: world.id)
        let key = try #require(keys.functionKeys.first).value.reveal()
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 401)
        #expect(try await world.send(world.get("/api/HttpTrigger1?code=wrong")).status == 401)
        let answer = try await world.send(
            world.request(.POST, "/api/httptrigger1?a=1", headers: ["x-functions-key": key, "X-MS-CLIENT-PRINCIPAL": "forged"], body: "hello"))
        #expect(answer.status == 200)
        #expect(answer.headers.first(name: "X-Own") == "1")
        let json = try JSONValue(parsing: Array(answer.body.utf8))
        #expect(json["text"] == "package one")
        #expect(json["path"] == "/api/httptrigger1?a=1")
        #expect(json["body"] == "hello")
        #expect(json["greeting"] == "it's $HOME `x` \"é\"")
        #expect(json["write"] == "OSError")
        #expect(json["etc"] == "FileNotFoundError")
        #expect(json["home"] == "FileNotFoundError")
        #expect(json["tmp"] == "1")
        #expect(json["headers"]?["X-MS-CLIENT-PRINCIPAL"] == nil)
        #expect(json["headers"]?["X-Forwarded-For"] == "198.51.100.7")
        #expect(json["headers"]?["X-Forwarded-Proto"] == "https")
        let environment = (json["environment"]?.arrayValue ?? []).compactMap(\.stringValue)
        #expect(environment.contains("A__B"))
        #expect(environment.contains("WEBSITE_SITE_NAME"))
        #expect(!environment.contains("PYENV_ROOT"))
        // The sandbox's first process, the shells' successor, and nothing else of the machine.
        #expect((json["pids"]?.arrayValue ?? []).count <= 3)
        #expect((json["root"]?.arrayValue ?? []).contains("work") == false)
        #expect(json["uid"] != 0)
        let functionKeys = try await world.runtime.functionKeys("HttpTrigger1", of: world.id)
        let own = try #require(functionKeys.first).value.reveal()
        #expect(try await world.send(world.get("/api/HttpTrigger1?code=\(own)")).status == 200)
        #expect(try await world.send(world.get("/admin/host/status", headers: ["x-functions-key": key])).status == 403)
        let status = try await world.send(world.get("/admin/host/status", headers: ["x-functions-key": keys.masterKey.reveal()]))
        #expect(status.status == 200)
        #expect(try JSONValue(parsing: Array(status.body.utf8))["state"] == "Running")
    }
}
