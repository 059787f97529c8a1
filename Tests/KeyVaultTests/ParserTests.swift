import CofferCore
import NIOHTTP1
import TestSupport
import Testing

@testable import KeyVault

/// Positions in lists and the URIs of vaults: of this server's making, or refused.
@Suite struct HostilePlaceTests {
    @Test func positionsAreReadOrRefused() async throws {
        let random = SeededRandomness(131)
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        let names = ["a", "b", "c", "d", "e"]
        for name in names {
            #expect(await vaults.owned(.PUT, "/secrets/\(name)", ["value": "x"]).status == 200)
        }
        for _ in 0..<150 {
            let name = String((0...random.number(0..<3)).map { _ in random.pick(Array("abcdefz-0")) })
            var token = Array(Array(name.utf8).base64URL)
            let isWhole = random.number(0..<2) == 0
            if !isWhole { token[random.number(0..<token.count)] = random.pick(Array("A_-+/=%&é")) }
            let query = "api-version=7.4&maxresults=25&$skiptoken=" + String(token)
            let answer = await vaults.send(.GET, "/secrets", as: vaults.owner, query: query)
            guard answer.status == 200 else {
                #expect(answer.status == 400 && answer.code == "BadParameter" && !isWhole, "\(query)")
                continue
            }
            guard isWhole else { continue }
            let told = (answer.body["value"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue?.last }
            #expect(told.map { String($0) } == names.filter { $0 > name }, "\(query)")
        }
        for limit in ["0", "26", "-1", "x", "", "9223372036854775808"] {
            let answer = await vaults.send(
                .GET, "/secrets", as: vaults.owner, query: "api-version=7.4&maxresults=\(limit)")
            #expect(answer.status == 400, "\(limit)")
        }
    }

    /// A page at a time, whatever its size, is the whole list.
    @Test(arguments: [1, 2, 3, 25]) func pagesAreTheWholeList(_ size: Int) async throws {
        let random = SeededRandomness(132)
        let vaults = try await TestVaults()
        try await vaults.makeVault()
        var names: Set<String> = []
        while names.count < 7 {
            names.insert(String((0...random.number(0..<4)).map { _ in random.pick(Array("ab0-")) }))
        }
        for name in names {
            #expect(await vaults.owned(.PUT, "/secrets/\(name)", ["value": "x"]).status == 200)
        }
        var told: [String] = []
        var query = "api-version=7.4&maxresults=\(size)"
        for _ in 0..<10 {
            let answer = await vaults.send(.GET, "/secrets", as: vaults.owner, query: query)
            let items = answer.body["value"]?.arrayValue ?? []
            #expect(answer.status == 200 && items.count <= size)
            told += items.compactMap { $0["id"]?.stringValue?.split(separator: "/").last.map { String($0) } }
            guard let next = answer.body["nextLink"]?.stringValue else { break }
            query = String(next.split(separator: "?", maxSplits: 1)[1])
        }
        #expect(told.count == names.count && Set(told) == names)
    }

    @Test func vaultsComeBackFromTheirURI() async throws {
        let random = SeededRandomness(133)
        let service = try await TestVaults().service
        for _ in 0..<800 {
            let name = "v" + String((0..<random.number(0..<8)).map { _ in random.pick(Array("abz019-")) })
            let secret = String((0...random.number(0..<8)).map { _ in random.pick(Array("aZ0-")) })
            for family in TestVaults.names.families {
                let uri = family.url(of: .vault(name)) + "/secrets/" + secret
                #expect(service.vaultName(ofURI: uri) == name && service.vaultName(ofURI: uri.uppercased()) == name)
                let identifier = service.secretIdentifier(uri + random.pick(["", "/"]))
                #expect(identifier?.vaultName == name && identifier?.name == secret && identifier?.version == nil)
                #expect(service.secretIdentifier(uri + "/abc")?.version == "abc")
                #expect(service.secretIdentifier(uri + "/abc/d") == nil)
            }
        }
    }

    @Test func mutatedURIsAreOfAVaultOrNone() async throws {
        let random = SeededRandomness(134)
        let service = try await TestVaults().service
        let seeds = TestVaults.names.families.map { Array($0.url(of: .vault("vault1")) + "/secrets/name/abc") }
        let noise = Array("/:.@?#% -aA1é")
        for _ in 0..<2_500 {
            var text = random.pick(seeds)
            for _ in 0...random.number(0..<3) {
                let place = random.number(0..<text.count)
                switch random.number(0..<3) {
                case 0: text[place] = random.pick(noise)
                case 1: text.remove(at: place)
                default: text.insert(random.pick(noise), at: place)
                }
            }
            let uri = String(text)
            guard let (name, path) = service.vaultURI(uri) else {
                #expect(service.secretIdentifier(uri) == nil && service.vaultName(ofURI: uri) == nil)
                continue
            }
            #expect(!name.isEmpty && !name.contains(".") && !name.contains("/") && path.allSatisfy { !$0.isEmpty })
            // The same vault and path, spelled plainly.
            let plain = TestVaults.names.own.url(of: .vault(name)) + "/" + path.joined(separator: "/")
            let again = service.vaultURI(plain)
            #expect(again?.name == name && again?.path == path, "\(uri)")
            if let identifier = service.secretIdentifier(uri) {
                #expect(isValidObjectName(identifier.name) && identifier.name == path[1] && path.count < 4, "\(uri)")
            }
        }
    }
}
