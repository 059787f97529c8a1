import CToken
import CofferCore
import EncryptionAtRest
import Foundation

/// The root key's file: where it lies, who keeps it, and whether a token's key wraps what it holds.
struct RootKeyStore {
    let path: String
    let guardian: SecretFile.Guardian
    /// nil: the key lies in clear.
    let wrappingKey: TokenKeyURI?

    // MARK: At the start

    /// Reads the root key, or makes it when neither it nor any data exists yet. Data without its key is an error that
    /// says so: a fresh key would only hide the loss.
    func load(dataFolder: String, hasData: Bool, randomness: any Randomness) async throws -> RootKey {
        if let line = try read() {
            removeLeftover()
            return try await open(line)
        }
        // A unit that has credentials, and no key among them, is more likely misspelt than new.
        guard guardian == .owner, SecretFile.credentialsFolder == nil || isNamed else { throw missing }
        guard !hasData else {
            throw CommandFailure(
                "There is data in \(dataFolder) but no root key at \(path). Put the key file back, or name it with "
                    + "--root-key-file. Without it nothing can be opened.")
        }
        return try await locked {
            // Another start may have been first.
            if let line = try read() { return try await open(line) }
            let key = RootKey(version: 1, key: randomness.secret(RootKey.bytes))
            try write(try await line(of: key, under: wrappingKey, randomness), replacing: nil)
            return key
        }
    }

    /// A crash must not write the key to a disk.
    private static func forbidCoreDumps() throws {
        let failure = coffer_forbid_core_dumps()
        guard failure == 0 else {
            throw CommandFailure(
                "Core dumps, which would hold the root key, cannot be forbidden: \(String(cString: strerror(failure)))."
            )
        }
    }

    /// The key as a line that `wrappingKey` opens, which was tried.
    func line(of key: RootKey, under wrappingKey: TokenKeyURI?, _ randomness: any Randomness) async throws
        -> RootKeyLine
    {
        guard let wrappingKey else { return .clear(key) }
        let input = key.key.withUnsafeBytes { key in
            SecretBytes(count: TokenSession.Operation.wrap.inputBytes) { input in
                let nonce = WrappedRootKey.nonceBytes
                randomness.fill(UnsafeMutableRawBufferPointer(rebasing: input[..<nonce]))
                UnsafeMutableRawBufferPointer(rebasing: input[nonce...]).copyMemory(from: key)
            }
        }
        let message = try await TokenProcess.run(.wrap, by: wrappingKey, version: key.version, input)
        guard
            let wrapped = WrappedRootKey(version: key.version, message: message.withUnsafeBytes { Array($0) }),
            try await unwrap(wrapped, by: wrappingKey).key.isEqual(to: key.key)
        else {
            throw CommandFailure(
                "The token does not give back what it wrapped, so nothing was written. Use another token or key.")
        }
        return .wrapped(wrapped)
    }

    // MARK: The file

    /// nil: there is none yet. Throws for one that is there and cannot be had. Whoever asks leaves no core dump from
    /// then on.
    func read() throws -> RootKeyLine? {
        try Self.forbidCoreDumps()
        guard let text = try SecretFile.read(path, limit: RootKeyLine.bytesLimit, what: "The root key") else {
            // A key that is there but cannot be read must never be taken for none, and replaced.
            var status = stat()
            guard lstat(path, &status) != 0, errno == ENOENT || errno == ENOTDIR else {
                throw CommandFailure(
                    "The root key \(path) cannot be read. Run coffer as the user who owns it, or name another file with "
                        + "--root-key-file.")
            }
            return nil
        }
        guard let line = RootKeyLine(parsing: text) else {
            throw CommandFailure(
                "\(path) is not a root key: it must hold one line, 'coffer-root-key VERSION BASE64' with 32 bytes, or "
                    + "'coffer-root-key-pkcs11 VERSION BASE64' with 60. Restore it from your copy.")
        }
        return line
    }

    /// The key in it. What lies there must be what the settings say: a key in clear where a token is meant to keep it
    /// would go unnoticed otherwise.
    func open(_ line: RootKeyLine) async throws -> RootKey {
        switch (line, wrappingKey) {
        case (.clear(let key), nil): return key
        case (.wrapped(let wrapped), let wrappingKey?): return try await unwrap(wrapped, by: wrappingKey)
        case (.clear, _?) where guardian == .systemd:
            throw CommandFailure(
                "The systemd credential \(path) holds the root key itself, and a wrapping key is set. Leave "
                    + "--root-key-wrapping-key out, or make the credential of a file that the token wrapped.")
        case (.clear, _?):
            throw CommandFailure(
                "The root key \(path) lies in clear, and a wrapping key is set. Wrap it with 'coffer root-key protect', or "
                    + "leave --root-key-wrapping-key out.")
        case (.wrapped, nil):
            throw CommandFailure(
                "The root key \(path) is wrapped by a key in a PKCS#11 token. Name that key with --root-key-wrapping-key."
            )
        }
    }

    func unwrap(_ wrapped: WrappedRootKey, by wrappingKey: TokenKeyURI) async throws -> RootKey {
        let message = SecretBytes(copying: wrapped.message)
        let key = try await TokenProcess.run(.unwrap, by: wrappingKey, version: wrapped.version, message)
        return RootKey(version: wrapped.version, key: key)
    }

    /// Only within `locked`. Nothing is written over what is not `old`, nil for none: a file may have been put back
    /// meanwhile.
    func write(_ line: RootKeyLine, replacing old: RootKeyLine?) throws {
        if let old {
            guard let now = try read(), now.text.isEqual(to: old.text) else {
                throw CommandFailure("The root key \(path) was changed by another meanwhile. Nothing was written.")
            }
        }
        try line.text.withUnsafeBytes { text in
            var bytes = Array(text)
            defer { wipe(&bytes) }
            try PrivateFile.write(bytes, to: path, mayReplace: old != nil)
        }
    }

    private var folder: String { (path as NSString).deletingLastPathComponent }

    /// One process at a time makes or changes the key; its folder is what they lock.
    func locked<Value>(_ body: () async throws -> Value) async throws -> Value {
        try PrivateFile.makeFolder(folder)
        guard let lock = try FolderLock(folder) else {
            throw CommandFailure(
                "Another process is making or changing the root key in \(folder). Wait until it has ended, then try again."
            )
        }
        defer { lock.release() }
        unlink(PrivateFile.temporary(of: path))
        return try await body()
    }

    /// What a change that was cut off left behind: it may be the key in clear, beside one that a token wraps.
    private func removeLeftover() {
        let leftover = PrivateFile.temporary(of: path)
        guard guardian == .owner, access(leftover, F_OK) == 0 else { return }
        guard let lock = try? FolderLock(folder) else { return }
        unlink(leftover)
        lock.release()
    }

    /// A change replaces the file: through a link, or under one name of two, the old key would stay, and a file that
    /// another user made would no longer be theirs to read.
    func requireOwnFile() throws {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT != S_IFLNK, status.st_nlink == 1 else {
            throw CommandFailure(
                "The root key \(path) is a link, or has a second name. Name the file itself with --root-key-file, and leave "
                    + "no other name of it.")
        }
        guard status.st_uid == geteuid() else {
            throw CommandFailure("The root key \(path) belongs to another user. Run this command as that user.")
        }
    }

    /// Whether the operator, and no default, says where the key lies.
    let isNamed: Bool

    private var missing: CommandFailure {
        CommandFailure(
            "This process has systemd credentials, but no root key among them: \(ServerConfiguration.rootKeyCredential) is "
                + "missing. Correct the unit (LoadCredentialEncrypted=\(ServerConfiguration.rootKeyCredential):…), or name a "
                + "file with --root-key-file.")
    }

    // MARK: For people

    /// Where the key lies and how, without any of it.
    var description: String {
        let place = guardian == .systemd ? "systemd credential \(path)" : path
        do {
            switch try read() {
            case .clear: return "\(place), in clear"
            case .wrapped: return "\(place), wrapped by \(wrappingKey?.name ?? "a key that is not set")"
            case nil: return "\(place), not made yet"
            }
        } catch {
            return "\(place), not usable: \(CommandFailure.reason(error))"
        }
    }
}

extension SecretBytes {
    /// In a time that depends on the lengths only.
    func isEqual(to other: SecretBytes) -> Bool {
        withUnsafeBytes { left in other.withUnsafeBytes { right in constantTimeEquals(left, right) } }
    }
}

/// The right to change what lies in a folder, which one process has at a time.
private struct FolderLock {
    private let descriptor: Int32

    /// nil when another process has it.
    init?(_ folder: String) throws {
        descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CommandFailure("The folder \(folder) cannot be opened: \(String(cString: strerror(errno))).")
        }
        if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            close(descriptor)
            return nil
        }
    }

    /// A process that another thread is just starting holds the descriptor, too, until it runs its program: closing
    /// ours alone would leave the lock to it.
    func release() {
        flock(descriptor, LOCK_UN)
        close(descriptor)
    }
}
