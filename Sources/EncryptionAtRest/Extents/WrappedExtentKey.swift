internal import CPlatform
internal import CofferCore

/// A data encryption key (DEK) wrapped for one extent. Layout, 131 bytes (format.md §7.2): version 1 | algorithm 1
/// | kind of key | key domain 16 | salt 32 | key commitment 32 | ciphertext 32 | tag 16.
///
/// The wrapping key is derived for this extent and this salt alone and seals one message, so its nonce is zero. The
/// commitment, from the same derivation, says beyond doubt which key was meant: AES-GCM alone does not, and a client
/// chooses customer-provided keys.
enum WrappedExtentKey {
    static let headBytes = SealedMessage.headerBytes
    private static let saltEnd = headBytes + 32
    private static let commitmentEnd = saltEnd + 32
    static let byteCount = commitmentEnd + 32 + AEAD.tagBytes

    /// A fresh DEK, ready to seal, and wrapped.
    static func make(
        for extentID: [UInt8], under key: DataKey, randomness: any Randomness
    ) -> (wrapped: [UInt8], aead: AEAD) {
        withUnsafeTemporaryAllocation(byteCount: 32, alignment: 16) { dek in
            defer { coffer_wipe(dek.baseAddress, dek.count) }
            randomness.fill(dek)
            let salt = randomness.bytes(32)
            let wrapped = KeyDerivation.withDerived(64, from: key.secret, salt: salt, info: info(extentID, key)) {
                derived in
                var wrapped = SealedMessage.header(key) + salt
                wrapped.append(contentsOf: derived[32..<64])
                let additional = bound(wrapped, extentID, key)
                wrapped.append(contentsOf: repeatElement(0, count: 48))
                wrapped.withUnsafeMutableBytes { out in
                    let body = out.baseAddress!.advanced(by: commitmentEnd)
                    AEAD.sealOnce(
                        UnsafeRawBufferPointer(dek), key: .init(rebasing: derived[0..<32]), to: body,
                        tag: body.advanced(by: 32), additional: additional)
                }
                return wrapped
            }
            return (wrapped, AEAD(key: UnsafeRawBufferPointer(dek)))
        }
    }

    /// Throws `.keyMismatch` when `key` is not the one it was wrapped under.
    static func open(_ wrapped: [UInt8], of extentID: [UInt8], under key: DataKey) throws(SealedStoreError) -> AEAD {
        guard wrapped.count == byteCount, wrapped[0] == SealedMessage.version, wrapped[1] == SealedMessage.algorithm
        else {
            throw SealedStoreError(
                .corrupt, "The wrapped key of an extent is not in a format this version of Coffer reads.")
        }
        let salt = Array(wrapped[headBytes..<saltEnd])
        guard constantTimeEquals(wrapped[..<headBytes], SealedMessage.header(key)[...]) else {
            throw SealedStoreError(.keyMismatch, "The extent was sealed under another key.")
        }
        let aead: AEAD? = KeyDerivation.withDerived(64, from: key.secret, salt: salt, info: info(extentID, key)) {
            derived in
            guard constantTimeEquals(derived[32..<64], wrapped[saltEnd..<commitmentEnd]) else { return nil }
            let additional = bound(Array(wrapped[..<commitmentEnd]), extentID, key)
            return withUnsafeTemporaryAllocation(byteCount: 32, alignment: 16) { dek in
                defer { coffer_wipe(dek.baseAddress, dek.count) }
                let isAuthentic = wrapped.withUnsafeBytes { bytes in
                    AEAD.openOnce(
                        UnsafeRawBufferPointer(rebasing: bytes[commitmentEnd..<commitmentEnd + 32]),
                        tag: UnsafeRawBufferPointer(rebasing: bytes[(commitmentEnd + 32)...]),
                        key: .init(rebasing: derived[0..<32]), to: dek.baseAddress!, additional: additional)
                }
                return isAuthentic ? AEAD(key: UnsafeRawBufferPointer(dek)) : nil
            }
        }
        guard let aead else {
            throw SealedStoreError(
                .corrupt, "The wrapped key of an extent does not open: it is damaged or belongs to another extent.")
        }
        return aead
    }

    private static func info(_ extentID: [UInt8], _ key: DataKey) -> [UInt8] {
        FieldList(.extentKey, key.account.bytes, extentID).bytes
    }

    private static func bound(_ head: [UInt8], _ extentID: [UInt8], _ key: DataKey) -> [UInt8] {
        FieldList(.extentKey, key.account.bytes, extentID, head).bytes
    }
}
