internal import CofferCore
internal import NIOCore

/// A small body sealed by itself: kind of key | key domain 16 | nonce 24 | ciphertext | tag 16
/// (docs/format.md §8.2).
enum InlineExtent {
    static let plaintextBytesLimit = 16_384
    static let headBytes = 17
    static let overheadBytes = headBytes + XAES256GCM.overheadBytes

    static func seal(
        _ plaintext: UnsafeRawBufferPointer, under key: DataKey, randomness: any Randomness
    ) -> ExtentReference {
        let id = randomness.bytes(16)
        var sealed = head(key)
        sealed.reserveCapacity(plaintext.count + overheadBytes)
        key.inline.seal(
            plaintext, additional: bound(sealed, id, plaintext.count, key), randomness: randomness, appendTo: &sealed)
        return ExtentReference(inline: sealed, extentID: id, plaintextBytes: plaintext.count)
    }

    /// The whole body: it is authentic as a whole or not at all.
    static func open(_ reference: ExtentReference, under key: DataKey) throws(SealedStoreError) -> ByteBuffer {
        let sealed = reference.inlineCiphertext
        guard sealed.count == reference.plaintextBytes + overheadBytes else {
            throw SealedStoreError(.corrupt, "A small body has another length than its reference says.")
        }
        let head = head(key)
        guard constantTimeEquals(sealed[..<headBytes], head[...]) else {
            throw SealedStoreError(.keyMismatch, "The body was sealed under another key.")
        }
        let additional = bound(head, reference.extentID, reference.plaintextBytes, key)
        var buffer = ByteBufferAllocator().buffer(capacity: reference.plaintextBytes)
        var isAuthentic = false
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: max(1, reference.plaintextBytes)) { output in
            isAuthentic = sealed.withUnsafeBytes {
                key.inline.open(.init(rebasing: $0[headBytes...]), additional: additional, to: output.baseAddress!)
            }
            return isAuthentic ? reference.plaintextBytes : 0
        }
        guard isAuthentic else {
            throw SealedStoreError(.corrupt, "A small body does not open: it is damaged or was moved.")
        }
        return buffer
    }

    private static func head(_ key: DataKey) -> [UInt8] { [key.kind.rawValue] + key.domainID }

    private static func bound(_ head: [UInt8], _ id: [UInt8], _ count: Int, _ key: DataKey) -> [UInt8] {
        var length: [UInt8] = []
        length.append(bigEndian: UInt64(count))
        return FieldList(.inlineExtent, key.account.bytes, head, id, length).bytes
    }
}
