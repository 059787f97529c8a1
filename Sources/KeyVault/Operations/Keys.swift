import CofferCore
import EncryptionAtRest

/// What a key is made from.
struct KeyCreation: Sendable {
    var type: KeyType
    var operations: [KeyOperation]
    var attributes: AttributeChanges
    var tags: [String: String]
}

extension KeyVaultService {
    func createKey(as caller: Caller, _ name: String, in address: VaultAddress, _ creation: KeyCreation) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.createKey, object: name)
        return try await addKey(name, in: vault, creation, "created") { try AsymmetricKey.generate(creation.type) }
    }

    /// `components` hold the private key; its parts are checked to belong together.
    func importKey(
        as caller: Caller, _ name: String, in address: VaultAddress, _ creation: KeyCreation, _ components: ImportedKey
    ) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.importKey, object: name)
        return try await addKey(name, in: vault, creation, "imported") {
            do throws(CryptographyError) { return try components.make() } catch {
                guard error == .invalidInput else { throw error }
                throw VaultError.badParameter(
                    "The JSON Web Key is not a valid private key: its parts do not belong together.")
            }
        }
    }

    /// The next version, with the newest one's type, operations and tags; its life is the rotation policy's.
    func rotateKey(as caller: Caller, _ name: String, in address: VaultAddress) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.rotateKey, object: name)
        return try await rotate(name, in: vault)
    }

    func rotate(_ name: String, in vault: OpenVault) async throws -> StoredObject {
        let newest = try await vault.find(.key, name, version: nil)
        guard let key = newest.version.key else { throw VaultError.objectNotFound(.key, name) }
        var attributes = AttributeChanges(isEnabled: true)
        attributes.expires = newest.header.rotationPolicy?.expiryTime?.added(to: clock.now())
        let creation = KeyCreation(
            type: key.type, operations: key.operations, attributes: attributes, tags: newest.version.tags)
        return try await addKey(name, in: vault, creation, "rotated") { try AsymmetricKey.generate(key.type) }
    }

    func addKey(
        _ name: String, in vault: OpenVault, _ creation: KeyCreation, _ what: String,
        _ make: @escaping @Sendable () throws -> AsymmetricKey
    ) async throws -> StoredObject {
        // A deleted key's name is refused before seconds go into a new one.
        if let deletion = try await vault.objects.header(.key, name)?.value.deletion {
            throw VaultError.nameTaken(.key, name, by: deletion, at: clock.now())
        }
        let (material, publicPart) = try await threads.run {
            let key = try make()
            return (try key.pkcs8(), try key.publicPart())
        }
        let now = clock.now()
        let id = makeVersionID()
        let added = try await vault.addVersion(.key, name, at: now, material: material) { sequence, _ in
            ObjectVersion(
                id: id, sequence: sequence, attributes: creation.attributes.made(at: now), tags: creation.tags,
                key: KeyDescription(type: creation.type, operations: creation.operations, publicPart: publicPart))
        }
        changed(.key, name, in: vault, what)
        return added
    }

    func getKey(as caller: Caller, _ name: String, version: String?, in address: VaultAddress) async throws
        -> StoredObject
    {
        let vault = try await open(address, as: caller)
        try vault.require(.getKey, object: name)
        return try await vault.find(.key, name, version: version)
    }

    func updateKey(
        as caller: Caller, _ name: String, version: String?, in address: VaultAddress, _ attributes: AttributeChanges,
        operations: [KeyOperation]?, tags: [String: String]?
    ) async throws -> StoredObject {
        let vault = try await open(address, as: caller)
        try vault.require(.updateKey, object: name)
        let updated = try await vault.update(.key, name, version: version) { found in
            attributes.apply(to: &found.attributes, at: clock.now())
            if let tags { found.tags = tags }
            if let operations { found.key?.operations = operations }
        }
        changed(.key, name, in: vault, "updated")
        return updated
    }
}

/// A private JSON Web Key on its way in: its members lie in memory that is wiped.
struct ImportedKey: Sendable {
    let type: KeyType
    let members: [String: SecretBytes]

    func make() throws(CryptographyError) -> AsymmetricKey {
        var plain = members.mapValues { member in member.withUnsafeBytes { Array($0) } }
        defer { for name in plain.keys { wipe(&plain[name, default: []]) } }
        return try AsymmetricKey.make(AsymmetricKey.Components(type: type, members: plain))
    }
}
