import CofferCore
import EncryptionAtRest
import HTTPEdge
import NIOHTTP1

/// The route table of the data plane. Segments match without regard to case; empty ones vanish, so that `/keys/name/`
/// and `/keys/name//wrapkey` mean the newest version.
extension KeyVaultService {
    func route(_ call: VaultCall) async throws -> Response {
        try requireAPIVersion(call.request)
        guard let segments = call.request.pathSegments else {
            throw VaultError.badParameter("The request URI is malformed.")
        }
        let rest = Array(segments.dropFirst())
        switch segments.first?.lowercased() {
        case "keys": return try await routeKeys(call, rest)
        case "secrets": return try await routeSecrets(call, rest)
        case "deletedkeys": return try await routeDeleted(call, .key, rest)
        case "deletedsecrets": return try await routeDeleted(call, .secret, rest)
        case "rng" where rest.isEmpty && call.request.method == .POST: return try await randomBytes(call)
        case "certificates", "deletedcertificates": throw VaultError.notSupported("Certificates are")
        case "storage", "deletedstorage": throw VaultError.notSupported("Managed storage accounts are")
        case "securitydomain", "backup", "restore", "settings", "providers":
            throw VaultError.notSupported("Managed HSM operations are")
        default: throw unknownRoute(call.request)
        }
    }

    private func unknownRoute(_ request: Request) -> VaultError {
        VaultError(404, "NotFound", "There is no operation \(request.method.rawValue) at this path.")
    }

    /// Any version that looks like one is served with the newest known behaviour.
    private func requireAPIVersion(_ request: Request) throws(VaultError) {
        guard let version = request.query.first(where: { $0.name.lowercased() == "api-version" })?.value,
            !version.isEmpty
        else {
            throw .badParameter("api-version must be specified")
        }
        let parts = version.utf8.split(separator: 0x2d, omittingEmptySubsequences: false)
        func isNumber(_ text: Substring.UTF8View) -> Bool {
            !text.isEmpty && text.allSatisfy { (48...57).contains($0) }
        }
        let isDate = parts.count >= 3 && parts[0].count == 4 && parts.prefix(3).allSatisfy(isNumber)
        let numbers = parts[0].split(separator: 0x2e, omittingEmptySubsequences: false)
        let isNumbered = numbers.count == 2 && numbers.allSatisfy(isNumber)
        let tail = parts.dropFirst(isDate ? 3 : 1)
        let isPlain = version.utf8.allSatisfy {
            (48...57).contains($0) || (97...122).contains($0 | 0x20) || $0 == 0x2d || $0 == 0x2e
        }
        let isPreview = tail.count == 1 && Substring(tail.first!).lowercased().hasPrefix("preview")
        guard isPlain, isDate || isNumbered, tail.isEmpty || isPreview else {
            throw .badParameter(
                "The specified version (\(version.prefix(40))) is not recognized. Consider using the latest "
                    + "supported version (7.6)."
            )
        }
    }

    private func requireName(_ name: String) throws(VaultError) -> String {
        guard isValidObjectName(name) else {
            throw .badParameter("The request URI contains an invalid name: \(name.prefix(127))")
        }
        return name
    }

    // MARK: Keys

    private func routeKeys(_ call: VaultCall, _ path: [String]) async throws -> Response {
        let method = call.request.method
        let last = path.last?.lowercased() ?? ""
        if path.isEmpty {
            guard method == .GET else { throw unknownRoute(call.request) }
            return try await listObjects(call, .key, isDeleted: false)
        }
        if method == .POST, path.count == 1, last == "restore" { return try await restoreObject(call, .key) }
        let name = try requireName(path[0])
        switch (method, path.count, last) {
        case (.POST, 2, "create"):
            let creation = try await call.body().keyCreation()
            return call.ok(try await createKey(as: call.caller, name, in: call.address, creation).keyBundle(call.names))
        case (.PUT, 1, _):
            let (creation, key) = try await call.body().keyImport()
            return call.ok(
                try await importKey(as: call.caller, name, in: call.address, creation, key).keyBundle(call.names))
        case (.DELETE, 1, _):
            return call.ok(try await delete(as: call.caller, .key, name, in: call.address).keyBundle(call.names))
        case (.POST, 2, "backup"): return try await backupObject(call, .key, name)
        case (.POST, 2, "rotate"):
            return call.ok(try await rotateKey(as: call.caller, name, in: call.address).keyBundle(call.names))
        case (.GET, 2, "rotationpolicy"):
            return call.ok(
                try await rotationPolicy(as: call.caller, name, in: call.address).rotationPolicyBody(call.names))
        case (.PUT, 2, "rotationpolicy"):
            let policy = try await call.body().rotationPolicy()
            return call.ok(
                try await setRotationPolicy(as: call.caller, name, in: call.address, policy).rotationPolicyBody(
                    call.names))
        case (.GET, 2, "versions"): return try await listObjectVersions(call, .key, name)
        case (.GET, 1...2, _):
            let version = path.count == 2 ? path[1] : nil
            return call.ok(
                try await getKey(as: call.caller, name, version: version, in: call.address).keyBundle(call.names))
        case (.PATCH, 1...2, _): return try await patchKey(call, name, version: path.count == 2 ? path[1] : nil)
        case (.POST, 2...3, "release"), (.GET, 3, "attestation"):
            throw VaultError.notSupported("Release and attestation of keys are")
        case (.POST, 2...3, _):
            return try await cryptography(call, last, name, version: path.count == 3 ? path[1] : nil)
        default: throw unknownRoute(call.request)
        }
    }

    private func patchKey(_ call: VaultCall, _ name: String, version: String?) async throws -> Response {
        let body = try await call.body()
        let updated = try await updateKey(
            as: call.caller, name, version: version, in: call.address, try body.attributes(),
            operations: try body.keyOperations(),
            tags: try body.tags(.key))
        return call.ok(updated.keyBundle(call.names))
    }

    private func cryptography(_ call: VaultCall, _ operation: String, _ name: String, version: String?) async throws
        -> Response
    {
        let body = try await KeyOperationBody(call.bodyBytes())
        switch operation {
        case "encrypt", "wrapkey":
            var value = try body.valueBytes()
            let secret = SecretBytes(copying: value)
            wipe(&value)
            let (key, ciphertext) = try await encrypt(
                as: call.caller, operation == "encrypt" ? .encrypt : .wrapKey, name, version: version, in: call.address,
                try body.encryptionAlgorithm(), secret)
            return call.answer(key, value: ciphertext.base64URL)
        case "decrypt", "unwrapkey":
            let (key, plaintext) = try await decrypt(
                as: call.caller, operation == "decrypt" ? .decrypt : .unwrapKey, name, version: version,
                in: call.address,
                try body.encryptionAlgorithm(), try body.valueBytes())
            return call.answer(key, value: plaintext.withUnsafeBytes { $0.base64URL })
        case "sign":
            let (key, signature) = try await sign(
                as: call.caller, name, version: version, in: call.address, try body.signatureAlgorithm(),
                digest: try body.valueBytes())
            return call.answer(key, value: signature.base64URL)
        case "verify":
            let isValid = try await verify(
                as: call.caller, name, version: version, in: call.address, try body.signatureAlgorithm(),
                digest: try body.digestBytes(), signature: try body.valueBytes())
            return call.ok(["value": .bool(isValid)])
        default: throw unknownRoute(call.request)
        }
    }

    // MARK: Secrets

    private func routeSecrets(_ call: VaultCall, _ path: [String]) async throws -> Response {
        let method = call.request.method
        let last = path.last?.lowercased() ?? ""
        if path.isEmpty {
            guard method == .GET else { throw unknownRoute(call.request) }
            return try await listObjects(call, .secret, isDeleted: false)
        }
        if method == .POST, path.count == 1, last == "restore" { return try await restoreObject(call, .secret) }
        let name = try requireName(path[0])
        let version = path.count == 2 ? path[1] : nil
        switch (method, path.count, last) {
        case (.PUT, 1, _):
            let body = try await call.body()
            let set = try await setSecret(as: call.caller, name, in: call.address, try body.secretCreation())
            return call.ok(set.secretBundle(call.names, value: try body.string("value")))
        case (.DELETE, 1, _):
            return call.ok(try await delete(as: call.caller, .secret, name, in: call.address).secretBundle(call.names))
        case (.POST, 2, "backup"): return try await backupObject(call, .secret, name)
        case (.GET, 2, "versions"): return try await listObjectVersions(call, .secret, name)
        case (.GET, 1...2, _):
            let (secret, value) = try await readSecret(as: call.caller, name, version: version, in: call.address)
            return call.ok(
                secret.secretBundle(call.names, value: value.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }))
        case (.PATCH, 1...2, _):
            let body = try await call.body()
            let updated = try await updateSecret(
                as: call.caller, name, version: version, in: call.address, try body.attributes(),
                contentType: try body.contentType(),
                tags: try body.tags(.secret))
            return call.ok(updated.secretBundle(call.names))
        default: throw unknownRoute(call.request)
        }
    }

    // MARK: Both

    private func routeDeleted(_ call: VaultCall, _ kind: ObjectKind, _ path: [String]) async throws -> Response {
        let method = call.request.method
        if path.isEmpty {
            guard method == .GET else { throw unknownRoute(call.request) }
            return try await listObjects(call, kind, isDeleted: true)
        }
        let name = try requireName(path[0])
        switch (method, path.count, path.last?.lowercased()) {
        case (.GET, 1, _):
            return call.ok(try await getDeleted(as: call.caller, kind, name, in: call.address).bundle(call.names))
        case (.DELETE, 1, _):
            try await purge(as: call.caller, kind, name, in: call.address)
            return Response(status: .noContent)
        case (.POST, 2, "recover"):
            return call.ok(try await recover(as: call.caller, kind, name, in: call.address).bundle(call.names))
        default: throw unknownRoute(call.request)
        }
    }

    private func listObjects(_ call: VaultCall, _ kind: ObjectKind, isDeleted: Bool) async throws -> Response {
        let (limit, after) = try call.page()
        let page = try await list(
            as: call.caller, kind, isDeleted: isDeleted, in: call.address, after: after?.lowercased(), limit: limit)
        return call.answer(page, limit: limit, isVersion: false)
    }

    private func listObjectVersions(_ call: VaultCall, _ kind: ObjectKind, _ name: String) async throws -> Response {
        let (limit, after) = try call.page()
        let page = try await listVersions(
            as: call.caller, kind, name, in: call.address, after: after.flatMap { Int($0) }, limit: limit)
        return call.answer(page, limit: limit, isVersion: true)
    }

    private func backupObject(_ call: VaultCall, _ kind: ObjectKind, _ name: String) async throws -> Response {
        call.ok(["value": .string(try await backup(as: call.caller, kind, name, in: call.address).base64URL)])
    }

    private func restoreObject(_ call: VaultCall, _ kind: ObjectKind) async throws -> Response {
        let blob = try await call.body(upTo: Limits.restoreBytes).bytes("value")
        return call.ok(try await restore(as: call.caller, kind, blob, in: call.address).bundle(call.names))
    }

    /// Random bytes for whoever may read keys; Azure offers it on managed HSMs only.
    private func randomBytes(_ call: VaultCall) async throws -> Response {
        let vault = try await open(call.address, as: call.caller)
        try vault.require(.getKey)
        guard let count = try await call.body().integer("count"), (1...128).contains(count) else {
            throw VaultError.badParameter("Property count has invalid value: 1 to 128.")
        }
        return call.ok(["value": .string(randomness.bytes(Int(count)).base64URL)])
    }
}
