public import AccessControl
public import CofferCore
internal import Crypto
public import EncryptionAtRest
internal import Foundation
public import Logging
internal import ResourceProviders
internal import Synchronization

/// The tenant: principals and their secrets, the signing key, and the tokens.
///
/// `bootstrap()` comes first; until then every operation fails as unavailable.
public final class IdentityService: Sendable {
    let installation: Installation
    let names: HostNames
    let directory: DirectoryRecords
    let verifier: TokenVerifier
    let audiences: Audiences
    let clock: any WallClock
    let randomness: any Randomness
    let logger: Logger
    let secretRounds: Int
    private let keys = Mutex<SigningKeys?>(nil)
    private let verifiedSecrets: VerifiedSecrets

    /// Lifetime of every access token, in seconds. A token outlives the removal of its principal by at most this.
    static let tokenLifetimeSeconds: Int64 = 3_600

    /// `records` are the domain `identity`, any one partition. `secretRounds` hashes new client secrets.
    public init(
        installation: Installation, names: HostNames, records: SealedRecords, verifier: TokenVerifier,
        clock: any WallClock,
        randomness: any Randomness, logger: Logger, secretRounds: Int? = nil
    ) {
        self.installation = installation
        self.names = names
        self.directory = DirectoryRecords(records)
        self.verifier = verifier
        self.audiences = Audiences(names: names)
        self.clock = clock
        self.randomness = randomness
        self.logger = logger
        self.secretRounds = secretRounds ?? ClientSecret.defaultRounds
        self.verifiedSecrets = VerifiedSecrets(key: SymmetricKey(data: randomness.bytes(32)))
    }

    var signingKeys: SigningKeys {
        get throws {
            guard let keys = keys.withLock({ $0 }) else { throw SigningKeyMissing() }
            return keys
        }
    }

    func adopt(_ records: [SigningKeyRecord]) async throws {
        let fresh = try await SigningKeys(records)
        try await verifier.publish(jwks: fresh.jwks.serialized(), issuers: issuers)
        keys.withLock { $0 = fresh }
    }

    // MARK: Issuers

    /// v1 and v2 spellings of both families of names.
    var issuers: Set<String> { Set(names.families.flatMap { [issuer($0, version: 1), issuer($0, version: 2)] }) }

    func issuer(_ family: NameFamily, version: Int) -> String {
        if version == 2 { return "\(family.url(of: .login))/\(installation.tenantID)/v2.0" }
        return switch family {
        case .azurePublic: "https://sts.windows.net/\(installation.tenantID)/"
        case .coffer: "\(family.url(of: .login))/\(installation.tenantID)/"
        }
    }

    // MARK: Tokens

    /// Signs a token for a principal. `version` is the token's format, not the endpoint's.
    func issue(to principal: ServicePrincipal, audience: String, names: NameFamily, version: Int = 1) async throws
        -> IssuedToken
    {
        let now = clock.now().unixSeconds
        let issuer = issuer(names, version: version)
        let proof = principal.kind == .managedIdentity ? "2" : "1"
        let claims = TokenClaims(
            aud: audience, iss: issuer, iat: now, nbf: now, exp: now + Self.tokenLifetimeSeconds, oid: principal.id,
            sub: principal.id,
            tid: installation.tenantID, idtyp: "app", uti: randomness.bytes(16).base64URL,
            ver: version == 2 ? "2.0" : "1.0",
            appid: version == 2 ? nil : principal.appID, appidacr: version == 2 ? nil : proof,
            idp: version == 2 ? nil : issuer,
            azp: version == 2 ? principal.appID : nil, azpacr: version == 2 ? proof : nil,
            xms_mirid: principal.resource?.description)
        let token = try await signingKeys.sign(claims)
        return IssuedToken(token: RedactedString(token), expires: Timestamp(unixSeconds: claims.exp))
    }

    /// Whether `secret` is one of the live secrets; `.expired` when it is one that has run out.
    func check(_ secret: String, among secrets: [ClientSecret], appID: String) -> SecretVerdict {
        let now = clock.now()
        if let known = verifiedSecrets.keyID(appID: appID, secret: secret),
            let record = secrets.first(where: { $0.keyID == known })
        {
            return record.end > now && record.start <= now ? .valid : .expired
        }
        for record in secrets where record.matches(secret) {
            verifiedSecrets.remember(keyID: record.keyID, appID: appID, secret: secret)
            return record.end > now && record.start <= now ? .valid : .expired
        }
        return .wrong
    }
    enum SecretVerdict { case valid, expired, wrong }
}

/// Which secret a client proved before, under a key of this process: repeated sign-ins skip the slow hash. What it
/// names is looked up again each time, so a removed secret is refused at once.
private final class VerifiedSecrets: Sendable {
    static let limit = 1_024
    private let key: SymmetricKey
    private let keyIDs = Mutex<[[UInt8]: String]>([:])
    init(key: SymmetricKey) { self.key = key }

    private func tag(_ appID: String, _ secret: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Data("\(appID.lowercased())\n\(secret)".utf8), using: key))
    }
    func keyID(appID: String, secret: String) -> String? {
        let tag = tag(appID, secret)
        return keyIDs.withLock { $0[tag] }
    }
    func remember(keyID: String, appID: String, secret: String) {
        let tag = tag(appID, secret)
        keyIDs.withLock { keyIDs in
            if keyIDs.count >= Self.limit { keyIDs = [:] }
            keyIDs[tag] = keyID
        }
    }
}
