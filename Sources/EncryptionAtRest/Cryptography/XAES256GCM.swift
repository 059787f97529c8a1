internal import CSealing
internal import CofferCore

/// XAES-256-GCM (C2SP, XAES-256-GCM.md): AES-256-GCM with a random nonce of 192 bits, so that one key may seal 2^80
/// messages. Each message gets a key of its own, derived from the first half of its nonce by two AES-CMAC blocks.
///
/// A sealed message is nonce (24) | ciphertext | tag (16).
final class XAES256GCM: @unchecked Sendable {
    // @unchecked: what the pointer names is written by `init` only.
    static let keyBytes = 32
    static let nonceBytes = 24
    static let overheadBytes = nonceBytes + AEAD.tagBytes

    private let schedule: OpaquePointer

    init(key: UnsafeRawBufferPointer) {
        precondition(key.count == Self.keyBytes)
        schedule = coffer_xaes_new(key.bytes)
    }

    deinit { coffer_xaes_free(schedule) }

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
            let isSealed = coffer_xaes_seal(
                schedule, body.bytes, body.advanced(by: plaintext.count).bytes, nonce.baseAddress!.bytes,
                plaintext.bytes, plaintext.count, additional, additional.count)
            precondition(isSealed == 1, "AES-256-GCM seals at most 64 GiB")
        }
    }

    func seal(
        _ plaintext: [UInt8], additional: [UInt8], randomness: any Randomness, header: [UInt8] = []
    ) -> [UInt8] {
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
        var isAuthentic = false
        let plaintext = [UInt8](unsafeUninitializedCapacity: max(count, 1)) { output, filled in
            isAuthentic = open(message, additional: additional, to: output.baseAddress!)
            filled = isAuthentic ? count : 0
        }
        return isAuthentic ? plaintext : nil
    }

    func open(_ message: ArraySlice<UInt8>, additional: [UInt8]) -> [UInt8]? {
        message.withUnsafeBytes { open($0, additional: additional) }
    }

    func open(_ message: [UInt8], additional: [UInt8]) -> [UInt8]? { open(message[...], additional: additional) }

    /// Opens to memory of `message.count - overheadBytes` bytes.
    func open(_ message: UnsafeRawBufferPointer, additional: [UInt8], to output: UnsafeMutableRawPointer) -> Bool {
        let count = message.count - Self.overheadBytes
        guard count >= 0, let nonce = message.bytes else { return false }
        let body = nonce.advanced(by: Self.nonceBytes)
        return coffer_xaes_open(
            schedule, output.bytes, nonce, body, count, body.advanced(by: count), additional, additional.count) == 1
    }
}
