import AsyncHTTPClient
import CofferCore
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL

/// The command line's own client of the running server: its plain port for health, its gateway for the APIs.
struct LocalClient {
    /// Longest answer a command reads, in bytes.
    private static let answerBytesLimit = 64 * 1_024 * 1_024

    let state: Home.RunState
    init(_ state: Home.RunState) { self.state = state }

    /// The running server's version.
    func health() async throws -> String {
        // The server answers for itself on the loopback only, and always listens there.
        let url = "http://127.0.0.1:\(state.httpPort)/healthz"
        let (status, body) = try await execute(HTTPClientRequest(url: url), HTTPClient.Configuration())
        guard status == 200, let version = try? JSONValue(parsing: body)["version"]?.stringValue else {
            throw CommandFailure(
                "Process \(state.pid) is there but does not answer on \(url). Wait while it starts; if it hangs, end it and "
                    + "start it again with 'coffer serve'.")
        }
        return version
    }

    /// A Resource Manager call as the administrator, whose file must be readable.
    func manage(_ method: HTTPMethod, _ path: String, _ body: JSONValue?, home: Home) async throws -> JSONValue {
        let administrator = try home.administrator()
        let names = NameFamily.coffer(domain: state.domain, port: state.advertisedPort)
        var settings = TLSConfiguration.makeClientConfiguration()
        settings.trustRoots = .file(home.authorityFile)
        var configuration = HTTPClient.Configuration(tlsConfiguration: settings)
        configuration.proxy = .server(host: state.address, port: state.gatewayPort)

        var signIn = HTTPClientRequest(url: names.url(of: .login) + "/\(administrator.tenantID)/oauth2/v2.0/token")
        signIn.method = .POST
        signIn.headers.add(name: "Content-Type", value: "application/x-www-form-urlencoded")
        let form = [
            ("grant_type", "client_credentials"), ("client_id", administrator.clientID),
            ("client_secret", administrator.clientSecret),
            ("scope", names.url(of: .management) + "/.default"),
        ]
        signIn.body = .bytes(ByteBuffer(string: form.map { "\($0)=\(Self.escaped($1))" }.joined(separator: "&")))
        let (signedIn, token) = try await execute(signIn, configuration)
        guard signedIn == 200, let bearer = try? JSONValue(parsing: token)["access_token"]?.stringValue else {
            throw CommandFailure(
                "The administrator's credentials are not accepted. Make new ones with 'coffer serve --reset-administrator'."
            )
        }
        var call = HTTPClientRequest(url: names.url(of: .management) + path)
        call.method = method
        call.headers.add(name: "Authorization", value: "Bearer " + bearer)
        if let body {
            call.headers.add(name: "Content-Type", value: "application/json")
            call.body = .bytes(ByteBuffer(bytes: body.serialized()))
        }
        let (status, answer) = try await execute(call, configuration)
        let value = (try? JSONValue(parsing: answer)) ?? .null
        guard (200..<300).contains(status) else {
            throw CommandFailure(
                value["error"]?["message"]?.stringValue ?? "The server answered \(status). Its log tells why.")
        }
        return value
    }

    private func execute(
        _ request: HTTPClientRequest, _ configuration: HTTPClient.Configuration
    ) async throws -> (status: Int, body: [UInt8]) {
        let client = HTTPClient(configuration: configuration)
        do {
            let response = try await client.execute(request, timeout: .seconds(30))
            let body = try await response.body.collect(upTo: Self.answerBytesLimit)
            try await client.shutdown()
            return (Int(response.status.code), Array(body.readableBytesView))
        } catch {
            try? await client.shutdown()
            throw CommandFailure(
                "The server (process \(state.pid)) does not answer: \(CommandFailure.reason(error)). If it hangs, end it and "
                    + "start it again with 'coffer serve'.")
        }
    }

    private static func escaped(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
    }
}
