import CofferCore
import FunctionsHost
import HTTPEdge
import NIOHTTP1

/// A site's scm host name. The deployment endpoints behind it do not exist yet: after the platform's own refusals it
/// answers 501, so that no deployment seems to have happened.
struct ScmService: WireService {
    let runtime: FunctionRuntime

    func respond(to request: Request) async -> Response {
        guard case .scm(let site) = request.endpoint else { return Response(status: .notFound) }
        if let refusal = runtime.scmRefusal(of: request, site: site) { return refusal }
        let message =
            "The scm endpoint is not supported by this server. Deploy with WEBSITE_RUN_FROM_PACKAGE set to the URL of a "
            + "zip, as 'az functionapp deployment source config-zip' does for a Linux consumption plan."
        return .json(.notImplemented, JSONValue.object(["Message": .string(message)]).serialized())
    }
}
