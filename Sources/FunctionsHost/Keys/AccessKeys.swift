public import CofferCore

/// One named access key.
public struct AccessKey: Sendable, Equatable {
    public let name: String
    public let value: RedactedString
    public init(name: String, value: RedactedString) {
        self.name = name
        self.value = value
    }
}

/// Which list of host keys an operation means.
public enum HostKeyKind: String, Sendable, CaseIterable {
    case functionKeys
    case systemKeys
    /// The one master key; its name is `_master`.
    case masterKey

    /// Reads the ARM and admin API spellings in any case; `keys` is `functionKeys`.
    public init?(wireName: some StringProtocol) {
        switch wireName.lowercased() {
        case "functionkeys", "keys": self = .functionKeys
        case "systemkeys": self = .systemKeys
        case "masterkey": self = .masterKey
        default: return nil
        }
    }
}

public struct HostKeys: Sendable, Equatable {
    public let masterKey: RedactedString
    public let functionKeys: [AccessKey]
    public let systemKeys: [AccessKey]
    public init(masterKey: RedactedString, functionKeys: [AccessKey], systemKeys: [AccessKey]) {
        self.masterKey = masterKey
        self.functionKeys = functionKeys
        self.systemKeys = systemKeys
    }
}

public struct KeyChange: Sendable, Equatable {
    public let key: AccessKey
    /// Whether the name is new: 201 rather than 200.
    public let isNew: Bool
    public init(key: AccessKey, isNew: Bool) {
        self.key = key
        self.isNew = isNew
    }
}
