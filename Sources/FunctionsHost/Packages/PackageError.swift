/// Why a deployment package cannot be run from. The message is shown to callers: it says what to mend and holds no URL.
struct PackageError: Error, Sendable, CustomStringConvertible, Equatable {
    enum Reason: Sendable, Equatable {
        case unsupportedSetting, unreachable, refused, tooLarge, notAZip, broken, unsafe,
            configuration
    }
    let reason: Reason
    let message: String
    init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }
    var description: String { message }
}
