public import AccessControl
public import CofferCore
public import EncryptionAtRest
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
    let secretChecks: SecretChecks

    /// Lifetime of every access token, in seconds.
    static let tokenLifetimeSeconds: Int64 = 3_600

    /// `records` are the domain `identity`, any one partition. `secretRounds` hashes new client secrets.
    public init(
        installation: Installation, names: HostNames, records: SealedRecords, verifier: TokenVerifier,
        clock: any WallClock,
        randomness: any Randomness, logger: Logger, secretRounds: Int? = nil
    ) {
        self.installation = installation
        self.names = names
        // Weak, since the verifier keeps the directory to ask it.
        self.directory = DirectoryRecords(records) { [weak verifier] in verifier?.forget(principals: $0) }
        self.verifier = verifier
        self.audiences = Audiences(names: names)
        self.clock = clock
        self.randomness = randomness
        self.logger = logger
        self.secretRounds = secretRounds ?? ClientSecret.defaultRounds
        self.secretChecks = SecretChecks(key: randomness.secret(32))
    }

    var signingKeys: SigningKeys {
        get throws {
            guard let keys = keys.withLock({ $0 }) else { throw SigningKeyMissing() }
            return keys
        }
    }

    func adopt(_ records: [SigningKeyRecord]) async throws {
        let fresh = try await SigningKeys(records)
        try await verifier.publish(jwks: fresh.jwks.serialized(), issuers: issuers, standing: directory)
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
}
