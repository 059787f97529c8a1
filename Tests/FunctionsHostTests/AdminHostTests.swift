import CofferCore
import Foundation
import HTTPEdge
import NIOCore
import NIOHTTP1
import Synchronization
import TestSupport
import Testing

@testable import FunctionsHost

/// The admin API beyond keys and status, with the master key.
struct AdminHostTests {
    private struct Admin {
        let world: World
        let headers: HTTPHeaders

        init(_ zip: ZipBuilder? = handlerPackage(), settings: [String: String] = [:]) async throws {
            var settings = settings
            if zip != nil { settings["WEBSITE_RUN_FROM_PACKAGE"] = World.package }
            world = try await World(settings: settings)
            if let zip { world.storage.put(World.package, Array(zip.build().readableBytesView)) }
            headers = ["x-functions-key": try await world.runtime.hostKeys(of: world.id).masterKey.reveal()]
        }
        @discardableResult
        func send(_ method: HTTPMethod, _ path: String, _ body: String? = nil) async throws -> World.Answer {
            try await world.send(world.request(method, "/admin/" + path, headers: headers, body: body))
        }
        func json(_ path: String) async throws -> JSONValue {
            try JSONValue(parsing: Array(try await send(.GET, path).body.utf8))
        }
    }

    @Test func linesReachTheLog() async throws {
        let admin = try await Admin()
        let lines = """
            [{"level":"Error","source":"s","functionName":"F","message":"one"},{"level":3,"message":"two"},
            {"level":"verbose","message":"three"},{"level":"Off","message":"four"}]
            """
        #expect(try await admin.send(.POST, "host/log", lines).status == 200)
        let entries = admin.world.logs.entries.withLock { $0.filter { $0.category == "Host.Controllers.Host" } }
        #expect(entries.map(\.message) == ["one", "two"] && entries.map(\.level) == [.error, .information])
        #expect(entries.map(\.functionName) == ["F", nil] && entries.allSatisfy { $0.site == admin.world.id })
        let long = String(repeating: "x", count: 60_000)
        #expect(try await admin.send(.POST, "host/log", #"[{"level":1,"message":"\#(long)"}]"#).status == 200)
        let bytes = admin.world.logs.entries.withLock { $0.last?.message.utf8.count ?? 0 }
        #expect((1...FunctionLogEntry.messageLimitBytes).contains(bytes))
        // Of a list with a fault nothing is written.
        let before = admin.world.logs.entries.withLock { $0.count }
        for bad in [
            "", "{}", "null", "[1]", #"[{"level":1,"message":"a"},{"level":1}]"#, #"[{"level":9,"message":"a"}]"#,
            #"[{"message":"a"}]"#,
        ] {
            #expect(try await admin.send(.POST, "host/log", bad).status == 400, "\(bad.prefix(40))")
        }
        #expect(try await admin.send(.POST, "host/log", "[\"\(long)\(long)\"]").status == 413)
        #expect(admin.world.logs.entries.withLock { $0.count } == before)
    }

    /// One app's lines must not push out another's: all or none of a request is kept.
    @Test func linesAreCutAndCounted() async throws {
        let admin = try await Admin()
        let marks = String(repeating: "\u{301}", count: 20_000)
        let name = String(repeating: "é", count: 100)
        #expect(
            try await admin.send(
                .POST, "host/log", "[{\"level\":1,\"functionName\":\"\(name)\",\"message\":\"e\(marks)\"}]"
            ).status == 200)
        let line = try #require(admin.world.logs.entries.withLock { $0.last })
        #expect(line.message.utf8.count == FunctionLogEntry.messageLimitBytes - 1)
        #expect(line.functionName?.utf8.count == 128)
        let many = "[" + Array(repeating: #"{"level":1,"message":""}"#, count: 1_001).joined(separator: ",") + "]"
        let before = admin.world.logs.entries.withLock { $0.count }
        #expect(try await admin.send(.POST, "host/log", many).status == 413)
        #expect(admin.world.logs.entries.withLock { $0.count } == before)
    }

    /// What is refused takes nothing of the second's room.
    @Test func anAllowanceGivesAllOrNothing() {
        var allowance = LineAllowance()
        let now = NIODeadline.uptimeNanoseconds(7_900_000_000)
        let taken = [600, 401, 400, 1].map { allowance.take($0, now: now) }
        #expect(taken == [true, false, true, false])
        let next = allowance.take(1_000, now: now + .milliseconds(200))
        #expect(next)
    }

    @Test func configurationIsWhatIsInForce() async throws {
        let zip = handlerPackage().replacing(
            "host.json",
            """
            {"version":"2.0","extensions":{"http":{"routePrefix":"v1","maxConcurrentRequests":7,
            "customHeaders":{"X-A":"b"}}},"customHandler":{"description":{"defaultExecutablePath":"handler"}}}
            """)
        let http = try await Admin(zip).json("host/config")["extensions"]?["http"]
        #expect(
            http == ["routePrefix": "v1", "maxConcurrentRequests": 7, "customHeaders": ["X-A": "b"]])
        #expect(try await Admin(nil).json("host/config") == ["extensions": ["http": ["routePrefix": "api"]]])
        let broken = try await Admin(handlerPackage().replacing("host.json", "{}"))
        #expect(try await broken.send(.GET, "host/config").status == 503)
    }

    @Test(.enabled(if: canSandbox))
    func drainingCountsCallsUntilItResumes() async throws {
        let admin = try await Admin()
        defer { Task { [world = admin.world] in await world.runtime.shutdown() } }
        #expect(try await admin.send(.POST, "host/resume").status == 409)
        #expect(try await admin.json("host/drain/status")["state"] == "Disabled")
        let host = try #require(admin.world.runtime.entry(named: "myapp")).host
        let app = try await host.app()
        let worker = try #require(app.worker)
        _ = try #require(try await worker.acquire(limit: 2))
        #expect(try await admin.send(.POST, "host/drain").status == 202)
        #expect(
            try await admin.json("host/drain/status")
                == ["state": "InProgress", "outstandingInvocations": 1, "outstandingRetries": 0])
        worker.release()
        #expect(try await admin.json("host/drain/status")["state"] == "Completed")
        #expect(try await admin.send(.POST, "host/resume").body == #"{"state":"Running"}"#)
        #expect(host.loadedApp() !== app)
        #expect(try await admin.json("host/drain/status")["state"] == "Disabled")
        // What does not drain goes on as it is.
        let running = host.loadedApp()
        #expect(try await admin.send(.POST, "host/resume").status == 200)
        #expect(host.loadedApp() === running)
        #expect(try await admin.send(.GET, "host/drain").status == 501)
    }

    // MARK: Running

    /// Writes what it was asked to its output.
    private static let echo = """
        #!/usr/bin/env python3
        import os, json
        from http.server import BaseHTTPRequestHandler, HTTPServer
        class H(BaseHTTPRequestHandler):
            def do_POST(s):
                body = s.rfile.read(int(s.headers["Content-Length"])).decode()
                print("asked", s.command, s.path, s.headers["Content-Type"], body, flush=True)
                s.send_response(500 if "fail" in body else 200)
                s.send_header("Content-Length", "0"); s.end_headers()
            do_GET = do_POST
            def log_message(s, *a): pass
        HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
        """
    private func message(_ world: World, _ matches: @Sendable (String) -> Bool) async throws -> String? {
        for _ in 0..<400 {
            if let found = world.logs.entries.withLock({ $0.first { matches($0.message) } }) { return found.message }
            try await Task.sleep(for: .milliseconds(25))
        }
        return nil
    }

    @Test(.enabled(if: canSandbox))
    func aFunctionRunsWithItsInput() async throws {
        var zip = handlerPackage(handler: Self.echo)
        zip.add(
            "Off/function.json",
            """
            {"disabled":true,"bindings":[{"type":"httpTrigger","name":"req","methods":["get"],"route":"a b/off"},
            {"type":"http","direction":"out","name":"res"}]}
            """)
        let admin = try await Admin(zip)
        let world = admin.world
        defer { Task { await world.runtime.shutdown() } }
        #expect(try await admin.send(.POST, "functions/httptrigger1", #"{"input":"{\"a\":1}"}"#).status == 202)
        let line = try await message(world) { $0.hasPrefix("asked POST") }
        #expect(line == #"asked POST /api/HttpTrigger1 application/json {"a":1}"#)
        #expect(try await message(world) { $0.hasPrefix("Executed 'Functions.HttpTrigger1'") } != nil)
        // Also one that is disabled, with the method it takes.
        #expect(try await admin.send(.POST, "functions/Off", #"{"input":"hello"}"#).status == 202)
        #expect(
            try await message(world) { $0.hasPrefix("asked GET") }
                == "asked GET /api/a%20b/off text/plain; charset=utf-8 hello")
        #expect(try await admin.send(.POST, "functions/Off", #"{"input":"fail"}"#).status == 202)
        #expect(try await message(world) { $0.hasSuffix("ended with 500.") } != nil)
        // Nobody waits for it any longer.
        let host = try #require(world.runtime.entry(named: "myapp")).host
        let worker = try #require(try await host.app().worker)
        for _ in 0..<200 where worker.callers > 0 { try await Task.sleep(for: .milliseconds(10)) }
        #expect(worker.callers == 0)
    }

    @Test func whatCannotRunSaysWhy() async throws {
        var zip = handlerPackage()
        zip.add(
            "Timer/function.json", #"{"bindings":[{"type":"timerTrigger","name":"t","schedule":"0 * * * * *"}]}"#)
        zip.add(
            "Item/function.json",
            """
            {"bindings":[{"type":"httpTrigger","name":"req","route":"items/{id}"},
            {"type":"http","direction":"out","name":"res"}]}
            """)
        let admin = try await Admin(zip)
        for body in ["", "[]", "x", #"{"input":1}"#] {
            #expect(try await admin.send(.POST, "functions/HttpTrigger1", body).status == 400)
        }
        #expect(try await admin.send(.POST, "functions/None", "{}").status == 404)
        let timer = try await admin.send(.POST, "functions/Timer", "{}")
        #expect(timer.status == 404 && timer.body.contains("timerTrigger"))
        let item = try await admin.send(.POST, "functions/Item", "{}")
        #expect(item.status == 400 && item.body.contains("parameters"))
        let plain = try await Admin(handlerPackage().replacing("host.json", #"{"version":"2.0"}"#))
        #expect(try await plain.send(.POST, "functions/HttpTrigger1", "{}").status == 503)
    }

    // MARK: Files

    private static func files() -> ZipBuilder {
        var zip = handlerPackage("some text")
        zip.add("lib/deep/ü b.JSON", "{}")
        zip.add("lib/link", "deep/ü b.JSON", mode: 0o120777)
        zip.add("lib.txt", "beside")
        return zip
    }

    @Test func theAppsFilesAreReadAndNotWritten() async throws {
        let admin = try await Admin(Self.files())
        func names(_ path: String) async throws -> [String] {
            try await admin.json("vfs/" + path).arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
        }
        #expect(try await names("") == ["site"])
        #expect(try await names("site/") == ["wwwroot"])
        #expect(
            try await names("site/wwwroot/") == ["HttpTrigger1", "data.txt", "handler", "host.json", "lib", "lib.txt"])
        #expect(try await names("site/wwwroot/lib/") == ["deep"])
        let entry = try await admin.json("vfs/site/wwwroot/lib/deep/").arrayValue?.first
        #expect(entry?["size"] == 2 && entry?["mime"] == "application/json")
        #expect(entry?["path"] == "/home/site/wwwroot/lib/deep/ü b.JSON")
        let address = try #require(entry?["href"]?.stringValue)
        #expect(address.hasSuffix("/admin/vfs/site/wwwroot/lib/deep/%C3%BC%20b.JSON"))
        let file = try await admin.send(.GET, "vfs/site/wwwroot/data.txt")
        #expect(file.status == 200 && file.body == "some text")
        #expect(file.headers.first(name: "Content-Type") == "text/plain")
        #expect(try await admin.send(.GET, "vfs/site/wwwroot/lib/deep/%C3%BC%20b.JSON").body == "{}")
        let moved = try await admin.send(.GET, "vfs/site/wwwroot/lib?a=b")
        #expect(moved.status == 307)
        #expect(moved.headers.first(name: "Location")?.hasSuffix("/admin/vfs/site/wwwroot/lib/?a=b") == true)
        for (path, status) in [
            ("site/wwwroot/../../etc/passwd", 403), ("%2e%2e/etc/passwd", 403), ("site/./wwwroot", 403), ("etc", 404),
            ("site/other/", 404), ("site/wwwroot/Data.txt", 404), ("site/wwwroot/lib/link", 404),
            ("site/wwwroot/data.txt/x", 404), ("site%2fwwwroot%2fdata.txt", 404),
        ] {
            #expect(try await admin.send(.GET, "vfs/" + path).status == status, "\(path)")
        }
        #expect(try await admin.send(.PUT, "vfs/site/wwwroot/data.txt", "x").status == 409)
        #expect(try await admin.send(.DELETE, "vfs/site/wwwroot/data.txt").status == 409)
        #expect(try await admin.send(.POST, "vfs/site/wwwroot/data.txt", "x").status == 405)
        let world = admin.world
        #expect(try await world.send(world.get("/admin/vfs/site/wwwroot/data.txt")).status == 401)
        let function = try await world.runtime.hostKeys(of: world.id).functionKeys[0].value.reveal()
        #expect(try await world.send(world.get("/admin/vfs/?code=\(function)")).status == 401)
        #expect(try await Admin(nil).json("vfs/site/wwwroot/") == [])
    }

    @Test func whatIsDownloadedIsThePackageAgain() async throws {
        let admin = try await Admin(Self.files())
        let response = await admin.world.gate.respond(
            to: admin.world.request(.GET, "/admin/functions/download", headers: admin.headers))
        guard case .stream(length: let length, let write) = response.body else {
            Issue.record("no stream")
            return
        }
        let collector = World.Collector()
        try await write(collector)
        let zip = collector.buffer.withLock { $0 }
        #expect(response.status == .ok && length == zip.readableBytes)
        #expect(response.headers.first(name: "Content-Type") == "application/zip")
        func package(_ zip: ByteBuffer) throws -> Package {
            try Package(zip, of: "a", limits: PackageLimits(), memory: PackageMemory(limitBytes: 1 << 30))
        }
        func contents(_ package: Package) -> [String: String] {
            Dictionary(
                package.items.map { item in
                    switch item.kind {
                    case .folder: (item.path, "folder")
                    case .link(let target, _): (item.path, "to " + target)
                    case .file(let offset, let bytes, _, let isExecutable):
                        (item.path, "\(isExecutable) \(package.archive.read(at: offset, count: bytes).hex)")
                    }
                }
            ) { _, last in last }
        }
        let (before, after) = (try package(Self.files().build()), try package(zip))
        #expect(contents(before) == contents(after) && before.files == after.files && after.items.count == 10)
        #expect(try await admin.send(.GET, "functions/download?includeAppSettings=true").status == 501)
        let empty = try await Admin(nil).send(.GET, "functions/download")
        #expect(empty.status == 200 && empty.body.utf8.count == 22)
    }
}
