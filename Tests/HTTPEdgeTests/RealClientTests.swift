import CofferCore
import Foundation
import Testing

@testable import HTTPEdge

/// The programs that people use, with their own TLS and HTTP.
@Suite struct RealClientTests {
    @Test func curlTrustsTheServerByItsName() async throws {
        try await withServer { server, authority in
            try await withCertificateFile(authority) { file in
                let answer = try await run(
                    "curl",
                    [
                        "-sS", "--noproxy", "*", "--cacert", file, "--resolve",
                        "v1.vault.coffer.localhost:\(server.tlsPort!):127.0.0.1",
                        "https://v1.vault.coffer.localhost:\(server.tlsPort!)/secrets/a%2Fb?api-version=7.4", "-d",
                        "hello",
                    ])
                #expect(answer.status == 0, "\(answer.output)")
                #expect(
                    answer.output.split(separator: "\n", omittingEmptySubsequences: false)
                        == [
                            "POST", "/secrets/a%2Fb", "api-version=7.4", #"vault("v1")"#, "https", "v1_3", "127.0.0.1",
                            "hello",
                        ])
            }
        }
    }

    @Test func curlComesThroughTheGateway() async throws {
        try await withServer { server, authority in
            try await withCertificateFile(authority) { file in
                let proxy = [
                    "-sS", "--noproxy", "", "--proxy", "http://127.0.0.1:\(server.gatewayPort!)", "--cacert", file,
                ]
                let azure = try await run("curl", proxy + ["https://acct.blob.core.windows.net/c/b"])
                #expect(azure.output.contains("blob") && azure.status == 0, "\(azure.output)")
                let plain = try await run("curl", proxy + ["http://acct.blob.core.coffer.localhost/c/b?x=1"])
                #expect(
                    plain.output.hasPrefix("GET\n/c/b\nx=1\n") && plain.output.contains("\nhttp\n"), "\(plain.output)")
                let tunnelled = try await run(
                    "curl", proxy + ["--proxytunnel", "http://acct.blob.core.coffer.localhost/c/b"])
                #expect(tunnelled.output.hasPrefix("GET\n/c/b\n"), "\(tunnelled.output)")
                let other = try await run("curl", proxy + ["-w", "%{http_connect}", "https://example.com/"])
                #expect(other.output.contains("403") && other.status != 0, "\(other.output)")
            }
        }
    }

    @Test func opensslAcceptsTheChainUnderItsStrictRules() async throws {
        try await withServer { server, authority in
            try await withCertificateFile(authority) { file in
                let answer = try await run(
                    "openssl",
                    [
                        "s_client", "-connect", "127.0.0.1:\(server.tlsPort!)", "-servername", "management.azure.com",
                        "-CAfile", file,
                        "-verify_return_error", "-x509_strict", "-verify_hostname", "management.azure.com", "-purpose",
                        "sslserver", "-brief",
                    ])
                #expect(answer.output.contains("Verification: OK") && answer.status == 0, "\(answer.output)")
                let unknown = try await run(
                    "openssl",
                    [
                        "s_client", "-connect", "127.0.0.1:\(server.tlsPort!)", "-servername", "example.com", "-CAfile",
                        file,
                    ])
                let old = try await run(
                    "openssl",
                    [
                        "s_client", "-connect", "127.0.0.1:\(server.tlsPort!)", "-servername", "management.azure.com",
                        "-tls1_1", "-cipher", "ALL:@SECLEVEL=0",
                    ])
                #expect(old.output.contains("alert protocol version") && old.status != 0, "\(old.output)")
                #expect(unknown.output.contains("unrecognized name") && unknown.status != 0, "\(unknown.output)")
                let authorityItself = try await run(
                    "openssl", ["verify", "-x509_strict", "-check_ss_sig", "-CAfile", file, file])
                #expect(authorityItself.status == 0, "\(authorityItself.output)")
            }
        }
    }

    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/java")))
    func javaComesThroughTheGateway() async throws {
        let program = """
            import java.net.*; import java.nio.file.*; import java.security.*;
            import java.security.cert.*; import javax.net.ssl.*;
            public class Client {
                public static void main(String[] a) throws Exception {
                    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
                    store.load(null, null);
                    var pem = Files.newInputStream(Path.of(a[1]));
                    store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
                    var trust = TrustManagerFactory.getInstance("PKIX");
                    trust.init(store);
                    var context = SSLContext.getInstance("TLS");
                    context.init(null, trust.getTrustManagers(), null);
                    var proxy = new Proxy(Proxy.Type.HTTP, new InetSocketAddress("127.0.0.1", Integer.parseInt(a[0])));
                    var url = new URL("https://v1.vault.azure.net/secrets/x");
                    var connection = (HttpsURLConnection) url.openConnection(proxy);
                    connection.setSSLSocketFactory(context.getSocketFactory());
                    System.out.println(new String(connection.getInputStream().readAllBytes()));
                }
            }
            """
        try await withServer { server, authority in
            try await withCertificateFile(authority) { file in
                let source = URL(fileURLWithPath: file).deletingLastPathComponent().appendingPathComponent(
                    "Client.java")
                try Data(program.utf8).write(to: source)
                let answer = try await run("java", [source.path, "\(server.gatewayPort!)", file])
                #expect(answer.status == 0 && answer.output.contains("GET\n/secrets/x\n"), "\(answer.output)")
            }
        }
    }

    @Test func pythonUnderStrictRulesComesThroughTheGateway() async throws {
        let script = """
            import http.client, ssl, sys
            context = ssl.create_default_context(cafile=sys.argv[2])
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
            connection.set_tunnel("management.coffer.localhost", 443)
            for i in range(3):
                connection.request("PUT", "/subscriptions?n=%d" % i, body=b"x" * 70000)
                response = connection.getresponse()
                print(response.status, len(response.read()))
            """
        try await withServer { server, authority in
            try await withCertificateFile(authority) { file in
                let answer = try await run("python3", ["-c", script, "\(server.gatewayPort!)", file])
                #expect(
                    answer.output.split(separator: "\n").count == 3 && answer.output.hasPrefix("200 7"),
                    "\(answer.output)")
            }
        }
    }
}
