import CofferCore
import HTTPEdge
import NIOHTTP1
import TestSupport
import Testing

@testable import IdentityService

/// Forms: read as they were filled in, or refused.
@Suite struct FormTests {
    private static func encoded(_ text: String, _ random: SeededRandomness) -> String {
        text.utf8.map { byte -> String in
            if byte == 0x20, random.number(0..<2) == 0 { return "+" }
            let isPlain = (0x61...0x7a).contains(byte) && random.number(0..<4) > 0
            return isPlain ? String(UnicodeScalar(byte)) : "%" + [byte].hex
        }.joined()
    }

    @Test func formsComeBack() throws {
        let random = SeededRandomness(121)
        let parts = ["a", "é", " ", "+", "&", "=", "%", "\u{0}", "\u{1f600}"]
        for _ in 0..<800 {
            let fields = (0..<random.number(0..<8)).map { index in
                (name: "n\(index)", value: random.text(parts, upTo: 6))
            }
            let text = fields.map { Self.encoded($0.name, random) + "=" + Self.encoded($0.value, random) }
                .joined(separator: random.pick(["&", "&&"]))
            let form = try Form(text)
            for field in fields { #expect(form[field.name] == field.value, "\(text)") }
            #expect(form["n8"] == nil)
            guard let first = fields.first else { continue }
            #expect(throws: LoginError.self) { try Form(text + "&" + Self.encoded(first.name, random) + "=") }
        }
    }

    @Test func randomFormsAreReadOrRefused() {
        let random = SeededRandomness(122)
        let parts = ["a", "b", "=", "&", "%", "%61", "%C3%A9", "%C3", "%zz", "+", "é"]
        for _ in 0..<4_000 {
            let text = random.text(parts, upTo: 9)
            let fields = text.utf8.split(separator: 0x26).map { String(Substring($0)) }
            do throws(LoginError) {
                let form = try Form(text)
                var names: Set<String> = []
                for field in fields {
                    let raw = field.prefix { $0 != "=" }
                    let name = percentDecoded(raw.replacing("+", with: " "))
                    let value = percentDecoded(field.dropFirst(raw.count + 1).replacing("+", with: " "))
                    #expect(value != nil && name.flatMap { form[$0] } == value, "\(text)")
                    let isNew = names.insert(name ?? "").inserted
                    #expect(isNew, "a name twice")
                }
            } catch {
                #expect(error.status == .badRequest)
                // Something in it is not as it should be.
                #expect(fields.count > 1 || text.contains("%"), "\(text)")
            }
        }
        #expect(throws: LoginError.self) { try Form((0..<65).map { "a\($0)=" }.joined(separator: "&")) }
    }
}

/// What strangers send to the token service and to the directory.
@Suite struct HostileSignInTests {
    private static func noise(_ text: String, _ random: SeededRandomness) -> String {
        var bytes = Array(text.utf8)
        for _ in 0...random.number(0..<2) {
            let place = random.number(0..<bytes.count)
            switch random.number(0..<3) {
            case 0: bytes[place] = random.pick(Array("&=%+ a0/-:".utf8))
            case 1: bytes.remove(at: place)
            default: bytes.insert(random.pick(Array("&=%+ a0/-:".utf8)), at: place)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Only the secret itself signs in, however the form or the header says it.
    @Test func mutatedSignInsAreNoSignIns() async throws {
        let random = SeededRandomness(123)
        let tenant = try await Tenant()
        let service = LoginService(tenant.identity)
        let (id, secret) = (tenant.administrator.clientID, tenant.secret)
        let basic = "Basic " + Array("\(id):\(secret)".utf8).base64
        let scope = "scope=https%3A%2F%2Fgraph.coffer.localhost%2F%2F.default"
        let secretField = "&client_secret=" + secret.utf8.map { "%" + [$0].hex }.joined()
        let path = "/\(tenant.installation.tenantID)/oauth2/v2.0/token"
        for round in 0..<120 {
            var form = "grant_type=client_credentials&\(scope)"
            var headers: HTTPHeaders = ["Content-Type": "application/x-www-form-urlencoded"]
            let isItself: Bool
            if round.isMultiple(of: 2) {
                let changed = Self.noise(secretField, random)
                form += "&client_id=\(id)" + changed
                isItself = (try? Form(form))?["client_secret"] == secret
            } else {
                let changed = Self.noise(basic, random)
                headers.add(name: "Authorization", value: changed)
                let words = changed.split(separator: " ")
                isItself = words.count == 2 && words[0].lowercased() == "basic" && words[1] == basic.dropFirst(6)
            }
            let request = tenant.request(.POST, path, endpoint: .login, headers: headers, body: form)
            let (status, body) = await answer(service.respond(to: request))
            #expect(isItself || (400..<500).contains(status), "\(status): \(form)")
            #expect((status == 200) == (body["access_token"] != nil) && (status == 200) != (body["error"] != nil))
        }
    }

    @Test func anyDirectoryQuestionIsAnswered() async throws {
        let random = SeededRandomness(124)
        let tenant = try await Tenant()
        let token = await tenant.graphToken()
        let segments = [
            "servicePrincipals", "servicePrincipals(appId='x')", "applications", "applications(", "users", "groups",
            "me", "()", "(a=')", "%28%29", "%27", "%", "%C3", "é", "", "directoryObjects", "owners", "x",
        ]
        let clauses = [
            "appId", "displayName", " ", "%20", "eq", "startswith(", ")", "'", "'x'", "and", "or", "not", "(", ",",
            "%27", "é",
        ]
        for _ in 0..<200 {
            let path = (0..<random.number(1..<4)).map { _ in random.pick(segments) }.joined(separator: "/")
            let filter = random.text(clauses, upTo: 8)
            let top = random.pick(["", "&$top=1", "&$top=-1", "&$top=x"])
            let (status, body) = await tenant.graph(.GET, "/v1.0/\(path)?$filter=\(filter)\(top)", token: token)
            #expect((200..<500).contains(status), "\(status): \(path) \(filter)")
            #expect((status == 200) != (body["error"]?["code"]?.stringValue != nil), "\(path) \(filter)")
        }
    }

    @Test func alternateKeysAreTakenApart() {
        let random = SeededRandomness(125)
        for _ in 0..<1_500 {
            let segment = random.text(["a", "(", ")", "'", "=", "é", ",", " "], upTo: 8)
            let expanded = GraphService.expanded([segment])
            guard segment.last == ")", let open = segment.firstIndex(of: "(") else {
                #expect(expanded == [segment])
                continue
            }
            #expect(expanded.count == 2 && expanded[0] == segment[..<open] && !expanded[1].contains("'"))
            // Nothing but quotes and the outer parentheses is lost.
            let plain = segment.filter { $0 != "'" }
            #expect(expanded[0].filter { $0 != "'" } + "(" + expanded[1] + ")" == plain, "\(segment)")
        }
    }
}
