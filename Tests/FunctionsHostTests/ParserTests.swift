import CofferCore
import HTTPEdge
import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import FunctionsHost

/// What a site's owner, its package and its worker write: read, or refused in words.
struct HostileTextTests {
    // MARK: Networks

    @Test func whatARuleTakesTheGateReads() {
        let random = SeededRandomness(91)
        let parts = [
            "10.0.0.0", "1.2.3", "01.2.3.4", "::1", "fe80::", "::ffff:1.2.3.4", "/", "/8", "/32", "/33", "/128", "/08",
            "-", "%eth0", " ", "é", "+",
        ]
        var taken = 0
        for _ in 0..<4_000 {
            let text = random.text(parts, upTo: 3)
            guard NetworkMask.isNetwork(text) else { continue }
            taken += 1
            #expect(IPNetwork(text) != nil && !text.contains("-"), "\(text)")
        }
        #expect(taken > 50)
    }

    @Test func masksHaveOneSpelling() {
        let random = SeededRandomness(92)
        func dotted(_ length: Int) -> String {
            let bits: UInt32 = length == 0 ? 0 : ~0 << UInt32(32 - length)
            return [24, 16, 8, 0].map { String(bits >> $0 & 255) }.joined(separator: ".")
        }
        for length in 0...32 {
            #expect(NetworkMask.prefixLength(of: dotted(length)) == length)
            for _ in 0..<60 {
                let text = random.mutated(dotted(length), with: "0125.: /é")
                if let read = NetworkMask.prefixLength(of: text) { #expect(dotted(read) == text) }
            }
        }
    }

    // MARK: Key Vault references

    private static func isName(_ text: String) -> Bool {
        let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
        return (1...127).contains(text.utf8.count) && text.allSatisfy { letters.contains($0) }
    }

    @Test func referencesByNameComeBack() {
        let random = SeededRandomness(93)
        let names = HostNames(domain: "coffer.localhost", port: 8_443)
        let seed = "@Microsoft.KeyVault(VaultName=vault1;SecretName=name;SecretVersion=abc)"
        var read = 0
        for _ in 0..<1_500 {
            let text = random.mutated(seed, with: "@();=/:. é\u{0}-aA1")
            guard case .reference(let reference) = KeyVaultReference.parse(text, names: names) else { continue }
            read += 1
            #expect(Self.isName(reference.vault) && Self.isName(reference.secret), "\(text)")
            var plain = "@Microsoft.KeyVault(VaultName=\(reference.vault);SecretName=\(reference.secret)"
            if let version = reference.version {
                #expect(Self.isName(version), "\(text)")
                plain += ";SecretVersion=\(version)"
            }
            #expect(KeyVaultReference.parse(plain + ")", names: names) == .reference(reference), "\(text)")
        }
        #expect(read > 50, "another letter is another name")
    }

    // MARK: Connection strings

    private static func isReadAs(
        _ text: String, _ account: String, _ key: [UInt8], endpoint: String
    ) -> Bool {
        guard let connection = try? BlobServiceConnection(connectionString: RedactedString(text)),
            case .sharedKey(account, let found) = connection.credential
        else { return false }
        return connection.endpoint == endpoint && found.withUnsafeBytes { Array($0) } == key
    }

    @Test func connectionStringsAreReadOrRefused() {
        let random = SeededRandomness(94)
        for _ in 0..<500 {
            let account = "a\(random.number(0..<1_000))"
            let key = random.bytes(random.number(1..<65))
            let pairs = [
                ("AccountName", account), ("AccountKey", key.base64), ("EndpointSuffix", "core.coffer.test"),
                ("DefaultEndpointsProtocol", "https"), ("Other", "x=y"),
            ]
            let text = random.shuffled(pairs)
                .map { random.pick([$0.0, $0.0.uppercased(), " \($0.0.lowercased()) "]) + "=" + $0.1 }
                .joined(separator: random.pick([";", ";;"]))
            #expect(
                Self.isReadAs(text, account, key, endpoint: "https://\(account).blob.core.coffer.test"), "\(text)")

            let broken = random.mutated(text, with: ";= é")
            do throws(BlobServiceConnection.Malformed) {
                let connection = try BlobServiceConnection(connectionString: RedactedString(broken))
                #expect(connection.endpoint.contains("://") && !connection.endpoint.hasSuffix("/"))
                if case .sharedKey(let name, let found) = connection.credential {
                    // A key that was read is in the text as it is.
                    #expect(broken.contains(found.withUnsafeBytes { Array($0) }.base64) && broken.contains(name))
                }
            } catch {
                #expect(!error.message.isEmpty && !error.message.contains(key.base64))
            }
        }
    }

    // MARK: Packages

    /// The kernel cuts paths at bytes: whatever follows a slash, it is one.
    @Test func linksAreReadAsBytes() {
        let random = SeededRandomness(95)
        let parts = ["..", ".", "/", "//", "a", "b", "\u{301}", "é", "\u{200d}"]
        for _ in 0..<4_000 {
            let target = random.text(parts, upTo: 8)
            var depth = 0
            var isInside = !target.isEmpty && target.utf8.first != 0x2f
            for component in target.utf8.split(separator: 0x2f) where !component.elementsEqual(".".utf8) {
                depth += component.elementsEqual("..".utf8) ? -1 : 1
                isInside = isInside && depth >= 0
            }
            let bytes = target.unicodeScalars.map { String($0.value, radix: 16) }.joined(separator: " ")
            #expect(Package.staysInside(target, from: "link") == isInside, "\(bytes)")
        }
    }
}

/// The paths of a package's files.
struct HostilePathTests {
    @Test(arguments: ["../\u{301}x", "/\u{301}x", "a/../../\u{301}x", "..\\\u{301}x/..", "a/\u{301}/../../x"])
    func namesAreReadAsBytes(_ name: String) {
        var zip = ZipBuilder()
        zip.add("host.json", #"{"version":"2.0"}"#)
        zip.add(name, "x")
        let built = zip.build()
        #expect(throws: PackageError.self) {
            try Package(built, of: "app", limits: PackageLimits(), memory: PackageMemory(limitBytes: 1 << 30))
        }
    }
}

/// The answers of a custom handler that does not get the request as it is.
struct HostileAnswerTests {
    private static func trigger() throws -> Function.HTTPTrigger {
        Function.HTTPTrigger(
            bindingName: "req", level: .anonymous, methods: [], route: try RouteTemplate("a"), outputName: "res",
            isPlain: true)
    }
    private static func answer(_ body: [UInt8]) throws -> InvocationPayload.Answer? {
        let trigger = try trigger()
        do throws(InvocationPayload.Malformed) {
            return try InvocationPayload.answer(
                status: 200, contentType: "application/json", body: ByteBuffer(bytes: body), trigger: trigger)
        } catch {
            #expect(error.message.hasPrefix("The custom handler"))
            return nil
        }
    }
    private static func bytes(_ response: Response) -> [UInt8] {
        if case .bytes(let buffer) = response.body { Array(buffer.readableBytesView) } else { [] }
    }

    @Test func answersArriveAsTheyWereSaid() throws {
        let random = SeededRandomness(96)
        for _ in 0..<300 {
            let status = random.number(200..<600)
            let header = random.text(["a", "é", " ", "\t", "\""], upTo: 4)
            let text = random.text(["x", "\n", "é"], upTo: 4)
            let output: JSONValue = [
                "statusCode": random.pick([.integer(Int64(status)), .string("\(status)")]), "body": .string(text),
                "headers": ["x-a": .string(header), "Transfer-Encoding": "chunked", "b\r\nc": "d", "x-b": "1\r\n2"],
            ]
            // An output may be a text that holds the object.
            let whole = random.pick([output, .string(String(decoding: output.serialized(), as: UTF8.self))])
            let document: JSONValue = ["outputs": ["RES": whole], "Logs": ["one", 2]]
            let answer = try #require(try Self.answer(document.serialized()))
            #expect(answer.logs == ["one", "2"] && Int(answer.response.status.code) == status)
            #expect(Self.bytes(answer.response) == Array(text.utf8))
            #expect(answer.response.headers["x-a"] == [header])
            #expect(Set(answer.response.headers.map { $0.name.lowercased() }).isSubset(of: ["x-a", "content-type"]))
        }
    }

    @Test func mutatedAnswersAreAnswersOrRefused() throws {
        let random = SeededRandomness(97)
        let seed = Array(
            #"{"Outputs":{"res":{"statusCode":201,"headers":{"x-a":"1","b":["c","d"]},"body":{"e":null}}},"Logs":["l"]}"#
                .utf8)
        let noise = Array("{}[]:,\"\\x0-e9u".utf8) + [0x0a, 0x00, 0xff]
        var read = 0
        for _ in 0..<1_500 {
            guard let answer = try Self.answer(random.mutated(seed, with: noise)) else { continue }
            read += 1
            #expect((200...599).contains(answer.response.status.code) && answer.logs.count <= 1_000)
            for (name, value) in answer.response.headers {
                #expect(HeaderText.isName(name) && HeaderText.isValue(value))
                #expect(!["content-length", "transfer-encoding", "connection"].contains(name.lowercased()))
            }
            #expect(Self.bytes(answer.response).isEmpty || answer.response.headers.contains(name: "Content-Type"))
        }
        #expect(read > 50, "another digit is another answer")
    }
}

/// `host.json` and `function.json`.
struct HostileConfigurationTests {
    private static let noise = Array("{}[]:,\"\\x01.-%/".utf8)

    @Test func timeSpansAreReadAsTheyAreWritten() {
        let random = SeededRandomness(98)
        func two(_ number: Int) -> String { (number < 10 ? "0" : "") + String(number) }
        func spelling(_ seconds: Int) -> String {
            "\(seconds / 86_400).\(two(seconds / 3_600 % 24)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
        }
        for _ in 0..<1_500 {
            let length = random.number(0..<1_000 * 86_400)
            #expect(HostConfiguration.seconds(spelling(length)) == Int64(length))
            let text = random.mutated(Array(spelling(length).utf8), with: Array("0129.:-+ e".utf8))
            guard let read = HostConfiguration.seconds(String(decoding: text, as: UTF8.self)) else { continue }
            #expect(read >= 0 && HostConfiguration.seconds(spelling(Int(read))) == read)
        }
    }

    @Test func onlyKnownNamesAreExpanded() {
        let random = SeededRandomness(99)
        for _ in 0..<2_000 {
            let text = random.text(["%", "%%", "A", "B", "AB", "é", " "], upTo: 8)
            #expect(HostConfiguration.expanded(text) { _ in nil } == text)
            // A value is not looked into again.
            let pieces = (0..<random.number(0..<6)).map { _ in random.pick(["x", " ", "%A%", "%B%"]) }
            let expected = pieces.map { $0 == "%A%" ? "%B%A%" : $0 }.joined()
            let expanded = HostConfiguration.expanded(pieces.joined()) { $0 == "A" ? "%B%A%" : nil }
            #expect(expanded == expected, "\(pieces.joined())")
        }
    }

    @Test func mutatedHostsAreReadOrRefused() {
        let random = SeededRandomness(100)
        let seed = Array(
            """
            {"version":"2.0","functionTimeout":"00:05:00","functions":["a"],"extensions":{"http":{"routePrefix":"/v1/",
            "maxConcurrentRequests":5,"customHeaders":{"x-a":"b"},"hsts":{"isEnabled":true,"maxAge":"10"}}},
            "customHandler":{"description":{"defaultExecutablePath":"bin/x","arguments":["%N%"],"workingDirectory":"bin"},
            "initializationTimeout":"00:01:00","enableForwardingHttpRequest":true}}
            """.utf8)
        var read = 0
        for _ in 0..<1_000 {
            let bytes = random.mutated(seed, with: Self.noise)
            do throws(HostConfiguration.Malformed) {
                let host = try HostConfiguration(parsing: bytes) { $0 == "N" ? "value" : nil }
                read += 1
                #expect(!host.routePrefix.hasPrefix("/") && !host.routePrefix.hasSuffix("/"))
                #expect(!host.routePrefix.contains("//") && host.functionTimeoutSeconds ?? 1 >= 1)
                #expect((1...230).contains(host.readinessTimeoutSeconds))
                #expect(host.customHeaders.allSatisfy { HeaderText.isName($0.key) && HeaderText.isValue($0.value) })
                guard let handler = host.customHandler else { continue }
                #expect(!handler.executablePath.isEmpty && !handler.workingDirectory.hasPrefix("/"))
            } catch {
                #expect(!error.message.isEmpty)
            }
        }
        #expect(read > 50)
    }

    @Test func mutatedFunctionsRunOrSayWhy() throws {
        let random = SeededRandomness(101)
        let seed =
            Array(
                #"{"bindings":[{"type":"httpTrigger","name":"req","route":"a/b","methods":["get"],"authLevel":"function"},"#
                    .utf8) + Array(#"{"type":"http","direction":"out","name":"res"}],"disabled":false}"#.utf8)
        let host = try HostConfiguration(parsing: Array(#"{"version":"2.0"}"#.utf8)) { _ in nil }
        for _ in 0..<6 {
            var zip = ZipBuilder()
            zip.add("host.json", #"{"version":"2.0"}"#)
            for index in 0..<40 {
                let json = random.mutated(seed, with: Self.noise)
                zip.entries.append(ZipBuilder.Entry(name: "f\(index)/function.json", bytes: json))
            }
            let package = try Package(
                zip.build(), of: "app", limits: PackageLimits(), memory: PackageMemory(limitBytes: 1 << 30))
            let catalog = try FunctionCatalog(package: package, host: host) { _ in nil }
            #expect(catalog.functions.count == 40)
            for function in catalog.functions {
                #expect(function.trigger != nil || !function.errors.isEmpty)
                guard let trigger = function.trigger, function.errors.isEmpty else { continue }
                #expect(trigger.methods.allSatisfy { $0 == $0.uppercased() } && !trigger.route.text.hasPrefix("/"))
                guard !trigger.route.text.contains("{") else { continue }
                let path = ["api"] + trigger.route.text.split(separator: "/").map { String($0) }
                let found = catalog.match(method: trigger.methods.first ?? "GET", path: path)
                #expect(found?.function.errors.isEmpty == true, "\(trigger.route.text)")
            }
        }
    }
}

/// What anybody may send as a token of the platform.
struct HostileTokenTests {
    private static let alphabet = "ABCDEFabcdef0123456789-_.+/= é\u{0}"

    /// One token has one text: whatever else opens nothing.
    @Test func noOtherTextIsTheToken() throws {
        let random = SeededRandomness(102)
        let now = Timestamp(unixSeconds: TokenMint.now)
        let settings = ResolvedSettings(values: ["AzureWebEncryptionKey": RedactedString(TokenMint.key)])
        let tokens = SiteTokens(
            siteName: "MyApp", keys: TokenKeys(settings: settings, platformKey: RedactedString("")))
        let seed = TokenMint.web()
        #expect(try tokens.access(RedactedString(seed), now: now) == .full)
        for _ in 0..<3_000 {
            let text = random.mutated(seed, with: Self.alphabet)
            guard text != seed else { continue }
            #expect(throws: SiteTokens.Refusal.self, "\(text)") { try tokens.access(RedactedString(text), now: now) }
        }
        // A rightly signed one holds what it holds: read, or refused in a word.
        let noise = Array("{}[]:,\"\\x0-e9u.".utf8) + [0x00, 0xff]
        let claims = TokenMint.claims().serialized()
        let header = Array(#"{"alg":"HS256"}"#.utf8).base64URL
        for _ in 0..<2_000 {
            let bytes = random.mutated(claims, with: noise)
            let token = TokenMint.signed(header + "." + bytes.base64URL)
            guard (try? tokens.access(RedactedString(token), now: now)) != nil else { continue }
            let read = try JSONValue(parsing: bytes)
            #expect(read["aud"]?.stringValue?.lowercased().hasPrefix("https://myapp.azurewebsites.net") == true)
            #expect(read["iss"]?.stringValue?.lowercased() == TokenMint.scm.lowercased())
        }
    }

    @Test func noOtherTextIsTheRestrictedToken() throws {
        let random = SeededRandomness(103)
        let bytes = random.bytes(32)
        let key = SecretBytes(copying: bytes)
        let seed = try TokenMint.restricted(until: TokenMint.now, key: bytes)
        #expect(RestrictedToken.end(of: RedactedString(seed), under: key) == Timestamp(unixSeconds: TokenMint.now))
        for _ in 0..<3_000 {
            let text = random.mutated(seed, with: Self.alphabet)
            guard text != seed else { continue }
            #expect(RestrictedToken.end(of: RedactedString(text), under: key) == nil, "\(text)")
        }
        // Bits of the vector are bits of the time: the code holds them.
        let parts = seed.split(separator: ".")
        let vector = try #require([UInt8](base64: parts[0]))
        for bit in 0..<128 {
            var other = vector
            other[bit / 8] ^= 1 << UInt8(bit % 8)
            let text = ([other.base64] + parts.dropFirst().map { String($0) }).joined(separator: ".")
            #expect(RestrictedToken.end(of: RedactedString(text), under: key) == nil)
        }
    }
}

/// What a worker writes to its output.
struct HostileOutputTests {
    private static func lines(_ parts: [[UInt8]]) throws -> [String] {
        var lines: [String] = []
        let channel = EmbeddedChannel(handler: LineReader { lines.append($0) })
        for part in parts { try channel.writeInbound(ByteBuffer(bytes: part)) }
        _ = try channel.finish()
        return lines
    }

    /// A line is the same wherever the pipe cut it; so is a letter of it.
    @Test func linesDoNotDependOnTheCuts() throws {
        let random = SeededRandomness(102)
        let pieces: [[UInt8]] = [
            Array("line".utf8), [0x0a], [0x0a], [0x0d, 0x0a], [0x0d], Array("é\u{1f600}".utf8), [0xff], [0xc3], [0x00],
            Array(" ".utf8),
        ]
        for _ in 0..<200 {
            let bytes = (0..<random.number(0..<60)).flatMap { _ in random.pick(pieces) }
            var parts: [[UInt8]] = []
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = min(rest.count, random.number(1..<9))
                parts.append(Array(rest.prefix(count)))
                rest = rest.dropFirst(count)
            }
            let expected = bytes.split(separator: 0x0a)
                .map { String(decoding: $0.last == 0x0d ? $0.dropLast() : $0, as: UTF8.self) }
                .filter { !$0.isEmpty }
            #expect(try Self.lines(parts) == expected)
            #expect(try Self.lines([bytes]) == expected)
        }
    }
}

extension SeededRandomness {
    fileprivate func shuffled<Element>(_ elements: [Element]) -> [Element] {
        var elements = elements
        for index in elements.indices { elements.swapAt(index, number(index..<elements.count)) }
        return elements
    }
    /// One or two bytes are others, gone, or put in.
    fileprivate func mutated(_ bytes: [UInt8], with noise: [UInt8]) -> [UInt8] {
        var bytes = bytes
        for _ in 0...number(0..<2) {
            let place = number(0..<bytes.count)
            switch number(0..<3) {
            case 0: bytes[place] = pick(noise)
            case 1: bytes.remove(at: place)
            default: bytes.insert(pick(noise), at: place)
            }
        }
        return bytes
    }
    /// The same with characters.
    fileprivate func mutated(_ text: String, with noise: String) -> String {
        var characters = Array(text)
        for _ in 0...number(0..<2) {
            let place = number(0..<characters.count)
            switch number(0..<3) {
            case 0: characters[place] = pick(Array(noise))
            case 1: characters.remove(at: place)
            default: characters.insert(pick(Array(noise)), at: place)
            }
        }
        return String(characters)
    }
}
