internal import CofferCore
internal import Logging

/// Who presented a key, and what it opens.
enum KeyAuthorization: Sendable, Equatable {
    case none
    case master
    case system(name: String)
    case hostFunction(name: String)
    /// Of the function the request is for.
    case function(name: String)
}

/// A site's access keys: read from their repository, decrypted, kept in memory, looked up in constant time.
///
/// A presented value is looked for among the master key, the system keys, the host's function keys and the function's
/// own keys, in that order, as the original does. The comparison is exact: no cache of earlier successes (the
/// original's ignores case).
actor Keyring {
    private struct Keys {
        var stored: StoredSecrets?
        var plain: SecretsDocument
    }
    /// How often an unknown key may send the host back to the repository.
    static let rereadIntervalSeconds: Int64 = 60
    private static let writeAttempts = 4

    private let hostName: String
    private let repository: any KeyRepository
    private let ring: DataProtectionKeyRing
    private let decryptionKeyID: String
    private let clock: any WallClock
    private let randomness: any Randomness
    private let mode: IdentifiableKeysMode
    private let logger: Logger
    /// The keys of the store used before this one; nil when it is the same store, or there was none.
    private let predecessor: Keyring?
    private let turnstile = Turnstile()

    private var keys: [SecretsScope: Keys] = [:]
    private var lastReread: Timestamp?

    init(
        hostName: String, repository: any KeyRepository, ring: DataProtectionKeyRing,
        decryptionKeyID: String,
        mode: IdentifiableKeysMode, clock: any WallClock, randomness: any Randomness, logger: Logger,
        predecessor: Keyring? = nil
    ) {
        self.mode = mode
        self.logger = logger
        self.predecessor = predecessor.flatMap { $0.repository.location == repository.location ? nil : $0 }
        self.hostName = hostName
        self.repository = repository
        self.ring = ring
        self.decryptionKeyID = decryptionKeyID
        self.clock = clock
        self.randomness = randomness
    }

    // MARK: Looking up

    /// `function` is the one the request is for; nil on the admin API, where function keys have no meaning.
    func authorize(_ value: RedactedString, function: String?) async throws(FunctionsError) -> KeyAuthorization {
        guard !value.reveal().isEmpty else { return .none }
        let first = try await match(value, function: function)
        guard first == .none else { return first }
        let now = clock.now()
        if let lastReread, now < lastReread.adding(seconds: Self.rereadIntervalSeconds) { return .none }
        lastReread = now
        // A store that cannot answer now leaves what is known in force.
        let known = keys
        keys.removeAll()
        do {
            return try await match(value, function: function)
        } catch {
            for (scope, entry) in known where keys[scope] == nil { keys[scope] = entry }
            return .none
        }
    }

    private func match(_ value: RedactedString, function: String?) async throws(FunctionsError) -> KeyAuthorization {
        let host = try await loaded(.host)
        if find(value, host.master.map { [$0] } ?? [], .master) != nil { return .master }
        if let key = find(value, host.systemKeys, .system) { return .system(name: key.name) }
        if let key = find(value, host.keys, .function) { return .hostFunction(name: key.name) }
        guard let function else { return .none }
        let own = try await loaded(.function(function.lowercased()))
        return find(value, own.keys, .function).map { .function(name: $0.name) } ?? .none
    }

    /// Looks at every key, so that the time tells nothing about which one matched.
    private func find(
        _ value: RedactedString, _ entries: [SecretsDocument.Entry], _ kind: IdentifiableSecret.Kind
    ) -> SecretsDocument.Entry? {
        var found: SecretsDocument.Entry?
        for entry in entries where entry.value == value && !entry.value.reveal().isEmpty { found = entry }
        guard let found, mode == .strict else { return found }
        return IdentifiableSecret.isValid(found.value, kind) ? found : nil
    }

    // MARK: Listing and changing

    func hostKeys() async throws(FunctionsError) -> HostKeys {
        let document = try await loaded(.host)
        guard let master = document.master else {
            throw FunctionsError(.secretStoreUnavailable, "The host's key document has no master key.")
        }
        return HostKeys(
            masterKey: master.value, functionKeys: document.keys.map { AccessKey(name: $0.name, value: $0.value) },
            systemKeys: document.systemKeys.map { AccessKey(name: $0.name, value: $0.value) })
    }

    func functionKeys(_ function: String) async throws(FunctionsError) -> [AccessKey] {
        try await loaded(.function(function.lowercased())).keys.map { AccessKey(name: $0.name, value: $0.value) }
    }

    func setHostKey(_ kind: HostKeyKind, _ name: String, to value: RedactedString?) async throws(FunctionsError)
        -> KeyChange
    {
        if kind == .masterKey || name.lowercased() == "_master" {
            try check(value: value, .master)
            let new = value ?? IdentifiableSecret.generate(.master, randomness: randomness)
            try await change(.host) { document in
                document.master = .init(name: SecretsDocument.masterName, value: new, encrypted: false)
            }
            return KeyChange(key: AccessKey(name: "_master", value: new), isNew: value == nil)
        }
        let isSystem = kind == .systemKeys
        return try await setKey(name, to: value, .host, isSystem ? .system : .function) {
            isSystem ? \.systemKeys : \.keys
        }
    }

    func setFunctionKey(_ name: String, to value: RedactedString?, function: String) async throws(FunctionsError)
        -> KeyChange
    {
        try await setKey(name, to: value, .function(function.lowercased()), .function) { \.keys }
    }

    private func setKey(
        _ name: String, to value: RedactedString?, _ scope: SecretsScope, _ kind: IdentifiableSecret.Kind,
        _ path: () -> WritableKeyPath<SecretsDocument, [SecretsDocument.Entry]>
    ) async throws(FunctionsError) -> KeyChange {
        try Self.check(name: name)
        try check(value: value, kind)
        let list = path()
        let new = value ?? IdentifiableSecret.generate(kind, randomness: randomness)
        var isNew = true
        try await change(scope) { document in
            isNew = !document[keyPath: list].contains { $0.name.lowercased() == name.lowercased() }
            document[keyPath: list].removeAll { $0.name.lowercased() == name.lowercased() }
            document[keyPath: list].append(.init(name: name, value: new, encrypted: false))
        }
        return KeyChange(key: AccessKey(name: name, value: new), isNew: isNew)
    }

    func deleteHostKey(_ kind: HostKeyKind, _ name: String) async throws(FunctionsError) {
        guard kind != .masterKey, name.lowercased() != "_master" else {
            throw FunctionsError(.masterKeyCannotBeDeleted, "Cannot delete System Key.")
        }
        try await delete(name, .host, kind == .systemKeys ? \.systemKeys : \.keys)
    }
    func deleteFunctionKey(_ name: String, function: String) async throws(FunctionsError) {
        guard name.lowercased() != "_master" else {
            throw FunctionsError(.masterKeyCannotBeDeleted, "Cannot delete System Key.")
        }
        try await delete(name, .function(function.lowercased()), \.keys)
    }
    private func delete(
        _ name: String, _ scope: SecretsScope, _ list: WritableKeyPath<SecretsDocument, [SecretsDocument.Entry]>
    ) async throws(FunctionsError) {
        var found = false
        try await change(scope) { document in
            found = document[keyPath: list].contains { $0.name.lowercased() == name.lowercased() }
            document[keyPath: list].removeAll { $0.name.lowercased() == name.lowercased() }
        }
        guard found else { throw FunctionsError(.keyNotFound, "There is no key named '\(name)'.") }
    }

    private static func check(name: String) throws(FunctionsError) {
        let isPlain = name.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != 0x2f && $0 != 0x5c }
        guard !name.isEmpty, name.utf8.count <= 127, isPlain else {
            throw FunctionsError(
                .invalidKey, "A key's name has 1 to 127 printable ASCII characters, without spaces and slashes.")
        }
    }
    private func check(value: RedactedString?, _ kind: IdentifiableSecret.Kind) throws(FunctionsError) {
        guard let value else { return }
        guard (1...4_096).contains(value.reveal().utf8.count) else {
            throw FunctionsError(.invalidKey, "Invalid key value")
        }
        guard mode != .strict || IdentifiableSecret.isValid(value, kind) else {
            throw FunctionsError(
                .invalidKey,
                "Invalid key value: the app takes generated keys only (StrictHISModeEnabled in "
                    + "AzureWebJobsFeatureFlags). Leave the value out to have one generated.")
        }
    }

    /// AZFD0012, for every key of a document that was not generated.
    private func warnOfKeys(in document: SecretsDocument, _ scope: SecretsScope) {
        guard mode != .any else { return }
        let function = if case .function(let name) = scope { name } else { "" }
        func warn(_ entries: [SecretsDocument.Entry], _ kind: IdentifiableSecret.Kind) {
            for entry in entries where !IdentifiableSecret.isValid(entry.value, kind) {
                logger.warning(
                    "AZFD0012: A non highly-identifiable secret has been loaded by the application.",
                    metadata: [
                        "site": "\(hostName)", "keyType": "\(kind)", "keyName": "\(entry.name)",
                        "function": "\(function)",
                    ])
            }
        }
        warn(document.master.map { [$0] } ?? [], .master)
        warn(document.keys, .function)
        warn(document.systemKeys, .system)
    }

    // MARK: The repository

    private func loaded(_ scope: SecretsScope) async throws(FunctionsError) -> SecretsDocument {
        if let known = keys[scope] { return known.plain }
        return try await turnstile.pass { () async throws(FunctionsError) -> SecretsDocument in
            if let known = keys[scope] { return known.plain }
            return try await read(scope, generating: true).plain
        }
    }

    /// A host document that is not there is made in full first; a function's stays empty when a key is about to be
    /// added.
    private func change(_ scope: SecretsScope, _ body: (inout SecretsDocument) -> Void) async throws(FunctionsError) {
        try await turnstile.pass { () async throws(FunctionsError) in
            for attempt in 1...Self.writeAttempts {
                let known = try await read(scope, generating: scope == .host)
                var plain = known.plain
                body(&plain)
                if plain == known.plain { return }
                do throws(FunctionsError) {
                    try await repository.write(scope, try sealed(plain), replacing: known.stored)
                } catch {
                    keys[scope] = nil
                    if error.code == .conflict, attempt < Self.writeAttempts { continue }
                    throw error
                }
                // Read again for the new entity tag; until then nothing old stays in force.
                keys[scope] = nil
                if let stored = try? await repository.read(scope) { keys[scope] = Keys(stored: stored, plain: plain) }
                warnOfKeys(in: plain, scope)
                return
            }
        }
    }

    private func read(_ scope: SecretsScope, generating: Bool) async throws(FunctionsError) -> Keys {
        if let stored = try await repository.read(scope) { return try await opened(stored, scope) }
        guard generating else { return Keys(stored: nil, plain: SecretsDocument()) }
        // Moving the keys to another store must not lock out those who hold them: an empty one begins with the keys in
        // force. (The original begins with new ones, docs/compatibility.md.)
        let plain = await predecessor?.existing(scope) ?? generated(scope)
        do {
            try await repository.write(scope, try sealed(plain), replacing: nil)
        } catch {
            // Another instance may have been first; then its keys are the keys.
            guard let stored = try await repository.read(scope) else { throw error }
            return try await opened(stored, scope)
        }
        warnOfKeys(in: plain, scope)
        let result = Keys(stored: try await repository.read(scope), plain: plain)
        keys[scope] = result
        return result
    }

    /// The document of a scope, if there is one; makes nothing.
    private func existing(_ scope: SecretsScope) async -> SecretsDocument? {
        if let known = keys[scope] { return known.plain }
        guard let stored = try? await repository.read(scope) else { return nil }
        return try? await opened(stored, scope).plain
    }

    private func generated(_ scope: SecretsScope) -> SecretsDocument {
        let key = SecretsDocument.Entry(
            name: "default", value: IdentifiableSecret.generate(.function, randomness: randomness), encrypted: false)
        switch scope {
        case .host:
            let master = SecretsDocument.Entry(
                name: SecretsDocument.masterName, value: IdentifiableSecret.generate(.master, randomness: randomness),
                encrypted: false)
            return SecretsDocument(master: master, keys: [key])
        case .function: return SecretsDocument(keys: [key])
        }
    }

    /// Encrypts what must be, for writing.
    private func sealed(_ plain: SecretsDocument) throws(FunctionsError) -> SecretsDocument {
        var document = plain
        document.hostName = hostName
        document.source = "runtime"
        guard repository.encryptsValues else { return document }
        document.decryptionKeyID = decryptionKeyID
        func seal(_ entry: SecretsDocument.Entry) -> SecretsDocument.Entry {
            .init(
                name: entry.name, value: RedactedString(ring.protect(entry.value, randomness: randomness)),
                encrypted: true)
        }
        document.master = document.master.map(seal)
        document.keys = document.keys.map(seal)
        document.systemKeys = document.systemKeys.map(seal)
        return document
    }

    /// Decrypts what was read. Keys that do not decrypt, and keys in clear where the host encrypts (anybody who may
    /// write the blob could have planted those), are replaced by new ones, after a copy of the document was kept.
    private func opened(_ stored: StoredSecrets, _ scope: SecretsScope) async throws(FunctionsError) -> Keys {
        var plain = stored.document
        var needsWrite = false
        var isDamaged = false
        func open(_ entry: SecretsDocument.Entry, _ kind: IdentifiableSecret.Kind) -> SecretsDocument.Entry {
            guard repository.encryptsValues else { return entry }
            if entry.encrypted, let opened = try? ring.unprotect(entry.value.reveal()) {
                needsWrite = needsWrite || opened.isStale
                return .init(name: entry.name, value: opened.value, encrypted: false)
            }
            isDamaged = true
            return .init(
                name: entry.name, value: IdentifiableSecret.generate(kind, randomness: randomness), encrypted: false)
        }
        plain.master = plain.master.map { open($0, .master) }
        plain.keys = plain.keys.map { open($0, .function) }
        plain.systemKeys = plain.systemKeys.map { open($0, .system) }
        if isDamaged { try await repository.keepUndecryptable(scope, stored) }
        var current = stored
        if isDamaged || needsWrite {
            try await repository.write(scope, try sealed(plain), replacing: stored)
            if let new = try await repository.read(scope) { current = new }
        }
        warnOfKeys(in: plain, scope)
        let result = Keys(stored: current, plain: plain)
        keys[scope] = result
        return result
    }
}
