internal import CofferCore
internal import Crypto
internal import EncryptionAtRest
internal import HTTPEdge
internal import StorageAccount

/// A customer-provided key of one request: `x-ms-encryption-key`, `-key-sha256`, `-algorithm` (seed 002; recorded
/// errors in specs/recorded/encryption-errors.json).
struct CustomerKeyHeaders: Sendable {
    let key: SecretBytes
    /// base64, in the canonical spelling.
    let sha256: String

    /// nil when the request carries none. Writes need all three headers; reads may leave the algorithm out.
    static func read(_ request: Request, isWrite: Bool, prefix: String = "x-ms-") throws(StorageError)
        -> CustomerKeyHeaders?
    {
        let keyName = prefix + "encryption-key"
        let hashName = prefix + "encryption-key-sha256"
        let algorithmName = prefix + "encryption-algorithm"
        let keyText = request.header(keyName)
        let hashText = request.header(hashName)
        let algorithm = request.header(algorithmName)
        guard keyText != nil || hashText != nil || algorithm != nil else { return nil }
        guard let keyText else { throw .missingHeader(keyName) }
        guard let hashText else { throw .missingHeader(hashName) }
        if algorithm == nil, isWrite { throw .missingHeader(algorithmName) }
        if let algorithm, algorithm != "AES256" { throw .invalidHeader(algorithmName, algorithm) }
        guard request.transport.scheme == .https else {
            throw .invalidHeader(keyName, reason: "A customer-provided key is taken over HTTPS only.")
        }
        // The key's own value never goes into an error.
        guard var raw = [UInt8](base64: keyText), raw.count == 32 else {
            throw .invalidHeader(keyName, reason: "The key must be 32 bytes in base64.")
        }
        defer { wipe(&raw) }
        guard let hash = [UInt8](base64: hashText), hash.count == 32 else { throw .invalidHeader(hashName, hashText) }
        guard constantTimeEquals(Array(SHA256.hash(data: raw)), hash) else { throw .invalidHeader(hashName, hashText) }
        return CustomerKeyHeaders(key: SecretBytes(copying: raw), sha256: hash.base64)
    }

    /// 409 of one of three kinds unless the request's key is the one the blob has, or neither has one.
    static func check(_ given: CustomerKeyHeaders?, against kept: String?) throws(StorageError) {
        switch (given?.sha256, kept) {
        case (nil, nil): return
        case (nil, _?): throw .usesCustomerKey
        case (_?, nil): throw .doesNotUseCustomerKey
        case (let given?, let kept?):
            guard constantTimeEquals(given.utf8, kept.utf8) else { throw .customerKeyMismatch }
        }
    }
}
