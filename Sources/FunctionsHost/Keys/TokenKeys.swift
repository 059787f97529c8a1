internal import CofferCore
internal import Crypto

/// The keys that vouch for a site's tokens, from its settings (Azure Functions host, "SecretsUtility"): what the
/// settings' names mean to the original they mean here.
struct TokenKeys: Sendable {
    /// The first signs what the server itself issues; any of them vouches for a token. Empty: no token is taken.
    let signing: [SecretBytes]
    /// Of restricted tokens. nil unless the app sets one: nobody outside the server has the platform's.
    let restricted: SecretBytes?
    /// Whether none of the app's own keys is a reference that is not resolved: when one is, a token that no key here
    /// vouches for may be good again later.
    let isComplete: Bool

    /// IdentityModel refuses shorter ones for HS256, and so does whoever can count guesses.
    static let shortestBytes = 16
    static let settingNames = ["AzureWebEncryptionKey", "WEBSITE_AUTH_ENCRYPTION_KEY", "CONTAINER_ENCRYPTION_KEY"]
    private static let derivation = Array("coffer/functions/site-token/v1".utf8)

    /// `platformKey` (hexadecimal) stands where the app sets no key of its own.
    init(settings: ResolvedSettings, platformKey: RedactedString) {
        func key(_ name: String, _ read: (String) -> [UInt8]?) -> SecretBytes? {
            // A reference that is not resolved is its own literal text: known to many.
            guard settings.failure(of: name) == nil, let text = settings.value(name)?.reveal() else { return nil }
            return Self.secret(read(text))
        }
        let auth = key("WEBSITE_AUTH_ENCRYPTION_KEY", Self.hexadecimalOrBase64)
        let container = key("CONTAINER_ENCRYPTION_KEY", Self.hexadecimalOrBase64)
        let own: [SecretBytes?]
        if let text = settings.value("AzureWebEncryptionKey")?.reveal() {
            // The original takes the bytes, and the text as it stands.
            let bytes = key("AzureWebEncryptionKey") { [UInt8](hex: $0) }
            own = bytes == nil ? [] : [bytes, Self.secret(Array(text.utf8))]
        } else {
            own = [Self.derived(from: platformKey)]
        }
        signing = (own + [auth, container]).compactMap { $0 }
        isComplete = Self.settingNames.allSatisfy { settings.failure(of: $0) == nil }
        restricted = auth ?? container
    }

    private static func secret(_ bytes: consuming [UInt8]?) -> SecretBytes? {
        guard var bytes = consume bytes else { return nil }
        defer { wipe(&bytes) }
        return bytes.count >= shortestBytes ? SecretBytes(copying: bytes) : nil
    }

    /// The platform's key encrypts access keys: tokens get a key of their own.
    private static func derived(from platformKey: RedactedString) -> SecretBytes? {
        guard var bytes = [UInt8](hex: platformKey.reveal()), bytes.count >= shortestBytes else { return nil }
        defer { wipe(&bytes) }
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: SymmetricKey(data: bytes), info: derivation, outputByteCount: 32)
        return key.withUnsafeBytes { SecretBytes(copying: $0) }
    }

    private static func hexadecimalOrBase64(_ text: String) -> [UInt8]? {
        text.utf8.count == 64 ? [UInt8](hex: text) : [UInt8](base64: text)
    }
}
