internal import CofferCore

/// What a slot holds: the account key wrapped once, and by what. Encoding: docs/format.md §6.
struct AccountKeyRecord: Equatable, Sendable {
    enum State: UInt8 { case active = 1, prepared = 2 }
    enum Wrapping: Equatable, Sendable {
        /// XAES-256-GCM under the platform key: nonce | ciphertext | tag, 72 bytes.
        case platform([UInt8])
        case customer(CustomerKeyReference, identity: Caller, wrapped: CustomerWrappedKey)
    }
    static let version: UInt8 = 1
    static let platformWrappedBytes = 32 + XAES256GCM.overheadBytes
    private enum Source { static let platform: UInt8 = 1, customer: UInt8 = 2 }

    var state: State
    var generation: UInt64
    var commitment: [UInt8]
    var wrappedAt: Timestamp
    var wrapping: Wrapping

    var encoded: [UInt8] {
        var bytes: [UInt8] = [Self.version, state.rawValue]
        bytes.append(bigEndian: generation)
        bytes.append(contentsOf: commitment)
        bytes.append(bigEndian: wrappedAt.microseconds)
        switch wrapping {
        case .platform(let sealed):
            bytes.append(Source.platform)
            bytes.append(contentsOf: sealed)
        case .customer(let reference, let identity, let wrapped):
            bytes.append(Source.customer)
            bytes.append(text: reference.vaultURI)
            bytes.append(text: reference.keyName)
            bytes.append(optionalText: reference.keyVersion)
            bytes.append(text: identity.kind.rawValue)
            bytes.append(text: identity.objectID)
            bytes.append(text: identity.tenantID)
            bytes.append(optionalText: identity.applicationID)
            bytes.append(text: wrapped.keyIdentifier)
            bytes.append(field: wrapped.ciphertext)
        }
        return bytes
    }

    init(state: State, generation: UInt64, commitment: [UInt8], wrappedAt: Timestamp, wrapping: Wrapping) {
        self.state = state
        self.generation = generation
        self.commitment = commitment
        self.wrappedAt = wrappedAt
        self.wrapping = wrapping
    }

    /// nil for anything that `encoded` would not write.
    init?(_ bytes: [UInt8]) {
        var reader = FieldReader(bytes)
        guard reader.integer(UInt8.self) == Self.version,
            let state = reader.integer(UInt8.self).flatMap(State.init(rawValue:)),
            let generation = reader.integer(UInt64.self), let commitment = reader.take(32),
            let wrappedAt = reader.integer(Int64.self), let source = reader.integer(UInt8.self)
        else { return nil }
        let wrapping: Wrapping
        switch source {
        case Source.platform:
            guard let sealed = reader.take(Self.platformWrappedBytes) else { return nil }
            wrapping = .platform(Array(sealed))
        case Source.customer:
            guard let customer = Self.readCustomer(&reader) else { return nil }
            wrapping = customer
        default: return nil
        }
        guard reader.isAtEnd else { return nil }
        self.init(
            state: state, generation: generation, commitment: Array(commitment),
            wrappedAt: Timestamp(microseconds: wrappedAt),
            wrapping: wrapping)
        // `Caller` lowers the case of its identifiers: what it would not write, it does not read.
        guard encoded == bytes else { return nil }
    }

    private static func readCustomer(_ reader: inout FieldReader) -> Wrapping? {
        guard let vaultURI = reader.text(), let keyName = reader.text(), let keyVersion = reader.optionalText(),
            let kind = reader.text().flatMap(Caller.Kind.init(rawValue:)), let objectID = reader.text(),
            let tenantID = reader.text(),
            let applicationID = reader.optionalText(), let keyIdentifier = reader.text(),
            let ciphertext = reader.field()
        else { return nil }
        return .customer(
            CustomerKeyReference(vaultURI: vaultURI, keyName: keyName, keyVersion: keyVersion),
            identity: Caller(kind: kind, objectID: objectID, tenantID: tenantID, applicationID: applicationID),
            wrapped: CustomerWrappedKey(keyIdentifier: keyIdentifier, ciphertext: Array(ciphertext)))
    }

    var status: AccountKeyStatus {
        switch wrapping {
        case .platform: AccountKeyStatus(source: .platform)
        case .customer(let reference, _, let wrapped):
            AccountKeyStatus(
                source: .customer(
                    reference, currentVersionedKeyIdentifier: wrapped.keyIdentifier, lastRotation: wrappedAt))
        }
    }
}
