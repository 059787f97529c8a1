internal import CofferCore
internal import EncryptionAtRest
internal import ResourceProviders

/// An encryption scope as it lies in its record. Which key wraps its key, the key's record says.
struct EncryptionScopeRecord: Codable, Sendable {
    enum State: String, Codable, Sendable { case enabled = "Enabled", disabled = "Disabled" }
    let name: String
    var state: State
    let created: Timestamp
    var modified: Timestamp

    /// "Encryption Scopes – Put": 3 to 63 of lower-case letters, digits and `-`, and each `-` between two others.
    static func isValid(name: String) -> Bool {
        guard (3...63).contains(name.utf8.count) else { return false }
        let parts = name.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        return parts.allSatisfy { part in
            !part.isEmpty && part.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) }
        }
    }
}

/// The encryption scopes of one account.
struct EncryptionScopes: Sendable {
    private(set) var readable: [String: EncryptionScopeRecord] = [:]
    /// Names of those whose records do not open.
    private var damaged: Set<String> = []

    mutating func add(_ scope: EncryptionScopeRecord) { readable[scope.name] = scope }
    mutating func setAside(_ name: String) { damaged.insert(name) }

    /// nil: there is none. Throws `corrupt` for one that is there and does not open.
    func find(_ name: String) throws(SealedStoreError) -> EncryptionScopeRecord? {
        guard !damaged.contains(name) else {
            throw SealedStoreError(
                .corrupt,
                "The record of the encryption scope '\(name)' does not open; restore the data folder from a copy.")
        }
        return readable[name]
    }
}

/// What the body of a PUT or PATCH asks of an encryption scope; what it does not name stays.
struct EncryptionScopeChange {
    var state: EncryptionScopeRecord.State?
    private let source: String?
    private let reference: CustomerKeyReference?

    init(_ body: JSONValue?) throws(ControlError) {
        let properties = body?.member("properties") ?? [:]
        state = try properties.choice("state", ["Enabled", "Disabled"]).flatMap(
            EncryptionScopeRecord.State.init(rawValue:))
        source = try properties.choice("source", ["Microsoft.Storage", "Microsoft.KeyVault"])
        if try properties.bool("requireInfrastructureEncryption") == true {
            throw .featureNotSupported("requireInfrastructureEncryption")
        }
        let keyVault = properties.member("keyVaultProperties").flatMap { $0.isNull ? nil : $0 }
        reference = try keyVault.map { keyVault throws(ControlError) in
            guard let text = keyVault.member("keyUri")?.stringValue, let reference = CustomerKeyReference(keyURI: text)
            else {
                throw .badRequest(
                    "The keyUri of keyVaultProperties is the URL of a key: https://{vault}/keys/{name}, or with a "
                        + "version behind it.",
                    code: "InvalidRequestPropertyValue")
            }
            return reference
        }
    }

    /// nil: leave the key where it is.
    func target(current: AccountKeyStatus.Source) throws(ControlError) -> EncryptionRequest.Target? {
        let isCustomers = if case .customer = current { true } else { false }
        switch (source, reference) {
        case (nil, nil): return nil
        case ("Microsoft.Storage", nil): return .platform
        case ("Microsoft.KeyVault", nil) where isCustomers: return nil
        case ("Microsoft.KeyVault", nil):
            throw .badRequest(
                "The source Microsoft.KeyVault needs keyVaultProperties with a keyUri.",
                code: "MissingKeyvaultProperties")
        case ("Microsoft.KeyVault", let reference?): return .customer(reference)
        case (nil, let reference?) where isCustomers: return .customer(reference)
        // To ignore the key would leave the caller in the belief that it is theirs.
        case (_, _?):
            throw .badRequest(
                "keyVaultProperties need the source Microsoft.KeyVault beside them.",
                code: "InvalidRequestPropertyValue")
        case (_?, nil): return nil
        }
    }
}

extension CustomerKeyReference {
    private static let uriBytesLimit = 1_024

    /// `https://{vault}/keys/{name}[/{version}]`; nil for anything else.
    init?(keyURI: String) {
        guard keyURI.utf8.count <= Self.uriBytesLimit, keyURI.lowercased().hasPrefix("https://") else { return nil }
        let parts = keyURI.dropFirst("https://".count).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3 || parts.count == 4, parts.allSatisfy({ !$0.isEmpty }), parts[1].lowercased() == "keys",
            !keyURI.contains(where: { $0 == "?" || $0 == "#" })
        else { return nil }
        self.init(
            vaultURI: "https://\(parts[0])/", keyName: String(parts[2]),
            keyVersion: parts.count == 4 ? String(parts[3]) : nil)
    }

    var keyURI: String {
        let base = vaultURI.hasSuffix("/") ? vaultURI : vaultURI + "/"
        return base + "keys/\(keyName)" + (keyVersion.map { "/\($0)" } ?? "")
    }
}
