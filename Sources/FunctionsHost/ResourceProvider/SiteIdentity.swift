import CofferCore
import EncryptionAtRest
import Logging
import ResourceProviders

/// The system-assigned identity of a site: made before the record that names it, removed after the record that does
/// not.
extension WebOperation {
    enum AskedIdentity { case removed, systemAssigned }

    /// What a body asks of the identity; nil keeps it. Throws 400 for kinds of identity that do not exist here.
    func askedIdentity(_ body: JSONValue) throws(ControlError) -> AskedIdentity? {
        guard let type = body.member("identity")?.member("type")?.stringValue else { return nil }
        switch type.lowercased().filter({ $0 != " " }) {
        case "none": return .removed
        case "systemassigned": return .systemAssigned
        default: throw .badRequest("Identity type '\(type)' is not supported; use SystemAssigned or None.")
        }
    }

    /// One change after the other: an identity is made and named in two steps.
    func changingIdentity(
        _ body: () async throws(ControlError) -> ControlResponse
    ) async throws(ControlError) -> ControlResponse {
        try await provider.identityTurnstile.pass(body)
    }

    /// The identity the site's record will name.
    func identity(_ asked: AskedIdentity?, current: ManagedIdentity?) async throws(ControlError) -> ManagedIdentity? {
        switch asked {
        case nil: return current
        case .removed: return nil
        case .systemAssigned:
            // One left by a crash is not this site's: its roles must not come back.
            if current == nil { try await removeIdentity() }
            do {
                return try await provider.identities.systemAssignedIdentity(of: siteID, displayName: siteID.name)
            } catch {
                throw Self.control(error, siteID)
            }
        }
    }

    /// An identity made for a change that was refused belongs to nobody. One that stays is removed before the next is
    /// made. Where nobody knows whether the change was written, it stays: the site may name it.
    func dismiss(_ made: ManagedIdentity?, unlessIt current: ManagedIdentity?, after error: any Error) async {
        if case .outcomeUnknown? = (error as? SealedStoreError)?.code { return }
        guard made != nil, current == nil else { return }
        do { try await removeIdentity() } catch {
            provider.log.error(
                "An identity that no site names could not be removed.",
                metadata: ["site": "\(siteID.name)", "reason": "\(error)"])
        }
    }

    func removeIdentity() async throws(ControlError) {
        do { try await provider.identities.removeSystemAssignedIdentity(of: siteID) } catch {
            throw Self.control(error, siteID)
        }
    }
}

extension WebResourceProvider {
    /// At start: removes the identities of sites that name none, which a crash between the two left with their roles.
    public func removeLeftIdentities() async throws {
        for site in sites.sites() where site.identity == nil {
            try await identities.removeSystemAssignedIdentity(of: site.id)
        }
    }
}
