public import CofferCore
internal import ResourceProviders

/// The running half of App Service and Functions: one host per site, its keys, its package, its worker. The control plane calls it; the gate
/// serves from it.
///
/// It follows `SiteStore` by itself: a change of settings, identity or state restarts or stops the host, a deletion ends it. Callers
/// have authorized: nothing here asks who calls.
public final class FunctionRuntime: Sendable {
    init() {}

    // MARK: Life cycle of a site

    /// Forgets the resolved settings, the package and the keys in memory, and starts again from their sources. Returns at once: the gate
    /// answers 503 with the reason if it fails, and tries again with later requests.
    public func restart(_ id: ResourceID) async throws(FunctionsError) { preconditionFailure() }
    /// Sets the site's state, durably; the gate answers 403 while it is stopped.
    public func start(_ id: ResourceID) async throws { preconditionFailure() }
    public func stop(_ id: ResourceID) async throws { preconditionFailure() }
    /// Reads the mounted package again for its functions; a package that failed to mount is tried again.
    public func syncTriggers(_ id: ResourceID) async throws(FunctionsError) { preconditionFailure() }
    public func status(_ id: ResourceID) async throws(FunctionsError) -> HostStatus { preconditionFailure() }

    // MARK: Functions

    /// Of the mounted package, sorted by name; waits for a start under way. Throws `.hostNotRunning` when the package could not be mounted;
    /// empty for a site without one.
    public func functions(of id: ResourceID) async throws(FunctionsError) -> [FunctionDescription] { preconditionFailure() }
    public func function(_ name: String, of id: ResourceID) async throws(FunctionsError) -> FunctionDescription { preconditionFailure() }

    // MARK: Keys

    public func hostKeys(of id: ResourceID) async throws(FunctionsError) -> HostKeys { preconditionFailure() }
    /// A nil value is generated. `.masterKey` ignores the name.
    public func setHostKey(
        _ kind: HostKeyKind, _ name: String, to value: RedactedString?, of id: ResourceID
    ) async throws(FunctionsError) -> KeyChange { preconditionFailure() }
    public func deleteHostKey(_ kind: HostKeyKind, _ name: String, of id: ResourceID) async throws(FunctionsError) { preconditionFailure() }
    /// Throws `.functionNotFound`; makes the `default` key when the function has none yet.
    public func functionKeys(_ function: String, of id: ResourceID) async throws(FunctionsError) -> [AccessKey] { preconditionFailure() }
    public func setFunctionKey(
        _ name: String, to value: RedactedString?, function: String, of id: ResourceID
    ) async throws(FunctionsError) -> KeyChange { preconditionFailure() }
    public func deleteFunctionKey(_ name: String, function: String, of id: ResourceID) async throws(FunctionsError) { preconditionFailure() }

    // MARK: Key Vault references

    /// Every app setting that is a reference, by the setting's name.
    public func keyVaultReferences(of id: ResourceID) async throws(FunctionsError) -> [String: KeyVaultReferenceStatus] {
        preconditionFailure()
    }
    /// Resolves all again now; the host restarts when a value changed.
    public func refreshKeyVaultReferences(of id: ResourceID) async throws(FunctionsError) { preconditionFailure() }
}
