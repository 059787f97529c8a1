internal import CCryptoBoringSSL
internal import CPlatform
internal import CofferCore

/// XAES-256-GCM (C2SP, XAES-256-GCM.md): AES-256-GCM with a random nonce of 192 bits, so that one key may seal 2^80
/// messages. Each message gets a key of its own, derived from the first half of its nonce by two AES-CMAC blocks.
///
/// A sealed message is nonce (24) | ciphertext | tag (16).
final class XAES256GCM: @unchecked Sendable {
    // @unchecked: the memory is written in `init` only.
    static let keyBytes = 32
    static let nonceBytes = 24
    static let overheadBytes = nonceBytes + AEAD.tagBytes

    private struct Schedule {
        var aes = AES_KEY()
        /// The CMAC subkey K1 (NIST SP 800-38B §6.1).
        var k1: (UInt64, UInt64) = (0, 0)
    }
    private let schedule: UnsafeMutablePointer<Schedule>

    init(key: UnsafeRawBufferPointer) {
        precondition(key.count == Self.keyBytes)
        schedule = .allocate(capacity: 1)
        schedule.initialize(to: Schedule())
        CCryptoBoringSSL_AES_set_encrypt_key(key.bytes, 256, &schedule.pointee.aes)
        var block: (UInt64, UInt64) = (0, 0)
        encrypt(&block)
        let high = UInt64(bigEndian: block.0)
        let low = UInt64(bigEndian: block.1)
        let doubledLow = low << 1 ^ (high >> 63) &* 0x87
        schedule.pointee.k1 = ((high << 1 | low >> 63).bigEndian, doubledLow.bigEndian)
    }

    deinit {
        coffer_wipe(schedule, MemoryLayout<Schedule>.size)
        schedule.deallocate()
    }

    private func encrypt(_ block: inout (UInt64, UInt64)) {
        withUnsafeMutableBytes(of: &block) { raw in
            let bytes = raw.baseAddress!.assumingMemoryBound(to: UInt8.self)
            CCryptoBoringSSL_AES_encrypt(bytes, bytes, &schedule.pointee.aes)
        }
    }

    /// Runs `body` under the key derived for the first 12 bytes of `nonce`.
    private func withMessageKey<Result>(
        _ nonce: UnsafeRawBufferPointer, _ body: (UnsafeMutablePointer<EVP_AEAD_CTX>) -> Result
    ) -> Result {
        precondition(nonce.count == Self.nonceBytes)
        // The two CMAC messages: counter (16 bit) | "X" | 0 | nonce[0..<12], each one block long.
        var key: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        defer { withUnsafeMutableBytes(of: &key) { coffer_wipe($0.baseAddress, $0.count) } }
        withUnsafeMutableBytes(of: &key) { out in
            for counter in 1...2 {
                var block: (UInt64, UInt64) = (0, 0)
                withUnsafeMutableBytes(of: &block) { bytes in
                    bytes[1] = UInt8(counter)
                    bytes[2] = 0x58
                    bytes.baseAddress!.advanced(by: 4).copyMemory(from: nonce.baseAddress!, byteCount: 12)
                }
                block.0 ^= schedule.pointee.k1.0
                block.1 ^= schedule.pointee.k1.1
                encrypt(&block)
                out.storeBytes(of: block.0, toByteOffset: (counter - 1) * 16, as: UInt64.self)
                out.storeBytes(of: block.1, toByteOffset: (counter - 1) * 16 + 8, as: UInt64.self)
            }
        }
        return withUnsafeBytes(of: &key) { AEAD.once(key: $0, body) }
    }

    /// Appends nonce | ciphertext | tag of `plaintext` to `output`.
    func seal(
        _ plaintext: UnsafeRawBufferPointer, additional: [UInt8], randomness: any Randomness,
        appendTo output: inout [UInt8]
    ) {
        let start = output.count
        output.append(contentsOf: repeatElement(0, count: plaintext.count + Self.overheadBytes))
        output.withUnsafeMutableBytes { out in
            let nonce = UnsafeMutableRawBufferPointer(rebasing: out[start..<start + Self.nonceBytes])
            randomness.fill(nonce)
            let body = out.baseAddress!.advanced(by: start + Self.nonceBytes)
            let nonceView = UnsafeRawBufferPointer(nonce)
            withMessageKey(nonceView) { context in
                additional.withUnsafeBytes { additional in
                    AEAD.seal(
                        context, plaintext, to: body, tag: body.advanced(by: plaintext.count),
                        nonce: UnsafeRawBufferPointer(rebasing: nonceView[12...]), additional: additional)
                }
            }
        }
    }

    func seal(_ plaintext: [UInt8], additional: [UInt8], randomness: any Randomness, header: [UInt8] = []) -> [UInt8] {
        var output: [UInt8] = []
        output.reserveCapacity(header.count + plaintext.count + Self.overheadBytes)
        output.append(contentsOf: header)
        plaintext.withUnsafeBytes { seal($0, additional: additional, randomness: randomness, appendTo: &output) }
        return output
    }

    /// Opens nonce | ciphertext | tag; nil when it is too short or not authentic.
    func open(_ message: UnsafeRawBufferPointer, additional: [UInt8]) -> [UInt8]? {
        let count = message.count - Self.overheadBytes
        guard count >= 0 else { return nil }
        var authentic = false
        let plaintext = [UInt8](unsafeUninitializedCapacity: max(count, 1)) { output, filled in
            authentic = open(message, additional: additional, to: output.baseAddress!)
            filled = authentic ? count : 0
        }
        return authentic ? plaintext : nil
    }

    func open(_ message: some Sequence<UInt8>, additional: [UInt8]) -> [UInt8]? {
        let opened: [UInt8]?? = message.withContiguousStorageIfAvailable {
            open(UnsafeRawBufferPointer($0), additional: additional)
        }
        if let opened { return opened }
        return Array(message).withUnsafeBytes { open($0, additional: additional) }
    }

    /// Opens to memory of `message.count - overheadBytes` bytes.
    func open(_ message: UnsafeRawBufferPointer, additional: [UInt8], to output: UnsafeMutableRawPointer) -> Bool {
        let count = message.count - Self.overheadBytes
        guard count >= 0 else { return false }
        let nonce = UnsafeRawBufferPointer(rebasing: message[..<Self.nonceBytes])
        return withMessageKey(nonce) { context in
            additional.withUnsafeBytes { additional in
                AEAD.open(
                    context, UnsafeRawBufferPointer(rebasing: message[Self.nonceBytes..<Self.nonceBytes + count]),
                    tag: UnsafeRawBufferPointer(rebasing: message[(Self.nonceBytes + count)...]), to: output,
                    nonce: UnsafeRawBufferPointer(rebasing: nonce[12...]), additional: additional)
            }
        }
    }
}
