import CofferCore
import Foundation
import Testing

struct ValueTests {
    @Test func secretsNeverPrint() {
        let text = RedactedString("hunter2")
        let bytes = SecretBytes(copying: Array("hunter2".utf8))
        var dumped = ""
        dump(text, to: &dumped)
        dump(bytes, to: &dumped)
        for printed in ["\(text)", String(reflecting: text), "\(bytes)", String(reflecting: bytes), dumped] {
            #expect(!printed.contains("hunter2"))
        }
        #expect(text.reveal() == "hunter2")
        #expect(bytes.withUnsafeBytes { Array($0) } == Array("hunter2".utf8))
    }

    @Test func aSecretMayBeShorterThanItsMemory() throws {
        struct Failed: Error {}
        let secret = SecretBytes(capacity: 9_000) { memory in
            #expect(memory.count == 9_000)
            memory[0] = 1
            memory[1] = 2
            return 2
        }
        #expect(secret.count == 2 && secret.withUnsafeBytes { Array($0) } == [1, 2])
        // Memory of secrets that ended carries nothing over.
        for size in [1, 4_096, 9_000] {
            for _ in 0..<100 { _ = SecretBytes(copying: [UInt8](repeating: 0xee, count: size)) }
            let next = SecretBytes(capacity: size) { memory in
                #expect(size > 4_096 || !memory.contains(0xee))
                return 0
            }
            #expect(next.count == 0)
        }
        #expect(throws: Failed.self) { try SecretBytes(capacity: 1) { _ in throw Failed() } }
    }

    @Test func resourceIdentifiersIgnoreCaseAndKeepSpelling() {
        let id = ResourceID("/subscriptions/S/resourcegroups//RG/providers/microsoft.keyvault/Vaults/V/keys/K")
        #expect(id == ResourceID("/SUBSCRIPTIONS/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v/Keys/k"))
        #expect(id.resourceGroup == "RG")
        #expect(id.providerNamespace == "microsoft.keyvault")
        #expect(id.types == ["Vaults", "keys"])
        #expect(id.names == ["V", "K"])
        #expect(id.resourceGroupID!.contains(id))
        #expect(!ResourceID("/subscriptions/S/resourceGroups/R").contains(id))
        #expect(ResourceID.root.contains(id))
        let extended = ResourceID("\(id)/providers/Microsoft.Authorization/roleAssignments/A")
        #expect(extended.extendedScope == id)
        #expect(extended.resourceType == "Microsoft.Authorization/roleAssignments")
    }

    @Test(arguments: [1, 7, 8, 255, 257, 300_001])
    func randomnessFillsTheWholeBufferAndNoMore(count: Int) {
        var bytes = [UInt8](repeating: 0, count: count + 32)
        // A byte that is zero after 16 draws was never written, but once in 2^128.
        var seen = [UInt8](repeating: 0, count: count)
        for _ in 0..<16 {
            bytes.withUnsafeMutableBytes { SystemRandomness().fill(.init(rebasing: $0[16..<16 + count])) }
            for index in seen.indices { seen[index] |= bytes[16 + index] }
        }
        #expect(!seen.contains(0))
        #expect(bytes.prefix(16).allSatisfy { $0 == 0 } && bytes.suffix(16).allSatisfy { $0 == 0 })
        SystemRandomness().fill(UnsafeMutableRawBufferPointer(start: nil, count: 0))
    }

    @Test func hostNamesCompareWithoutCaseAndByWholeLabels() {
        let names = HostNames(domain: "Coffer.LocalHost", port: 8443)
        #expect(names.match("MyVault.VAULT.coffer.localhost:8443")?.endpoint == .vault("myvault"))
        #expect(names.match("a.BLOB.core.coffer.localhost")?.endpoint == .storage(account: "a", service: .blob))
        #expect(names.match("Management.Azure.COM:443")?.family == .azurePublic)
        // A site that is called scm; not the deployment site of nothing.
        #expect(names.match("scm.azurewebsites.net")?.endpoint == .site("scm"))
        for host in [
            "", ":443", ".vault.azure.net", "vault.azure.net", "a.b.vault.azure.net", "xvault.azure.net",
            "v.vault.azure.net.", "v.vault.azure.net.evil.example", "v@vault.azure.net", "v.vault.azure.ne\u{212a}",
        ] {
            #expect(names.match(host) == nil, "\(host)")
        }
        #expect(names == HostNames(domain: "Coffer.LocalHost", port: 8443))
        #expect(names != HostNames(domain: "Coffer.LocalHost", port: nil))
    }

    @Test func hostNamesOfBothFamiliesAreKnownAndNoOthers() {
        let names = HostNames(domain: "coffer.localhost", port: nil)
        let all: [Endpoint] = [
            .management, .login, .graph, .vault("v"), .managedHSM("h"), .site("app"), .scm("app"),
            .storage(account: "a", service: .blob), .storage(account: "a", service: .queue),
        ]
        for family in names.families {
            for endpoint in all {
                #expect(names.match(family.authority(of: endpoint))?.endpoint == endpoint)
                #expect(names.match(family.authority(of: endpoint).uppercased() + ":443")?.family == family)
            }
        }
        for host in [
            "", "example.com", "evil.management.azure.com", "management.azure.com.evil", "a.b.vault.azure.net",
            ".vault.azure.net",
        ] {
            #expect(names.match(host) == nil, "\(host)")
        }
    }

    @Test func encodingsAreStrict() {
        #expect([UInt8](base64: "AQ==") == [1])
        #expect([UInt8](base64: "AQ") == nil)
        for text in ["A*==", "AA=A", "====", "AR==", "AQ==\n", " AQ=="] { #expect([UInt8](base64: text) == nil) }
        #expect([UInt8](base64URL: "-_8") == [0xfb, 0xff])
        #expect([UInt8](base64URL: "+/8") == nil)
        #expect([UInt8](hex: "00fF") == [0, 255])
        #expect([UInt8](hex: "0") == nil)
        #expect([0xfb, 0xff].map { UInt8($0) }.base64URL == "-_8")
    }

    /// RFC 4648 §10, and every length around the groups of three, there and back in both alphabets.
    @Test func base64IsThatOfTheStandard() {
        let vectors = [
            "": "", "f": "Zg==", "fo": "Zm8=", "foo": "Zm9v", "foob": "Zm9vYg==", "fooba": "Zm9vYmE=",
            "foobar": "Zm9vYmFy",
        ]
        for (plain, text) in vectors {
            #expect(plain.utf8.base64 == text)
            #expect([UInt8](base64: text) == Array(plain.utf8))
        }
        for length in 0..<70 {
            let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 37 + length * 11) }
            let text = Data(bytes).base64EncodedString()
            #expect([UInt8](base64: text) == bytes)
            let url = text.replacing("+", with: "-").replacing("/", with: "_")
            #expect(bytes.base64URL == url.replacing("=", with: ""))
            #expect([UInt8](base64URL: url) == bytes)
            #expect([UInt8](base64URL: bytes.base64URL) == bytes)
            #expect(bytes.withUnsafeBytes { $0.base64URL } == bytes.base64URL)
        }
        for text in ["A", "AQ=", "A===", "AQ==AQ==", "AAAAA", "AB", "AAB", "\u{e9}AA", "-_8=="] {
            #expect([UInt8](base64URL: text) == nil, "\(text)")
        }
        for text in ["=", "==", "===", "A===", "-_8=", "AQI", "AQJ="] {
            #expect([UInt8](base64: text) == nil, "\(text)")
        }
    }

    @Test func mergePatchFollowsTheStandard() throws {
        let before = try JSONValue(parsing: #"{"a":{"b":1,"c":2},"d":[1]}"#.utf8)
        let patch = try JSONValue(parsing: #"{"a":{"b":null,"e":true},"d":"x"}"#.utf8)
        #expect(before.merged(with: patch) == (try JSONValue(parsing: #"{"a":{"c":2,"e":true},"d":"x"}"#.utf8)))
        #expect(before.member("A")?["c"] == 2)
    }
}
