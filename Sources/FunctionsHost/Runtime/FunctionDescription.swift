public import CofferCore

/// One function of a mounted package, as the admin API and Resource Manager describe it.
public struct FunctionDescription: Sendable, Equatable {
    public let name: String
    /// `function.json` as it stands in the package.
    public let config: JSONValue
    /// The names of the files beside `function.json`, relative to the function's folder.
    public let files: [String]
    public let isDisabled: Bool
    public let language: String
    /// The path below the host, without its leading slash: `api/httptrigger1`. nil for a function without an HTTP
    /// trigger.
    public let invokePath: String?
    /// Why the function cannot run: an unsupported trigger, a route that conflicts, a malformed binding. Empty when it
    /// can.
    public let errors: [String]
    public init(
        name: String, config: JSONValue, files: [String], isDisabled: Bool, language: String, invokePath: String?,
        errors: [String]
    ) {
        self.name = name
        self.config = config
        self.files = files
        self.isDisabled = isDisabled
        self.language = language
        self.invokePath = invokePath
        self.errors = errors
    }
}

/// What `GET admin/host/status` says.
public struct HostStatus: Sendable, Equatable {
    public enum State: String, Sendable {
        case starting = "Starting", running = "Running", error = "Error", stopped = "Stopped", offline = "Offline"
    }
    public let id: String
    public let state: State
    public let version: String
    public let instanceID: String
    public let processUptimeMilliseconds: Int64
    public let errors: [String]
    public init(
        id: String, state: State, version: String, instanceID: String, processUptimeMilliseconds: Int64,
        errors: [String]
    ) {
        self.id = id
        self.state = state
        self.version = version
        self.instanceID = instanceID
        self.processUptimeMilliseconds = processUptimeMilliseconds
        self.errors = errors
    }
}
