internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// `/admin/host/SCOPE` and `/admin/functions/NAME/keys`.
extension AdminAPI {
    func key(
        _ request: Request, _ name: String, all: () async throws(FunctionsError) -> [AccessKey],
        set: (String, RedactedString?) async throws(FunctionsError) -> KeyChange,
        delete: (String) async throws(FunctionsError) -> Void
    ) async throws(FunctionsError) -> Response {
        switch request.method {
        case .GET:
            guard let key = try await all().first(where: { $0.name == name }) else {
                return Response(status: .notFound)
            }
            return Self.json(.ok, Self.key(key, request))
        case .POST:
            return Self.changed(try await set(name, nil), request)
        case .PUT:
            guard let body = try? await request.body.collect(upTo: Self.bodyLimitBytes),
                let value = (try? JSONValue(parsing: body.readableBytesView))?.member("value")?.stringValue,
                !value.isEmpty
            else { return Pages.text(.badRequest, "Invalid key value") }
            return Self.changed(try await set(name, RedactedString(value)), request)
        case .DELETE:
            try await delete(name)
            return Response(status: .noContent)
        default: return Response(status: .methodNotAllowed)
        }
    }

    static func address(_ request: Request) -> String {
        "\(request.transport.scheme.rawValue)://\(request.names.authority(of: request.endpoint))\(request.rawPath)"
    }
    static func key(_ key: AccessKey, _ request: Request) -> JSONValue {
        [
            "name": .string(key.name), "value": .string(key.value.reveal()),
            "links": [["rel": "self", "href": .string(address(request))]],
        ]
    }
    static func list(_ keys: [AccessKey], _ request: Request) -> Response {
        json(
            .ok,
            [
                "keys": .array(keys.map { ["name": .string($0.name), "value": .string($0.value.reveal())] }),
                "links": [["rel": "self", "href": .string(address(request))]],
            ])
    }
    static func changed(_ change: KeyChange, _ request: Request) -> Response {
        var response = json(change.isNew ? .created : .ok, key(change.key, request))
        response.headers.add(name: "Location", value: address(request))
        return response
    }
}
