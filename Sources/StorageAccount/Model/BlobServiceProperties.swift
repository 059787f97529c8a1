/// `blobServices/default`: what Resource Manager and the data plane's Set Blob Service Properties share.
public struct BlobServiceProperties: Sendable, Codable, Equatable {
    public struct CORSRule: Sendable, Codable, Equatable {
        public var allowedOrigins: [String]
        public var allowedMethods: [String]
        public var allowedHeaders: [String]
        public var exposedHeaders: [String]
        public var maxAgeInSeconds: Int
        public init(
            allowedOrigins: [String], allowedMethods: [String], allowedHeaders: [String], exposedHeaders: [String],
            maxAgeInSeconds: Int
        ) {
            self.allowedOrigins = allowedOrigins
            self.allowedMethods = allowedMethods
            self.allowedHeaders = allowedHeaders
            self.exposedHeaders = exposedHeaders
            self.maxAgeInSeconds = maxAgeInSeconds
        }
    }
    /// How long deleted things can be brought back: 1…365 days.
    public struct RetentionPolicy: Sendable, Codable, Equatable {
        public var isEnabled: Bool
        public var days: Int?
        public init(isEnabled: Bool, days: Int?) {
            self.isEnabled = isEnabled
            self.days = days
        }
    }

    /// At most five.
    public var corsRules: [CORSRule] = []
    /// Serves requests without `x-ms-version`.
    public var defaultServiceVersion: String?
    public var deleteRetentionPolicy = RetentionPolicy(isEnabled: false, days: nil)
    public var containerDeleteRetentionPolicy = RetentionPolicy(isEnabled: false, days: nil)
    public init() {}

    public static let corsRuleLimit = 5
    public static let retentionDaysLimit = 365
}
