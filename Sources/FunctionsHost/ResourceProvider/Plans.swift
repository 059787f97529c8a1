import CofferCore
import ResourceProviders

/// App Service plans. Coffer runs every plan on the one machine; a plan says what kind of hosting clients should
/// expect.
extension WebOperation {
    /// What can be asked for; the tier decides how az deploys.
    private static let tiers: [String: String] = [
        "Y1": "Dynamic", "FC1": "FlexConsumption", "F1": "Free", "D1": "Shared", "B1": "Basic", "B2": "Basic",
        "B3": "Basic",
        "S1": "Standard", "S2": "Standard", "S3": "Standard", "P1V2": "PremiumV2", "P2V2": "PremiumV2",
        "P3V2": "PremiumV2",
        "P0V3": "PremiumV3", "P1V3": "PremiumV3", "P2V3": "PremiumV3", "P3V3": "PremiumV3", "EP1": "ElasticPremium",
        "EP2": "ElasticPremium", "EP3": "ElasticPremium",
    ]

    func listPlans() async throws(ControlError) -> ControlResponse {
        guard let scope = request.path.extendedScope else { throw .badRequest("The path names no scope.") }
        let plans = sites.plans().filter { scope.contains($0.id) && isAllowed("serverfarms/read", at: $0.id) }
        return .json(200, ["value": .array(plans.map(wire))])
    }

    func getPlan() async throws(ControlError) -> ControlResponse {
        try require("serverfarms/read", at: request.path)
        guard let plan = sites.plan(request.path) else { throw noResource(request.path) }
        return .json(200, wire(plan))
    }

    func putPlan() async throws(ControlError) -> ControlResponse {
        try require("serverfarms/write", at: request.path)
        try requireReadable(request.path)
        do {
            return .json(200, wire(try await sites.putPlan(request.path) { try changed($0) }))
        } catch { throw Self.control(error, request.path) }
    }

    /// What the request makes of a plan, or of none.
    private func changed(_ existing: Plan?) throws(ControlError) -> Plan {
        if request.method == .patch, existing == nil { throw .resourceNotFound(request.path) }
        let body = request.body ?? [:]
        guard let location = body.member("location")?.stringValue ?? existing?.location else {
            throw .badRequest("The location property is required for this definition.", code: "LocationRequired")
        }
        return Plan(
            id: existing?.id ?? request.path, kind: body.member("kind")?.stringValue ?? existing?.kind ?? "app",
            location: location,
            tags: body.member("tags")?.objectValue?.compactMapValues(\.stringValue) ?? existing?.tags ?? [:],
            sku: try sku(existing),
            reserved: body.member("properties")?.member("reserved")?.boolValue ?? existing?.reserved ?? false,
            created: existing?.created ?? provider.clock.now())
    }

    private func sku(_ existing: Plan?) throws(ControlError) -> [String: JSONValue] {
        guard let asked = request.body?.member("sku")?.objectValue else {
            return existing?.sku ?? ["name": "B1", "tier": "Basic"]
        }
        guard let name = asked["name"]?.stringValue?.uppercased() ?? existing?.skuName, let tier = Self.tiers[name]
        else {
            throw .badRequest(
                "The sku '\(asked["name"]?.stringValue ?? "")' is not known: \(Self.tiers.keys.sorted().joined(separator: ", "))."
            )
        }
        return [
            "name": .string(name), "tier": .string(tier), "size": .string(name),
            "family": .string(String(name.prefix { $0.isLetter })), "capacity": asked["capacity"] ?? 0,
        ]
    }

    func deletePlan() async throws(ControlError) -> ControlResponse {
        try require("serverfarms/delete", at: request.path)
        try requireReadable(request.path)
        // It may lie in the plan.
        if let site = sites.damagedSite { try requireReadable(ResourceID("sites/\(site)")) }
        if let user = sites.sites().first(where: { $0.serverFarmID == request.path }) {
            throw ControlError(
                status: 409, code: "Conflict",
                message:
                    "Server farm '\(request.path.name)' cannot be deleted because it has web app(s) \(user.name) assigned to it."
            )
        }
        do {
            return .empty(try await sites.deletePlan(request.path) ? 200 : 204)
        } catch {
            throw Self.control(error, request.path)
        }
    }

    func listSitesOfPlan() async throws(ControlError) -> ControlResponse {
        let id = ResourceID(segments: Array(request.path.segments.prefix(8)))
        try require("serverfarms/read", at: id)
        let inside = sites.sites().filter { $0.serverFarmID == id && isAllowed("sites/read", at: $0.id) }
        return .json(200, ["value": .array(inside.map(wire))])
    }

    /// The consumption plan of a region and system, made when a site names none: az fetches it like any other.
    func implicitPlan(location: String, isLinux: Bool, group: ResourceID) async throws(ControlError) -> Plan {
        let region = Self.displayName(ofRegion: location).filter { $0 != " " }
        let id = group.appending(
            "providers", "Microsoft.Web", "serverfarms", region + (isLinux ? "LinuxDynamicPlan" : "Plan"))
        let made = Plan(
            id: id, kind: isLinux ? "functionapp,linux" : "functionapp", location: location,
            sku: ["name": "Y1", "tier": "Dynamic", "size": "Y1", "family": "Y", "capacity": 0], reserved: isLinux,
            created: provider.clock.now())
        do { return try await sites.putPlan(id) { $0 ?? made } } catch { throw Self.control(error, id) }
    }

    private func wire(_ plan: Plan) -> JSONValue {
        [
            "id": .string(plan.id.description), "name": .string(plan.name), "type": "Microsoft.Web/serverfarms",
            "kind": .string(plan.kind), "location": .string(Self.displayName(ofRegion: plan.location)),
            "tags": .object(plan.tags.mapValues { .string($0) }), "sku": .object(plan.sku),
            "properties": [
                "name": .string(plan.name), "status": "Ready", "provisioningState": "Succeeded",
                "reserved": .bool(plan.reserved),
                "numberOfSites": .integer(Int64(sites.sites().count { $0.serverFarmID == plan.id })),
                "geoRegion": .string(Self.displayName(ofRegion: plan.location)),
                "resourceGroup": .string(plan.id.resourceGroup ?? ""),
                "subscription": .string(plan.id.subscription ?? ""),
                "kind": .string(plan.kind), "isSpot": false, "isXenon": false, "hyperV": false, "perSiteScaling": false,
            ],
        ]
    }
}
