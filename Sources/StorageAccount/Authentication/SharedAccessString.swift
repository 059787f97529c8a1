internal import CofferCore
internal import HTTPEdge

/// What the three kinds of shared access signatures sign, for each version of the signature (`sv`).
///
/// Source: Microsoft, "Create a service SAS", "Create an account SAS", "Create a user delegation SAS"; the lines of
/// 2025-07-05 and 2026-04-06 as the azure-storage-blob SDK 12.27 and 12.29 write them.
struct SharedAccessString {
    let parameters: SharedAccessParameters
    let account: String

    /// The oldest version whose strings are known here; an older one is refused. Versions newer than known sign as the
    /// newest known.
    static let oldestVersion = "2015-04-05"

    /// Account SAS: one line each, and a newline at the end.
    func accountBytes() -> [UInt8] {
        let p = parameters
        var text = SignedText()
        text.line(account)
        for name in [.permissions, .services, .resourceTypes, .start, .expiry, .addresses, .protocols, .version]
            as [SharedAccessParameters.Name]
        {
            text.line(p.text(name))
        }
        if p.text(.version) >= "2020-12-06" { text.line(p.text(.encryptionScope)) }
        return text.bytes
    }

    /// Service SAS of a blob, a snapshot, a version or a container. `resource` is the canonical
    /// `/blob/account/container[/blob]`, decoded.
    func serviceBytes(resource: String, snapshot: String) -> [UInt8] {
        let p = parameters
        let version = p.text(.version)
        var text = SignedText()
        common(into: &text, resource)
        text.line(p.text(.identifier))
        text.line(p.text(.addresses))
        text.line(p.text(.protocols))
        text.line(version)
        if version >= "2018-11-09" {
            text.line(p.text(.resource))
            text.line(snapshot)
        }
        if version >= "2020-12-06" { text.line(p.text(.encryptionScope)) }
        overrides(into: &text)
        return text.bytes
    }

    /// User delegation SAS. `signedHeaders` and `signedQuery` are the lines of `srh` and `srq` (2026-04-06), with the
    /// values of this request.
    func userDelegationBytes(resource: String, snapshot: String, signedHeaders: String, signedQuery: String) -> [UInt8]
    {
        let p = parameters
        let version = p.text(.version)
        var text = SignedText()
        common(into: &text, resource)
        for name in [.keyObjectID, .keyTenantID, .keyStart, .keyExpiry, .keyService, .keyVersion]
            as [SharedAccessParameters.Name]
        {
            text.line(p.text(name))
        }
        if version >= "2020-02-10" {
            text.line(p.text(.authorizedObjectID))
            text.line(p.text(.unauthorizedObjectID))
            text.line(p.text(.correlationID))
        }
        if version >= "2025-07-05" {
            text.line(p.text(.keyDelegatedTenantID))
            text.line(p.text(.delegatedObjectID))
        }
        text.line(p.text(.addresses))
        text.line(p.text(.protocols))
        text.line(version)
        text.line(p.text(.resource))
        text.line(snapshot)
        if version >= "2020-12-06" { text.line(p.text(.encryptionScope)) }
        if version >= "2026-04-06" {
            text.line(signedHeaders)
            text.line(signedQuery)
        }
        overrides(into: &text)
        return text.bytes
    }

    /// Parameters that this version of the signature would not cover: believing them would let anyone add them.
    var uncovered: SharedAccessParameters.Name? {
        let version = parameters.text(.version)
        var names: [SharedAccessParameters.Name] = []
        if version < "2020-12-06" { names.append(.encryptionScope) }
        if version < "2020-02-10" { names += [.authorizedObjectID, .unauthorizedObjectID, .correlationID] }
        if version < "2025-07-05" { names += [.keyDelegatedTenantID, .delegatedObjectID] }
        if version < "2026-04-06" { names += [.requestHeaders, .requestQuery] }
        return names.first { parameters[$0] != nil }
    }

    private func common(into text: inout SignedText, _ resource: String) {
        text.line(parameters.text(.permissions))
        text.line(parameters.text(.start))
        text.line(parameters.text(.expiry))
        text.line(resource)
    }

    private func overrides(into text: inout SignedText) {
        text.line(parameters.text(.cacheControl))
        text.line(parameters.text(.contentDisposition))
        text.line(parameters.text(.contentEncoding))
        text.line(parameters.text(.contentLanguage))
        text.append(parameters.text(.contentType))
    }
}
