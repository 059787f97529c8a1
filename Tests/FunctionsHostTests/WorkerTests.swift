import CofferCore
import Foundation
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// From the package to the answer, with a real sandbox and a real Python handler.
@Suite(.enabled(if: canSandbox))
struct WorkerTests {
    @Test func servesThroughTheGate() async throws {
        let world = try await World(settings: [
            "WEBSITE_RUN_FROM_PACKAGE": World.package, "GREETING": "it's $HOME `x` \"é\"", "A:B": "colon",
            "LD_PRELOAD_": "x",
        ])
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        defer { Task { await world.runtime.shutdown() } }
        let keys = try await world.runtime.hostKeys(of: world.id)
        let key = try #require(keys.functionKeys.first).value.reveal()
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 401)
        #expect(try await world.send(world.get("/api/HttpTrigger1?code=wrong")).status == 401)
        let answer = try await world.send(
            world.request(
                .POST, "/api/httptrigger1?a=1", headers: ["x-functions-key": key, "X-MS-CLIENT-PRINCIPAL": "forged"],
                body: "hello"))
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
        let status = try await world.send(
            world.get("/admin/host/status", headers: ["x-functions-key": keys.masterKey.reveal()]))
        #expect(status.status == 200)
        #expect(try JSONValue(parsing: Array(status.body.utf8))["state"] == "Running")
    }

    private func world(_ zip: ZipBuilder, settings: [String: String] = [:], _ change: (inout Site) -> Void = { _ in })
        async throws -> World
    {
        let world = try await World(
            settings: settings.merging(["WEBSITE_RUN_FROM_PACKAGE": World.package]) { a, _ in a }, change)
        world.storage.put(World.package, Array(zip.build().readableBytesView))
        return world
    }

    /// A handler that does not see requests but invocations.
    @Test func exchangesPayloads() async throws {
        let handler = """
            #!/usr/bin/python3
            import os, json
            from http.server import BaseHTTPRequestHandler, HTTPServer
            class H(BaseHTTPRequestHandler):
                def do_POST(s):
                    data = json.loads(s.rfile.read(int(s.headers["Content-Length"])))
                    req = data["Data"]["req"]
                    if req["Query"].get("fail"):
                        s.send_response(500); s.end_headers(); return
                    out = {"Outputs": {"res": {"statusCode": 201, "headers": {"X-Made": "1"},
                        "body": json.dumps([s.path, req["Method"], req["Params"], req["Query"],
                            req.get("Body"), data["Metadata"]["sys"]["MethodName"]])}},
                        "Logs": ["one line"]}
                    b = json.dumps(out).encode()
                    s.send_response(200); s.send_header("Content-Type", "application/json")
                    s.send_header("Content-Length", str(len(b)))
                    s.end_headers(); s.wfile.write(b)
                def log_message(s, *a): pass
            HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
            """
        let world = try await world(handlerPackage(level: "anonymous", forwarding: false, handler: handler))
        let answer = try await world.send(world.request(.POST, "/api/HttpTrigger1?a=1&a=2", body: "text"))
        #expect(answer.status == 201 && answer.headers.first(name: "X-Made") == "1")
        #expect(answer.body == #"["/HttpTrigger1", "POST", {}, {"a": "1,2"}, "text", "HttpTrigger1"]"#)
        #expect(
            world.logs.entries.withLock {
                $0.contains { $0.message == "one line" && $0.functionName == "HttpTrigger1" }
            })
        #expect(try await world.send(world.get("/api/HttpTrigger1?fail=1")).status == 500)
        await world.runtime.shutdown()
    }

    /// The processes of this machine that were started with `argument`.
    private func processes(with argument: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc").filter { process in
            guard Int(process) != nil, let line = FileManager.default.contents(atPath: "/proc/\(process)/cmdline")
            else {
                return false
            }
            return line.split(separator: 0).contains { $0.elementsEqual(argument.utf8) }
        }
    }

    @Test func failuresAreSaid() async throws {
        let gone = try await world(handlerPackage(level: "anonymous", handler: "#!/bin/sh\necho broken >&2\nexit 3"))
        let answer = try await gone.send(gone.get("/api/HttpTrigger1"))
        #expect(answer.status == 503 && answer.body.contains("exited with code 3"))
        #expect(answer.headers.first(name: "Retry-After") == "1")
        await gone.runtime.shutdown()
        let deaf = try await world(
            handlerPackage(level: "anonymous", handler: "#!/bin/sh\nexec sleep 604731").replacing(
                "host.json",
                #"{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},"#
                    + #""initializationTimeout":"00:00:01"}}"#
            ))
        let silent = try await deaf.send(deaf.get("/api/HttpTrigger1"))
        #expect(silent.status == 503 && silent.body.contains("did not listen"))
        await deaf.runtime.shutdown()
        #expect(try processes(with: "604731") == [], "what never listened is left running")
        let none = try await world(
            handlerPackage().replacing("host.json", #"{"version":"2.0"}"#),
            settings: ["FUNCTIONS_WORKER_RUNTIME": "node"])
        #expect(
            try await none.runtime.functions(of: none.id).first?.errors.first?.contains("custom handlers only") == true)
    }

    /// Gone with the server, and back after it fell.
    @Test func endsAndRestarts() async throws {
        let handler = """
            #!/usr/bin/python3
            import os, sys
            from http.server import BaseHTTPRequestHandler, HTTPServer
            class H(BaseHTTPRequestHandler):
                def do_GET(s):
                    if "die" in s.path: os._exit(7)
                    b = str(os.getpid()).encode() + b" " + os.environ.get("TEXT", "").encode()
                    s.send_response(200); s.send_header("Content-Length", str(len(b))); s.end_headers()
                    s.wfile.write(b)
                def log_message(s, *a): pass
            print("up", flush=True)
            HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
            """
        let world = try await world(handlerPackage(level: "anonymous", handler: handler), settings: ["TEXT": "one"])
        #expect(try await world.send(world.get("/api/HttpTrigger1")).body.hasSuffix("one"))
        #expect(try await world.send(world.get("/api/HttpTrigger1?die")).status == 502)
        while try await world.send(world.get("/api/HttpTrigger1")).status != 503 { await Task.yield() }
        world.clock.advance(seconds: 2)
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 200)
        try await world.sites.update(world.id) { $0.secrets.appSettings["TEXT"] = RedactedString("two") }
        #expect(try await world.send(world.get("/api/HttpTrigger1")).body.hasSuffix("two"))
        #expect(world.logs.entries.withLock { $0.contains { $0.message == "up" && $0.category == "Worker" } })
        await world.runtime.shutdown()
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 503)
    }

    /// Who waits for the start of a worker is a call in flight like those it has already.
    @Test func theLimitCountsThoseWhoWaitForAStart() async throws {
        let world = try await world(
            handlerPackage(level: "anonymous").replacing(
                "host.json",
                #"{"version":"2.0","extensions":{"http":{"maxConcurrentRequests":2}},"customHandler":"#
                    + #"{"description":{"defaultExecutablePath":"handler"},"enableForwardingHttpRequest":true}}"#))
        let app = try #require(try await world.runtime.entry(named: "myapp")?.host.app())
        let worker = try #require(app.worker)
        let ports = try await withThrowingTaskGroup(of: Int?.self) { group in
            for _ in 0..<5 { group.addTask { try await worker.acquire(limit: 2) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(ports.count { $0 == nil } == 3)
        let busy = try await world.send(world.get("/api/HttpTrigger1"))
        #expect(busy.status == 429 && busy.headers.first(name: "X-FUNCTION-SCALEOUT") == "1")
        worker.release()
        #expect(try await world.send(world.get("/api/HttpTrigger1")).status == 200)
        worker.release()
        await world.runtime.shutdown()
    }
}
