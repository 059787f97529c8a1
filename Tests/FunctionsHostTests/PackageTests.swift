import CofferCore
import Foundation
import NIOCore
import Testing

@testable import FunctionsHost

struct PackageTests {
    private func refused(_ zip: ByteBuffer, limits: PackageLimits = PackageLimits()) -> PackageError? {
        do throws(PackageError) {
            _ = try Package(zip, of: "app", limits: limits, memory: PackageMemory(limitBytes: 1 << 30))
            return nil
        } catch { return error }
    }
    private func refused(_ entries: ZipBuilder.Entry...) -> PackageError? {
        var zip = ZipBuilder()
        zip.entries = entries
        return refused(zip.build())
    }
    private func file(_ name: String, _ text: String = "x", mode: UInt32 = 0o100644) -> ZipBuilder.Entry {
        ZipBuilder.Entry(name: name, bytes: Array(text.utf8), mode: mode)
    }

    @Test func readsAPackage() throws {
        let package = try Package(
            handlerPackage().build(), of: "app", limits: PackageLimits(),
            memory: PackageMemory(limitBytes: 1 << 30))
        #expect(package.files == ["HttpTrigger1/function.json", "data.txt", "handler", "host.json"])
        #expect(package.configuration.keys.sorted() == ["HttpTrigger1/function.json", "host.json"])
    }

    @Test func otherFormatsAreNamed() {
        var tar = [UInt8](repeating: 0, count: 1_024)
        tar.replaceSubrange(257..<262, with: Array("ustar".utf8))
        let cases: [([UInt8], String)] = [
            ([0x1f, 0x8b, 8, 0], "GZIP"), ([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c, 0], "7z"),
            (Array("Rar!\u{1a}\u{7}".utf8), "RAR"),
            (tar, "TAR"), (Array("hsqs....".utf8), "squashfs"), (Array("<html>".utf8), "not a ZIP"), ([], "not a ZIP"),
        ]
        for (bytes, word) in cases {
            let error = refused(ByteBuffer(bytes: bytes))
            #expect(error?.reason == .notAZip && error?.message.contains(word) == true)
        }
    }

    @Test func hostileNamesAreRefused() {
        for name in [
            "../x", "a/../../x", "/etc/passwd", "C:/x", "a\\..\\..\\x", "a/\u{1}b", String(repeating: "a", count: 300),
            "a\u{7f}",
        ] {
            #expect(refused(file(name))?.reason == .unsafe, "\(name)")
        }
        #expect(refused(file(String(repeating: "d/", count: 70) + "x"))?.reason == .unsafe)
        var raw = file("x")
        raw.name = "x"
        #expect(refused(file("a"), file("a"))?.reason == .unsafe)
        #expect(refused(file("a"), file("./a"))?.reason == .unsafe)
        #expect(refused(file("a"), file("a/b"))?.reason == .unsafe)
        #expect(refused(file("a/b"), file("a"))?.reason == .unsafe)
        #expect(refused(file("ok/./x")) == nil)
    }

    @Test func linksStayInside() {
        let link: UInt32 = 0o120777
        for target in ["/etc/passwd", "../x", "a/../../x", "", "..", "a/b/../../../c"] {
            #expect(refused(file("link", target, mode: link))?.reason == .unsafe, "\(target)")
        }
        #expect(refused(file("d/link", "../data", mode: link), file("data")) == nil)
        #expect(refused(file("link", "dir", mode: link), file("link/x"))?.reason == .unsafe)
        for mode: UInt32 in [0o020666, 0o060666, 0o010666, 0o140777] {
            #expect(refused(file("dev", "", mode: mode))?.reason == .unsafe)
        }
    }

    @Test func allPackagesShareOneMemory() async throws {
        let memory = PackageMemory(limitBytes: 1 << 20)
        var first: Package? = try Package(
            handlerPackage().build(), of: "one", limits: PackageLimits(), memory: memory)
        var large = handlerPackage()
        large.add("large", String(repeating: "x", count: 460 << 10))
        #expect(throws: PackageError.self) {
            try Package(large.build(), of: "two", limits: PackageLimits(), memory: memory)
        }
        withExtendedLifetime(first) {}
        first = nil
        // Given back with the first; and one that was refused has taken nothing.
        _ = try Package(large.build(), of: "two", limits: PackageLimits(), memory: memory)
        var limits = PackageLimits()
        limits.mountedBytes = 16 << 10
        let world = try await World(settings: ["WEBSITE_RUN_FROM_PACKAGE": World.package], limits: limits)
        world.storage.put(World.package, Array(handlerPackage().build().readableBytesView))
        let answer = try await world.send(world.get("/api/HttpTrigger1"))
        #expect(answer.status == 503 && answer.body.contains("all mounted packages together may take"))
        #expect(answer.body.contains("--package-megabytes"))
    }

    /// A restart mounts the new package while the old worker still ends its requests.
    @Test func aPackageMakesRoomForItsSuccessor() throws {
        let memory = PackageMemory(limitBytes: 1 << 20)
        func mount(_ site: String, kibibytes: Int) throws -> Package {
            var zip = ZipBuilder()
            zip.add("large", String(repeating: "x", count: kibibytes << 10))
            return try Package(zip.build(), of: site, limits: PackageLimits(), memory: memory)
        }
        var replaced: Package? = try mount("one", kibibytes: 300)
        var successor: Package? = try mount("one", kibibytes: 400)
        // The larger of the two counts; a third of the same site, or one of another, in full.
        #expect(throws: PackageError.self) { try mount("one", kibibytes: 300) }
        #expect(throws: PackageError.self) { try mount("two", kibibytes: 200) }
        let small = try mount("two", kibibytes: 90)
        withExtendedLifetime(replaced) {}
        replaced = nil
        #expect(throws: PackageError.self) { try mount("two", kibibytes: 200) }
        withExtendedLifetime(successor) {}
        successor = nil
        withExtendedLifetime(small) {}
        _ = try mount("three", kibibytes: 400)
    }

    /// Empty files are cheap in a zip; the folders their paths name are not, once unpacked.
    @Test func foldersThatOnlyPathsNameCount() throws {
        var deep = ZipBuilder()
        for index in 0..<10 { deep.add((0..<8).map { "f\(index)-\($0)/" }.joined() + "x", "") }
        var limits = PackageLimits()
        limits.entries = 89
        let error = refused(deep.build(), limits: limits)
        #expect(error?.reason == .tooLarge && error?.message.contains("at most 89 are allowed") == true)
        limits.entries = 90
        #expect(refused(deep.build(), limits: limits) == nil)
        // In memory a page for each, twice.
        let needed = 2 * 90 * 4_096
        #expect(throws: PackageError.self) {
            try Package(deep.build(), of: "app", limits: limits, memory: PackageMemory(limitBytes: needed - 1))
        }
        _ = try Package(deep.build(), of: "app", limits: limits, memory: PackageMemory(limitBytes: needed))
        // One that several paths name counts once, one that has an entry as that entry.
        limits.entries = 3
        var shared = ZipBuilder()
        shared.add("folder/a", "")
        shared.add("folder/b", "")
        #expect(refused(shared.build(), limits: limits) == nil)
        shared.add("folder/", "", mode: 0o040755)
        #expect(refused(shared.build(), limits: limits) == nil)
        shared.add("other/c", "")
        #expect(refused(shared.build(), limits: limits)?.reason == .tooLarge)
    }

    @Test func limitsHold() {
        var many = ZipBuilder()
        for index in 0..<20 { many.add("f\(index)", "0123456789") }
        var limits = PackageLimits()
        limits.entries = 19
        #expect(refused(many.build(), limits: limits)?.reason == .tooLarge)
        limits = PackageLimits()
        limits.unpackedBytes = 199
        #expect(refused(many.build(), limits: limits)?.reason == .tooLarge)
        limits = PackageLimits()
        limits.archiveBytes = 100
        #expect(refused(many.build(), limits: limits)?.reason == .tooLarge)
        limits = PackageLimits()
        limits.configurationBytes = 10
        #expect(refused(handlerPackage().build(), limits: limits)?.reason == .configuration)
    }

    /// A real bomb: 64 MiB of zeros in some 64 KiB.
    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/python3"))) func bombsAreRefusedUnopened()
        throws
    {
        let python = Process()
        python.executableURL = URL(fileURLWithPath: "/usr/bin/python3")
        python.arguments = [
            "-c",
            """
            import io, sys, zipfile
            b = io.BytesIO()
            z = zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
            z.writestr("bomb", bytes(64 << 20))
            z.close()
            sys.stdout.buffer.write(b.getvalue())
            """,
        ]
        let pipe = Pipe()
        python.standardOutput = pipe
        try python.run()
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        python.waitUntilExit()
        #expect(bytes.count > 1_000 && bytes.count < 1 << 20)
        #expect(refused(ByteBuffer(bytes: bytes))?.reason == .unsafe)
    }

    @Test func liesOfTheDirectoryAreFound() {
        var entry = file("a", "hello")
        entry.claimedChecksum = 1
        #expect(refused(entry)?.reason == .broken)
        entry = file("a", "hello")
        entry.claimedSize = 500
        #expect(refused(entry) != nil)
        entry = file("a", "hello")
        entry.claimedSize = 3
        #expect(refused(entry) != nil)
        entry = file("a", "hello")
        entry.claimedPackedSize = 0
        #expect(refused(entry) != nil)
        entry = file("a", "hello")
        entry.flags = 1
        #expect(refused(entry) != nil)
        entry = file("a", "hello")
        entry.method = 99
        #expect(refused(entry) != nil)
    }

    @Test func damagedArchivesNeverCrash() {
        let good = Array(handlerPackage().build().readableBytesView)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<400 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...8, using: &generator) {
                bytes[Int.random(in: bytes.indices, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            _ = refused(ByteBuffer(bytes: bytes))
        }
        for count in stride(from: 0, to: good.count, by: 37) {
            #expect(refused(ByteBuffer(bytes: good.prefix(count))) != nil)
        }
    }

    @Test func tarIsWhatTarReads() throws {
        let deep = (0..<20).map { "folder-number-\($0)" }.joined(separator: "/")
        var zip = ZipBuilder()
        zip.add("\(deep)/with a space and é.txt", "deep")
        zip.add("empty/", "", mode: 0o040755)
        zip.add("link", deep + "/with a space and é.txt", mode: 0o120777)
        let package = try Package(
            zip.build(), of: "app", limits: PackageLimits(), memory: PackageMemory(limitBytes: 1 << 30))
        let file = package.archive.reopened()
        defer { close(file) }
        let tar = Process()
        tar.executableURL = URL(fileURLWithPath: "/bin/tar")
        tar.arguments = ["-t", "-f", "-"]
        tar.environment = ["LC_ALL": "C.UTF-8"]
        tar.standardInput = FileHandle(fileDescriptor: file)
        let pipe = Pipe()
        tar.standardOutput = pipe
        try tar.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        tar.waitUntilExit()
        #expect(tar.terminationStatus == 0)
        #expect(
            text.contains("\(deep)/with a space and é.txt\n") && text.contains("empty/\n") && text.hasSuffix("link\n"))
    }
}
