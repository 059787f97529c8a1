internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1

/// A site's rules as the gate asks them, made once for each change of the site.
struct SitePolicy: Sendable {
    let site: Site
    let cors: CORSPolicy
    private let restrictions: AccessRestrictionSet
    private let scmRestrictions: AccessRestrictionSet
    private let certificateExclusions: [String]

    init(_ site: Site) {
        self.site = site
        cors = CORSPolicy(site.config.cors)
        restrictions = AccessRestrictionSet(site.config.accessRestrictions)
        scmRestrictions = AccessRestrictionSet(
            site.config.scmUsesMainAccessRestrictions
                ? site.config.accessRestrictions : site.config.scmAccessRestrictions)
        certificateExclusions = (site.clientCertExclusionPaths ?? "").split { $0 == "," || $0 == ";" }
            .map { $0.trimmed.lowercased() }.filter { !$0.isEmpty }
    }

    static func tlsVersion(_ version: SiteConfig.TLSVersion) -> Transport.TLSVersion {
        version == .v1_3 ? .v1_3 : .v1_2
    }
    var minimumTLSVersion: Transport.TLSVersion { Self.tlsVersion(site.config.minTLSVersion) }
    var scmMinimumTLSVersion: Transport.TLSVersion { Self.tlsVersion(site.config.scmMinTLSVersion) }

    /// What stops the request before any app or key is asked; nil when nothing does.
    func refusal(of request: Request) -> Response? {
        if request.transport.scheme == .http, site.httpsOnly { return redirectToHTTPS(request) }
        if let version = request.transport.tlsVersion, version < minimumTLSVersion {
            return Pages.forbidden("This web app needs TLS \(site.config.minTLSVersion.rawValue) or newer.")
        }
        if let refusal = networkRefusal(of: request, restrictions) { return refusal }
        if site.state == .stopped { return Pages.stopped() }
        return nil
    }

    /// The scm site's own rules, before its credentials are looked at.
    func scmRefusal(of request: Request) -> Response? {
        if request.transport.scheme == .http { return redirectToHTTPS(request) }
        if let version = request.transport.tlsVersion, version < scmMinimumTLSVersion {
            return Pages.forbidden("This site needs TLS \(site.config.scmMinTLSVersion.rawValue) or newer.")
        }
        return networkRefusal(of: request, scmRestrictions)
    }

    /// No client certificate ever arrives here: where one is required, nobody passes.
    func certificateRefusal(of request: Request) -> Response? {
        guard site.clientCertEnabled, site.clientCertMode == .required else { return nil }
        let path = request.rawPath.lowercased()
        let isExcluded = certificateExclusions.contains {
            path == $0 || path.hasPrefix($0.hasSuffix("/") ? $0 : $0 + "/")
        }
        return isExcluded ? nil : Pages.forbidden("A client certificate is required.")
    }

    private func networkRefusal(of request: Request, _ restrictions: AccessRestrictionSet) -> Response? {
        guard site.publicNetworkAccess == .enabled,
            restrictions.allows(peer: request.transport.peerAddress, headers: request.headers)
        else { return Pages.addressForbidden(request.transport.peerAddress) }
        return nil
    }

    private func redirectToHTTPS(_ request: Request) -> Response {
        let target = request.rawPath + (request.rawQuery.isEmpty ? "" : "?" + request.rawQuery)
        return Response(
            status: .movedPermanently,
            headers: ["Location": "https://" + request.names.authority(of: request.endpoint) + target])
    }
}
