internal import CofferCore
internal import Crypto
internal import CryptoExtras

/// App Service's own token (`x-ms-site-restricted-token`): four parts of base64 between dots: an initialization vector,
/// `exp=TICKS` under AES-256-CBC, the key's SHA-256, and an HMAC-SHA256 of the plaintext under the key.
///
/// The original also takes three parts. Those prove nothing: whoever saw one such token moves its end by changing bits
/// of the vector.
enum RestrictedToken {
    static let textBytesLimit = 1_024
    /// From 0001-01-01 to 1970-01-01, in units of 100 ns.
    private static let ticksToEpoch: Int64 = 621_355_968_000_000_000

    /// When the token ends; nil when it is not one, or not under this key.
    static func end(of token: RedactedString, under key: SecretBytes) -> Timestamp? {
        let text = token.reveal()
        guard text.utf8.count <= textBytesLimit else { return nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { [UInt8](base64: $0) }
        guard parts.count == 4, let iv = parts[0], iv.count == 16, let sealed = parts[1], let digest = parts[2],
            let code = parts[3]
        else { return nil }
        return key.withUnsafeBytes { bytes -> Timestamp? in
            let material = SymmetricKey(data: bytes)
            var hash = SHA256()
            hash.update(bufferPointer: bytes)
            guard material.bitCount == 256, constantTimeEquals(Array(hash.finalize()), digest),
                let vector = try? AES._CBC.IV(ivBytes: iv),
                let plain = try? AES._CBC.decrypt(sealed, using: material, iv: vector),
                HMAC<SHA256>.isValidAuthenticationCode(code, authenticating: plain, using: material)
            else { return nil }
            return end(in: String(validating: plain, as: UTF8.self) ?? "")
        }
    }

    /// `exp=TICKS`, in decimal digits.
    private static func end(in text: String) -> Timestamp? {
        let digits = text.utf8.dropFirst(4)
        guard text.hasPrefix("exp="), (1...19).contains(digits.count), digits.allSatisfy({ (48...57).contains($0) }),
            let ticks = Int64(text.dropFirst(4)), ticks >= ticksToEpoch
        else { return nil }
        return Timestamp(microseconds: (ticks - ticksToEpoch) / 10)
    }
}
