internal import CofferCore

/// Azure's public regions, as clients list and compare them. Coffer runs in all of them at once: a location is a label.
///
/// Source: "List of Azure regions" (learn.microsoft.com/azure/reliability/regions-list).
struct Location: Sendable {
    let name: String
    let displayName: String
    let geography: String
    let geographyGroup: String
    let physicalLocation: String
    let pairedRegion: String?

    static let all: [Location] = table.split(separator: "\n").map { line in
        let f = line.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
        return Location(
            name: f[0], displayName: f[1], geography: f[2], geographyGroup: f[3], physicalLocation: f[4],
            pairedRegion: f[5].isEmpty ? nil : f[5])
    }
    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
    static let displayNames = all.map { JSONValue.string($0.displayName) }

    /// Finds a location by name or display name: `eastus`, `East US`.
    static func named(_ text: String) -> Location? { byName[text.lowercased().filter { $0 != " " }] }

    func json(subscription: String) -> JSONValue {
        [
            "id": "/subscriptions/\(subscription)/locations/\(name)", "name": .string(name), "type": "Region",
            "displayName": .string(displayName), "regionalDisplayName": "(\(geographyGroup)) \(displayName)",
            "metadata": [
                "regionType": "Physical", "regionCategory": "Recommended", "geography": .string(geography),
                "geographyGroup": .string(geographyGroup), "physicalLocation": .string(physicalLocation),
                "pairedRegion": pairedRegion.map {
                    [["name": .string($0), "id": "/subscriptions/\(subscription)/locations/\($0)"]]
                } ?? [],
            ],
        ]
    }

    private static let table = """
        eastus|East US|United States|US|Virginia|westus
        eastus2|East US 2|United States|US|Virginia|centralus
        southcentralus|South Central US|United States|US|Texas|northcentralus
        westus2|West US 2|United States|US|Washington|westcentralus
        westus3|West US 3|United States|US|Arizona|eastus
        australiaeast|Australia East|Australia|Asia Pacific|New South Wales|australiasoutheast
        southeastasia|Southeast Asia|Asia Pacific|Asia Pacific|Singapore|eastasia
        northeurope|North Europe|Europe|Europe|Ireland|westeurope
        swedencentral|Sweden Central|Sweden|Europe|Gävle|swedensouth
        uksouth|UK South|United Kingdom|Europe|London|ukwest
        westeurope|West Europe|Europe|Europe|Netherlands|northeurope
        centralus|Central US|United States|US|Iowa|eastus2
        southafricanorth|South Africa North|South Africa|Africa|Johannesburg|southafricawest
        centralindia|Central India|India|Asia Pacific|Pune|southindia
        eastasia|East Asia|Asia Pacific|Asia Pacific|Hong Kong|southeastasia
        indonesiacentral|Indonesia Central|Indonesia|Asia Pacific|Jakarta|
        japaneast|Japan East|Japan|Asia Pacific|Tokyo, Saitama|japanwest
        japanwest|Japan West|Japan|Asia Pacific|Osaka|japaneast
        koreacentral|Korea Central|Korea|Asia Pacific|Seoul|koreasouth
        malaysiawest|Malaysia West|Malaysia|Asia Pacific|Kuala Lumpur|
        newzealandnorth|New Zealand North|New Zealand|Asia Pacific|Auckland|
        canadacentral|Canada Central|Canada|Canada|Toronto|canadaeast
        austriaeast|Austria East|Austria|Europe|Vienna|
        francecentral|France Central|France|Europe|Paris|francesouth
        germanywestcentral|Germany West Central|Germany|Europe|Frankfurt|germanynorth
        italynorth|Italy North|Italy|Europe|Milan|
        norwayeast|Norway East|Norway|Europe|Norway|norwaywest
        polandcentral|Poland Central|Poland|Europe|Warsaw|
        spaincentral|Spain Central|Spain|Europe|Madrid|
        switzerlandnorth|Switzerland North|Switzerland|Europe|Zurich|switzerlandwest
        mexicocentral|Mexico Central|Mexico|Mexico|Querétaro State|
        uaenorth|UAE North|UAE|Middle East|Dubai|uaecentral
        brazilsouth|Brazil South|Brazil|South America|Sao Paulo State|southcentralus
        chilecentral|Chile Central|Chile|South America|Santiago|
        israelcentral|Israel Central|Israel|Middle East|Israel|
        qatarcentral|Qatar Central|Qatar|Middle East|Doha|
        northcentralus|North Central US|United States|US|Illinois|southcentralus
        westus|West US|United States|US|California|eastus
        westcentralus|West Central US|United States|US|Wyoming|westus2
        southafricawest|South Africa West|South Africa|Africa|Cape Town|southafricanorth
        australiacentral|Australia Central|Australia|Asia Pacific|Canberra|
        australiacentral2|Australia Central 2|Australia|Asia Pacific|Canberra|
        australiasoutheast|Australia Southeast|Australia|Asia Pacific|Victoria|australiaeast
        koreasouth|Korea South|Korea|Asia Pacific|Busan|koreacentral
        southindia|South India|India|Asia Pacific|Chennai|centralindia
        westindia|West India|India|Asia Pacific|Mumbai|southindia
        canadaeast|Canada East|Canada|Canada|Quebec|canadacentral
        francesouth|France South|France|Europe|Marseille|francecentral
        germanynorth|Germany North|Germany|Europe|Berlin|germanywestcentral
        norwaywest|Norway West|Norway|Europe|Norway|norwayeast
        switzerlandwest|Switzerland West|Switzerland|Europe|Geneva|switzerlandnorth
        ukwest|UK West|United Kingdom|Europe|Cardiff|uksouth
        uaecentral|UAE Central|UAE|Middle East|Abu Dhabi|uaenorth
        brazilsoutheast|Brazil Southeast|Brazil|South America|Rio|brazilsouth
        """
}
