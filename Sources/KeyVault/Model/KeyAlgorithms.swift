import CofferCore

/// The key types of a vault without hardware.
enum KeyType: Sendable, Codable, Hashable {
    case rsa(bits: Int)
    case ec(EllipticCurve)

    /// JWK `kty`; OpenSSL calls the algorithms the same.
    var name: String {
        switch self {
        case .rsa: "RSA"
        case .ec: "EC"
        }
    }
    var defaultOperations: [KeyOperation] {
        switch self {
        case .rsa: [.encrypt, .decrypt, .sign, .verify, .wrapKey, .unwrapKey]
        case .ec: [.sign, .verify]
        }
    }
}

enum EllipticCurve: String, Sendable, Codable, CaseIterable {
    case p256 = "P-256", p256K = "P-256K", p384 = "P-384", p521 = "P-521"
    /// OpenSSL's name of the group.
    var groupName: String {
        switch self {
        case .p256: "prime256v1"
        case .p256K: "secp256k1"
        case .p384: "secp384r1"
        case .p521: "secp521r1"
        }
    }
    var fieldBytes: Int {
        switch self {
        case .p256, .p256K: 32
        case .p384: 48
        case .p521: 66
        }
    }
}

enum KeyOperation: String, Sendable, Codable, CaseIterable {
    case encrypt, decrypt, sign, verify, wrapKey, unwrapKey, `import`, export

    init?(ignoringCase name: String) {
        guard let found = Self.allCases.first(where: { $0.rawValue.lowercased() == name.lowercased() }) else {
            return nil
        }
        self = found
    }
    /// Outside `nbf`…`exp` new data is not protected any more, but old data stays reachable (About keys, "Date-time
    /// controlled operations").
    var isRefusedOutsideValidity: Bool { self == .encrypt || self == .sign || self == .wrapKey }
}

enum EncryptionAlgorithm: String, Sendable, CaseIterable {
    case rsa15 = "RSA1_5", rsaOAEP = "RSA-OAEP", rsaOAEP256 = "RSA-OAEP-256"
}

enum HashAlgorithm: Sendable {
    case sha256, sha384, sha512
    var digestBytes: Int {
        switch self {
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }
}

enum SignatureAlgorithm: String, Sendable, CaseIterable {
    case rs256 = "RS256", rs384 = "RS384", rs512 = "RS512", ps256 = "PS256", ps384 = "PS384", ps512 = "PS512"
    case es256 = "ES256", es256K = "ES256K", es384 = "ES384", es512 = "ES512"

    var hash: HashAlgorithm {
        switch self {
        case .rs256, .ps256, .es256, .es256K: .sha256
        case .rs384, .ps384, .es384: .sha384
        case .rs512, .ps512, .es512: .sha512
        }
    }
    var isPSS: Bool { self == .ps256 || self == .ps384 || self == .ps512 }
    /// The curve an ECDSA algorithm belongs to; nil for RSA.
    var curve: EllipticCurve? {
        switch self {
        case .es256: .p256
        case .es256K: .p256K
        case .es384: .p384
        case .es512: .p521
        default: nil
        }
    }
    func fits(_ type: KeyType) -> Bool {
        switch type {
        case .rsa: curve == nil
        case .ec(let keyCurve): curve == keyCurve
        }
    }
}
