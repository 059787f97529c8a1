internal import StorageAccount

/// What the blobs of a container answer to where their requests do not say, and whether these may say otherwise.
/// Chosen when the container is made.
struct ContainerEncryption: Sendable, Equatable {
    /// nil: the account's key.
    var scope: String?
    var deniesOverride = false

    /// How the wire names the scope.
    var wireName: String { scope ?? RequestedEncryption.accountKeyName }

    init() {}
    init(_ record: ContainerRecord) {
        scope = record.defaultEncryptionScope
        deniesOverride = record.deniesEncryptionScopeOverride == true
    }

    /// `wireName` and what stands beside it. Throws 400 where overrides are denied and nothing says what they would
    /// override.
    init(wireName: String?, deniesOverride: Bool, _ missing: @autoclosure () -> StorageError) throws(StorageError) {
        guard wireName != nil || !deniesOverride else { throw missing() }
        scope = wireName == RequestedEncryption.accountKeyName ? nil : wireName
        self.deniesOverride = deniesOverride
    }

    /// `x-ms-default-encryption-scope` and `x-ms-deny-encryption-scope-override`.
    init(_ call: BlobCall) throws(StorageError) {
        let denying = "x-ms-deny-encryption-scope-override"
        let text = call.header(denying)?.lowercased() ?? "false"
        guard text == "true" || text == "false" else { throw .invalidHeader(denying, text) }
        try self.init(
            wireName: call.header("x-ms-default-encryption-scope").flatMap { $0.isEmpty ? nil : $0 },
            deniesOverride: text == "true", .missingHeader("x-ms-default-encryption-scope"))
    }
}
