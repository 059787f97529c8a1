internal import CofferCore
internal import Crypto
internal import CryptoExtras
internal import Foundation

/// A client secret as the directory keeps it: salted and hashed, never the value. Microsoft Graph `passwordCredential`.
struct ClientSecret: Sendable, Codable, Equatable {
    let keyID: String
    let displayName: String?
    /// The first three characters, as Graph shows them.
    let hint: String
    let start: Timestamp
    let end: Timestamp
    let salt: [UInt8]
    let hash: [UInt8]
    let rounds: Int

    /// PBKDF2-HMAC-SHA-256 rounds for new secrets. Every secret is generated here with over 220 bits of entropy, so
    /// guessing is hopeless at any speed; the rounds are a second line and are kept low enough (about 10 ms) that the
    /// token endpoint cannot be worn down with them.
    static let defaultRounds = 20_000

    /// Makes a secret of 43 printable characters that needs no quoting in a shell, and its record.
    static func generate(
        displayName: String?, start: Timestamp, end: Timestamp, rounds: Int, randomness: any Randomness
    ) -> (value: RedactedString, record: ClientSecret) {
        // Six bits each; the first from the letters, since a leading `-` or `.` trips command lines.
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.".utf8)
        let random = randomness.bytes(40)
        var characters = random.map { alphabet[Int($0 & 63)] }
        characters[0] = alphabet[Int(random[0] & 31)]
        let head = String(decoding: characters.prefix(3), as: UTF8.self)
        // `8Q~` marks the text as an Entra client secret for secret scanners, as Azure's own do.
        let value = head + "8Q~" + String(decoding: characters.dropFirst(3), as: UTF8.self)
        let salt = randomness.bytes(16)
        let record = ClientSecret(
            keyID: randomness.uuidString(), displayName: displayName, hint: head, start: start, end: end, salt: salt,
            hash: derive(value, salt: salt, rounds: rounds), rounds: rounds)
        return (RedactedString(value), record)
    }

    /// In a time that does not depend on where the values differ.
    func matches(_ candidate: String) -> Bool {
        constantTimeEquals(Self.derive(candidate, salt: salt, rounds: rounds), hash)
    }

    private static func derive(_ value: String, salt: [UInt8], rounds: Int) -> [UInt8] {
        // Fails only for parameters that no record of ours has.
        guard
            let key = try? KDF.Insecure.PBKDF2.deriveKey(
                from: Array(value.utf8), salt: salt, using: .sha256, outputByteCount: 32, unsafeUncheckedRounds: rounds)
        else { preconditionFailure("PBKDF2 refused its parameters") }
        return key.withUnsafeBytes { Array($0) }
    }
}
