internal import AsyncHTTPClient
public import CofferCore
internal import Foundation
public import NIOCore
internal import NIOHTTP1
public import NIOSSL

/// The real `OutboundHTTP`: names that Coffer answers to go to the server itself through its gateway, everything else
/// straight out. Public roots and Coffer's own authority are trusted.
public final class OutboundClient: OutboundHTTP {
    public struct Configuration: Sendable {
        /// Names that Coffer serves.
        public var hostNames: HostNames
        /// The server's own CONNECT gateway; nil sends Coffer's names through the system's resolver.
        public var gateway: (host: String, port: Int)?
        /// Certificates of Coffer's authority.
        public var trustRoots: [NIOSSLCertificate]
        public init(hostNames: HostNames, gateway: (host: String, port: Int)?, trustRoots: [NIOSSLCertificate]) {
            self.hostNames = hostNames
            self.gateway = gateway
            self.trustRoots = trustRoots
        }
    }

    private let hostNames: HostNames
    private let direct: HTTPClient
    private let throughGateway: HTTPClient?

    public init(_ configuration: Configuration, group: any EventLoopGroup) {
        hostNames = configuration.hostNames
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        tls.additionalTrustRoots = [.certificates(configuration.trustRoots)]
        var client = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(connect: .seconds(10), read: .seconds(60)))
        client.httpVersion = .http1Only
        direct = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: client)
        if let gateway = configuration.gateway {
            client.proxy = .server(host: gateway.host, port: gateway.port)
            throughGateway = HTTPClient(eventLoopGroupProvider: .shared(group), configuration: client)
        } else {
            throughGateway = nil
        }
    }

    public func shutdown() async {
        try? await direct.shutdown()
        try? await throughGateway?.shutdown()
    }

    public func send(_ request: OutboundRequest) async throws(OutboundError) -> OutboundResponse {
        guard let url = URL(string: request.url), let host = url.host, !host.isEmpty else {
            throw OutboundError(.invalidURL, "The URL is malformed.")
        }
        guard url.scheme?.lowercased() == "https" else {
            throw OutboundError(
                .invalidURL, "Only https URLs are allowed; '\(host)' was asked for over another scheme.")
        }
        let client = hostNames.match(host) == nil ? direct : throughGateway ?? direct
        var message = HTTPClientRequest(url: request.url)
        message.method = request.method
        message.headers = request.headers
        if !request.body.isEmpty || request.method == .PUT || request.method == .POST {
            message.body = .bytes(request.body)
        }
        do {
            let answer = try await client.execute(message, timeout: .seconds(request.timeoutSeconds))
            if let length = answer.headers.first(name: "Content-Length").flatMap({ Int($0) }),
                length > request.responseLimitBytes
            {
                throw OutboundError(
                    .tooLarge, "The answer of '\(host)' is larger than \(request.responseLimitBytes) bytes.")
            }
            var body = ByteBuffer()
            for try await part in answer.body {
                guard body.readableBytes + part.readableBytes <= request.responseLimitBytes else {
                    throw OutboundError(
                        .tooLarge, "The answer of '\(host)' is larger than \(request.responseLimitBytes) bytes.")
                }
                body.writeImmutableBuffer(part)
            }
            return OutboundResponse(status: Int(answer.status.code), headers: answer.headers, body: body)
        } catch let error as OutboundError {
            throw error
        } catch let error as HTTPClientError
            where [.deadlineExceeded, .readTimeout, .connectTimeout, .tlsHandshakeTimeout].contains(error)
        {
            throw OutboundError(.timedOut, "'\(host)' did not answer in time.")
        } catch is NIOSSLError {
            throw OutboundError(
                .untrustedCertificate, "The TLS handshake with '\(host)' failed; is its certificate trusted?")
        } catch {
            throw OutboundError(.cannotConnect, "'\(host)' cannot be reached.")
        }
    }
}
