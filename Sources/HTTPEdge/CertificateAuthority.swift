public import CofferCore
import Crypto
import Foundation
internal import NIOSSL
import SwiftASN1
import Synchronization
import X509

/// The installation's own certificate authority (ECDSA P-256, SHA-256): clients that trust its one certificate trust
/// every host name of this server.
///
/// Leaf certificates are made when a host name is first asked for and kept in memory only. All certificates follow
/// the profile of RFC 5280 §4.2 as the strictest clients read it (OpenSSL's `-x509_strict`, Python's
/// `VERIFY_X509_STRICT`): critical basic constraints and key usage on the authority, subject and authority key
/// identifiers, the host name as a subject alternative name.
public final class CertificateAuthority: Sendable {
    public enum Failure: Error, Sendable, Equatable {
        /// The key is no PKCS #8 P-256 key, or the certificate is not PEM or DER of an X.509 certificate.
        case unreadable
        /// The certificate is another key's, or not an authority's.
        case mismatch
    }

    /// How long the authority's certificate is valid, in days.
    public static let validityDays = 3_650
    /// How long a leaf is valid, in days; it is replaced after two thirds of that.
    public static let leafValidityDays = 90
    /// How many leaves are kept; the least recently used goes first.
    public static let maximumCachedLeaves = 1_024
    /// Certificates begin this many seconds in the past, for clients whose clock is behind.
    static let backdatedSeconds: Int64 = 3_600

    /// What clients must trust (for `REQUESTS_CA_BUNDLE`, `SSL_CERT_FILE`, `curl --cacert`). PEM, one certificate.
    public let certificatePEM: String
    /// The authority's private key as PKCS #8 DER. Whoever has it can pose as this server.
    public let privateKeyDER: SecretBytes

    private let certificate: Certificate
    private let key: P256.Signing.PrivateKey
    private let clock: any WallClock
    private let randomness: any Randomness
    private let leaves: Mutex<LeafCache>

    /// A new authority, valid from an hour before `clock.now()`.
    public static func generate(clock: any WallClock, randomness: any Randomness) throws -> CertificateAuthority {
        let key = newKey(randomness)
        let publicKey = Certificate.PublicKey(key.publicKey)
        let identifier = SubjectKeyIdentifier(hash: publicKey)
        // A name of its own keeps clients from taking one installation's authority for another's.
        let name = try DistinguishedName {
            OrganizationName("Coffer")
            CommonName("Coffer authority \(identifier.keyIdentifier.prefix(6).hex)")
        }
        let start = clock.now().adding(seconds: -backdatedSeconds)
        let certificate = try Certificate(
            version: .v3, serialNumber: newSerialNumber(randomness), publicKey: publicKey, notValidBefore: start.date,
            notValidAfter: start.adding(seconds: Int64(validityDays) * 86_400).date, issuer: name, subject: name,
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                identifier
                AuthorityKeyIdentifier(keyIdentifier: identifier.keyIdentifier)
            },
            issuerPrivateKey: Certificate.PrivateKey(key))
        return try CertificateAuthority(certificate: certificate, key: key, clock: clock, randomness: randomness)
    }

    /// The authority of an earlier start. Throws `Failure` when key and certificate do not read or do not belong
    /// together.
    public convenience init(
        privateKeyDER: SecretBytes, certificatePEM: String, clock: any WallClock, randomness: any Randomness
    ) throws {
        guard let key = try? privateKeyDER.withUnsafeBytes({ try P256.Signing.PrivateKey(derRepresentation: $0) }),
            let certificate = try? Certificate(pemEncoded: certificatePEM)
        else { throw Failure.unreadable }
        guard certificate.publicKey == Certificate.PublicKey(key.publicKey),
            case .isCertificateAuthority? = try? certificate.extensions.basicConstraints
        else { throw Failure.mismatch }
        try self.init(certificate: certificate, key: key, clock: clock, randomness: randomness)
    }

    private init(
        certificate: Certificate, key: P256.Signing.PrivateKey, clock: any WallClock, randomness: any Randomness
    ) throws {
        self.certificate = certificate
        self.key = key
        self.clock = clock
        self.randomness = randomness
        certificatePEM = try certificate.serializeAsPEM().pemString + "\n"
        var der = [UInt8](key.derRepresentation)
        privateKeyDER = SecretBytes(copying: der)
        wipe(&der)
        leaves = Mutex(LeafCache(capacity: Self.maximumCachedLeaves))
    }

    // MARK: - Leaves

    /// A leaf certificate as the TLS library takes it.
    struct Leaf: Sendable {
        let certificate: NIOSSLCertificate
        let privateKey: NIOSSLPrivateKey
        /// From then on a new one is made.
        let renewAt: Timestamp
    }

    /// The leaf for a host name (lower case, at most 253 characters). About 0.2 ms when it has to be made.
    func leaf(forHost host: String) throws -> Leaf {
        let now = clock.now()
        if let leaf = leaves.withLock({ $0.leaf(for: host, at: now) }) { return leaf }
        let leaf = try makeLeaf(host: host, now: now)
        leaves.withLock { $0.insert(leaf, for: host) }
        return leaf
    }

    /// A leaf's certificate and PKCS #8 key in DER, made anew.
    func issue(host: String, now: Timestamp) throws -> (
        certificateDER: [UInt8], key: P256.Signing.PrivateKey, renewAt: Timestamp
    ) {
        let leafKey = Self.newKey(randomness)
        let publicKey = Certificate.PublicKey(leafKey.publicKey)
        let start = now.adding(seconds: -Self.backdatedSeconds)
        // A leaf that outlives its authority would be refused at the end.
        let end = Swift.min(
            start.adding(seconds: Int64(Self.leafValidityDays) * 86_400).date, certificate.notValidAfter)
        // A common name holds 64 characters (RFC 5280, ub-common-name); clients read the alternative name.
        let subject = try DistinguishedName {
            OrganizationName("Coffer")
            CommonName(host.utf8.count <= 64 ? host : "coffer")
        }
        let authorityIdentifier = SubjectKeyIdentifier(hash: certificate.publicKey).keyIdentifier
        let leaf = try Certificate(
            version: .v3, serialNumber: Self.newSerialNumber(randomness), publicKey: publicKey,
            notValidBefore: start.date, notValidAfter: end,
            issuer: certificate.subject, subject: subject, signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth])
                SubjectAlternativeNames([.dnsName(host)])
                SubjectKeyIdentifier(hash: publicKey)
                AuthorityKeyIdentifier(keyIdentifier: authorityIdentifier)
            },
            issuerPrivateKey: Certificate.PrivateKey(key))
        var serializer = DER.Serializer()
        try serializer.serialize(leaf)
        return (
            serializer.serializedBytes, leafKey, start.adding(seconds: Int64(Self.leafValidityDays) * 86_400 * 2 / 3)
        )
    }

    private func makeLeaf(host: String, now: Timestamp) throws -> Leaf {
        let (certificateDER, leafKey, renewAt) = try issue(host: host, now: now)
        var keyDER = [UInt8](leafKey.derRepresentation)
        defer { wipe(&keyDER) }
        return Leaf(
            certificate: try NIOSSLCertificate(bytes: certificateDER, format: .der),
            privateKey: try NIOSSLPrivateKey(bytes: keyDER, format: .der), renewAt: renewAt)
    }

    private static func newKey(_ randomness: any Randomness) -> P256.Signing.PrivateKey {
        // 32 random bytes are outside the group's order once in 2^32 (FIPS 186-5 §A.2.2, testing candidates).
        while true {
            let candidate = randomness.secret(32)
            if let key = try? candidate.withUnsafeBytes({ try P256.Signing.PrivateKey(rawRepresentation: $0) }) {
                return key
            }
        }
    }

    /// 127 random bits, positive and not zero (RFC 5280 §4.1.2.2: at most 20 octets).
    private static func newSerialNumber(_ randomness: any Randomness) -> Certificate.SerialNumber {
        var bytes = randomness.bytes(16)
        bytes[0] = bytes[0] & 0x7f | 0x40
        return Certificate.SerialNumber(bytes: bytes)
    }
}

/// The leaves in use, least recently used first to go.
struct LeafCache {
    private var entries: [String: (leaf: CertificateAuthority.Leaf, lastUse: UInt64)] = [:]
    private var uses: UInt64 = 0
    let capacity: Int

    init(capacity: Int) { self.capacity = capacity }
    var count: Int { entries.count }

    mutating func leaf(for host: String, at now: Timestamp) -> CertificateAuthority.Leaf? {
        guard let entry = entries[host], now < entry.leaf.renewAt else { return nil }
        uses += 1
        entries[host] = (entry.leaf, uses)
        return entry.leaf
    }

    mutating func insert(_ leaf: CertificateAuthority.Leaf, for host: String) {
        if entries.count >= capacity, entries[host] == nil {
            // An eighth at a time, so that the sort is paid once for many inserts.
            let oldest = entries.sorted { $0.value.lastUse < $1.value.lastUse }.prefix(Swift.max(1, capacity / 8))
            for (host, _) in oldest { entries[host] = nil }
        }
        uses += 1
        entries[host] = (leaf, uses)
    }
}

extension Timestamp {
    fileprivate var date: Date { Date(timeIntervalSince1970: TimeInterval(unixSeconds)) }
}
