import ArgumentParser
import CToken
import Foundation

/// Names a key in a PKCS#11 token, the module that leads to it, and the file that holds its PIN (RFC 7512).
struct TokenKeyURI: Sendable {
    let text: String
    /// Absolute.
    let pinFile: String

    /// Token and key, without module and PIN file: for people.
    var name: String { String(text.prefix { $0 != "?" }) }

    /// Throws `ValidationError`, which never repeats the text: whoever mistook the syntax may have put the PIN into it.
    init(parsing text: String, of setting: String = "rootKeyWrappingKey") throws {
        func refuse(_ reason: String) -> ValidationError {
            ValidationError("\(setting) is not usable: \(reason). \(Self.shape)")
        }
        var problem: UnsafePointer<CChar>?
        guard let uri = coffer_token_uri_parse(text, &problem) else {
            throw refuse(problem.map { String(cString: $0) } ?? "it is no PKCS#11 URI (RFC 7512)")
        }
        defer { coffer_token_uri_free(uri) }
        guard coffer_token_uri_has_pin(uri) == 0 else {
            throw refuse(
                "it holds the PIN itself, which every user of the machine can read on a command line. Change the PIN, put it "
                    + "into a file of mode 0600 and name that with pin-source")
        }
        guard coffer_token_uri_has_unknown(uri) == 0 else {
            throw refuse("it has an attribute before the '?' that RFC 7512 does not know")
        }
        // A misspelt pin-value would stand in arguments and settings.
        let query = text.drop { $0 != "?" }.dropFirst().split(separator: "&", omittingEmptySubsequences: false)
        guard query.allSatisfy({ part in Self.queryNames.contains { part.hasPrefix($0 + "=") } }) else {
            throw refuse("behind the '?' it may have \(Self.queryNames.joined(separator: " and ")), and nothing else")
        }
        guard coffer_token_uri_names_object(uri) != 0 else { throw refuse("it names no key by object= or id=") }
        guard let module = coffer_token_uri_module_path(uri), module.pointee == UInt8(ascii: "/") else {
            throw refuse("it names no module: module-path= must be the absolute path of the token's library")
        }
        guard let source = coffer_token_uri_pin_source(uri), let file = Self.file(of: String(cString: source)) else {
            throw refuse("it names no PIN file: pin-source= must be file: and an absolute path")
        }
        self.text = text
        pinFile = file
    }

    private static let queryNames = ["module-path", "pin-source"]
    private static let shape =
        "It looks like 'pkcs11:token=TOKEN;object=KEY?module-path=/PATH/MODULE.so&pin-source=file:/PATH/PIN'; "
        + "docs/operations.md has an example."

    /// RFC 7512 leaves open what a source may be, and has `file:` URIs and plain paths in its examples.
    private static func file(of source: String) -> String? {
        var path = Substring(source)
        if path.hasPrefix("file:") { path = path.dropFirst("file:".count) }
        if path.hasPrefix("///") { path = path.dropFirst(2) }
        return path.hasPrefix("/") && !path.hasPrefix("//") ? String(path) : nil
    }
}
