import CofferCore
import ResourceProviders

/// What a client may choose from: regions, stacks, names. These are the same for every caller, and hold nothing of
/// anyone's.
extension WebOperation {
    /// Regions in the two spellings az compares; Coffer is the same machine in each.
    private static let regions: [(name: String, display: String)] = [
        ("eastus", "East US"), ("eastus2", "East US 2"), ("westus", "West US"), ("westus2", "West US 2"),
        ("westus3", "West US 3"),
        ("centralus", "Central US"), ("northeurope", "North Europe"), ("westeurope", "West Europe"),
        ("uksouth", "UK South"),
        ("francecentral", "France Central"), ("germanywestcentral", "Germany West Central"),
        ("swedencentral", "Sweden Central"),
        ("switzerlandnorth", "Switzerland North"), ("southeastasia", "Southeast Asia"), ("eastasia", "East Asia"),
        ("japaneast", "Japan East"), ("australiaeast", "Australia East"), ("brazilsouth", "Brazil South"),
        ("canadacentral", "Canada Central"), ("southafricanorth", "South Africa North"),
    ]

    /// `East US` for `eastus`; other text as it is.
    static func displayName(ofRegion location: String) -> String {
        let folded = location.lowercased().filter { $0 != " " }
        return regions.first { $0.name == folded }?.display ?? location
    }

    func listGeoRegions() async throws(ControlError) -> ControlResponse {
        .json(
            200,
            [
                "value": .array(
                    Self.regions.map { region in
                        [
                            "id": .string("\(request.path)/\(region.display)"), "name": .string(region.display),
                            "type": "Microsoft.Web/geoRegions",
                            "properties": [
                                "name": .string(region.display), "description": .null,
                                "displayName": .string(region.display),
                                "orgDomain": "PUBLIC;FUNCTIONS;DYNAMIC;LINUX;LINUXDYNAMIC",
                            ],
                        ]
                    })
            ])
    }

    /// Only what runs here is offered: custom handlers, on Linux.
    func listFunctionAppStacks() async throws(ControlError) -> ControlResponse {
        let linux: JSONValue = [
            "runtimeVersion": "1.0", "isPreview": false, "isDeprecated": false, "isHidden": false, "isDefault": true,
            "remoteDebuggingSupported": false, "appInsightsSettings": ["isSupported": false],
            "gitHubActionSettings": ["isSupported": false],
            "appSettingsDictionary": ["FUNCTIONS_WORKER_RUNTIME": "custom"],
            "siteConfigPropertiesDictionary": ["use32BitWorkerProcess": false, "linuxFxVersion": ""],
            "supportedFunctionsExtensionVersions": ["~4"],
        ]
        let version: JSONValue = [
            "displayText": "Custom handler", "value": "1.0", "stackSettings": ["linuxRuntimeSettings": linux],
        ]
        let stack: JSONValue = [
            "id": .null, "name": "custom", "type": "Microsoft.Web/functionAppStacks",
            "properties": [
                "displayText": "Custom handler", "value": "custom", "preferredOs": "linux",
                "majorVersions": [["displayText": "Custom handler", "value": "custom", "minorVersions": [version]]],
            ],
        ]
        return .json(200, ["value": [stack], "nextLink": .null])
    }

    /// Web apps other than function apps do not run here, so there is no stack to offer.
    func listWebAppStacks() async throws(ControlError) -> ControlResponse { .json(200, ["value": []]) }

    func checkNameAvailability() async throws(ControlError) -> ControlResponse {
        let name = request.body?.member("name")?.stringValue ?? ""
        if let reason = Site.refusal(ofName: name) {
            return .json(200, ["nameAvailable": false, "reason": "Invalid", "message": .string(reason)])
        }
        guard sites.site(named: name) == nil, !sites.isDamaged(site: name) else {
            return .json(
                200,
                [
                    "nameAvailable": false, "reason": "AlreadyExists",
                    "message": .string("Website with given name \(name) already exists."),
                ])
        }
        return .json(200, ["nameAvailable": true, "reason": "", "message": ""])
    }
}

extension Site {
    /// Why a site cannot have this name, which is also a host label (Azure naming rules: 2 to 60 letters, digits and
    /// hyphens, no hyphen at either end); nil when it can.
    static func refusal(ofName name: String) -> String? {
        let isLabel = name.utf8.allSatisfy {
            ($0 | 0x20 >= 97 && $0 | 0x20 <= 122) || (48...57).contains($0) || $0 == 0x2d
        }
        guard (2...60).contains(name.utf8.count), isLabel, !name.hasPrefix("-"), !name.hasSuffix("-") else {
            return
                "The name '\(name.prefix(80))' is not valid: a site has 2 to 60 letters, digits and hyphens, and no hyphen at either end."
        }
        return nil
    }
}
