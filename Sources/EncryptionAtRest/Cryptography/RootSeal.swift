internal import CofferCore

/// Seals values under a key that comes from the root key: records, rows, account key records.
///
/// Layout (format.md §4): version 1 | algorithm 1 | root key version (32 bits, big endian) | nonce 24 | ciphertext
/// | tag 16.
struct RootSeal: Sendable {
    static let version: UInt8 = 1
    static let algorithm: UInt8 = 1
    static let headerBytes = 6
    static let overheadBytes = headerBytes + XAES256GCM.overheadBytes

    private let cipher: XAES256GCM
    private let header: [UInt8]
    private let rootKeyVersion: UInt32
    private let randomness: any Randomness

    init(rootKey: RootKey, info: [UInt8], randomness: any Randomness) {
        cipher = KeyDerivation.xaes(from: rootKey.key, info: info)
        rootKeyVersion = rootKey.version
        var header: [UInt8] = [Self.version, Self.algorithm]
        header.append(bigEndian: rootKey.version)
        self.header = header
        self.randomness = randomness
    }

    func seal(_ plaintext: [UInt8], bound: consuming FieldList) -> [UInt8] {
        bound.append(header)
        return cipher.seal(plaintext, additional: bound.bytes, randomness: randomness, header: header)
    }

    func seal(_ plaintext: SecretBytes, bound: consuming FieldList) -> [UInt8] {
        bound.append(header)
        let additional = bound.bytes
        var output = header
        plaintext.withUnsafeBytes {
            cipher.seal($0, additional: additional, randomness: randomness, appendTo: &output)
        }
        return output
    }

    /// `what` names the value in errors; it never holds customer data.
    func open(
        _ sealed: [UInt8], bound: consuming FieldList, what: @autoclosure () -> String
    ) throws(SealedStoreError) -> [UInt8] { try open(sealed[...], bound: bound, what: what()) }

    func open(
        _ sealed: ArraySlice<UInt8>, bound: consuming FieldList, what: @autoclosure () -> String
    ) throws(SealedStoreError) -> [UInt8] {
        try requireHeader(of: sealed, what())
        bound.append(header)
        guard let plaintext = cipher.open(sealed.dropFirst(Self.headerBytes), additional: bound.bytes) else {
            throw Self.doesNotOpen(what())
        }
        return plaintext
    }

    /// Opens straight to memory that is locked and wiped.
    func openSecret(
        _ sealed: [UInt8], bound: consuming FieldList, what: @autoclosure () -> String
    ) throws(SealedStoreError) -> SecretBytes {
        try requireHeader(of: sealed[...], what())
        bound.append(header)
        let additional = bound.bytes
        let count = sealed.count - Self.overheadBytes
        return try SecretBytes(capacity: count) { output throws(SealedStoreError) in
            let isAuthentic = sealed[Self.headerBytes...].withUnsafeBytes {
                cipher.open($0, additional: additional, to: output.baseAddress!)
            }
            guard isAuthentic else { throw Self.doesNotOpen(what()) }
            return count
        }
    }

    private func requireHeader(
        of sealed: ArraySlice<UInt8>, _ what: @autoclosure () -> String
    ) throws(SealedStoreError) {
        let head = sealed.prefix(Self.headerBytes)
        guard sealed.count >= Self.overheadBytes, head.starts(with: [Self.version, Self.algorithm]) else {
            throw SealedStoreError(.corrupt, "\(what()) is not in a format this version of Coffer reads.")
        }
        guard head.elementsEqual(header) else {
            let found = head.dropFirst(2).reduce(0) { $0 << 8 | UInt32($1) }
            throw SealedStoreError(
                .corrupt,
                "\(what()) is sealed under root key version \(found); this server holds version \(rootKeyVersion).")
        }
    }

    private static func doesNotOpen(_ what: String) -> SealedStoreError {
        SealedStoreError(.corrupt, "\(what) does not open: it is damaged, moved, or sealed under another root key.")
    }
}
