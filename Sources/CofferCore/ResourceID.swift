/// An Azure Resource Manager identifier: `/subscriptions/{s}/resourceGroups/{g}/providers/{namespace}/{type}/{name}…`,
/// or any scope above.
///
/// Keeps the spelling it was given; compares and hashes without regard to ASCII case, as Resource Manager does. The
/// root scope is `/`.
public struct ResourceID: Sendable, Hashable, Codable, CustomStringConvertible {
    /// The path's segments in the caller's spelling.
    public let segments: [String]
    private let folded: [String]

    public init(segments: [String]) {
        self.segments = segments
        self.folded = segments.map { $0.lowercased() }
    }
    /// Splits at `/`; empty segments vanish, so `//` counts as `/`.
    public init(_ path: String) { self.init(segments: path.parts(at: UInt8(ascii: "/"))) }

    public static let root = ResourceID(segments: [])

    public var description: String { "/" + segments.joined(separator: "/") }
    /// Lower case, for keys of maps and records.
    public var canonical: String { "/" + folded.joined(separator: "/") }

    public static func == (left: ResourceID, right: ResourceID) -> Bool { left.folded == right.folded }
    public func hash(into hasher: inout Hasher) { hasher.combine(folded) }

    public init(from decoder: any Decoder) throws { self.init(try decoder.singleValueContainer().decode(String.self)) }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }

    /// Whether `other` is this scope or lies below it.
    public func contains(_ other: ResourceID) -> Bool {
        other.folded.count >= folded.count && other.folded.prefix(folded.count).elementsEqual(folded)
    }
    public func appending(_ more: String...) -> ResourceID { ResourceID(segments: segments + more) }
    public var parent: ResourceID { ResourceID(segments: Array(segments.dropLast(2))) }

    private func value(after name: String, at index: Int) -> String? {
        folded.count > index + 1 && folded[index] == name ? segments[index + 1] : nil
    }
    public var subscription: String? { value(after: "subscriptions", at: 0) }
    public var resourceGroup: String? { value(after: "resourcegroups", at: 2) }
    /// The scope of the resource group, or nil above it.
    public var resourceGroupID: ResourceID? {
        resourceGroup.map { _ in ResourceID(segments: Array(segments.prefix(4))) }
    }

    /// Where the last `providers` segment stands: an extension resource's own provider, not its parent's.
    private var providerIndex: Int? { folded.lastIndex(of: "providers") }
    /// `Microsoft.KeyVault`, in the caller's spelling.
    public var providerNamespace: String? {
        providerIndex.flatMap { $0 + 1 < segments.count ? segments[$0 + 1] : nil }
    }
    /// The type segments below the namespace: `["vaults", "keys"]`.
    public var types: [String] { stride(from: 2, to: tail.count, by: 2).map { tail[$0] } }
    /// The names in step with `types`; one shorter when the identifier ends in a type (a collection or an action).
    public var names: [String] { stride(from: 3, to: tail.count, by: 2).map { tail[$0] } }
    private var tail: [String] { providerIndex.map { Array(segments[$0...]) } ?? [] }
    public var name: String { segments.last ?? "" }
    /// `Microsoft.KeyVault/vaults/keys`, or nil above a provider.
    public var resourceType: String? { providerNamespace.map { ([$0] + types).joined(separator: "/") } }
    /// What an extension resource (`…/providers/Microsoft.Authorization/roleAssignments/x`) is attached to.
    public var extendedScope: ResourceID? { providerIndex.map { ResourceID(segments: Array(segments.prefix($0))) } }
}
