import COpenSSL
import CofferCore
import Glibc
import Synchronization

/// An RSA or EC key pair in OpenSSL's memory, which is cleansed when the last reference goes. Not printable, not
/// encodable but by `pkcs8`.
///
/// Operations may run concurrently: each has a context of its own, and OpenSSL never changes a key once it is made.
final class AsymmetricKey: @unchecked Sendable {
    // @unchecked: `handle` is set once; EVP_PKEY(7) allows concurrent use of a finished key.
    private let handle: OpaquePointer
    let type: KeyType
    /// Contexts ready to decrypt, one for each algorithm that was used. Each operation takes a copy, which spares it
    /// looking up the algorithms.
    private let decryption = Mutex<[EncryptionAlgorithm: Context]>([:])
    private struct Context: @unchecked Sendable {
        // @unchecked: it is only copied from, which reads it.
        let pointer: OpaquePointer
    }

    private init(owning handle: OpaquePointer, type: KeyType) {
        self.handle = handle
        self.type = type
    }
    deinit {
        decryption.withLock { for context in $0.values { EVP_PKEY_CTX_free(context.pointer) } }
        EVP_PKEY_free(handle)
    }

    /// Makes a key pair from OpenSSL's generator. RSA-4096 takes seconds: never on an event loop.
    static func generate(_ type: KeyType) throws(CryptographyError) -> AsymmetricKey {
        guard let context = EVP_PKEY_CTX_new_from_name(nil, type.name, nil) else {
            throw .refused("key generation")
        }
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_keygen_init(context) == 1 else { throw .refused("key generation") }
        switch type {
        case .rsa(let bits):
            guard EVP_PKEY_CTX_set_rsa_keygen_bits(context, Int32(bits)) == 1 else { throw .refused("the key size") }
        case .ec(let curve):
            guard EVP_PKEY_CTX_set_group_name(context, curve.groupName) == 1 else { throw .refused("the curve") }
        }
        var handle: OpaquePointer?
        guard EVP_PKEY_generate(context, &handle) == 1, let handle else { throw .refused("key generation") }
        return AsymmetricKey(owning: handle, type: type)
    }

    // MARK: Private part, for sealed records

    /// EVP_PKEY_KEYPAIR of openssl/evp.h: private, public, domain and other parameters.
    private static let keyPair: Int32 = 0x87

    /// PKCS#8 PrivateKeyInfo in DER (RFC 5958).
    func pkcs8() throws(CryptographyError) -> SecretBytes {
        guard
            let encoder = OSSL_ENCODER_CTX_new_for_pkey(
                handle, Self.keyPair, lasting("DER"), lasting("PrivateKeyInfo"), nil)
        else {
            throw .refused("encoding the key")
        }
        defer { OSSL_ENCODER_CTX_free(encoder) }
        var encoded: UnsafeMutablePointer<UInt8>?
        var count = 0
        guard OSSL_ENCODER_to_data(encoder, &encoded, &count) == 1, let encoded else {
            throw .refused("encoding the key")
        }
        // A copy is needed for it to be wiped like every secret of ours; OpenSSL's own is cleansed here.
        defer { CRYPTO_clear_free(encoded, count, #file, #line) }
        return SecretBytes(count: count) { memory in
            memory.copyMemory(from: UnsafeRawBufferPointer(start: encoded, count: count))
        }
    }

    /// Reads what `pkcs8` wrote for a key of `type`.
    static func decode(pkcs8: UnsafeRawBufferPointer, type: KeyType) throws(CryptographyError) -> AsymmetricKey {
        var handle: OpaquePointer?
        let decoder = OSSL_DECODER_CTX_new_for_pkey(
            &handle, lasting("DER"), lasting("PrivateKeyInfo"), type.name, keyPair, nil, nil)
        guard let decoder else { throw .refused("decoding the key") }
        defer { OSSL_DECODER_CTX_free(decoder) }
        var position = pkcs8.baseAddress?.assumingMemoryBound(to: UInt8.self)
        var count = pkcs8.count
        guard OSSL_DECODER_from_data(decoder, &position, &count) == 1, let handle else {
            throw .refused("decoding the key")
        }
        return AsymmetricKey(owning: handle, type: type)
    }

    // MARK: Public part

    func publicPart() throws(CryptographyError) -> KeyDescription.PublicPart {
        switch type {
        case .rsa:
            return .rsa(modulus: try number(OSSL_PKEY_PARAM_RSA_N), exponent: try number(OSSL_PKEY_PARAM_RSA_E))
        case .ec(let curve):
            return .ec(
                x: try number(OSSL_PKEY_PARAM_EC_PUB_X, paddedTo: curve.fieldBytes),
                y: try number(OSSL_PKEY_PARAM_EC_PUB_Y, paddedTo: curve.fieldBytes))
        }
    }

    private func number(_ parameter: String, paddedTo width: Int? = nil) throws(CryptographyError) -> [UInt8] {
        // The type of a BIGNUM pointer is never named in this file: BoringSSL, under swift-crypto, completes a struct
        // that OpenSSL keeps opaque, and which of the two Swift sees depends on the order it loads modules in.
        var value = BN_new()
        defer { BN_free(value) }
        guard EVP_PKEY_get_bn_param(handle, parameter, &value) == 1 else { throw .refused("reading the public key") }
        let count = width ?? Int(BN_num_bits(value) + 7) / 8
        var bytes = [UInt8](repeating: 0, count: count)
        guard BN_bn2binpad(value, &bytes, Int32(count)) == Int32(count) else {
            throw .refused("reading the public key")
        }
        return bytes
    }

    // MARK: RSA encryption (RFC 8017 §7)

    func encrypt(_ plaintext: UnsafeRawBufferPointer, _ algorithm: EncryptionAlgorithm) throws(CryptographyError)
        -> [UInt8]
    {
        let context = try operationContext()
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_encrypt_init(context) == 1, setPadding(context, algorithm) else {
            throw .refused("the algorithm")
        }
        var count = Int(EVP_PKEY_get_size(handle))
        var ciphertext = [UInt8](repeating: 0, count: count)
        let input = plaintext.baseAddress?.assumingMemoryBound(to: UInt8.self)
        guard EVP_PKEY_encrypt(context, &ciphertext, &count, input, plaintext.count) == 1 else {
            ERR_clear_error()
            throw .invalidInput
        }
        return Array(ciphertext.prefix(count))
    }

    /// Every failure looks alike: the caller learns nothing about the padding.
    func decrypt(_ ciphertext: [UInt8], _ algorithm: EncryptionAlgorithm) throws(CryptographyError) -> SecretBytes {
        guard let context = EVP_PKEY_CTX_dup(try decryptionContext(algorithm).pointer) else { throw .refused("memory") }
        defer { EVP_PKEY_CTX_free(context) }
        let capacity = Int(EVP_PKEY_get_size(handle))
        guard ciphertext.count == capacity else { throw .invalidInput }
        return try SecretBytes(capacity: capacity) { memory throws(CryptographyError) in
            var count = capacity
            let output = memory.baseAddress?.assumingMemoryBound(to: UInt8.self)
            guard EVP_PKEY_decrypt(context, output, &count, ciphertext, ciphertext.count) == 1 else {
                ERR_clear_error()
                throw .invalidInput
            }
            return count
        }
    }

    /// The key's own; not to be freed.
    private func decryptionContext(_ algorithm: EncryptionAlgorithm) throws(CryptographyError) -> Context {
        if let kept = decryption.withLock({ $0[algorithm] }) { return kept }
        let context = try operationContext()
        guard EVP_PKEY_decrypt_init(context) == 1, setPadding(context, algorithm) else {
            EVP_PKEY_CTX_free(context)
            throw .refused("the algorithm")
        }
        let made = Context(pointer: context)
        return decryption.withLock { contexts in
            if let earlier = contexts[algorithm] {
                EVP_PKEY_CTX_free(context)
                return earlier
            }
            contexts[algorithm] = made
            return made
        }
    }

    private func setPadding(_ context: OpaquePointer, _ algorithm: EncryptionAlgorithm) -> Bool {
        switch algorithm {
        case .rsa15:
            return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1
        case .rsaOAEP, .rsaOAEP256:
            let hash = algorithm == .rsaOAEP ? EVP_sha1() : EVP_sha256()
            return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) == 1
                && EVP_PKEY_CTX_set_rsa_oaep_md(context, hash) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(context, hash) == 1
        }
    }

    // MARK: Signatures over a digest the caller computed

    /// RSA: RFC 8017 §8; EC: `r || s` (RFC 7518 §3.4). `digest` has the length of the algorithm's hash.
    func sign(digest: [UInt8], _ algorithm: SignatureAlgorithm) throws(CryptographyError) -> [UInt8] {
        guard digest.count == algorithm.hash.digestBytes, algorithm.fits(type) else { throw .invalidInput }
        let context = try operationContext()
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_sign_init(context) == 1, setSignature(context, algorithm) else {
            throw .refused("the algorithm")
        }
        var count = Int(EVP_PKEY_get_size(handle))
        var signature = [UInt8](repeating: 0, count: count)
        guard EVP_PKEY_sign(context, &signature, &count, digest, digest.count) == 1 else {
            ERR_clear_error()
            throw .refused("signing")
        }
        signature.removeLast(signature.count - count)
        guard let curve = algorithm.curve else { return signature }
        return try rawSignature(der: signature, fieldBytes: curve.fieldBytes)
    }

    func verify(digest: [UInt8], signature: [UInt8], _ algorithm: SignatureAlgorithm) throws(CryptographyError) -> Bool
    {
        guard digest.count == algorithm.hash.digestBytes, algorithm.fits(type) else { throw .invalidInput }
        let context = try operationContext()
        defer { EVP_PKEY_CTX_free(context) }
        guard EVP_PKEY_verify_init(context) == 1, setSignature(context, algorithm) else {
            throw .refused("the algorithm")
        }
        var signature = signature
        if let curve = algorithm.curve {
            guard let der = derSignature(raw: signature, fieldBytes: curve.fieldBytes) else { return false }
            signature = der
        }
        let isValid = EVP_PKEY_verify(context, signature, signature.count, digest, digest.count) == 1
        if !isValid { ERR_clear_error() }
        return isValid
    }

    private func setSignature(_ context: OpaquePointer, _ algorithm: SignatureAlgorithm) -> Bool {
        let hash =
            switch algorithm.hash {
            case .sha256: EVP_sha256()
            case .sha384: EVP_sha384()
            case .sha512: EVP_sha512()
            }
        if algorithm.curve == nil {
            let padding = algorithm.isPSS ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING
            guard EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1 else { return false }
        }
        guard EVP_PKEY_CTX_set_signature_md(context, hash) == 1 else { return false }
        // Salt as long as the digest (RFC 7518 §3.5).
        return !algorithm.isPSS || EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) == 1
    }

    private func operationContext() throws(CryptographyError) -> OpaquePointer {
        guard let context = EVP_PKEY_CTX_new(handle, nil) else { throw .refused("memory") }
        return context
    }
}

struct CryptographyError: Error, Equatable {
    enum Reason: Equatable { case refused(String), invalidInput }
    let reason: Reason
    /// OpenSSL would not do it; a fault of ours or of the machine.
    static func refused(_ what: String) -> CryptographyError {
        ERR_clear_error()
        return CryptographyError(reason: .refused(what))
    }
    /// The caller's bytes do not fit the key and algorithm, or do not open.
    static let invalidInput = CryptographyError(reason: .invalidInput)
}

/// A literal where it stays: encoders and decoders of OpenSSL keep the pointers to such names.
private func lasting(_ name: StaticString) -> UnsafePointer<CChar> {
    UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
}

private func rawSignature(der: [UInt8], fieldBytes: Int) throws(CryptographyError) -> [UInt8] {
    let parsed = der.withUnsafeBufferPointer { bytes in
        var position = bytes.baseAddress
        return d2i_ECDSA_SIG(nil, &position, bytes.count)
    }
    guard let parsed else { throw .refused("signing") }
    defer { ECDSA_SIG_free(parsed) }
    var raw = [UInt8](repeating: 0, count: 2 * fieldBytes)
    raw.withUnsafeMutableBufferPointer { bytes in
        BN_bn2binpad(ECDSA_SIG_get0_r(parsed), bytes.baseAddress, Int32(fieldBytes))
        BN_bn2binpad(ECDSA_SIG_get0_s(parsed), bytes.baseAddress! + fieldBytes, Int32(fieldBytes))
    }
    return raw
}

private func derSignature(raw: [UInt8], fieldBytes: Int) -> [UInt8]? {
    guard raw.count == 2 * fieldBytes, let signature = ECDSA_SIG_new() else { return nil }
    defer { ECDSA_SIG_free(signature) }
    let r = BN_bin2bn(Array(raw[..<fieldBytes]), Int32(fieldBytes), nil)
    let s = BN_bin2bn(Array(raw[fieldBytes...]), Int32(fieldBytes), nil)
    guard ECDSA_SIG_set0(signature, r, s) == 1 else {
        BN_free(r)
        BN_free(s)
        return nil
    }
    let count = i2d_ECDSA_SIG(signature, nil)
    guard count > 0 else { return nil }
    var der = [UInt8](repeating: 0, count: Int(count))
    der.withUnsafeMutableBufferPointer { bytes in
        var position = bytes.baseAddress
        _ = i2d_ECDSA_SIG(signature, &position)
    }
    return der
}

// MARK: - Import

extension AsymmetricKey {
    /// The members of a private JSON Web Key (RFC 7518 §6), as bytes.
    struct Components {
        var type: KeyType
        /// RSA: n e d p q dp dq qi. EC: x y d.
        var members: [String: [UInt8]]
    }

    /// Builds a key pair from a JSON Web Key and checks that its parts belong together. Throws `invalidInput` when they
    /// do not.
    static func make(_ components: Components) throws(CryptographyError) -> AsymmetricKey {
        guard let builder = OSSL_PARAM_BLD_new() else { throw .refused("memory") }
        defer { OSSL_PARAM_BLD_free(builder) }
        // The builder keeps pointers, and the parameters made from it keep their names: nothing handed over goes before
        // the key is made.
        var releases: [() -> Void] = []
        defer { for release in releases { release() } }
        func kept(_ text: String) -> UnsafePointer<CChar>? {
            let copy = strdup(text)
            releases.append { free(copy) }
            return UnsafePointer(copy)
        }
        func push(_ member: String, as parameter: String) -> Bool {
            guard let bytes = components.members[member], let number = BN_bin2bn(bytes, Int32(bytes.count), nil) else {
                return false
            }
            releases.append { BN_clear_free(number) }
            return OSSL_PARAM_BLD_push_BN(builder, kept(parameter), number) == 1
        }
        switch components.type {
        case .rsa:
            // The numbered names are pasted together in core_names.h, which Swift does not import.
            let isComplete = [
                ("n", OSSL_PKEY_PARAM_RSA_N), ("e", OSSL_PKEY_PARAM_RSA_E), ("d", OSSL_PKEY_PARAM_RSA_D),
                ("p", "rsa-factor1"),
                ("q", "rsa-factor2"), ("dp", "rsa-exponent1"), ("dq", "rsa-exponent2"), ("qi", "rsa-coefficient1"),
            ].allSatisfy { push($0.0, as: $0.1) }
            guard isComplete else { throw .invalidInput }
            return try finish(builder, components.type)
        case .ec(let curve):
            let width = curve.fieldBytes
            guard let x = components.members["x"], let y = components.members["y"], x.count <= width, y.count <= width
            else {
                throw .invalidInput
            }
            let point =
                [4] + [UInt8](repeating: 0, count: width - x.count) + x + [UInt8](repeating: 0, count: width - y.count)
                + y
            let made = point.withUnsafeBytes { bytes -> Result<AsymmetricKey, CryptographyError> in
                guard
                    OSSL_PARAM_BLD_push_utf8_string(builder, kept(OSSL_PKEY_PARAM_GROUP_NAME), kept(curve.groupName), 0)
                        == 1,
                    OSSL_PARAM_BLD_push_octet_string(
                        builder, kept(OSSL_PKEY_PARAM_PUB_KEY), bytes.baseAddress, bytes.count) == 1,
                    push("d", as: OSSL_PKEY_PARAM_PRIV_KEY)
                else { return .failure(.invalidInput) }
                return Result { () throws(CryptographyError) in try finish(builder, components.type) }
            }
            return try made.get()
        }
    }

    private static func finish(
        _ builder: OpaquePointer, _ type: KeyType
    ) throws(CryptographyError) -> AsymmetricKey {
        guard let parameters = OSSL_PARAM_BLD_to_param(builder) else { throw .invalidInput }
        defer { OSSL_PARAM_free(parameters) }
        guard let context = EVP_PKEY_CTX_new_from_name(nil, type.name, nil) else { throw .refused("memory") }
        defer { EVP_PKEY_CTX_free(context) }
        var handle: OpaquePointer?
        guard EVP_PKEY_fromdata_init(context) == 1, EVP_PKEY_fromdata(context, &handle, keyPair, parameters) == 1,
            let handle
        else {
            ERR_clear_error()
            throw .invalidInput
        }
        let key = AsymmetricKey(owning: handle, type: type)
        guard let check = EVP_PKEY_CTX_new(handle, nil) else { throw .refused("memory") }
        defer { EVP_PKEY_CTX_free(check) }
        guard EVP_PKEY_check(check) == 1 else {
            ERR_clear_error()
            throw .invalidInput
        }
        return key
    }
}
