internal import CSealing

/// AES-256-GCM (NIST SP 800-38D) under one key, with the key schedule kept: in place, without allocation, about three
/// times faster than a context per message. The caller chooses nonces and answers for their uniqueness.
///
/// BoringSSL (through the few lines of `CSealing`) rather than `Crypto.AES.GCM`: that API copies each message twice and
/// has no way to keep a context. A build with `-Xcc -DCOFFER_NULL_CIPHER` encrypts nothing, for benchmarks alone;
/// no configuration can choose it.
final class AEAD: @unchecked Sendable {
    // @unchecked: BoringSSL allows concurrent seal and open on one context; the pointer never changes.
    static let keyBytes = 32
    static let nonceBytes = 12
    static let tagBytes = 16

    private let context: OpaquePointer

    init(key: UnsafeRawBufferPointer) {
        precondition(key.count == Self.keyBytes)
        context = coffer_aead_new(key.bytes)
    }

    deinit { coffer_aead_free(context) }

    /// Encrypts `input` to `output` (which may be the same memory, and must not otherwise overlap it) and writes the
    /// 16-byte tag.
    func seal(
        _ input: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer,
        nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
    ) {
        precondition(nonce.count == Self.nonceBytes)
        let isSealed = coffer_aead_seal(
            context, output.bytes, tag.bytes, nonce.bytes, input.bytes, input.count, additional.bytes, additional.count)
        precondition(isSealed == 1, "AES-256-GCM seals at most 64 GiB")
    }

    /// Decrypts `input` to `output` (same memory or apart). Returns false, with nothing of the plaintext in `output`,
    /// when the tag does not fit.
    func open(
        _ input: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer,
        nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
    ) -> Bool {
        precondition(nonce.count == Self.nonceBytes && tag.count == Self.tagBytes)
        return coffer_aead_open(
            context, output.bytes, nonce.bytes, input.bytes, input.count, tag.bytes, additional.bytes, additional.count)
            == 1
    }

    private static let zeroNonce = [UInt8](repeating: 0, count: nonceBytes)

    /// The one message of a key that seals one message, so that its nonce may be zero.
    static func sealOnce(
        _ input: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer,
        tag: UnsafeMutableRawPointer, additional: [UInt8]
    ) {
        precondition(key.count == keyBytes)
        let isSealed = coffer_aead_seal_once(
            key.bytes, output.bytes, tag.bytes, zeroNonce, input.bytes, input.count, additional, additional.count)
        precondition(isSealed == 1, "AES-256-GCM seals at most 64 GiB")
    }

    static func openOnce(
        _ input: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer,
        to output: UnsafeMutableRawPointer, additional: [UInt8]
    ) -> Bool {
        precondition(key.count == keyBytes && tag.count == tagBytes)
        return coffer_aead_open_once(
            key.bytes, output.bytes, zeroNonce, input.bytes, input.count, tag.bytes, additional, additional.count) == 1
    }
}

extension UnsafeRawBufferPointer {
    /// What C functions take; nil for an empty buffer.
    var bytes: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}

extension UnsafeMutableRawPointer {
    var bytes: UnsafeMutablePointer<UInt8> { assumingMemoryBound(to: UInt8.self) }
}
