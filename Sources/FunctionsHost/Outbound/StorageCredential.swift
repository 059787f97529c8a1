internal import CofferCore
internal import Crypto
internal import Foundation
internal import NIOHTTP1

/// How the host signs what it asks of Blob storage: as any client of the public API does.
enum StorageCredential: Sendable {
    case sharedKey(account: String, key: SecretBytes)
    /// The query of a SAS, without `?`.
    case sharedAccessSignature(RedactedString)
    /// A token of the app's identity.
    case bearer(@Sendable () async throws -> RedactedString)

    static let apiVersion = "2021-12-02"

    /// Signs a request (Azure Storage, "Authorize with Shared Key", version 2009-09-19 and later).
    func authorize(_ request: inout OutboundRequest, now: Timestamp) async throws {
        request.headers.replaceOrAdd(name: "x-ms-version", value: Self.apiVersion)
        request.headers.replaceOrAdd(name: "x-ms-date", value: now.rfc1123)
        switch self {
        case .sharedKey(let account, let key):
            let text = Self.stringToSign(request, account: account)
            let code = key.withUnsafeBytes {
                HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: $0))
            }
            request.headers.replaceOrAdd(name: "Authorization", value: "SharedKey \(account):\(Array(code).base64)")
        case .sharedAccessSignature(let query):
            request.url += (request.url.contains("?") ? "&" : "?") + query.reveal()
        case .bearer(let token):
            request.headers.replaceOrAdd(name: "Authorization", value: "Bearer " + (try await token()).reveal())
        }
    }

    static func stringToSign(_ request: OutboundRequest, account: String) -> String {
        func header(_ name: String) -> String { request.headers.first(name: name) ?? "" }
        let length = request.body.isEmpty ? "" : String(request.body.count)
        var lines = [
            request.method.rawValue, header("Content-Encoding"), header("Content-Language"), length,
            header("Content-MD5"),
            header("Content-Type"), "", header("If-Modified-Since"), header("If-Match"), header("If-None-Match"),
            header("If-Unmodified-Since"), header("Range"),
        ]
        let own = request.headers.filter { $0.name.lowercased().hasPrefix("x-ms-") }
            .map { "\($0.name.lowercased()):\($0.value.trimmed)" }
        lines += own.sorted()
        lines.append(canonicalResource(request.url, account: account))
        return lines.joined(separator: "\n")
    }

    private static func canonicalResource(_ url: String, account: String) -> String {
        guard let parts = URLComponents(string: url) else { return "/\(account)/" }
        var text = "/" + account + (parts.percentEncodedPath.isEmpty ? "/" : parts.percentEncodedPath)
        var parameters: [String: [String]] = [:]
        for item in parts.queryItems ?? [] { parameters[item.name.lowercased(), default: []].append(item.value ?? "") }
        for name in parameters.keys.sorted() {
            text += "\n\(name):\(parameters[name, default: []].sorted().joined(separator: ","))"
        }
        return text
    }
}

/// The Blob service of an account and how to sign for it, as app settings name it.
struct BlobServiceConnection: Sendable {
    /// `https://account.blob.…`, without a trailing slash.
    let endpoint: String
    let credential: StorageCredential

    struct Malformed: Error {
        let message: String
    }

    /// Reads a storage connection string (`Name=value` pairs separated by `;`, names in any case).
    init(connectionString: RedactedString) throws(Malformed) {
        var values: [String: String] = [:]
        for pair in connectionString.reveal().split(separator: ";") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            values[parts[0].trimmed.lowercased()] = String(parts[1])
        }
        guard values["usedevelopmentstorage"] == nil else {
            throw Malformed(message: "development storage has no meaning on a server; name a storage account")
        }
        let account = values["accountname"]
        if let explicit = values["blobendpoint"] {
            endpoint = explicit.hasSuffix("/") ? String(explicit.dropLast()) : explicit
        } else if let account {
            endpoint =
                (values["defaultendpointsprotocol"] ?? "https") + "://\(account).blob."
                + (values["endpointsuffix"] ?? "core.windows.net")
        } else {
            throw Malformed(message: "the connection string names no AccountName and no BlobEndpoint")
        }
        if let text = values["accountkey"], let account {
            guard let key = [UInt8](base64: text) else { throw Malformed(message: "the AccountKey is not base64") }
            credential = .sharedKey(account: account, key: SecretBytes(copying: key))
        } else if let signature = values["sharedaccesssignature"] {
            credential = .sharedAccessSignature(
                RedactedString(signature.hasPrefix("?") ? String(signature.dropFirst()) : signature))
        } else {
            throw Malformed(message: "the connection string has neither an AccountKey nor a SharedAccessSignature")
        }
    }

    init(endpoint: String, credential: StorageCredential) {
        self.endpoint = endpoint.hasSuffix("/") ? String(endpoint.dropLast()) : endpoint
        self.credential = credential
    }
}
