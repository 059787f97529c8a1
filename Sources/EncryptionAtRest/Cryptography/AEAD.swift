internal import CCryptoBoringSSL
internal import CPlatform
#if COFFER_NULL_CIPHER
    #warning(
        "COFFER_NULL_CIPHER: this build encrypts nothing. It measures what encryption costs and must never hold data.")
#endif

/// AES-256-GCM (NIST SP 800-38D) under one key, with the key schedule kept: in place, without allocation, about three
/// times faster than a context per message. The caller chooses nonces and answers for their uniqueness.
///
/// BoringSSL directly rather than `Crypto.AES.GCM`: that API copies each message twice and has no way to keep a
/// context.
final class AEAD: @unchecked Sendable {
    // @unchecked: BoringSSL allows concurrent seal and open on one context; the pointer never changes.
    static let keyBytes = 32
    static let nonceBytes = 12
    static let tagBytes = 16
    typealias Context = UnsafeMutablePointer<EVP_AEAD_CTX>

    private let context: UnsafeMutablePointer<EVP_AEAD_CTX>

    init(key: UnsafeRawBufferPointer) {
        precondition(key.count == Self.keyBytes)
        guard
            let context = CCryptoBoringSSL_EVP_AEAD_CTX_new(
                CCryptoBoringSSL_EVP_aead_aes_256_gcm(), key.baseAddress!.assumingMemoryBound(to: UInt8.self),
                key.count, Self.tagBytes)
        else { fatalError("AES-256-GCM takes a 32-byte key") }
        self.context = context
    }

    deinit {
        // BoringSSL wipes what it frees.
        CCryptoBoringSSL_EVP_AEAD_CTX_free(context)
    }

    /// Encrypts `input` to `output` (which may be the same memory, and must not otherwise overlap it) and writes the
    /// 16-byte tag.
    func seal(
        _ input: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer,
        nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
    ) {
        AEAD.seal(context, input, to: output, tag: tag, nonce: nonce, additional: additional)
    }

    /// Decrypts `input` to `output` (same memory or apart). Returns false, with nothing of the plaintext in `output`,
    /// when the tag does not fit.
    func open(
        _ input: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer,
        nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
    ) -> Bool {
        AEAD.open(context, input, tag: tag, to: output, nonce: nonce, additional: additional)
    }

    /// One message under `key`, with the context on the stack and wiped afterwards.
    static func once<Result>(
        key: UnsafeRawBufferPointer, _ body: (UnsafeMutablePointer<EVP_AEAD_CTX>) -> Result
    ) -> Result {
        withUnsafeTemporaryAllocation(of: EVP_AEAD_CTX.self, capacity: 1) { memory in
            let context = memory.baseAddress!
            let made = CCryptoBoringSSL_EVP_AEAD_CTX_init(
                context, CCryptoBoringSSL_EVP_aead_aes_256_gcm(), key.baseAddress!.assumingMemoryBound(to: UInt8.self),
                key.count, tagBytes, nil)
            precondition(made == 1, "AES-256-GCM takes a 32-byte key")
            defer {
                CCryptoBoringSSL_EVP_AEAD_CTX_cleanup(context)
                coffer_wipe(context, MemoryLayout<EVP_AEAD_CTX>.size)
            }
            return body(context)
        }
    }

    #if COFFER_NULL_CIPHER
        static func seal(
            _ context: UnsafeMutablePointer<EVP_AEAD_CTX>, _ input: UnsafeRawBufferPointer,
            to output: UnsafeMutableRawPointer,
            tag: UnsafeMutableRawPointer, nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
        ) {
            if let source = input.baseAddress, source != UnsafeRawPointer(output) {
                output.copyMemory(from: source, byteCount: input.count)
            }
            tag.initializeMemory(as: UInt8.self, repeating: 0, count: tagBytes)
        }

        static func open(
            _ context: UnsafeMutablePointer<EVP_AEAD_CTX>, _ input: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer,
            to output: UnsafeMutableRawPointer, nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
        ) -> Bool {
            if let source = input.baseAddress, source != UnsafeRawPointer(output) {
                output.copyMemory(from: source, byteCount: input.count)
            }
            return true
        }
    #else
        static func seal(
            _ context: UnsafeMutablePointer<EVP_AEAD_CTX>, _ input: UnsafeRawBufferPointer,
            to output: UnsafeMutableRawPointer,
            tag: UnsafeMutableRawPointer, nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
        ) {
            precondition(nonce.count == nonceBytes)
            var written = 0
            let sealed = CCryptoBoringSSL_EVP_AEAD_CTX_seal_scatter(
                context, output.assumingMemoryBound(to: UInt8.self), tag.assumingMemoryBound(to: UInt8.self), &written,
                tagBytes,
                nonce.bytes, nonce.count, input.bytes, input.count, nil, 0, additional.bytes, additional.count)
            precondition(sealed == 1 && written == tagBytes, "AES-256-GCM refused to seal")
        }

        static func open(
            _ context: UnsafeMutablePointer<EVP_AEAD_CTX>, _ input: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer,
            to output: UnsafeMutableRawPointer, nonce: UnsafeRawBufferPointer, additional: UnsafeRawBufferPointer
        ) -> Bool {
            precondition(nonce.count == nonceBytes && tag.count == tagBytes)
            return CCryptoBoringSSL_EVP_AEAD_CTX_open_gather(
                context, output.assumingMemoryBound(to: UInt8.self), nonce.bytes, nonce.count, input.bytes, input.count,
                tag.bytes, tag.count, additional.bytes, additional.count) == 1
        }
    #endif
}

extension UnsafeRawBufferPointer {
    /// What BoringSSL's functions take; nil for an empty buffer.
    var bytes: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}
