import CofferCore
import Foundation
import Testing

@testable import FunctionsHost

struct RouteTests {
    private func match(_ template: String, _ path: String) throws -> [String: String?]? {
        try RouteTemplate(template).match(path.split(separator: "/").map(String.init))
    }

    @Test func literalsAndParameters() throws {
        #expect(try match("products/{category}/{id:int?}", "Products/books/7") == ["category": "books", "id": "7"])
        #expect(
            try match("products/{category}/{id:int?}", "products/books") == ["category": "books", "id": String?.none])
        #expect(try match("products/{category}/{id:int?}", "products/books/x") == nil)
        #expect(try match("products/{category}/{id:int?}", "products/books/7/8") == nil)
        #expect(try match("{*rest}", "a/b/c") == ["rest": "a/b/c"])
        #expect(try match("files/{*rest}", "files") == ["rest": String?.none])
        #expect(try match("a/{b=x}", "a") == ["b": "x"])
        #expect(try match("a", "a") == [:])
    }

    @Test func constraints() throws {
        let cases: [(String, [String], [String])] = [
            ("int", ["0", "-5", "2147483647"], ["2147483648", "1.5", "a"]),
            ("long", ["9223372036854775807"], ["9223372036854775808"]),
            ("bool", ["true", "FALSE"], ["1", "yes"]), ("guid", ["7b7a2d4e-6d4f-4a3a-9b0e-0c6b1f3d5a11"], ["7b7a"]),
            ("alpha", ["abcXYZ"], ["a1", "é"]), ("double", ["1.5e3", "-2"], ["nan", "inf", "x"]),
            ("decimal", ["1.50"], ["1e5", "x"]),
            ("datetime", ["2026-03-01", "2026-03-01T10:00:00Z"], ["2026-13-01", "march"]),
            ("minlength(2)", ["ab"], ["a"]),
            ("maxlength(2)", ["ab"], ["abc"]), ("length(2)", ["ab"], ["a", "abc"]),
            ("length(1,3)", ["a", "abc"], ["abcd"]),
            ("min(5)", ["5", "6"], ["4", "x"]), ("max(5)", ["5"], ["6"]), ("range(2,4)", ["2", "4"], ["1", "5"]),
            (#"regex(^\d{{2}}$)"#, ["12"], ["1", "123"]),
        ]
        for (constraint, good, bad) in cases {
            for text in good { #expect(try match("{x:\(constraint)}", text) == ["x": text], "\(constraint) \(text)") }
            for text in bad { #expect(try match("{x:\(constraint)}", text) == nil, "\(constraint) \(text)") }
        }
    }

    @Test func malformedTemplates() {
        for text in [
            "{", "}", "{a", "{a}/{a}", "{*a}/b", "{a?}/b", "a{b}c", "{a:nope}", "{a:min(x)}", "{}", "{a:regex([)}",
            "{a:length(3,1)}",
        ] {
            #expect(throws: RouteTemplate.Malformed.self, "\(text)") { try RouteTemplate(text) }
        }
    }

    @Test func anyTextParsesOrIsRefused() {
        var random = SplitMix(seed: 42)
        let alphabet = Array("ab{}/:?*=(),1\\%é ")
        for _ in 0..<5_000 {
            let text = String(
                (0..<Int(random.next() % 24)).map { _ in alphabet[Int(random.next() % UInt64(alphabet.count))] })
            if let template = try? RouteTemplate(text) { _ = template.match(["a", "b", "1"]) }
        }
    }

    /// Bounds that are negative, reversed, too large or none.
    @Test func anyConstraintParsesOrIsRefused() {
        let numbers = ["", "x", "-1", "0", "1", "\(Int64.min)", "\(Int64.max)", "99999999999999999999"]
        let pairs = numbers.flatMap { low in numbers.map { "\(low),\($0)" } }
        for name in ["int", "length", "minlength", "maxlength", "min", "max", "range", "regex", "alpha", "none"] {
            for argument in numbers + pairs + ["1,2,3"] {
                guard let template = try? RouteTemplate("{x:\(name)(\(argument))}") else { continue }
                for text in ["", "0", "-1", "abc", "\(Int64.min)"] { _ = template.match([text]) }
            }
        }
        #expect(throws: RouteTemplate.Malformed.self) { try RouteTemplate("{x:length(0,-1)}") }
        #expect(throws: RouteTemplate.Malformed.self) { try RouteTemplate("{x:length(-1,1)}") }
    }

    /// There are more ways to match this text than anybody could go through.
    @Test func anExpressionThatNeverEndsIsNoMatch() throws {
        let template = try RouteTemplate("{x:regex(^(a+)+$)}")
        #expect(template.match([String(repeating: "a", count: 1_000)]) != nil)
        #expect(template.match([String(repeating: "a", count: 60) + "!"]) == nil)
        // One that begins anywhere ends.
        let anywhere = try RouteTemplate(#"{x:regex(\.json$)}"#)
        #expect(anywhere.match([String(repeating: "ab", count: 500) + ".json"]) != nil)
        #expect(anywhere.match([String(repeating: "ab", count: 500) + ".jsonx"]) == nil)
    }
}

struct CatalogTests {
    private func catalog(
        _ functions: [String: String], host: String = #"{"version":"2.0"}"#, settings: [String: String] = [:]
    ) throws -> FunctionCatalog {
        var zip = ZipBuilder()
        zip.add("host.json", host)
        for (name, json) in functions { zip.add("\(name)/function.json", json) }
        let package = try Package(
            zip.build(), of: "app", limits: PackageLimits(), memory: PackageMemory(limitBytes: 1 << 30))
        let host = try HostConfiguration(parsing: package.configuration["host.json"]) { settings[$0] }
        return try FunctionCatalog(package: package, host: host) { settings[$0] }
    }
    private func http(_ more: String = "") -> String {
        #"{"bindings":[{"type":"httpTrigger","name":"req"\#(more)},{"type":"http","direction":"out","name":"res"}]}"#
    }

    @Test func precedenceMethodsAndPrefix() throws {
        let catalog = try catalog([
            "Any": http(#","route":"items/{x}""#), "Exact": http(#","route":"items/special""#),
            "Number": http(#","route":"items/{x:int}""#),
            "Rest": http(#","route":"{*rest}""#), "Post": http(#","route":"items/special/now","methods":["post"]"#),
        ])
        func name(_ method: String, _ path: String) -> String? {
            catalog.match(method: method, path: path.split(separator: "/").map(String.init))?.function.name
        }
        #expect(name("GET", "api/items/special") == "Exact")
        #expect(name("GET", "API/Items/7") == "Number")
        #expect(name("GET", "api/items/x") == "Any")
        #expect(name("GET", "api/other") == "Rest")
        #expect(name("POST", "api/items/special/now") == "Post")
        #expect(name("GET", "api/items/special/now") == "Rest")
        #expect(name("GET", "other") == nil)
        #expect(catalog.function("exact")?.trigger?.level == .function)
    }

    @Test func faultsAreReportedNotHidden() throws {
        let catalog = try catalog([
            "Timer": #"{"bindings":[{"type":"timerTrigger","name":"t"}]}"#, "None": #"{"bindings":[]}"#, "Broken": "{",
            "Two": #"{"bindings":[{"type":"httpTrigger"},{"type":"httpTrigger"}]}"#, "1bad": http(),
            "Admin": http(#","route":"admin/x""#),
            "Level": http(#","authLevel":"everyone""#),
            "Queue": #"{"bindings":[{"type":"httpTrigger"},{"type":"queue","direction":"out"}]}"#,
            "A": http(#","route":"same","methods":["get"]"#), "B": http(#","route":"Same""#),
            "C": http(#","route":"same","methods":["post"]"#),
        ])
        func errors(_ name: String) -> String { catalog.function(name)?.errors.joined() ?? "missing" }
        #expect(errors("Timer").contains("timerTrigger"))
        #expect(errors("None").contains("No trigger binding"))
        #expect(errors("Broken").contains("function.json"))
        #expect(errors("Two").contains("Multiple trigger"))
        #expect(errors("1bad").contains("not a valid function name"))
        #expect(errors("Admin").contains("built in routes"))
        #expect(errors("Level").contains("everyone"))
        #expect(errors("Queue").contains("queue"))
        #expect(errors("A").isEmpty && errors("C").isEmpty && errors("B").contains("'A'"))
    }

    @Test func disabledAndExpanded() throws {
        let catalog = try catalog(
            [
                "One": http(#","route":"%ROUTE%""#), "Two": http(),
                "Three": #"{"disabled":true,"bindings":[{"type":"httpTrigger"}]}"#,
            ],
            host: #"{"version":"2.0","extensions":{"http":{"routePrefix":"/v1/x/"}}}"#,
            settings: ["ROUTE": "there", "AzureWebJobs.Two.Disabled": "TRUE"])
        #expect(catalog.match(method: "GET", path: ["v1", "x", "there"])?.function.name == "One")
        #expect(catalog.function("Two")?.isDisabled == true)
        #expect(catalog.function("Three")?.isDisabled == true)
    }
}

struct HostConfigurationTests {
    private func parse(_ text: String) throws -> HostConfiguration {
        try HostConfiguration(parsing: Array(text.utf8)) { $0 == "NAME" ? "value" : nil }
    }

    @Test func customHandler() throws {
        let host = try parse(
            """
            \u{feff}{"version":"2.0","functionTimeout":"00:05:00",
            "extensions":{"http":{"hsts":{"isEnabled":true,"maxAge":"10"}}},
            "customHandler":{"description":{"defaultExecutablePath":"bin/%NAME%",
            "arguments":["--x","%NAME%%OTHER%"],"workingDirectory":"bin"},
            "enableForwardingHttpRequest":true}}
            """)
        #expect(host.customHandler?.executablePath == "bin/value")
        #expect(host.customHandler?.arguments == ["--x", "value%OTHER%"])
        #expect(host.customHandler?.forwardsRequests == true)
        #expect(host.functionTimeoutSeconds == 300)
        #expect(host.hsts?.value == "max-age=864000")
    }

    @Test func refusals() {
        for text in [
            "{}", "[]", "", #"{"version":"4.0"}"#, #"{"version":"2.0","customHandler":{"description":{}}}"#,
            #"{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"x","workingDirectory":".."}}}"#,
            #"{"version":"2.0","functionTimeout":"soon"}"#,
        ] {
            #expect(throws: HostConfiguration.Malformed.self, "\(text)") { try parse(text) }
        }
        #expect(throws: HostConfiguration.Malformed.self) { try HostConfiguration(parsing: nil) { _ in nil } }
    }

    @Test func timeSpans() {
        #expect(HostConfiguration.seconds("01:02:03") == 3_723)
        #expect(HostConfiguration.seconds("1.00:00:00.5") == 86_400)
        #expect(HostConfiguration.seconds("2") == 172_800)
        for text in ["", ":", "1:2", "a:b:c", "00:61:00", "-1:00:00", "24:00:00", "99999999999:00:00"] {
            #expect(HostConfiguration.seconds(text) == nil, "\(text)")
        }
    }
}

struct ReferenceTests {
    private let names = HostNames(domain: "coffer.localhost", port: 8_443)

    @Test func bothSyntaxes() {
        let expected = KeyVaultReference(vault: "vault1", secret: "name", version: nil)
        for text in [
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/name)",
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/name/)",
            "@microsoft.keyvault(secreturi=https://vault1.vault.coffer.localhost:8443/secrets/name)",
            "@Microsoft.KeyVault(VaultName=vault1;SecretName=name)",
            "@Microsoft.KeyVault(VaultName=vault1;SecretName=name;SecretVersion=)",
        ] {
            #expect(KeyVaultReference.parse(text, names: names) == .reference(expected), "\(text)")
        }
        let versioned = KeyVaultReference(vault: "vault1", secret: "name", version: "abc")
        #expect(
            KeyVaultReference.parse(
                "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/name/abc)", names: names)
                == .reference(versioned))
        #expect(
            KeyVaultReference.parse(
                "@Microsoft.KeyVault(VaultName=vault1;SecretName=name;SecretVersion=abc)", names: names)
                == .reference(versioned))
        #expect(KeyVaultReference.parse("plain", names: names) == .notAReference)
        #expect(KeyVaultReference.parse("x @Microsoft.KeyVault(SecretUri=a)", names: names) == .notAReference)
    }

    @Test func malformed() {
        for text in [
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/name", "@Microsoft.KeyVault()",
            "@Microsoft.KeyVault(SecretUri=http://vault1.vault.azure.net/secrets/name)",
            "@Microsoft.KeyVault(SecretUri=https://evil.example/secrets/name)",
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/keys/name)",
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/a/b/c)",
            "@Microsoft.KeyVault(SecretUri=https://u@vault1.vault.azure.net/secrets/a)",
            "@Microsoft.KeyVault(VaultName=v)",
            "@Microsoft.KeyVault(VaultName=v;SecretName=a/b)",
            "@Microsoft.KeyVault(VaultName=v;VaultName=v;SecretName=a)",
            "@Microsoft.KeyVault(Other=v)",
            "@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/a;VaultName=v)",
        ] {
            guard case .malformed = KeyVaultReference.parse(text, names: names) else {
                Issue.record("\(text)")
                continue
            }
        }
    }

    @Test func anyTextParses() {
        var random = SplitMix(seed: 7)
        let seed = Array("@Microsoft.KeyVault(SecretUri=https://vault1.vault.azure.net/secrets/name/abc)")
        let alphabet = Array("@();=/:?#%. é\u{0}-aA1")
        for _ in 0..<5_000 {
            var text = seed
            for _ in 0..<Int(random.next() % 6) {
                text[Int(random.next() % UInt64(text.count))] = alphabet[Int(random.next() % UInt64(alphabet.count))]
            }
            if case .reference(let reference) = KeyVaultReference.parse(String(text), names: names) {
                #expect(!reference.vault.isEmpty && !reference.secret.contains("/"))
            }
        }
    }

    @Test func statuses() async throws {
        let vaults = TestVaults()
        vaults.put("name", "secret value", version: "v9")
        var site = Site(
            id: ResourceID("/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/a"), kind: "functionapp",
            location: "l",
            created: Timestamp(unixSeconds: 0),
            secrets: SiteSecrets(publishingCredentials: .init(userName: "$a", password: RedactedString("p"))))
        let texts = [
            "plain": "x", "good": "@Microsoft.KeyVault(VaultName=vault1;SecretName=name)",
            "version": "@Microsoft.KeyVault(VaultName=vault1;SecretName=name;SecretVersion=v1)",
            "vault": "@Microsoft.KeyVault(VaultName=other;SecretName=name)",
            "missing": "@Microsoft.KeyVault(VaultName=vault1;SecretName=nix)",
            "syntax": "@Microsoft.KeyVault(x)",
        ]
        site.secrets.appSettings = texts.mapValues { RedactedString($0) }
        let resolver = SettingsResolver(vaults: vaults, names: names)
        var resolved = await resolver.resolve(site)
        #expect(resolved.references.appSettings["good"]?.status == .msiNotEnabled)
        site.identity = testIdentity
        resolved = await resolver.resolve(site)
        #expect(resolved.references.appSettings["good"]?.status == .accessToKeyVaultDenied)
        #expect(resolved.values["good"]?.reveal() == texts["good"])
        vaults.allow(testIdentity)
        resolved = await resolver.resolve(site)
        #expect(
            resolved.references.appSettings.mapValues(\.status) == [
                "good": .resolved, "version": .secretVersionNotFound, "vault": .vaultNotFound,
                "missing": .secretNotFound, "syntax": .invalidSyntax,
            ])
        #expect(resolved.values["good"]?.reveal() == "secret value")
        #expect(resolved.references.appSettings["good"]?.activeVersion == "v9")
        #expect(resolved.values["missing"]?.reveal() == texts["missing"])
        site.secrets.connectionStrings = texts.mapValues { .init(value: RedactedString($0), kind: .custom) }
        let strings = await resolver.resolve(site)
        #expect(strings.references.connectionStrings == resolved.references.appSettings)
        #expect(strings.connectionStrings.mapValues(\.value) == resolved.values)
        let variables = WorkerEnvironment.variables(
            of: site, settings: strings, hostName: "a", instanceID: "i", added: [:])
        #expect(variables["CUSTOMCONNSTR_good"]?.reveal() == "secret value")
        site.keyVaultReferenceIdentity = "/subscriptions/…/userAssignedIdentities/x"
        #expect(await resolver.resolve(site).references.appSettings["good"]?.status == .msiNotEnabled)
    }
}

/// A small generator with a seed, so that a failure can be seen again.
struct SplitMix {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}
