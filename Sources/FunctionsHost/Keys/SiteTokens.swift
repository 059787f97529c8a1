internal import CofferCore
internal import Crypto

/// What a token of the platform opens at a site's host.
enum TokenAccess: Sendable, Equatable {
    /// The admin API, but for running functions.
    case administration
    /// What the master key opens.
    case full
}

/// Tokens for one site's host: issued over Resource Manager, and presented to the gate as JSON Web Tokens (RFC 7519,
/// HS256) or in App Service's own form (`RestrictedToken`).
///
/// jwt-kit has no place here: the keys of apps that move from Azure have 24 bytes, and it takes none below 32.
struct SiteTokens: Sendable {
    let siteName: String
    let keys: TokenKeys

    enum Refusal: Error, Sendable, Equatable {
        case malformed, badSignature, wrongIssuer, wrongAudience, expired, notYetValid
    }
    static let textBytesLimit = 8_192
    static let lifetimeSeconds: Int64 = 300
    /// On `nbf` only: a token never outlives its `exp`.
    static let notBeforeToleranceSeconds: Int64 = 300
    private static let platformIssuer = "https://appservice.core.azurewebsites.net"
    private static let header = Array(#"{"alg":"HS256","typ":"JWT"}"#.utf8).base64URL

    // Names of Azure's domain whatever this server's is: so the original makes and reads them.
    private var host: String { "https://\(siteName).azurewebsites.net" }
    private var scm: String { "https://\(siteName).scm.azurewebsites.net" }

    /// nil when the site has no key that may sign (`AzureWebEncryptionKey` is too short).
    func issue(now: Timestamp) -> RedactedString? {
        guard let key = keys.signing.first else { return nil }
        let start = now.unixSeconds
        let claims: JSONValue = [
            "iss": .string(scm), "aud": .string(host + "/azurefunctions"), "nbf": .integer(start),
            "iat": .integer(start), "exp": .integer(start + Self.lifetimeSeconds),
        ]
        let text = Self.header + "." + claims.serialized().base64URL
        let code = key.withUnsafeBytes {
            HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: $0))
        }
        return RedactedString(text + "." + Array(code).base64URL)
    }

    /// What a JSON Web Token opens: everything, unless App Service's core issued it.
    func access(_ token: RedactedString, now: Timestamp) throws(Refusal) -> TokenAccess {
        let claims = try verifiedClaims(of: token.reveal())
        // Without an end a token is refused, as in the original.
        guard let end = Self.seconds(claims["exp"]) else { throw .malformed }
        guard now < Timestamp(unixSeconds: end) else { throw .expired }
        if let start = claims["nbf"] {
            guard let start = Self.seconds(start) else { throw .malformed }
            guard Timestamp(unixSeconds: start) <= now.adding(seconds: Self.notBeforeToleranceSeconds) else {
                throw .notYetValid
            }
        }
        let audiences = claims["aud"]?.arrayValue ?? claims["aud"].map { [$0] } ?? []
        guard audiences.contains(where: { Self.isOne($0, of: [host, host + "/azurefunctions"]) }) else {
            throw .wrongAudience
        }
        guard let issuer = claims["iss"], Self.isOne(issuer, of: [Self.platformIssuer, scm, host]) else {
            throw .wrongIssuer
        }
        return Self.isOne(issuer, of: [Self.platformIssuer]) ? .administration : .full
    }

    /// Whether a key of this site signed the text, whatever it claims, also when it has ended; or may have, where not
    /// every key is known.
    func mayVouch(for token: RedactedString) -> Bool {
        do throws(Refusal) {
            _ = try signedParts(of: token.reveal())
            return true
        } catch {
            return error == .badSignature && !keys.isComplete
        }
    }

    private func verifiedClaims(of token: String) throws(Refusal) -> JSONValue {
        let parts = try signedParts(of: token)
        guard let header = try? JSONValue(parsing: parts.header), let claims = try? JSONValue(parsing: parts.claims),
            claims.objectValue != nil
        else { throw .malformed }
        guard header["alg"] == "HS256", header["crit"] == nil else { throw .badSignature }
        return claims
    }

    /// Nothing of a token is read before its signature is: anybody may send one. The algorithm is ours, never the
    /// token's.
    private func signedParts(of token: String) throws(Refusal) -> (header: [UInt8], claims: [UInt8]) {
        guard token.utf8.count <= Self.textBytesLimit else { throw .malformed }
        let texts = token.split(separator: ".", omittingEmptySubsequences: false)
        let parts = texts.compactMap { text -> [UInt8]? in
            // base64url without padding, and nothing else (RFC 7515 §2): no second text for one token.
            [UInt8](base64URL: text).flatMap { $0.base64URL == String(text) ? $0 : nil }
        }
        guard texts.count == 3, parts.count == 3 else { throw .malformed }
        let signed = Array(token.utf8.dropLast(texts[2].utf8.count + 1))
        var isSigned = false
        for key in keys.signing {
            isSigned =
                key.withUnsafeBytes {
                    HMAC<SHA256>.isValidAuthenticationCode(
                        parts[2], authenticating: signed, using: SymmetricKey(data: $0))
                } || isSigned
        }
        guard isSigned else { throw .badSignature }
        return (parts[0], parts[1])
    }

    /// A NumericDate (RFC 7519 §2); some writers put a fraction in it.
    private static func seconds(_ value: JSONValue?) -> Int64? {
        switch value {
        case .integer(let value): value
        case .number(let value): Int64(exactly: value.rounded(.down))
        default: nil
        }
    }

    /// Without regard to case, as the original compares.
    private static func isOne(_ value: JSONValue, of names: [String]) -> Bool {
        guard let text = value.stringValue else { return false }
        return names.contains { $0.utf8.count == text.utf8.count && $0.lowercased() == text.lowercased() }
    }
}
