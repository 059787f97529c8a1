internal import CofferCore
internal import NIOCore
internal import Foundation
internal import NIOHTTP1
internal import ResourceProviders

/// Fetches deployment packages over HTTPS, as any client of the storage API would.
struct PackageSource: Sendable {
    private static let redirectsLimit = 5
    private static let timeoutSeconds: Int64 = 300

    let http: any OutboundHTTP
    let names: HostNames
    let clock: any WallClock
    let limits: PackageLimits
    /// A token of the app's identity for Blob storage; nil when the app has none.
    let bearer: (@Sendable () async throws -> RedactedString)?

    /// `url` may be a SAS URL; of a blob on this server without one, the app's identity is used. Throws `PackageError`,
    /// whose message names at most the host.
    func fetch(_ url: RedactedString) async throws(PackageError) -> ByteBuffer {
        var url = url.reveal()
        for _ in 0...Self.redirectsLimit {
            var request = OutboundRequest(
                url: url, responseLimitBytes: limits.archiveBytes, timeoutSeconds: Self.timeoutSeconds)
            guard let parts = URLComponents(string: url), let host = parts.host else {
                throw PackageError(
                    .unsupportedSetting, "Invalid url for the package: WEBSITE_RUN_FROM_PACKAGE is not a URL.")
            }
            try await authorize(&request, parts, host)
            let answer: OutboundResponse
            do {
                answer = try await http.send(request)
            } catch {
                let reason: PackageError.Reason =
                    switch error.reason {
                    case .tooLarge: .tooLarge
                    case .invalidURL: .unsupportedSetting
                    default: .unreachable
                    }
                throw PackageError(reason, "The package cannot be downloaded: \(error.message)")
            }
            switch answer.status {
            case 200: return answer.body
            case 301, 302, 303, 307, 308:
                guard let location = answer.headers.first(name: "Location"),
                    let next = URL(string: location, relativeTo: URL(string: url))
                else {
                    throw PackageError(.refused, "The package cannot be downloaded: '\(host)' redirects to nowhere.")
                }
                url = next.absoluteString
            default:
                let code = answer.storageErrorCode.map { " (\($0))" } ?? ""
                let hint =
                    switch answer.status {
                    case 401, 403:
                        " The SAS may have expired, or its key was renewed, or the identity has no role on the blob."
                    case 404: " Is the blob still there?"
                    default: ""
                    }
                throw PackageError(
                    .refused, "The package cannot be downloaded: '\(host)' answered \(answer.status)\(code).\(hint)")
            }
        }
        throw PackageError(.refused, "The package cannot be downloaded: more than \(Self.redirectsLimit) redirects.")
    }

    private func authorize(_ request: inout OutboundRequest, _ parts: URLComponents, _ host: String)
        async throws(PackageError)
    {
        guard case .storage(_, .blob)? = names.match(host)?.endpoint else { return }
        let isSigned = parts.queryItems?.contains { $0.name.lowercased() == "sig" } ?? false
        guard !isSigned, let bearer else { return }
        do {
            try await StorageCredential.bearer(bearer).authorize(&request, now: clock.now())
        } catch {
            throw PackageError(.refused, "Failed to acquire a token of the app's managed identity for the package.")
        }
    }
}
