import AccessControl
import CofferCore
import EncryptionAtRest
import HTTPEdge

/// Which vault an operation is about, and where the call came from.
public struct VaultAddress: Sendable, Equatable {
    public let name: String
    public let origin: CallOrigin
    /// `origin` is `.trustedService` for calls inside the process.
    public init(name: String, origin: CallOrigin = .trustedService) {
        self.name = name.lowercased()
        self.origin = origin
    }
}

/// A live vault whose firewall has let the call in. What the caller may do with it is asked permission by permission.
struct OpenVault: Sendable {
    let vault: Vault
    let objects: ObjectRecords
    let caller: Caller
    let access: AccessController
    /// From before the vault's record was read.
    let ticket: KeyHandles.Ticket

    /// Throws 403 unless the caller holds the permission, by access policy or by role, whichever the vault is set to.
    /// `object` narrows the scope that roles are asked at.
    func require(_ permission: VaultPermission, object: String? = nil) throws(VaultError) {
        if vault.usesRoles {
            let scope = object.map { vault.resourceID.appending(permission.area.rawValue, $0) } ?? vault.resourceID
            guard caller.tenantID == vault.tenantID.lowercased(),
                access.decide(caller, permission.action, at: scope).isAllowed
            else {
                throw .forbidden(
                    "ForbiddenByRbac",
                    "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny "
                        + "assignments or role definitions were "
                        + "changed recently, please observe propagation time.\r\nCaller: \(describe(caller))\r\nAction: "
                        + "'\(permission.action)'\r\n"
                        + "Resource: '\(scope.canonical)'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n"
                        + "DecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: \(vault.label)\r\n")
            }
            return
        }
        guard vault.accessPolicies.contains(where: { $0.names(caller) && $0.grants(permission) }) else {
            throw .forbidden(
                "ForbiddenByPolicy",
                "The user, group or application '\(describe(caller))' does not have \(permission.area.rawValue) "
                    + "\(permission.policyName) permission "
                    + "on key vault '\(vault.label)'. For help resolving this issue, please see "
                    + "https://go.microsoft.com/fwlink/?linkid=2125287")
        }
    }

    /// Throws 403 when purge protection is on: nobody purges, whatever they may do.
    func requirePurgeable() throws(VaultError) {
        guard vault.isPurgeProtected else { return }
        throw .forbidden(
            nil,
            "Operation is not allowed.\r\nOperation: \"purge\"\r\nCaller: \(describe(caller))\r\nVault: "
                + "\(vault.label)\r\n"
                + "Purge protection is on for this vault: deleted objects stay until their scheduled purge date.")
    }
}

func describe(_ caller: Caller) -> String {
    "appid=\(caller.applicationID ?? "");oid=\(caller.objectID);iss=https://sts.windows.net/\(caller.tenantID)/"
}

extension KeyVaultService {
    /// Throws 404 for a vault that does not exist or is deleted, 403 when its firewall refuses or the caller's
    /// principal is no more.
    func open(_ address: VaultAddress, as caller: Caller) async throws -> OpenVault {
        let ticket = handles.ticket()
        guard let vault = try await index.find(address.name)?.vault, vault.deletion == nil else {
            throw VaultError.vaultNotFound(address.name)
        }
        try vault.admit(address.origin, caller)
        try await requireStanding(of: caller)
        return openVault(vault, as: caller, ticket)
    }

    /// Callers inside the process come without a token: what a token's verification would find is found here.
    private func requireStanding(of caller: Caller) async throws(VaultError) {
        do { try await tokens.requireStanding(of: caller) } catch {
            throw error.reason == .unavailable
                ? VaultError(503, "ServiceUnavailable", error.message, retryAfterSeconds: 1)
                : .forbidden(nil, "\(error.message)\r\nCaller: \(describe(caller))\r\n")
        }
    }
    func records(of vault: Vault) -> ObjectRecords {
        ObjectRecords(store: store, vault: vault, memory: objects)
    }
    func openVault(_ vault: Vault, as caller: Caller, _ ticket: KeyHandles.Ticket) -> OpenVault {
        OpenVault(vault: vault, objects: records(of: vault), caller: caller, access: access, ticket: ticket)
    }
}

extension Vault {
    /// The firewall: two gates for the network, `bypass` for trusted services (Configure Azure Key Vault networking
    /// settings).
    func admit(_ origin: CallOrigin, _ caller: Caller) throws(VaultError) {
        let isOpen = network.isPublicAccessEnabled && network.allowsByDefault
        switch origin {
        case .trustedService:
            guard isOpen || network.trustedServicesBypass else {
                throw .forbidden(
                    "ForbiddenByFirewall",
                    "The vault admits no trusted services. Set networkAcls.bypass to AzureServices.\r\nCaller: "
                        + "\(describe(caller))\r\n"
                        + "Vault: \(label)")
            }
        case .network(let peerAddress):
            guard network.isPublicAccessEnabled else {
                throw .forbidden(
                    "ForbiddenByConnection",
                    "Public network access is disabled and request is not from a trusted service nor via an approved "
                        + "private link.\r\n"
                        + "Caller: \(describe(caller))\r\nVault: \(label)")
            }
            guard isOpen || network.ipRules.contains(where: { IPNetwork($0)?.contains(peerAddress) == true }) else {
                throw .forbidden(
                    "ForbiddenByFirewall",
                    "Client address is not authorized and caller is not a trusted service.\r\nClient address: "
                        + "\(peerAddress)\r\n"
                        + "Caller: \(describe(caller))\r\nVault: \(label)")
            }
        }
    }
}
