public import CofferCore

/// Turns a bearer token into a `Caller`, or says why not: signature (RS256), issuer, audience and time are all checked.
public final class TokenVerifier: Sendable {
    /// `clock` decides `exp` and `nbf`, with five minutes of tolerance on `nbf` only.
    public init(clock: any WallClock) { preconditionFailure() }

    /// Replaces the keys (JWKS JSON, RFC 7517) and the issuers that are trusted from now on. IdentityService calls it at start and on rollover.
    public func publish(jwks: [UInt8], issuers: Set<String>) async throws { preconditionFailure() }

    /// `audiences` are the resources the service answers to; a trailing slash makes no difference.
    public func verify(_ token: String, audiences: Set<String>) async throws(TokenRefusal) -> Caller { preconditionFailure() }
}

/// Why a token is not accepted. The message is for the caller and holds nothing of the token.
public struct TokenRefusal: Error, Sendable {
    public enum Reason: Sendable { case malformed, badSignature, wrongIssuer, wrongAudience, expired, notYetValid, missingClaim }
    public let reason: Reason
    public let message: String
    public init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }
}
