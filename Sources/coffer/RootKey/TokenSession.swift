import CToken
import CofferCore
import EncryptionAtRest
import Foundation

/// A session with the token of a wrapping key, in the process that holds it (`TokenProcess`).
final class TokenSession {
    enum Operation: String {
        /// From nonce | key to nonce | ciphertext | tag.
        case wrap
        /// Back, to the key alone.
        case unwrap

        var inputBytes: Int { self == .wrap ? WrappedRootKey.nonceBytes + RootKey.bytes : WrappedRootKey.messageBytes }
        var outputBytes: Int { self == .wrap ? WrappedRootKey.messageBytes : RootKey.bytes }
    }

    /// Longest PIN that is read, in bytes.
    private static let pinBytesLimit = 1_024

    private let uri: TokenKeyURI
    private let parsed: OpaquePointer
    private var token: OpaquePointer?

    init(_ uri: TokenKeyURI) {
        self.uri = uri
        parsed = coffer_token_uri_parse(uri.text, nil)!
    }
    deinit { coffer_token_uri_free(parsed) }

    /// Logs out and unloads the module, which may crash or hang: it is called when nothing depends on that any more.
    func close() {
        if let token { coffer_token_close(token) }
        token = nil
    }

    /// Reads the PIN, logs in once and asks the key. `note` is told when the login begins, and when it has succeeded:
    /// in between the token may count what happens as a wrong PIN. Throws `CommandFailure`, or `PINRefusal`.
    func run(_ operation: Operation, version: UInt32, _ input: SecretBytes, note: (TokenAnswer.Login) -> Void) throws
        -> SecretBytes
    {
        var failure = coffer_token_failure()
        func require(_ result: coffer_token_result) throws {
            guard result == COFFER_TOKEN_OK else { throw Self.error(result, failure, uri) }
        }
        let pin = try Self.pin(uri)
        try require(coffer_token_connect(parsed, &token, &failure))
        guard let token else { throw CommandFailure("The token cannot be reached: there is no memory left.") }
        note(.begins)
        try require(
            pin.withUnsafeBytes { pin in
                coffer_token_log_in(
                    token, pin.baseAddress!.assumingMemoryBound(to: UInt8.self), Self.length(ofPIN: pin), &failure)
            })
        note(.succeeded)
        try require(coffer_token_use(token, parsed, &failure))
        let additional = WrappedRootKey.additional(version: version)
        // Room for the tag also where the key alone comes out.
        let result = try SecretBytes(capacity: WrappedRootKey.messageBytes) { output in
            let done = input.withUnsafeBytes { input in
                Self.call(operation, token, additional, input, output, &failure)
            }
            try require(done)
            return operation.outputBytes
        }
        return result
    }

    private static func call(
        _ operation: Operation, _ token: OpaquePointer, _ additional: [UInt8], _ input: UnsafeRawBufferPointer,
        _ output: UnsafeMutableRawBufferPointer, _ failure: inout coffer_token_failure
    ) -> coffer_token_result {
        let nonceBytes = WrappedRootKey.nonceBytes
        let input = input.assumingMemoryBound(to: UInt8.self).baseAddress!
        let output = output.assumingMemoryBound(to: UInt8.self).baseAddress!
        switch operation {
        case .wrap:
            output.update(from: input, count: nonceBytes)
            return coffer_token_seal(
                token, output, additional, additional.count, input + nonceBytes, RootKey.bytes, output + nonceBytes,
                &failure)
        case .unwrap:
            return coffer_token_unseal(
                token, input, additional, additional.count, input + nonceBytes,
                WrappedRootKey.messageBytes - nonceBytes, output, &failure)
        }
    }

    private static func pin(_ uri: TokenKeyURI) throws -> SecretBytes {
        guard let pin = try SecretFile.read(uri.pinFile, limit: pinBytesLimit, what: "The PIN file") else {
            throw CommandFailure(
                "The PIN file \(uri.pinFile) is not there, or not to be read by this user. Put the token's PIN into it (mode "
                    + "0600), or name another file with pin-source.")
        }
        guard pin.withUnsafeBytes(length(ofPIN:)) > 0 else {
            throw CommandFailure("The PIN file \(uri.pinFile) is empty. Put the token's PIN into it.")
        }
        return pin
    }

    /// Without the line's end an editor leaves behind.
    private static func length(ofPIN bytes: UnsafeRawBufferPointer) -> Int {
        bytes.count - bytes.reversed().prefix { $0 == 0x0a || $0 == 0x0d }.count
    }

    /// What a refusal means, and what to do.
    private static func error(_ result: coffer_token_result, _ failure: coffer_token_failure, _ uri: TokenKeyURI)
        -> any Error
    {
        let reason = withUnsafeBytes(of: failure.reason) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let key = uri.name
        switch result {
        case COFFER_TOKEN_NO_MODULE:
            return CommandFailure(
                "The PKCS#11 module cannot be loaded: \(reason). Install the token's software, or correct module-path.")
        case COFFER_TOKEN_NOT_FOUND:
            return CommandFailure(
                "The module knows no token as in \(key). Connect or make it, check the module's own settings, or correct the URI; "
                    + "'pkcs11-tool --module MODULE --list-slots' lists what is there.")
        case COFFER_TOKEN_AMBIGUOUS:
            return CommandFailure("More than one token fits \(key). Name one, by serial= for instance.")
        case COFFER_TOKEN_PIN_WRONG:
            return PINRefusal(
                "The token refused the PIN in \(uri.pinFile). It was tried once; some wrong ones more may lock the token. "
                    + "Correct the file before you start again.")
        case COFFER_TOKEN_PIN_LOCKED:
            return PINRefusal(
                "The token's PIN is locked after too many wrong ones. Unlock it as its security officer, for instance with "
                    + "'pkcs11-tool --module MODULE --login --login-type so --init-pin', and put the PIN into \(uri.pinFile)."
            )
        case COFFER_TOKEN_LOGIN_FAILED:
            return PINRefusal(
                "The token did not take the PIN in \(uri.pinFile): \(reason). It was tried once, and may have been counted as "
                    + "wrong. Log in by hand, with 'pkcs11-tool --module MODULE --login --test' for instance, then start again."
            )
        case COFFER_TOKEN_PIN_LAST_TRY:
            return PINRefusal(
                "One more wrong PIN locks the token, so this one was not tried. Log in by hand once, with 'pkcs11-tool --module "
                    + "MODULE --login --test' for instance, then start again.")
        case COFFER_TOKEN_NOT_AUTHENTIC:
            return CommandFailure(
                "The root key does not open under \(key): its file was changed, or another key wrapped it, or the token failed "
                    + "(it answers: \(reason)). Name the key that wrapped it, see to the token, or restore the file from your "
                    + "copy.")
        case COFFER_TOKEN_CALL_FAILED:
            return CommandFailure(
                "The token failed: \(failure.function.map { String(cString: $0) } ?? "a call"): \(reason). See to the token, then "
                    + "start again.")
        default: return keyError(result, reason, key)
        }
    }

    /// What is wrong with the key itself.
    private static func keyError(_ result: coffer_token_result, _ reason: String, _ key: String) -> CommandFailure {
        let made =
            "Make one with 'pkcs11-tool --module MODULE --login --token-label TOKEN --keygen --key-type AES:32 "
            + "--sensitive --private --label KEY'."
        switch result {
        case COFFER_TOKEN_KEY_NOT_FOUND: return CommandFailure("The token has no key as in \(key). \(made)")
        case COFFER_TOKEN_KEY_AMBIGUOUS:
            return CommandFailure("The token has more than one secret key as in \(key). Name one, by id= for instance.")
        case COFFER_TOKEN_KEY_TYPE: return CommandFailure("What \(key) names is no AES key of 256 bits. \(made)")
        case COFFER_TOKEN_KEY_NOT_KEPT:
            return CommandFailure(
                "The key \(key) can be taken out of its token, or the token does not say that it cannot: it must be sensitive "
                    + "and not extractable. \(made)")
        case COFFER_TOKEN_KEY_PUBLIC:
            return CommandFailure(
                "The key \(key) can be used without the PIN, or the token does not say that it cannot: it must be private. "
                    + made)
        case COFFER_TOKEN_KEY_USE:
            return CommandFailure("The key \(key) may not both encrypt and decrypt. Allow it both, or name another.")
        default:
            return CommandFailure(
                "The token does not offer AES-GCM (\(reason)), which wraps the root key. Use another token.")
        }
    }
}

/// A token did not take its PIN. What starts services must not start this one again by itself: another wrong PIN may
/// lock the token.
struct PINRefusal: Error, CustomStringConvertible {
    static let exitCode: Int32 = 78
    let description: String
    init(_ description: String) { self.description = description }
}
