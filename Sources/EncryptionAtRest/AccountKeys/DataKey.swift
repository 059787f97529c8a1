internal import CSealing
internal import CofferCore

/// A key data is sealed under: the account's or an encryption scope's (leased), or one a request brought. Not
/// printable, not encodable.
public final class DataKey: Sendable, CustomStringConvertible, CustomReflectable {
    /// Part of the sealed formats: keeps the kinds apart even if a customer should bring an account's key.
    enum Kind: UInt8 { case account = 1, customerProvided = 2, scope = 3 }

    let kind: Kind
    let account: AccountID
    /// The encryption scope whose key this is; nil for the other kinds.
    public let scope: String?
    /// The secret itself: extent keys are derived from it with their own salt.
    let secret: SecretBytes
    /// Seals the inner part of rows.
    let rows: XAES256GCM
    /// Seals small bodies that lie in rows.
    let inline: XAES256GCM
    /// 16 bytes derived from the key that say which key sealed a thing, without telling anything about it.
    let domainID: [UInt8]
    /// 32 bytes derived from the key that no other key gives.
    let commitment: [UInt8]
    /// nil for a customer-provided key: the request holds it as long as it runs.
    let lease: KeyLease?
    /// base64 of the SHA-256 of a customer-provided key; nil for the other kinds. The only trace of such a key that
    /// is ever kept.
    public let customerProvidedKeySHA256: String?

    /// The key of a domain.
    convenience init(_ secret: SecretBytes, of domain: KeyDomain, lease: KeyLease?) {
        self.init(secret, kind: domain.scope == nil ? .account : .scope, domain, lease: lease)
    }
    /// One that a request brought.
    convenience init(customerProvided secret: SecretBytes, account: AccountID) {
        self.init(secret, kind: .customerProvided, KeyDomain(account), lease: nil)
    }

    private init(_ secret: SecretBytes, kind: Kind, _ domain: KeyDomain, lease: KeyLease?) {
        precondition(secret.count == 32)
        self.kind = kind
        account = domain.account
        scope = domain.scope
        self.secret = secret
        self.lease = lease
        let label: Label =
            switch kind {
            case .account: .accountData
            case .customerProvided: .customerProvidedData
            case .scope: .scopeData
            }
        (rows, inline, domainID, commitment) = KeyDerivation.withDerived(
            112, from: secret, info: FieldList(label, domain.fields).bytes
        ) { derived in
            (
                XAES256GCM(key: .init(rebasing: derived[0..<32])), XAES256GCM(key: .init(rebasing: derived[32..<64])),
                Array(derived[64..<80]), Array(derived[80..<112])
            )
        }
        customerProvidedKeySHA256 = kind == .customerProvided ? DataKey.sha256(secret).base64 : nil
    }

    /// Throws `KeyUnavailable` once the lease behind the key has died. Cheap: an atomic read.
    public func checkLease() throws { try lease?.check() }

    /// As `checkLease`, but asks the vault again when the lease is due or suspended by an announcement. What uses the
    /// key calls this first, long operations between two pieces as well.
    public func confirmLease() async throws {
        guard let lease else { return }
        try await lease.confirm()
    }

    private static func sha256(_ secret: SecretBytes) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 32) { output, filled in
            secret.withUnsafeBytes { coffer_sha256(output.baseAddress!, $0.bytes, $0.count) }
            filled = 32
        }
    }

    public var description: String { "<redacted>" }
    public var customMirror: Mirror { Mirror(self, children: []) }
}
