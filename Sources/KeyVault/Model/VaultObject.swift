import CofferCore

enum ObjectKind: String, Sendable, Codable, CaseIterable {
    case key, secret
    var title: String { self == .key ? "Key" : "Secret" }
    /// The path segment: `keys`.
    var plural: String { rawValue + "s" }
    var deletedPlural: String { "deleted" + plural }
}

/// A key or a secret over all its versions.
struct ObjectHeader: Sendable, Codable, Equatable {
    var schema = 1
    /// The spelling it was made with; identity is without regard to case.
    var name: String
    var latestSequence: Int
    var latestVersion: String
    var deletion: Deletion?
    var rotationPolicy: RotationPolicy?
}

/// One version of a key or a secret, without its private part.
struct ObjectVersion: Sendable, Codable, Equatable {
    var schema = 1
    /// 32 lower-case hexadecimal digits.
    var id: String
    /// 1 for the first: versions in the order of their making.
    var sequence: Int
    var attributes: ObjectAttributes
    var tags: [String: String]
    /// Secrets only.
    var contentType: String?
    /// Keys only.
    var key: KeyDescription?
}

struct ObjectAttributes: Sendable, Codable, Equatable {
    var isEnabled = true
    var notBefore: Timestamp?
    var expires: Timestamp?
    var created: Timestamp
    var updated: Timestamp
}

/// What a request says about attributes; nil leaves them.
struct AttributeChanges: Sendable, Equatable {
    var isEnabled: Bool?
    var notBefore: Timestamp?
    var expires: Timestamp?

    func made(at now: Timestamp) -> ObjectAttributes {
        ObjectAttributes(
            isEnabled: isEnabled ?? true, notBefore: notBefore, expires: expires, created: now, updated: now)
    }
    func apply(to attributes: inout ObjectAttributes, at now: Timestamp) {
        if let isEnabled { attributes.isEnabled = isEnabled }
        if let notBefore { attributes.notBefore = notBefore }
        if let expires { attributes.expires = expires }
        attributes.updated = now
    }
}

/// The public part of a key version.
struct KeyDescription: Sendable, Codable, Equatable {
    var type: KeyType
    var operations: [KeyOperation]
    /// RSA: modulus and exponent, big-endian without leading zeros. EC: the coordinates, padded to the field's length
    /// (RFC 7518 §6).
    var publicPart: PublicPart
    enum PublicPart: Sendable, Codable, Equatable {
        case rsa(modulus: [UInt8], exponent: [UInt8])
        case ec(x: [UInt8], y: [UInt8])
    }
}

/// One version of an object in its vault, as operations return it.
struct StoredObject: Sendable {
    var vault: Vault
    var kind: ObjectKind
    var header: ObjectHeader
    var version: ObjectVersion
}

/// A page of a list; `next` continues it.
struct Page<Item: Sendable>: Sendable {
    var items: [Item]
    var next: String?
}

/// `^[0-9a-zA-Z-]{1,127}$` (About keys, secrets, and certificates).
func isValidObjectName(_ name: String) -> Bool {
    (1...127).contains(name.utf8.count)
        && name.utf8.allSatisfy {
            (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 0x2d
        }
}
