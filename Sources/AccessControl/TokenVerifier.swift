public import CofferCore
internal import Crypto
internal import Foundation
internal import JWTKit
internal import Synchronization

/// Turns a bearer token into a `Caller`, or says why not: signature (RS256), issuer, audience and time are all checked.
///
/// A verified token is remembered by its SHA-256 until it expires, so that a busy data plane pays for one RSA operation
/// per token and not per request. Time, audience and the principal's standing are checked every time.
public final class TokenVerifier: Sendable {
    /// Longest token read, in bytes. Entra's own stay below 8 KiB.
    public static let tokenBytesLimit = 16_384
    /// Most verified tokens remembered.
    static let rememberedLimit = 8_192
    /// Tolerance on `nbf` only: a token never outlives its `exp`.
    static let notBeforeToleranceSeconds: Int64 = 300

    private struct Trust: Sendable {
        var keys = JWTKeyCollection()
        var keyIDs: Set<String> = []
        var issuers: Set<String> = []
        var standing: (any PrincipalStanding)?
    }
    private struct State {
        var trust = Trust()
        /// Counts publications: what was verified under older keys is never remembered under newer ones.
        var generation = 0
        var remembered: [SHA256.Digest: VerifiedToken] = [:]
        /// Principals known to exist and to be enabled, until they change.
        var inGoodStanding: Set<String> = []
        var observers: [@Sendable () -> Void] = []
        /// Counts what may change a standing: an answer from before one is not remembered after it.
        var standingChanges = 0
    }
    private let clock: any WallClock
    private let state = Mutex(State())

    /// `clock` decides `exp` and `nbf`, with five minutes of tolerance on `nbf` only.
    public init(clock: any WallClock) { self.clock = clock }

    /// Replaces the keys (JWKS JSON, RFC 7517) and the issuers that are trusted from now on. IdentityService calls it
    /// at start and on rollover. Keys that are not RSA signature keys with an identifier are refused by throwing.
    /// `standing` knows the principals; nil vouches for all.
    public func publish(
        jwks: [UInt8], issuers: Set<String>, standing: (any PrincipalStanding)? = nil
    ) async throws {
        let set = try JSONDecoder().decode(JSONWebKeySet.self, from: Data(jwks))
        var trust = Trust(issuers: issuers, standing: standing)
        for key in set.keys {
            guard key.kty == "RSA", key.use ?? "sig" == "sig", key.alg ?? "RS256" == "RS256",
                trust.keyIDs.insert(key.kid).inserted
            else {
                throw TokenRefusal(
                    .malformed, "The key set holds a key that is not an RS256 signature key, or one identifier twice.")
            }
            let publicKey = try Insecure.RSA.PublicKey(modulus: key.n, exponent: key.e)
            await trust.keys.add(rsa: publicKey, digestAlgorithm: .sha256, kid: JWKIdentifier(string: key.kid))
        }
        state.withLock { [trust] state in
            state.trust = trust
            state.generation += 1
            state.remembered = [:]
            state.inGoodStanding = []
            state.standingChanges += 1
        }
    }

    /// Principals changed: the next act of one asks for its standing, and observers hear of it. To be called after the
    /// change is durable and before it is acknowledged.
    public func forget(principals objectIDs: Set<String>) {
        let observers = state.withLock { state in
            state.standingChanges += 1
            state.inGoodStanding.subtract(objectIDs)
            return state.observers
        }
        for observer in observers { observer() }
    }

    /// Calls back, before a change of principals is acknowledged, those who hold what a principal was given.
    public func onPrincipalChange(_ observer: @escaping @Sendable () -> Void) {
        state.withLock { $0.observers.append(observer) }
    }

    /// Throws unless the principal exists and is enabled; `.unavailable` when nobody can tell. Also for callers inside
    /// the process, who come without a token.
    public func requireStanding(of caller: Caller) async throws(TokenRefusal) {
        let (standing, isKnown, changes) = state.withLock {
            ($0.trust.standing, $0.inGoodStanding.contains(caller.objectID), $0.standingChanges)
        }
        guard let standing, !isKnown else { return }
        let isGood: Bool
        do {
            isGood = try await standing.isInGoodStanding(caller.objectID)
        } catch {
            throw TokenRefusal(.unavailable, "The caller's principal cannot be looked up now; try again.")
        }
        guard isGood else {
            throw TokenRefusal(.principalUnknown, "The caller's principal was deleted or disabled.")
        }
        state.withLock { state in
            guard state.standingChanges == changes else { return }
            if state.inGoodStanding.count >= Self.rememberedLimit { state.inGoodStanding = [] }
            state.inGoodStanding.insert(caller.objectID)
        }
    }

    /// `audiences` are the resources the service answers to; a trailing slash makes no difference.
    public func verify(_ token: String, audiences: Set<String>) async throws(TokenRefusal) -> Caller {
        guard token.utf8.count <= Self.tokenBytesLimit else { throw TokenRefusal(.malformed, "The token is too long.") }
        let digest = SHA256.hash(data: Array(token.utf8))
        let known = state.withLock { $0.remembered[digest] }
        let verified: VerifiedToken
        if let known {
            verified = known
        } else {
            verified = try await open(token, digest)
        }
        try verified.check(at: clock.now(), toleranceSeconds: Self.notBeforeToleranceSeconds)
        guard audiences.contains(where: { sameAudience($0, verified.audience) }) else {
            throw TokenRefusal(.wrongAudience, "The access token was issued for another resource than this service.")
        }
        try await requireStanding(of: verified.caller)
        return verified.caller
    }

    private func open(_ token: String, _ digest: SHA256.Digest) async throws(TokenRefusal) -> VerifiedToken {
        let (trust, generation) = state.withLock { ($0.trust, $0.generation) }
        // The algorithm is ours, never the token's: neither `none` nor a MAC under the public key can be asked for.
        guard let header = Self.header(of: token) else {
            throw TokenRefusal(.malformed, "The access token is not a signed JWT.")
        }
        guard header.alg == "RS256", let keyID = header.kid, trust.keyIDs.contains(keyID), header.crit == nil else {
            throw TokenRefusal(
                .badSignature, "The access token is not signed with a key of this tenant (RS256 with a known `kid`).")
        }
        let claims: AccessTokenClaims
        do {
            claims = try await trust.keys.verify(token, as: AccessTokenClaims.self)
        } catch {
            throw TokenRefusal(.badSignature, "The signature of the access token is not valid.")
        }
        guard let issuer = claims.iss, let verified = VerifiedToken(claims) else {
            throw TokenRefusal(
                .missingClaim, "The access token lacks one of the claims aud, iss, exp, nbf, tid and oid.")
        }
        guard trust.issuers.contains(issuer) else {
            throw TokenRefusal(.wrongIssuer, "The access token is from the wrong issuer.")
        }
        remember(verified, digest, generation)
        return verified
    }

    private func remember(_ token: VerifiedToken, _ digest: SHA256.Digest, _ generation: Int) {
        let now = clock.now()
        state.withLock { state in
            guard state.generation == generation else { return }
            if state.remembered.count >= Self.rememberedLimit {
                state.remembered = state.remembered.filter { $0.value.expires > now }
                if state.remembered.count >= Self.rememberedLimit { state.remembered = [:] }
            }
            state.remembered[digest] = token
        }
    }

    private struct Header: Decodable {
        let alg: String
        let kid: String?
        let crit: [String]?
    }
    private static func header(of token: String) -> Header? {
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        // base64url without padding, and nothing else (RFC 7515 §2): a lenient decoder would know one token by many
        // texts.
        guard parts.count == 3, parts.allSatisfy({ [UInt8](base64URL: $0)?.base64URL == String($0) }),
            let bytes = [UInt8](base64URL: parts[0])
        else { return nil }
        return try? JSONDecoder().decode(Header.self, from: Data(bytes))
    }
}

/// Whether principals still exist and are enabled. IdentityService knows.
public protocol PrincipalStanding: Sendable {
    func isInGoodStanding(_ objectID: String) async throws -> Bool
}

/// What is left of a token once its signature and issuer are proven.
private struct VerifiedToken: Sendable {
    let caller: Caller
    let audience: String
    let expires: Timestamp
    let notBefore: Timestamp

    /// nil when a claim is missing.
    init?(_ claims: AccessTokenClaims) {
        guard let audience = claims.aud, let exp = claims.exp, let nbf = claims.nbf, let tenant = claims.tid,
            let object = claims.oid
        else {
            return nil
        }
        let kind: Caller.Kind =
            claims.idtyp == "user" ? .user : claims.xms_mirid != nil ? .managedIdentity : .servicePrincipal
        caller = Caller(kind: kind, objectID: object, tenantID: tenant, applicationID: claims.appid ?? claims.azp)
        self.audience = audience
        expires = Timestamp(unixSeconds: exp)
        notBefore = Timestamp(unixSeconds: nbf)
    }

    func check(at now: Timestamp, toleranceSeconds: Int64) throws(TokenRefusal) {
        guard now < expires else {
            throw TokenRefusal(
                .expired, "The access token expired at \(expires.iso8601); the time here is \(now.iso8601).")
        }
        guard notBefore <= now.adding(seconds: toleranceSeconds) else {
            throw TokenRefusal(
                .notYetValid,
                "The access token is not valid before \(notBefore.iso8601); the time here is \(now.iso8601).")
        }
    }
}

private struct AccessTokenClaims: JWTPayload {
    // Optional, so that the signature is judged first: jwt-kit decodes before it verifies.
    let aud: String?
    let iss: String?
    let exp: Int64?
    let nbf: Int64?
    let tid: String?
    let oid: String?
    let appid: String?
    let azp: String?
    let idtyp: String?
    let xms_mirid: String?
    /// `exp` and `nbf` are checked against the caller's clock, on every use.
    func verify(using algorithm: some JWTAlgorithm) throws {}
}

private struct JSONWebKeySet: Decodable {
    struct Key: Decodable {
        let kty: String
        let kid: String
        let n: String
        let e: String
        let use: String?
        let alg: String?
    }
    let keys: [Key]
}

/// Audiences compare without regard to case and one trailing slash, as Azure's services do.
private func sameAudience(_ left: String, _ right: String) -> Bool {
    func trimmed(_ text: String) -> Substring.UTF8View { (text.hasSuffix("/") ? text.dropLast() : text[...]).utf8 }
    let (left, right) = (trimmed(left), trimmed(right))
    return left.count == right.count && zip(left, right).allSatisfy { asciiLowercased($0) == asciiLowercased($1) }
}

/// Why a token is not accepted. The message is for the caller and holds nothing of the token.
public struct TokenRefusal: Error, Sendable {
    public enum Reason: Sendable {
        case malformed, badSignature, wrongIssuer, wrongAudience, expired, notYetValid, missingClaim, principalUnknown
        /// Nothing is wrong with the token as far as is known: answer 503.
        case unavailable
    }
    public let reason: Reason
    public let message: String
    public init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }
}
