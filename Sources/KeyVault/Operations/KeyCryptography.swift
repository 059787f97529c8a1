import CofferCore
import EncryptionAtRest

extension KeyVaultService {
    /// `encrypt` and `wrapKey`: RSA under the version's public part.
    func encrypt(
        as caller: Caller, _ operation: KeyOperation, _ name: String, version: String?, in address: VaultAddress,
        _ algorithm: EncryptionAlgorithm, _ plaintext: SecretBytes
    ) async throws -> (key: StoredObject, ciphertext: [UInt8]) {
        let vault = try await open(address, as: caller)
        let found = try await keyForUse(operation, name, version: version, in: vault)
        return (found, try await encrypt(found, in: vault, algorithm, plaintext))
    }
    func encrypt(
        _ found: StoredObject, in vault: OpenVault, _ algorithm: EncryptionAlgorithm, _ plaintext: SecretBytes
    ) async throws -> [UInt8] {
        try requireRSA(found)
        let key = try await handle(of: found, in: vault)
        return try refusing("The value is too long for the key and the algorithm, or empty.") {
            () throws(CryptographyError) in
            try plaintext.withUnsafeBytes { bytes throws(CryptographyError) in try key.encrypt(bytes, algorithm) }
        }
    }

    /// `decrypt` and `unwrapKey`.
    func decrypt(
        as caller: Caller, _ operation: KeyOperation, _ name: String, version: String?, in address: VaultAddress,
        _ algorithm: EncryptionAlgorithm, _ ciphertext: [UInt8]
    ) async throws -> (key: StoredObject, plaintext: SecretBytes) {
        let vault = try await open(address, as: caller)
        let found = try await keyForUse(operation, name, version: version, in: vault)
        try requireRSA(found)
        let key = try await handle(of: found, in: vault)
        let plaintext = try await compute(key) {
            try refusing("The value could not be opened with this key and algorithm.") { () throws(CryptographyError) in
                try key.decrypt(ciphertext, algorithm)
            }
        }
        return (found, plaintext)
    }

    func sign(
        as caller: Caller, _ name: String, version: String?, in address: VaultAddress, _ algorithm: SignatureAlgorithm,
        digest: [UInt8]
    ) async throws -> (key: StoredObject, signature: [UInt8]) {
        let vault = try await open(address, as: caller)
        let found = try await keyForUse(.sign, name, version: version, in: vault)
        try requireFit(found, algorithm, digest)
        let key = try await handle(of: found, in: vault)
        return (found, try await compute(key) { try key.sign(digest: digest, algorithm) })
    }

    func verify(
        as caller: Caller, _ name: String, version: String?, in address: VaultAddress, _ algorithm: SignatureAlgorithm,
        digest: [UInt8],
        signature: [UInt8]
    ) async throws -> Bool {
        let vault = try await open(address, as: caller)
        let found = try await keyForUse(.verify, name, version: version, in: vault)
        try requireFit(found, algorithm, digest)
        let key = try await handle(of: found, in: vault)
        return try await compute(key, isPrivate: false) {
            try key.verify(digest: digest, signature: signature, algorithm)
        }
    }

    // MARK: Preconditions

    /// Permission, then the version, then whether it may do the operation now.
    func keyForUse(_ operation: KeyOperation, _ name: String, version: String?, in vault: OpenVault) async throws
        -> StoredObject
    {
        try vault.require(.cryptography(operation), object: name)
        let found = try await vault.find(.key, name, version: version)
        try requireUsable(found, for: operation)
        return found
    }

    func requireUsable(_ found: StoredObject, for operation: KeyOperation) throws(VaultError) {
        let attributes = found.version.attributes
        guard attributes.isEnabled else {
            throw .forbidden("KeyDisabled", "Operation \(operation.rawValue) is not allowed on a disabled key.")
        }
        let now = clock.now()
        if operation.isRefusedOutsideValidity {
            if let notBefore = attributes.notBefore, now < notBefore {
                throw .forbidden(
                    "KeyNotYetValid", "Operation \(operation.rawValue) is not allowed on a key that is not yet valid.")
            }
            if let expires = attributes.expires, now >= expires {
                throw .forbidden("KeyExpired", "Operation \(operation.rawValue) is not allowed on an expired key.")
            }
        }
        guard found.version.key?.operations.contains(operation) == true else {
            throw .forbidden("KeyOperationForbidden", "Operation \(operation.rawValue) is not permitted on this key.")
        }
    }

    private func requireRSA(_ found: StoredObject) throws(VaultError) {
        guard case .rsa? = found.version.key?.type else {
            throw .badParameter("Key and key operation are incompatible: encryption and key wrapping need an RSA key.")
        }
    }
    private func requireFit(_ found: StoredObject, _ algorithm: SignatureAlgorithm, _ digest: [UInt8])
        throws(VaultError)
    {
        guard let type = found.version.key?.type, algorithm.fits(type) else {
            throw .badParameter(
                "Key and signing algorithm are incompatible: '\(algorithm.rawValue)' does not fit the key's type or "
                    + "curve."
            )
        }
        guard digest.count == algorithm.hash.digestBytes else {
            throw .badParameter(
                "Invalid length of 'value': \(digest.count) bytes. \(algorithm.rawValue) needs a digest of "
                    + "\(algorithm.hash.digestBytes) bytes."
            )
        }
    }

    // MARK: Handles

    /// The version's private key, from memory or from its record.
    func handle(of found: StoredObject, in vault: OpenVault) async throws -> AsymmetricKey {
        guard let type = found.version.key?.type else { throw VaultError.objectNotFound(.key, found.header.name) }
        let name = KeyHandles.Name(
            vault: vault.vault.incarnation, key: found.header.name.lowercased(), version: found.version.id)
        if let kept = handles.find(name, at: clock.now()) { return kept }
        guard let material = try await vault.objects.material(.key, found.header.name, sequence: found.version.sequence)
        else {
            throw VaultError.objectNotFound(.key, found.header.name)
        }
        let key = try material.withUnsafeBytes { bytes throws(CryptographyError) in
            try AsymmetricKey.decode(pkcs8: bytes, type: type)
        }
        handles.keep(key, as: name, ticket: vault.ticket, at: clock.now())
        return key
    }

    /// In place while it takes a fraction of a millisecond, on threads of its own above that: the caller may run on an
    /// event loop.
    private func compute<Result: Sendable>(
        _ key: AsymmetricKey, isPrivate: Bool = true, _ work: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        let isLong =
            switch key.type {
            case .rsa(let bits): isPrivate && bits > Limits.bitsComputedInPlace
            // OpenSSL 3.0 computes the other curves without code of their own.
            case .ec(let curve): curve != .p256
            }
        return isLong ? try await threads.run(work) : try work()
    }
}

/// Turns "the caller's bytes do not fit" into 400 with a message; other failures stay.
private func refusing<Result>(_ message: String, _ work: () throws(CryptographyError) -> Result) throws -> Result {
    do throws(CryptographyError) { return try work() } catch {
        throw error == .invalidInput ? VaultError.badParameter(message) : error
    }
}
