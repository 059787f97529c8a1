import CofferCore
import Foundation
import HTTPEdge
import NIOHTTP1

/// What the plain port answers to a loopback address instead of a name: the workers' identity endpoint, and whether the
/// server is up.
struct LocalService: WireService {
    let identityEndpoint: any WireService

    func respond(to request: Request) async -> Response {
        switch request.rawPath {
        case "/healthz":
            .json(.ok, JSONValue.object(["status": "ok", "version": .string(Version.current)]).serialized())
        default: await identityEndpoint.respond(to: request)
        }
    }
}
