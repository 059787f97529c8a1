internal import CofferCore

/// Azure's built-in roles that concern what Coffer serves, with Azure's own identifiers, names and permissions.
///
/// Source: "Azure built-in roles" (learn.microsoft.com/azure/role-based-access-control/built-in-roles), as of July
/// 2026. Key Vault Data Access Administrator is left out: without its condition, which Coffer does not evaluate, it
/// would grant more than in Azure.
public enum BuiltInRoles {
    public static let owner = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
    public static let contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
    public static let reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7"

    public static let all: [RoleDefinition] = general + keyVault + blobs + otherStorage + webAndMonitoring

    private static func role(
        _ id: String, _ name: String, _ description: String, _ actions: [String] = [], not: [String] = [],
        data: [String] = []
    ) -> RoleDefinition {
        RoleDefinition(
            id: id, roleName: name, description: description, isBuiltIn: true,
            permissions: RolePermissions(actions: actions, notActions: not, dataActions: data),
            assignableScopes: [.root])
    }

    /// What most resource-specific roles share.
    private static let common = [
        "Microsoft.Authorization/*/read", "Microsoft.Insights/alertRules/*", "Microsoft.Resources/deployments/*",
        "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Support/*",
    ]

    private static let general = [
        role(
            owner, "Owner",
            "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.", ["*"]),
        role(
            contributor, "Contributor",
            "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC, manage "
                + "assignments in Azure "
                + "Blueprints, or share image galleries.",
            ["*"],
            not: [
                "Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write",
                "Microsoft.Authorization/elevateAccess/Action",
                "Microsoft.Blueprint/blueprintAssignments/write", "Microsoft.Blueprint/blueprintAssignments/delete",
                "Microsoft.Compute/galleries/share/action", "Microsoft.Purview/consents/write",
                "Microsoft.Purview/consents/delete",
                "Microsoft.Resources/deploymentStacks/manageDenySetting/action", "Microsoft.Subscription/cancel/action",
                "Microsoft.Subscription/enable/action",
            ]),
        role(reader, "Reader", "View all resources, but does not allow you to make any changes.", ["*/read"]),
        role(
            "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "User Access Administrator",
            "Lets you manage user access to Azure resources.",
            ["*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"]),
        role(
            "f58310d9-a9f6-439a-9e8d-f62e7b41a168", "Role Based Access Control Administrator",
            "Manage access to Azure resources by assigning roles using Azure RBAC. This role does not allow you to "
                + "manage access using "
                + "other ways, such as Azure Policy.",
            [
                "Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete",
                "*/read",
                "Microsoft.Support/*",
            ]),
        role(
            "28bf596f-4eb7-45ce-b5bc-6cf482fec137", "Locks Contributor", "Can Manage Locks Operations.",
            [
                "Microsoft.Authorization/locks/read", "Microsoft.Authorization/locks/write",
                "Microsoft.Authorization/locks/delete",
            ]),
        role(
            "4a9ae827-6dc8-4573-8ac7-8239d42aa03f", "Tag Contributor",
            "Lets you manage tags on entities, without providing access to the entities themselves.",
            [
                "Microsoft.Authorization/*/read", "Microsoft.Resources/subscriptions/resourceGroups/read",
                "Microsoft.Resources/subscriptions/resourceGroups/resources/read",
                "Microsoft.Resources/subscriptions/resources/read",
                "Microsoft.Resources/deployments/*", "Microsoft.Insights/alertRules/*", "Microsoft.Support/*",
                "Microsoft.Resources/tags/*",
            ]),
        role(
            "f1a07417-d97a-45cb-824c-7a7467783830", "Managed Identity Operator",
            "Read and Assign User Assigned Identity",
            [
                "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
                "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
            ] + common),
    ]
}

// MARK: - Key Vault

extension BuiltInRoles {
    private static let vaultReads =
        common + [
            "Microsoft.KeyVault/checkNameAvailability/read", "Microsoft.KeyVault/deletedVaults/read",
            "Microsoft.KeyVault/locations/*/read",
            "Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/operations/read",
        ]
    private static let vaultRBAC =
        "Only works for key vaults that use the 'Azure role-based access control' permission model."

    private static let keyVault = [
        role(
            "00482a5a-887f-4fb3-b363-3b7fe8e74483", "Key Vault Administrator",
            "Perform all data plane operations on a key vault and all objects in it, including certificates, keys, and "
                + "secrets. Cannot "
                + "manage key vault resources or manage role assignments. \(vaultRBAC)",
            vaultReads, data: ["Microsoft.KeyVault/vaults/*"]),
        role(
            "db79e9a7-68ee-4b58-9aeb-b90e7c24fcba", "Key Vault Certificate User",
            "Read certificate contents. \(vaultRBAC)",
            data: [
                "Microsoft.KeyVault/vaults/certificates/read", "Microsoft.KeyVault/vaults/secrets/getSecret/action",
                "Microsoft.KeyVault/vaults/secrets/readMetadata/action", "Microsoft.KeyVault/vaults/keys/read",
            ]),
        role(
            "a4417e6f-fecd-4de8-b567-7b0420556985", "Key Vault Certificates Officer",
            "Perform any action on the certificates of a key vault, except manage permissions. \(vaultRBAC)",
            vaultReads,
            data: [
                "Microsoft.KeyVault/vaults/certificatecas/*", "Microsoft.KeyVault/vaults/certificates/*",
                "Microsoft.KeyVault/vaults/certificatecontacts/write",
            ]),
        role(
            "f25e0fa2-a7c8-4377-a976-54943a77a395", "Key Vault Contributor",
            "Lets you manage key vaults, but not access to them.",
            common + ["Microsoft.KeyVault/*"],
            not: [
                "Microsoft.KeyVault/locations/deletedVaults/purge/action", "Microsoft.KeyVault/hsmPools/*",
                "Microsoft.KeyVault/managedHsms/*",
            ]
        ),
        role(
            "14b46e9e-c2b7-41b4-b07b-48a6ebf60603", "Key Vault Crypto Officer",
            "Perform any action on the keys of a key vault, except manage permissions. \(vaultRBAC)", vaultReads,
            data: ["Microsoft.KeyVault/vaults/keys/*", "Microsoft.KeyVault/vaults/keyrotationpolicies/*"]),
        role(
            "e147488a-f6f5-4113-8e2d-b22465e65bf6", "Key Vault Crypto Service Encryption User",
            "Read metadata of keys and perform wrap/unwrap operations. \(vaultRBAC)",
            [
                "Microsoft.EventGrid/eventSubscriptions/write", "Microsoft.EventGrid/eventSubscriptions/read",
                "Microsoft.EventGrid/eventSubscriptions/delete",
            ],
            data: [
                "Microsoft.KeyVault/vaults/keys/read", "Microsoft.KeyVault/vaults/keys/wrap/action",
                "Microsoft.KeyVault/vaults/keys/unwrap/action",
            ]),
        role(
            "08bbd89e-9f13-488c-ac41-acfcb10c90ab", "Key Vault Crypto Service Release User",
            "Release keys. \(vaultRBAC)",
            data: ["Microsoft.KeyVault/vaults/keys/release/action"]),
        role(
            "12338af0-0e69-4776-bea7-57ae8d297424", "Key Vault Crypto User",
            "Perform cryptographic operations using keys. \(vaultRBAC)",
            data: [
                "read", "update/action", "backup/action", "encrypt/action", "decrypt/action", "wrap/action",
                "unwrap/action", "sign/action", "verify/action",
            ]
            .map { "Microsoft.KeyVault/vaults/keys/\($0)" }),
        role(
            "a68e7c17-0ab2-4c09-9a58-125dae29748c", "Key Vault Purge Operator",
            "Allows permanent deletion of soft-deleted vaults.",
            [
                "Microsoft.KeyVault/locations/deletedVaults/read",
                "Microsoft.KeyVault/locations/deletedVaults/purge/action",
                "Microsoft.KeyVault/operations/read", "Microsoft.KeyVault/deletedVaults/read",
            ]),
        role(
            "21090545-7ca7-4776-b22c-e363652d74d2", "Key Vault Reader",
            "Read metadata of key vaults and its certificates, keys, and secrets. Cannot read sensitive values such as "
                + "secret contents or "
                + "key material. \(vaultRBAC)",
            vaultReads,
            data: ["Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"]),
        role(
            "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "Key Vault Secrets Officer",
            "Perform any action on the secrets of a key vault, except manage permissions. \(vaultRBAC)", vaultReads,
            data: ["Microsoft.KeyVault/vaults/secrets/*"]),
        role(
            "4633458b-17de-408a-b874-0445c86b69e6", "Key Vault Secrets User", "Read secret contents. \(vaultRBAC)",
            data: [
                "Microsoft.KeyVault/vaults/secrets/getSecret/action",
                "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
            ]),
    ]
}

// MARK: - Storage

extension BuiltInRoles {
    private static let blobService = "Microsoft.Storage/storageAccounts/blobServices"
    private static let blobDelegation = "\(blobService)/generateUserDelegationKey/action"

    private static let blobs = [
        role(
            "17d1049b-9a84-46fb-8f53-869881c3d3ab", "Storage Account Contributor",
            "Lets you manage storage accounts, including accessing storage account keys which provide full access to "
                + "storage account data.",
            common + [
                "Microsoft.Insights/diagnosticSettings/*",
                "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action",
                "Microsoft.ResourceHealth/availabilityStatuses/read", "Microsoft.Storage/storageAccounts/*",
            ]),
        role(
            "81a9662b-bebf-436f-a333-f67b29880f12", "Storage Account Key Operator Service Role",
            "Storage Account Key Operators are allowed to list and regenerate keys on Storage Accounts",
            [
                "Microsoft.Storage/storageAccounts/listkeys/action",
                "Microsoft.Storage/storageAccounts/regeneratekey/action",
            ]),
        role(
            "ba92f5b4-2d11-453d-a403-e96b0029c9fe", "Storage Blob Data Contributor",
            "Allows for read, write and delete access to Azure Storage blob containers and data",
            ["delete", "read", "write"].map { "\(blobService)/containers/\($0)" } + [blobDelegation],
            data: ["delete", "read", "write", "move/action", "add/action"].map {
                "\(blobService)/containers/blobs/\($0)"
            }),
        role(
            "b7e6dc6d-f1e8-4753-8033-0f276bb0955b", "Storage Blob Data Owner",
            "Allows for full access to Azure Storage blob containers and data, including assigning POSIX access "
                + "control.",
            ["\(blobService)/containers/*", blobDelegation], data: ["\(blobService)/containers/blobs/*"]),
        role(
            "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", "Storage Blob Data Reader",
            "Allows for read access to Azure Storage blob containers and data",
            ["\(blobService)/containers/read", blobDelegation],
            data: ["\(blobService)/containers/blobs/read"]),
        role(
            "db58b8e5-c6ad-4a2a-8342-4190687cbf4a", "Storage Blob Delegator",
            "Allows for generation of a user delegation key which can be used to sign SAS tokens", [blobDelegation]),
    ]

    private static let queues = "Microsoft.Storage/storageAccounts/queueServices/queues"
    private static let tables = "Microsoft.Storage/storageAccounts/tableServices/tables"
    private static let files = "Microsoft.Storage/storageAccounts/fileServices"

    private static let otherStorage = [
        role(
            "974c5e8b-45b9-4653-ba55-5f855dd0fb88", "Storage Queue Data Contributor",
            "Allows for read, write, and delete access to Azure Storage queues and queue messages",
            ["delete", "read", "write"].map { "\(queues)/\($0)" },
            data: ["delete", "read", "write", "process/action"].map { "\(queues)/messages/\($0)" }),
        role(
            "8a0f0c08-91a1-4084-bc3d-661d67233fed", "Storage Queue Data Message Processor",
            "Allows for peek, receive, and delete access to Azure Storage queue messages",
            data: ["\(queues)/messages/read", "\(queues)/messages/process/action"]),
        role(
            "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a", "Storage Queue Data Message Sender",
            "Allows for sending of Azure Storage queue messages", data: ["\(queues)/messages/add/action"]),
        role(
            "19e7f393-937e-4f77-808e-94535e297925", "Storage Queue Data Reader",
            "Allows for read access to Azure Storage queues and queue messages", ["\(queues)/read"],
            data: ["\(queues)/messages/read"]),
        role(
            "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3", "Storage Table Data Contributor",
            "Allows for read, write and delete access to Azure Storage tables and entities",
            ["read", "write", "delete"].map { "\(tables)/\($0)" },
            data: ["read", "write", "delete", "add/action", "update/action"].map { "\(tables)/entities/\($0)" }),
        role(
            "76199698-9eea-4c19-bc75-cec21354c6b6", "Storage Table Data Reader",
            "Allows for read access to Azure Storage tables and entities", ["\(tables)/read"],
            data: ["\(tables)/entities/read"]),
        role(
            "69566ab7-960f-475b-8e7c-b3118f30c6bd", "Storage File Data Privileged Contributor",
            "Customer has read, write, delete and modify NTFS permission access on Azure Storage file shares.",
            data: ["read", "write", "delete", "modifypermissions/action"].map { "\(files)/fileshares/files/\($0)" } + [
                "\(files)/readFileBackupSemantics/action", "\(files)/writeFileBackupSemantics/action",
            ]),
        role(
            "b8eda974-7b85-4f76-af95-65846b26df6d", "Storage File Data Privileged Reader",
            "Customer has read access on Azure Storage file shares.",
            data: ["\(files)/fileshares/files/read", "\(files)/readFileBackupSemantics/action"]),
        role(
            "0c867c2a-1d8c-454a-a3db-ab2ea1bdc8bb", "Storage File Data SMB Share Contributor",
            "Allows for read, write, and delete access in Azure Storage file shares over SMB",
            data: ["read", "write", "delete"].map { "\(files)/fileshares/files/\($0)" }),
        role(
            "a7264617-510b-434b-a828-9731dc254ea7", "Storage File Data SMB Share Elevated Contributor",
            "Allows for read, write, delete and modify NTFS permission access in Azure Storage file shares over SMB",
            data: ["read", "write", "delete", "modifypermissions/action"].map { "\(files)/fileshares/files/\($0)" }),
        role(
            "aba4ae5f-2193-4029-9191-0cb91df5e314", "Storage File Data SMB Share Reader",
            "Allows for read access to Azure File Share over SMB", data: ["\(files)/fileshares/files/read"]),
    ]
}

// MARK: - Web and monitoring

extension BuiltInRoles {
    private static let webAndMonitoring = [
        role(
            "de139f84-1756-47ae-9be6-808fbbe84772", "Website Contributor",
            "Lets you manage websites (not web plans), but not access to them.",
            common + [
                "Microsoft.Insights/components/*", "Microsoft.ResourceHealth/availabilityStatuses/read",
                "Microsoft.Web/certificates/*",
                "Microsoft.Web/listSitesAssignedToHostName/read", "Microsoft.Web/serverFarms/join/action",
                "Microsoft.Web/serverFarms/read",
                "Microsoft.Web/sites/*",
            ]),
        role(
            "2cc479cb-7b4d-49a8-b449-8c00fd0f0a4b", "Web Plan Contributor",
            "Lets you manage the web plans for websites, but not access to them.",
            common + [
                "Microsoft.ResourceHealth/availabilityStatuses/read", "Microsoft.Web/serverFarms/*",
                "Microsoft.Web/hostingEnvironments/Join/Action", "Microsoft.Insights/autoscalesettings/*",
            ]),
        role(
            "749f88d5-cbae-40b8-bcfc-e573ddc772fa", "Monitoring Contributor",
            "Can read all monitoring data and update monitoring settings.",
            ["*/read"]
                + [
                    "actiongroups", "alertRules", "components", "diagnosticSettings", "eventtypes", "LogDefinitions",
                    "metricalerts",
                    "MetricDefinitions", "Metrics", "privateLinkScopes", "scheduledqueryrules", "webtests", "workbooks",
                ].map { "Microsoft.Insights/\($0)/*" } + [
                    "Microsoft.OperationalInsights/workspaces/write",
                    "Microsoft.OperationalInsights/workspaces/sharedKeys/action",
                    "Microsoft.OperationalInsights/workspaces/savedSearches/*",
                    "Microsoft.OperationalInsights/workspaces/search/action",
                    "Microsoft.OperationalInsights/workspaces/storageinsightconfigs/*", "Microsoft.Support/*",
                ]),
        role(
            "43d0d8ad-25c7-4714-9337-8ba259a9fe05", "Monitoring Reader", "Can read all monitoring data.",
            ["*/read", "Microsoft.OperationalInsights/workspaces/search/action", "Microsoft.Support/*"]),
        role(
            "3913510d-42f4-4e42-8a64-420c390055eb", "Monitoring Metrics Publisher",
            "Enables publishing metrics against Azure resources",
            [
                "Microsoft.Insights/Register/Action", "Microsoft.Support/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
            ],
            data: ["Microsoft.Insights/Metrics/Write", "Microsoft.Insights/Telemetry/Write"]),
        role(
            "92aaf0da-9dab-42b6-94a3-d43ce8d16293", "Log Analytics Contributor",
            "Log Analytics Contributor can read all monitoring data and edit monitoring settings. Editing monitoring "
                + "settings includes "
                + "adding the VM extension to VMs; reading storage account keys to be able to configure collection of "
                + "logs from Azure "
                + "Storage; adding solutions; and configuring Azure diagnostics on all Azure resources.",
            [
                "*/read", "Microsoft.ClassicCompute/virtualMachines/extensions/*",
                "Microsoft.ClassicStorage/storageAccounts/listKeys/action",
                "Microsoft.Compute/virtualMachines/extensions/*", "Microsoft.HybridCompute/machines/extensions/write",
                "Microsoft.Insights/alertRules/*", "Microsoft.Insights/diagnosticSettings/*",
                "Microsoft.OperationalInsights/*",
                "Microsoft.OperationsManagement/*", "Microsoft.Resources/deployments/*",
                "Microsoft.Resources/subscriptions/resourcegroups/deployments/*",
                "Microsoft.Storage/storageAccounts/listKeys/action",
                "Microsoft.Support/*",
            ]),
        role(
            "73c42c96-874c-492b-b04d-ab87d138a893", "Log Analytics Reader",
            "Log Analytics Reader can view and search all monitoring data as well as and view monitoring settings, "
                + "including viewing the "
                + "configuration of Azure diagnostics on all Azure resources.",
            [
                "*/read", "Microsoft.OperationalInsights/workspaces/analytics/query/action",
                "Microsoft.OperationalInsights/workspaces/search/action", "Microsoft.Support/*",
            ],
            not: ["Microsoft.OperationalInsights/workspaces/sharedKeys/read"]),
        role(
            "3b03c2da-16b3-4a49-8834-0f8130efdd3b", "Log Analytics Data Reader",
            "Log Analytics Data Reader can query and search the logs it is allowed to view over Log Analytics "
                + "workspaces and tables",
            ["Microsoft.OperationalInsights/workspaces/query/read", "Microsoft.OperationalInsights/workspaces/read"],
            data: ["Microsoft.OperationalInsights/workspaces/tables/data/read"]),
    ]
}
