internal import CofferCore

/// A generated access key: 33 random bytes, the signature `AzFu`, and a checksum that tells the key's kind, so that
/// scanners find a leaked one (Azure Functions "SecretGenerator", rule SEC101/158).
enum IdentifiableSecret {
    enum Kind {
        case master, system, function
        /// The name's ASCII letters as a big-endian number: `Master00`, `System00`, `Functi00`.
        var seed: UInt64 {
            switch self {
            case .master: 0x4d61_7374_6572_3030
            case .system: 0x5379_7374_656d_3030
            case .function: 0x4675_6e63_7469_3030
            }
        }
    }
    /// What base64url decodes `AzFu` to.
    private static let signature: [UInt8] = [0x03, 0x31, 0x6e]
    static let randomByteCount = 33

    static func generate(_ kind: Kind, randomness: some Randomness) -> RedactedString {
        encode(randomness.bytes(randomByteCount), kind)
    }

    static func encode(_ random: [UInt8], _ kind: Kind) -> RedactedString {
        var bytes = random + signature
        let checksum = Marvin32.checksum32(bytes, seed: kind.seed)
        withUnsafeBytes(of: checksum.littleEndian) { bytes.append(contentsOf: $0) }
        defer { wipe(&bytes) }
        // 40 bytes need two padding characters, which the original keeps.
        return RedactedString(bytes.base64URL + "==")
    }

    /// Whether a value was generated for `kind`: signature in its place and checksum right.
    static func isValid(_ value: RedactedString, _ kind: Kind) -> Bool {
        guard var bytes = [UInt8](base64URL: value.reveal()), bytes.count == 40 else { return false }
        defer { wipe(&bytes) }
        guard bytes[33..<36].elementsEqual(signature) else { return false }
        let checksum = Marvin32.checksum32(bytes[0..<36], seed: kind.seed)
        return withUnsafeBytes(of: checksum.littleEndian) { constantTimeEquals(Array($0), Array(bytes[36...])) }
    }
}

/// What an app asks about keys that were not generated (`AzureWebJobsFeatureFlags`): Azure takes any by default.
enum IdentifiableKeysMode: Sendable {
    case any
    /// Those that were not are named in the log (AZFD0012).
    case warn
    /// They are refused where they are set, and open nothing where they lie in the store.
    case strict

    init(featureFlags: RedactedString?) {
        let flags = (featureFlags?.reveal() ?? "").split(separator: ",").map { $0.trimmed.lowercased() }
        self = flags.contains("stricthismodeenabled") ? .strict : flags.contains("stricthismodewarn") ? .warn : .any
    }
}
