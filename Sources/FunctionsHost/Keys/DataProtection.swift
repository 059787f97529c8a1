internal import CofferCore
internal import Crypto
internal import CryptoExtras
internal import Foundation

/// Encrypts key values as ASP.NET Core Data Protection does with App Service's key ring
/// (Microsoft.Azure.Web.DataProtection): AES-256-CBC and HMAC-SHA256 under keys derived per message by SP 800-108 from
/// the ring's key. The original reads what this writes and the other way.
struct DataProtectionKeyRing: Sendable {
    struct Key: Sendable {
        let id: UUID
        let material: SecretBytes
    }
    static let purpose = "function-secrets"
    static let defaultKeyID = UUID(uuid: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    private static let magic: [UInt8] = [0x09, 0xf0, 0xc9, 0xf0]
    /// The context header of AES-256-CBC with HMAC-SHA256, as derived in the Data Protection documentation.
    private static let contextHeader: [UInt8] =
        [UInt8](
            hex: "000000000020000000100000002000000020ea10387ac9273b7fd5321177776f1530"
                + "f946d3c71d60dd7b287366d81cb03fe5e5a701fa16f1554f1581fddd576ce844") ?? []

    /// Used for writing.
    let current: Key
    private let others: [Key]

    init(current: Key, others: [Key]) {
        self.current = current
        self.others = others
    }

    /// Reads `AzureWebEncryptionKey`, `AzureWebEncryptionKey_<guid>` and `AzureWebPrimaryEncryptionKey`; `platformKey`
    /// (hexadecimal) stands where no default key is set. nil when a key is malformed.
    init?(settings: [String: RedactedString], platformKey: RedactedString) {
        let prefix = "azurewebencryptionkey_"
        let own = settings.first { $0.key.lowercased() == "azurewebencryptionkey" }?.value ?? platformKey
        guard let material = [UInt8](hex: own.reveal()), !material.isEmpty else { return nil }
        let base = Key(id: Self.defaultKeyID, material: SecretBytes(copying: material))
        var named: [Key] = []
        for (name, value) in settings where name.lowercased().hasPrefix(prefix) {
            guard let id = UUID(uuidString: String(name.dropFirst(prefix.count))),
                let bytes = [UInt8](hex: value.reveal()), !bytes.isEmpty
            else { return nil }
            named.append(Key(id: id, material: SecretBytes(copying: bytes)))
        }
        let primary = settings.first { $0.key.lowercased() == "azurewebprimaryencryptionkey" }?.value
        if let primary {
            guard let id = UUID(uuidString: primary.reveal()), let key = named.first(where: { $0.id == id }) else {
                return nil
            }
            self.init(current: key, others: [base] + named.filter { $0.id != id })
        } else {
            self.init(current: base, others: named)
        }
    }

    enum Failure: Error { case undecryptable }

    func protect(_ plaintext: RedactedString, randomness: some Randomness) -> String {
        protect(Array(plaintext.reveal().utf8), keyModifier: randomness.bytes(16), iv: randomness.bytes(16)).base64URL
    }

    func protect(_ plaintext: [UInt8], keyModifier: [UInt8], iv: [UInt8]) -> [UInt8] {
        let header = Self.magic + Self.littleEndian(current.id)
        let (encryption, authentication) = Self.derive(
            current, aad: Self.additionalData(current.id), keyModifier: keyModifier)
        // Fixed key and IV sizes: nothing here can fail.
        guard let nonce = try? AES._CBC.IV(ivBytes: iv),
            let sealed = try? AES._CBC.encrypt(plaintext, using: encryption, iv: nonce)
        else {
            preconditionFailure("AES-CBC refused a 256-bit key")
        }
        let tag = HMAC<SHA256>.authenticationCode(for: iv + [UInt8](sealed), using: authentication)
        return header + keyModifier + iv + [UInt8](sealed) + Array(tag)
    }

    /// `isStale`: sealed under a key that is no longer the current one.
    func unprotect(_ text: String) throws(Failure) -> (value: RedactedString, isStale: Bool) {
        guard let payload = [UInt8](base64URL: text), payload.count >= 20 + 16 + 16 + 16 + 32,
            payload.starts(with: Self.magic)
        else {
            throw .undecryptable
        }
        guard let key = ([current] + others).first(where: { Self.littleEndian($0.id).elementsEqual(payload[4..<20]) })
        else {
            throw .undecryptable
        }
        let iv = Array(payload[36..<52])
        let sealed = Array(payload[52..<(payload.count - 32)])
        let (encryption, authentication) = Self.derive(
            key, aad: Self.additionalData(key.id), keyModifier: Array(payload[20..<36]))
        let expected = HMAC<SHA256>.authenticationCode(for: iv + sealed, using: authentication)
        guard constantTimeEquals(Array(expected), Array(payload[(payload.count - 32)...])) else { throw .undecryptable }
        guard let nonce = try? AES._CBC.IV(ivBytes: iv),
            let plain = try? AES._CBC.decrypt(sealed, using: encryption, iv: nonce),
            let value = String(validating: plain, as: UTF8.self)
        else { throw .undecryptable }
        return (RedactedString(value), key.id != current.id)
    }

    /// `NAME=base64(SHA-256(value));` of the keys in force: what the original writes beside the secrets to tell rings
    /// apart.
    static func decryptionKeyID(_ name: String, _ value: RedactedString) -> String {
        "\(name)=\(Array(SHA256.hash(data: Array(value.reveal().utf8))).base64);"
    }

    static func additionalData(_ keyID: UUID) -> [UInt8] {
        let purpose = Array(purpose.utf8)
        return magic + littleEndian(keyID) + [0, 0, 0, 1, UInt8(purpose.count)] + purpose
    }

    private static func derive(_ key: Key, aad: [UInt8], keyModifier: [UInt8]) -> (
        encryption: SymmetricKey, authentication: SymmetricKey
    ) {
        var keys = key.material.withUnsafeBytes { material in
            deriveBytes(Array(material), aad: aad, keyModifier: keyModifier)
        }
        defer { wipe(&keys) }
        return (SymmetricKey(data: keys[..<32]), SymmetricKey(data: keys[32...]))
    }

    /// One block of SP 800-108 in counter mode with HMAC-SHA-512: 64 bytes, encryption key first.
    private static func deriveBytes(_ material: [UInt8], aad: [UInt8], keyModifier: [UInt8]) -> [UInt8] {
        let message = [0, 0, 0, 1] + aad + [0] + contextHeader + keyModifier + [0, 0, 2, 0]
        return Array(HMAC<SHA512>.authenticationCode(for: message, using: SymmetricKey(data: material)))
    }

    /// Encrypts under given additional data: for the known-answer test of the original.
    static func protect(
        _ plaintext: [UInt8], material: [UInt8], aad: [UInt8], keyModifier: [UInt8], iv: [UInt8]
    ) throws -> [UInt8] {
        let key = Key(id: defaultKeyID, material: SecretBytes(copying: material))
        let (encryption, authentication) = derive(key, aad: aad, keyModifier: keyModifier)
        let sealed = [UInt8](try AES._CBC.encrypt(plaintext, using: encryption, iv: AES._CBC.IV(ivBytes: iv)))
        return keyModifier + iv + sealed
            + Array(HMAC<SHA256>.authenticationCode(for: iv + sealed, using: authentication))
    }

    /// A GUID in .NET's field order: the first three fields little-endian.
    private static func littleEndian(_ id: UUID) -> [UInt8] {
        let u = id.uuid
        return [u.3, u.2, u.1, u.0, u.5, u.4, u.7, u.6, u.8, u.9, u.10, u.11, u.12, u.13, u.14, u.15]
    }
}
