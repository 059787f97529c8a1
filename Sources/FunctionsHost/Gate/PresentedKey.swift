internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1

/// The access key of a request: the header `x-functions-key` when it is there, even wrong or empty; otherwise the
/// query's `code`.
enum PresentedKey {
    static func of(_ request: Request) -> RedactedString? {
        let value =
            request.headers.first(name: "x-functions-key")
            ?? request.query.first { $0.name.lowercased() == "code" }?.value
        return value.flatMap { $0.isEmpty ? nil : RedactedString($0) }
    }
}

extension KeyAuthorization {
    /// Whether a function of this level runs for the caller (Azure Functions host, "AuthUtility": exactly the level, or
    /// the master key).
    func opens(_ level: AuthorizationLevel) -> Bool {
        switch (self, level) {
        case (_, .anonymous), (.master, _): true
        case (.hostFunction, .function), (.function, .function), (.system, .system): true
        default: false
        }
    }
}
