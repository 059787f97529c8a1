import CofferCore
import Foundation

/// Reads the bodies of the data plane. Every reader throws 400 `BadParameter` that names the property.
struct VaultBody: Sendable {
    let members: [String: JSONValue]

    init(_ bytes: some Collection<UInt8>) throws(VaultError) {
        if bytes.isEmpty {
            members = [:]
            return
        }
        guard let value = try? JSONValue(parsing: bytes), let members = value.objectValue else {
            throw .noJSONObject
        }
        self.members = members
    }
    private init(members: [String: JSONValue]) { self.members = members }

    private func invalid(_ name: String) -> VaultError { .invalidProperty(name) }
    private func value(_ name: String) -> JSONValue? { members[name].flatMap { $0.isNull ? nil : $0 } }

    func string(_ name: String) throws(VaultError) -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value.stringValue else { throw invalid(name) }
        return text
    }
    func requiredString(_ name: String) throws(VaultError) -> String {
        guard let text = try string(name) else { throw .missingProperty(name) }
        return text
    }
    func integer(_ name: String) throws(VaultError) -> Int64? {
        guard let value = value(name) else { return nil }
        guard let number = value.intValue else { throw invalid(name) }
        return number
    }
    func bool(_ name: String) throws(VaultError) -> Bool? {
        guard let value = value(name) else { return nil }
        guard let flag = value.boolValue else { throw invalid(name) }
        return flag
    }
    func object(_ name: String) throws(VaultError) -> VaultBody? {
        guard let value = value(name) else { return nil }
        guard let members = value.objectValue else { throw invalid(name) }
        return VaultBody(members: members)
    }
    /// base64url without padding (RFC 7515 §2).
    func bytes(_ name: String) throws(VaultError) -> [UInt8] {
        guard let bytes = [UInt8](base64URL: try requiredString(name)) else { throw invalid(name) }
        return bytes
    }

    // MARK: Families of properties

    func attributes() throws(VaultError) -> AttributeChanges {
        guard let given = try object("attributes") else { return AttributeChanges() }
        return AttributeChanges(
            isEnabled: try given.bool("enabled"), notBefore: try given.time("nbf"), expires: try given.time("exp"))
    }
    private func time(_ name: String) throws(VaultError) -> Timestamp? {
        guard let seconds = try integer(name) else { return nil }
        // Up to the end of the year 9999.
        guard (0...253_402_300_799).contains(seconds) else { throw invalid(name) }
        return Timestamp(unixSeconds: seconds)
    }

    /// At most 15; names and values of keys up to 256 characters, of secrets up to 512 (About keys, About secrets).
    func tags(_ kind: ObjectKind) throws(VaultError) -> [String: String]? {
        guard let given = try object("tags") else { return nil }
        let limit = kind == .key ? 256 : 512
        guard given.members.count <= KeyVaultService.Limits.tags else {
            throw .badParameter("At most \(KeyVaultService.Limits.tags) tags are allowed.")
        }
        var tags: [String: String] = [:]
        for (name, value) in given.members {
            guard let text = value.isNull ? "" : value.stringValue, name.count <= limit, text.count <= limit else {
                throw invalid("tags")
            }
            tags[name] = text
        }
        return tags
    }

    func keyOperations(_ name: String = "key_ops") throws(VaultError) -> [KeyOperation]? {
        guard let value = value(name) else { return nil }
        guard let names = value.arrayValue else { throw invalid(name) }
        var operations: [KeyOperation] = []
        for name in names {
            guard let text = name.stringValue, let operation = KeyOperation(ignoringCase: text), operation != .export
            else {
                throw invalid("key_ops")
            }
            if !operations.contains(operation) { operations.append(operation) }
        }
        return operations
    }

    // MARK: Bodies

    func keyCreation() throws(VaultError) -> KeyCreation {
        try refuseRelease()
        let type: KeyType
        switch try requiredString("kty").uppercased() {
        case "RSA":
            let bits = try integer("key_size") ?? 2_048
            guard [2_048, 3_072, 4_096].contains(bits) else {
                throw .badParameter("The key size \(bits) is not supported for RSA: 2048, 3072 or 4096.")
            }
            if let exponent = try integer("public_exponent"), exponent != 65_537 { throw invalid("public_exponent") }
            type = .rsa(bits: Int(bits))
        case "EC":
            guard let curve = EllipticCurve(rawValue: try string("crv") ?? "P-256") else { throw invalid("crv") }
            type = .ec(curve)
        case let other: throw Self.unsupportedType(other)
        }
        return try creation(type, operations: keyOperations())
    }

    private func creation(_ type: KeyType, operations: [KeyOperation]?) throws(VaultError) -> KeyCreation {
        let operations = operations ?? type.defaultOperations
        if case .ec = type, operations.contains(where: { ![.sign, .verify, .import].contains($0) }) {
            throw invalid("key_ops")
        }
        return KeyCreation(
            type: type, operations: operations, attributes: try attributes(), tags: try tags(.key) ?? [:])
    }

    private static func unsupportedType(_ name: String) -> VaultError {
        name.hasSuffix("-HSM") || name == "OCT"
            ? .badParameter(
                "The key type '\(name)' needs a hardware security module, which this vault has none of. Use RSA or EC.")
            : .badParameter("Property kty has invalid value: use RSA or EC.")
    }
    private func refuseRelease() throws(VaultError) {
        let isExportable = try object("attributes")?.bool("exportable") == true
        let hasPolicy = try object("release_policy") != nil
        if isExportable || hasPolicy {
            throw .badParameter(
                "Exportable keys and release policies are not supported: private keys never leave this server.")
        }
    }

    func keyImport() throws(VaultError) -> (creation: KeyCreation, key: ImportedKey) {
        try refuseRelease()
        if try bool("Hsm") == true { throw Self.unsupportedType("RSA-HSM") }
        guard let key = try object("key") else { throw .badParameter("Property key is required.") }
        let type: KeyType
        let names: [String]
        switch try key.requiredString("kty").uppercased() {
        case "RSA":
            names = ["n", "e", "d", "p", "q", "dp", "dq", "qi"]
            let modulus = Array(try key.bytes("n").drop { $0 == 0 })
            guard let top = modulus.first, [256, 384, 512].contains(modulus.count), top >= 0x80 else {
                throw .badParameter("The key size is not supported for RSA: 2048, 3072 or 4096.")
            }
            type = .rsa(bits: modulus.count * 8)
        case "EC":
            names = ["x", "y", "d"]
            guard let curve = EllipticCurve(rawValue: try key.string("crv") ?? "") else { throw invalid("crv") }
            type = .ec(curve)
        case let other: throw Self.unsupportedType(other)
        }
        var members: [String: SecretBytes] = [:]
        for name in names {
            var bytes = try key.bytes(name)
            members[name] = SecretBytes(copying: bytes)
            wipe(&bytes)
        }
        let outer = try keyOperations()
        let operations = try key.keyOperations() ?? outer
        return (try creation(type, operations: operations), ImportedKey(type: type, members: members))
    }

    func secretCreation() throws(VaultError) -> SecretCreation {
        let value = try requiredString("value")
        return SecretCreation(
            value: SecretBytes(copying: Array(value.utf8)), contentType: try contentType(),
            attributes: try attributes(),
            tags: try tags(.secret) ?? [:])
    }
    func contentType() throws(VaultError) -> String? {
        let type = try string("contentType")
        guard type?.count ?? 0 <= 255 else { throw invalid("contentType") }
        return type
    }

    /// Times are at least seven days; an expiry at least 28 (Configure cryptographic key auto-rotation).
    func rotationPolicy() throws(VaultError) -> RotationPolicy {
        var policy = RotationPolicy(lifetimeActions: [])
        if let text = try object("attributes")?.string("expiryTime") {
            guard let period = CalendarPeriod(iso8601: text), period.approximateDays >= 28 else {
                throw invalid("expiryTime")
            }
            policy.expiryTime = period
        }
        let actions = members["lifetimeActions"]?.arrayValue ?? []
        guard actions.count <= 8 else { throw invalid("lifetimeActions") }
        for action in actions {
            guard let members = action.objectValue else { throw invalid("lifetimeActions") }
            policy.lifetimeActions.append(try VaultBody(members: members).lifetimeAction(expires: policy.expiryTime))
        }
        return policy
    }
    private func lifetimeAction(expires: CalendarPeriod?) throws(VaultError) -> RotationPolicy.LifetimeAction {
        let type: RotationPolicy.ActionType
        switch try object("action")?.string("type")?.lowercased() {
        case "rotate": type = .rotate
        case "notify": type = .notify
        default: throw invalid("action")
        }
        let trigger = try object("trigger")
        let afterCreate = try trigger?.string("timeAfterCreate")
        let beforeExpiry = try trigger?.string("timeBeforeExpiry")
        guard (afterCreate == nil) != (beforeExpiry == nil),
            let period = CalendarPeriod(iso8601: afterCreate ?? beforeExpiry ?? ""), period.approximateDays >= 7
        else { throw invalid("trigger") }
        if afterCreate != nil { return RotationPolicy.LifetimeAction(trigger: .afterCreate(period), action: type) }
        guard type == .notify || expires != nil else {
            throw .badParameter("A trigger with timeBeforeExpiry needs attributes.expiryTime in the policy.")
        }
        return RotationPolicy.LifetimeAction(trigger: .beforeExpiry(period), action: type)
    }
}

/// The body of a cryptographic operation (KeyOperationsParameters, KeySignParameters and KeyVerifyParameters of the
/// REST API): what a busy vault reads most, so it is read without a tree between.
struct KeyOperationBody: Decodable, Sendable {
    private enum CodingKeys: String, CodingKey { case alg, value, digest }
    private let alg: String?
    private let value: String?
    private let digest: String?

    init(_ bytes: some Collection<UInt8>) throws(VaultError) {
        if bytes.isEmpty {
            (alg, value, digest) = (nil, nil, nil)
            return
        }
        do {
            self = try JSONDecoder().decode(KeyOperationBody.self, from: Data(bytes))
        } catch DecodingError.typeMismatch(_, let context) where !context.codingPath.isEmpty {
            throw .invalidProperty(context.codingPath[0].stringValue)
        } catch {
            throw .noJSONObject
        }
    }

    private func required(_ text: String?, _ key: CodingKeys) throws(VaultError) -> String {
        guard let text else { throw .missingProperty(key.stringValue) }
        return text
    }
    private func bytes(_ text: String?, _ key: CodingKeys) throws(VaultError) -> [UInt8] {
        guard let bytes = [UInt8](base64URL: try required(text, key)) else { throw .invalidProperty(key.stringValue) }
        return bytes
    }
    func valueBytes() throws(VaultError) -> [UInt8] { try bytes(value, .value) }
    func digestBytes() throws(VaultError) -> [UInt8] { try bytes(digest, .digest) }

    func encryptionAlgorithm() throws(VaultError) -> EncryptionAlgorithm {
        let name = try required(alg, .alg)
        guard let algorithm = EncryptionAlgorithm(rawValue: name) else {
            throw .badParameter("The algorithm '\(name)' is not supported: RSA-OAEP-256, RSA-OAEP or RSA1_5.")
        }
        return algorithm
    }
    func signatureAlgorithm() throws(VaultError) -> SignatureAlgorithm {
        let name = try required(alg, .alg)
        guard let algorithm = SignatureAlgorithm(rawValue: name) else {
            throw .badParameter(
                "The algorithm '\(name)' is not supported: "
                    + "\(SignatureAlgorithm.allCases.map(\.rawValue).joined(separator: ", "))."
            )
        }
        return algorithm
    }
}

extension VaultError {
    fileprivate static let noJSONObject = VaultError.badParameter("The request body is not a JSON object.")
    fileprivate static func invalidProperty(_ name: String) -> VaultError {
        .badParameter("Property \(name) has invalid value")
    }
    fileprivate static func missingProperty(_ name: String) -> VaultError {
        .badParameter("Property \(name) is required.")
    }
}
