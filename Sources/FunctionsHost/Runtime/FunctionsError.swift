/// Why a runtime operation was refused. The control plane and the admin API turn the code into their own answers.
public struct FunctionsError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable {
        case siteNotFound
        case functionNotFound
        case keyNotFound
        /// The value of a key or its name cannot be taken: 400.
        case invalidKey
        /// What a request brings is larger than the admin API takes: 413.
        case bodyTooLarge
        /// The master key can be renewed, never removed: 400.
        case masterKeyCannotBeDeleted
        /// Somebody else wrote the keys at the same time: 409.
        case conflict
        /// The keys cannot be read or written now (storage refused, vault refused, settings missing). The message says
        /// why: 503.
        case secretStoreUnavailable
        /// The host is stopped or could not start. The message says why: 503.
        case hostNotRunning
    }
    public let code: Code
    /// Says what to do; holds no secret.
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
