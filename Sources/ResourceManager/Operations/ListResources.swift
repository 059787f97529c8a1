internal import CofferCore
internal import ResourceProviders

extension ResourceManager {
    /// Every tracked resource below a scope that the caller may read, in the order of identifiers.
    func listResources(below scope: ResourceID, _ request: ControlRequest, _ caller: Caller) async throws
        -> ControlResponse
    {
        let filter = try parsedFilter(request)
        var found: [TrackedResource] = []
        for provider in providers.values {
            found += try await provider.trackedResources(below: scope).filter {
                isAllowed(caller, "\($0.type)/read", at: $0.id)
            }
        }
        if let filter {
            found = try found.filter {
                try isMatch(
                    filter, tags: $0.tags,
                    [
                        "resourcetype": [$0.type], "name": [$0.id.name], "location": [$0.location],
                        "resourcegroup": [$0.id.resourceGroup ?? ""],
                        "kind": $0.kind.map { [$0] } ?? [], "resourceid": [$0.id.description],
                    ])
            }
        }
        found.sort { $0.id.canonical < $1.id.canonical }
        if let top = request.query["$top"].flatMap(Int.init), top >= 0 { found = Array(found.prefix(top)) }
        let values = found.map { resource -> JSONValue in
            var value: JSONValue = [
                "id": .string(resource.id.description), "name": .string(resource.id.name),
                "type": .string(resource.type),
                "location": .string(resource.location), "tags": .object(resource.tags.mapValues { .string($0) }),
            ]
            if let kind = resource.kind { value["kind"] = .string(kind) }
            return value
        }
        return .json(200, ["value": .array(values)])
    }

    /// A filter, and the text it came from for what is said about it.
    struct GivenFilter {
        let text: String
        let filter: Filter
    }
    func parsedFilter(_ request: ControlRequest) throws(ControlError) -> GivenFilter? {
        guard let text = request.query["$filter"], !text.isEmpty else { return nil }
        guard let filter = Filter(parsing: text) else { throw Self.invalidFilter(text) }
        return GivenFilter(text: text, filter: filter)
    }
    static func invalidFilter(_ text: String) -> ControlError {
        .badRequest(
            "Invalid $filter '\(text.prefix(200))' specified in the query string.", code: "InvalidFilterInQueryString")
    }

    /// `tagName` and `tagValue` must hold for one and the same tag. A filter on anything unknown is refused.
    func isMatch(
        _ given: GivenFilter, tags: [String: String], _ values: [String: [String]]
    ) throws(ControlError) -> Bool {
        let candidates: [(name: String, value: String)?] = tags.isEmpty ? [nil] : tags.map { ($0.key, $0.value) }
        for tag in candidates {
            let verdict = given.filter.evaluate { path in
                switch path.lowercased() {
                case "tagname": tag.map { [$0.name] } ?? []
                case "tagvalue": tag.map { [$0.value] } ?? []
                default: values[path.lowercased()]
                }
            }
            guard let verdict else { throw Self.invalidFilter(given.text) }
            if verdict { return true }
        }
        return false
    }
}
