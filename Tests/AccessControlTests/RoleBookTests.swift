import AccessControl
import CofferCore
import Synchronization
import Testing

@Suite struct RoleBookTests {
    private let caller = Caller(
        kind: .servicePrincipal, objectID: "aaaaaaaa-0000-4000-8000-000000000001", tenantID: "t")
    private let vault = ResourceID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v")

    private func book(_ role: String, at scope: String) -> RoleBook {
        let assignment = RoleAssignment(
            name: "n", scope: ResourceID(scope), roleID: role, principalID: caller.objectID,
            principalType: "ServicePrincipal",
            created: Timestamp(unixSeconds: 0), createdBy: "")
        return RoleBook(definitions: BuiltInRoles.all, assignments: [assignment])
    }
    private func id(_ name: String) -> String { BuiltInRoles.all.first { $0.roleName == name }!.id }

    /// Role, action, whether it is granted: what Azure's documentation says of each.
    private static let matrix: [(String, Action, Bool)] = [
        ("Owner", .control("Microsoft.KeyVault/vaults/write"), true),
        ("Owner", .control("Microsoft.Authorization/roleAssignments/write"), true),
        ("Owner", .data("Microsoft.KeyVault/vaults/secrets/getSecret/action"), false),
        ("Owner", .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"), false),
        ("Contributor", .control("Microsoft.Storage/storageAccounts/listKeys/action"), true),
        ("Contributor", .control("Microsoft.Authorization/roleAssignments/write"), false),
        ("Contributor", .control("microsoft.authorization/ROLEASSIGNMENTS/delete"), false),
        ("Contributor", .control("Microsoft.Authorization/roleAssignments/read"), true),
        ("Reader", .control("Microsoft.KeyVault/vaults/read"), true),
        ("Reader", .control("Microsoft.KeyVault/vaults/write"), false),
        ("Reader", .control("Microsoft.Storage/storageAccounts/listKeys/action"), false),
        ("User Access Administrator", .control("Microsoft.Authorization/roleAssignments/write"), true),
        ("User Access Administrator", .control("Microsoft.KeyVault/vaults/write"), false),
        ("Role Based Access Control Administrator", .control("Microsoft.Authorization/roleAssignments/delete"), true),
        ("Role Based Access Control Administrator", .control("Microsoft.Authorization/roleDefinitions/write"), false),
        ("Key Vault Administrator", .data("Microsoft.KeyVault/vaults/keys/unwrap/action"), true),
        ("Key Vault Administrator", .control("Microsoft.KeyVault/vaults/write"), false),
        ("Key Vault Reader", .data("Microsoft.KeyVault/vaults/secrets/getSecret/action"), false),
        ("Key Vault Reader", .data("Microsoft.KeyVault/vaults/secrets/readMetadata/action"), true),
        ("Key Vault Reader", .data("Microsoft.KeyVault/vaults/keys/read"), true),
        ("Key Vault Secrets User", .data("Microsoft.KeyVault/vaults/secrets/getSecret/action"), true),
        ("Key Vault Secrets User", .data("Microsoft.KeyVault/vaults/secrets/setSecret/action"), false),
        ("Key Vault Secrets User", .data("Microsoft.KeyVault/vaults/keys/read"), false),
        ("Key Vault Secrets Officer", .data("Microsoft.KeyVault/vaults/secrets/setSecret/action"), true),
        ("Key Vault Crypto Service Encryption User", .data("Microsoft.KeyVault/vaults/keys/wrap/action"), true),
        ("Key Vault Crypto Service Encryption User", .data("Microsoft.KeyVault/vaults/keys/decrypt/action"), false),
        ("Key Vault Crypto User", .data("Microsoft.KeyVault/vaults/keys/sign/action"), true),
        ("Key Vault Crypto User", .data("Microsoft.KeyVault/vaults/keys/create/action"), false),
        ("Key Vault Crypto Officer", .data("Microsoft.KeyVault/vaults/keyrotationpolicies/write"), true),
        ("Key Vault Contributor", .control("Microsoft.KeyVault/vaults/write"), true),
        ("Key Vault Contributor", .control("Microsoft.KeyVault/locations/deletedVaults/purge/action"), false),
        ("Key Vault Contributor", .data("Microsoft.KeyVault/vaults/secrets/getSecret/action"), false),
        ("Key Vault Purge Operator", .control("Microsoft.KeyVault/locations/deletedVaults/purge/action"), true),
        (
            "Storage Blob Data Reader", .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"),
            true
        ),
        (
            "Storage Blob Data Reader", .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"),
            false
        ),
        (
            "Storage Blob Data Contributor",
            .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete"), true
        ),
        (
            "Storage Blob Data Contributor",
            .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/manageOwnership/action"), false
        ),
        (
            "Storage Blob Data Owner",
            .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/manageOwnership/action"), true
        ),
        (
            "Storage Blob Delegator",
            .control("Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"), true
        ),
        (
            "Storage Account Key Operator Service Role",
            .control("Microsoft.Storage/storageAccounts/regenerateKey/action"), true
        ),
        (
            "Storage Account Contributor",
            .data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"), false
        ),
        (
            "Storage Queue Data Message Sender",
            .data("Microsoft.Storage/storageAccounts/queueServices/queues/messages/add/action"), true
        ),
        ("Website Contributor", .control("Microsoft.Web/sites/host/listkeys/action"), true),
        ("Website Contributor", .control("Microsoft.Web/serverFarms/write"), false),
        ("Log Analytics Reader", .control("Microsoft.OperationalInsights/workspaces/sharedKeys/read"), false),
    ]

    @Test func everyRoleGrantsWhatItShould() {
        for (name, action, isGranted) in Self.matrix {
            #expect(
                book(id(name), at: "/subscriptions/s").decide(caller, action, at: vault).isAllowed == isGranted,
                "\(name) \(action)")
        }
    }

    @Test func assignmentsHoldBelowTheirScopeOnly() {
        let read = Action.control("Microsoft.KeyVault/vaults/read")
        let reader = BuiltInRoles.reader
        for scope in ["/", "/subscriptions/S", "/subscriptions/s/resourcegroups/RG", vault.description] {
            #expect(book(reader, at: scope).decide(caller, read, at: vault).isAllowed, "\(scope)")
        }
        for scope in ["/subscriptions/s2", "/subscriptions/s/resourceGroups/r", "\(vault)/keys/k", "\(vault)2"] {
            #expect(!book(reader, at: scope).decide(caller, read, at: vault).isAllowed, "\(scope)")
        }
        let other = Caller(kind: .servicePrincipal, objectID: "bbbbbbbb-0000-4000-8000-000000000001", tenantID: "t")
        #expect(!book(reader, at: "/").decide(other, read, at: vault).isAllowed)
    }

    @Test func unknownMeansNo() {
        let read = Action.control("Microsoft.KeyVault/vaults/read")
        #expect(!RoleBook().decide(caller, read, at: vault).isAllowed)
        #expect(!book("00000000-0000-0000-0000-000000000000", at: "/").decide(caller, read, at: vault).isAllowed)
        #expect(!AccessController().decide(caller, read, at: vault).isAllowed)
    }

    @Test func publishTellsObserversAfterTheChange() {
        let controller = AccessController()
        let read = Action.control("Microsoft.KeyVault/vaults/read")
        let seen = Seen()
        controller.onChange { [controller, caller, vault] in
            seen.add(controller.decide(caller, read, at: vault).isAllowed)
        }
        controller.publish(book(BuiltInRoles.reader, at: "/"))
        controller.publish(RoleBook())
        #expect(seen.all == [true, false])
        #expect(controller.permissions(of: caller, at: vault).isEmpty)
    }

    @Test func builtInRolesAreWellFormed() {
        #expect(Set(BuiltInRoles.all.map(\.id)).count == BuiltInRoles.all.count)
        #expect(Set(BuiltInRoles.all.map(\.roleName)).count == BuiltInRoles.all.count)
        for role in BuiltInRoles.all {
            #expect(role.id.count == 36 && role.isBuiltIn && role.assignableScopes == [.root])
            #expect(!(role.permissions.actions + role.permissions.dataActions).isEmpty, "\(role.roleName)")
        }
    }

    @Test func patternsMatchAsAReferenceMatcherDoes() {
        var generator = SplitMix(state: 42)
        for _ in 0..<20_000 {
            let pattern = generator.text("aB/*", upTo: 8)
            let name = generator.text("Ab/", upTo: 10)
            let granted = RolePermissions(actions: [pattern]).grants(.control(name))
            #expect(
                granted == reference(Array(pattern.lowercased().utf8)[...], Array(name.lowercased().utf8)[...]),
                "\(pattern) \(name)")
        }
    }
    private func reference(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        guard let first = pattern.first else { return name.isEmpty }
        if first == 0x2a {
            return reference(pattern.dropFirst(), name) || (!name.isEmpty && reference(pattern, name.dropFirst()))
        }
        return name.first == first && reference(pattern.dropFirst(), name.dropFirst())
    }
}

final class Seen: Sendable {
    private let values = Mutex<[Bool]>([])
    func add(_ value: Bool) { values.withLock { $0.append(value) } }
    var all: [Bool] { values.withLock { $0 } }
}

/// A small seeded generator (Vigna, "splitmix64"): the same inputs in every run.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func text(_ alphabet: String, upTo length: Int) -> String {
        let letters = Array(alphabet)
        return String((0..<Int(next() % UInt64(length + 1))).map { _ in letters[Int(next() % UInt64(letters.count))] })
    }
}
