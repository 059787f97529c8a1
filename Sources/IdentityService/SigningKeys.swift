internal import CofferCore
internal import Crypto
internal import CryptoExtras
internal import Foundation
internal import JWTKit

/// One RSA-2048 key that signs tokens, as the directory keeps it (sealed by the store).
struct SigningKeyRecord: Sendable, Codable {
    let keyID: String
    /// PKCS #8.
    let privateKey: Data
    let created: Timestamp

    static func generate(at time: Timestamp) throws -> SigningKeyRecord {
        let key = try _RSA.Signing.PrivateKey(keySize: .bits2048)
        let primitives = try key.publicKey.getKeyPrimitives()
        // RFC 7638 thumbprint: members in lexicographic order, no white space.
        let (e, n) = (primitives.publicExponent.base64URL, primitives.modulus.base64URL)
        let text = "{\"e\":\"\(e)\",\"kty\":\"RSA\",\"n\":\"\(n)\"}"
        return SigningKeyRecord(
            keyID: Array(SHA256.hash(data: Data(text.utf8))).base64URL, privateKey: key.pkcs8DERRepresentation,
            created: time)
    }
}

/// The keys in force: the newest signs, all verify.
struct SigningKeys: Sendable {
    /// Newest last. Two are enough: a token of the one before the last has expired before the next rollover is allowed.
    static let keptLimit = 2

    private let current: JWTKit.JWTKeyCollection
    private let currentID: JWKIdentifier
    /// RFC 7517, what `/discovery/keys` answers.
    let jwks: JSONValue

    init(_ records: [SigningKeyRecord]) async throws {
        guard let newest = records.last else { throw SigningKeyMissing() }
        var keys: [JSONValue] = []
        for record in records {
            let primitives = try _RSA.Signing.PrivateKey(derRepresentation: record.privateKey).publicKey
                .getKeyPrimitives()
            keys.append([
                "kty": "RSA", "use": "sig", "alg": "RS256", "kid": .string(record.keyID), "x5t": .string(record.keyID),
                "n": .string(primitives.modulus.base64URL), "e": .string(primitives.publicExponent.base64URL),
            ])
        }
        jwks = ["keys": .array(keys)]
        currentID = JWKIdentifier(string: newest.keyID)
        let key = try Insecure.RSA.PrivateKey(backing: _RSA.Signing.PrivateKey(derRepresentation: newest.privateKey))
        current = await JWTKeyCollection().add(rsa: key, digestAlgorithm: .sha256, kid: currentID)
    }

    func sign(_ claims: TokenClaims) async throws -> String {
        try await current.sign(claims, kid: currentID, header: ["typ": "JWT", "x5t": .string(currentID.string)])
    }
}

struct SigningKeyMissing: Error {}

/// The claims of Entra access tokens for applications ("Access token claims reference"); absent ones are left out.
struct TokenClaims: JWTPayload {
    var aud: String
    var iss: String
    var iat: Int64
    var nbf: Int64
    var exp: Int64
    var oid: String
    var sub: String
    var tid: String
    var idtyp: String
    var uti: String
    var ver: String
    var appid: String?
    var appidacr: String?
    var idp: String?
    var azp: String?
    var azpacr: String?
    var xms_mirid: String?
    func verify(using algorithm: some JWTAlgorithm) throws {}
}
