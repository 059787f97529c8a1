internal import CofferCore

/// The resources tokens are issued for, besides the tenant's own applications.
struct Audiences: Sendable {
    private let names: HostNames
    private let fixed: Set<String>

    init(names: HostNames) {
        self.names = names
        var fixed: Set<String> = [
            "https://management.core.windows.net", "https://graph.windows.net", "https://storage.azure.com",
            "https://appservice.azure.com",
            "https://api.loganalytics.io", "https://api.applicationinsights.io", "https://monitor.azure.com",
        ]
        for family in names.families {
            fixed.formUnion([
                family.url(of: .management), family.url(of: .graph), family.vaultAudience,
                "https://" + family.managedHSMSuffix,
            ])
            if case .coffer(let domain, _) = family {
                let port = String(family.url(of: .graph).dropFirst("https://graph.\(domain)".count))
                fixed.formUnion(["https://appservice.\(domain)\(port)", "https://loganalytics.\(domain)\(port)"])
            }
        }
        self.fixed = fixed
    }

    /// Identifiers of Azure's own applications, which may stand for the resource.
    private static let wellKnown = [
        "797f4846-ba00-4fd7-ba43-dac1f8f63013": "https://management.azure.com/",
        "cfa8b339-82a2-471a-a3c9-0fc0be7a4093": "https://vault.azure.net",
        "e406a681-f3d4-42a8-90b6-c2b029497af1": "https://storage.azure.com",
        "00000003-0000-0000-c000-000000000000": "https://graph.microsoft.com",
        "abfa0a7c-a6b6-4736-8310-5855508787cd": "https://appservice.azure.com",
    ]

    /// The `aud` claim for a requested resource, in the caller's spelling; nil when no Azure resource has that name.
    func audience(_ requested: String) -> String? {
        if let known = Self.wellKnown[requested.lowercased()] { return known }
        let bare = (requested.hasSuffix("/") ? String(requested.dropLast()) : requested).lowercased()
        if fixed.contains(bare) { return requested }
        guard bare.hasPrefix("https://"), !bare.dropFirst(8).contains("/") else { return nil }
        // A storage account may be named as a resource of its own ("Authorize with Microsoft Entra ID", resource ID).
        if case .storage? = names.match(String(bare.dropFirst(8)))?.endpoint { return requested }
        return nil
    }
}
