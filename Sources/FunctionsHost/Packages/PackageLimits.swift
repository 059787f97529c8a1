/// What a package may hold. Over a limit it is refused as a whole.
public struct PackageLimits: Sendable, Equatable {
    /// The zip itself. App Service allows 1 GB.
    public var archiveBytes = 1 << 30
    /// All files together, unpacked.
    public var unpackedBytes = 2 << 30
    /// Of memory for all mounted packages together, each counted twice: its archive, and what its worker sees. Of a
    /// package and the one it replaces, only the larger counts until the old worker is gone.
    public var mountedBytes = 8 << 30
    /// Unpacked size over packed size of one file above 1 MiB. Deflate cannot pass 1,032; real code stays below 100.
    public var expansionRatio = 200
    /// With the folders that paths name and that have no entry of their own.
    public var entries = 50_000
    /// Of one entry's path, in UTF-8 bytes.
    public var pathBytes = 1_024
    /// Of one entry's path, in components.
    public var pathDepth = 64
    /// `host.json` and each `function.json`.
    public var configurationBytes = 1 << 20
    public init() {}
}
