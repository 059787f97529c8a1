internal import AccessControl
public import CofferCore
internal import Crypto
internal import Foundation
public import HTTPEdge
internal import NIOHTTP1
public import ResourceProviders
internal import Synchronization

/// The App Service identity endpoint: `GET /msi/token?api-version=2019-08-01&resource=…` with `X-IDENTITY-HEADER`, on
/// the loopback.
///
/// A header value is the only credential and stands for one identity; workers get theirs at start. Source: "How to use
/// managed identities for App Service and Azure Functions", REST endpoint reference.
public final class IdentityEndpoint: WireService, IdentityEndpointRegistry {
    private let identities: any ManagedIdentities
    private let randomness: any Randomness
    /// Header values are kept as their MAC under a key of this process, so that finding one does not leak how much of a
    /// guess was right.
    private let key: SymmetricKey
    private let registered = Mutex<[[UInt8]: ManagedIdentity]>([:])

    public init(identities: any ManagedIdentities, randomness: any Randomness) {
        self.identities = identities
        self.randomness = randomness
        self.key = SymmetricKey(data: randomness.bytes(32))
    }

    public func register(_ identity: ManagedIdentity) -> RedactedString {
        let header = randomness.bytes(32).hex.uppercased()
        registered.withLock { $0[tag(header)] = identity }
        return RedactedString(header)
    }
    public func revoke(_ header: RedactedString) {
        registered.withLock { $0[tag(header.reveal())] = nil }
    }
    private func tag(_ header: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Data(header.utf8), using: key))
    }

    public func respond(to request: Request) async -> Response {
        guard request.pathSegments?.map({ $0.lowercased() }) == ["msi", "token"] else {
            return refusal(.notFound, "NotFound", "No such endpoint.")
        }
        guard request.method == .GET else {
            return refusal(.methodNotAllowed, "MethodNotAllowed", "Only GET is allowed.")
        }
        guard let header = request.header("X-IDENTITY-HEADER"), let identity = registered.withLock({ $0[tag(header)] })
        else {
            return refusal(
                .unauthorized, "Unauthorized",
                "The X-IDENTITY-HEADER header is missing or does not match IDENTITY_HEADER.")
        }
        let query = Dictionary(request.query.map { ($0.name.lowercased(), $0.value) }) { first, _ in first }
        guard query["api-version"]?.isEmpty == false else {
            return refusal(.badRequest, "BadRequest", "Parameter api-version is required.")
        }
        guard let resource = query["resource"], !resource.isEmpty else {
            return refusal(.badRequest, "BadRequest", "Parameter resource is required.")
        }
        let named = query["client_id"] ?? query["object_id"] ?? query["principal_id"]
        guard named.map({ [identity.clientID, identity.principalID].contains($0.lowercased()) }) ?? true,
            query["mi_res_id"] == nil
        else {
            return refusal(
                .badRequest, "BadRequest",
                "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
        }
        do {
            let issued = try await identities.issueToken(for: identity, audience: resource)
            let body: JSONValue = [
                "access_token": .string(issued.token.reveal()), "expires_on": "\(issued.expires.unixSeconds)",
                "resource": .string(resource),
                "token_type": "Bearer", "client_id": .string(identity.clientID),
            ]
            return .json(.ok, body.serialized(), headers: ["Cache-Control": "no-store"])
        } catch IdentityRefusal.unknownResource {
            return refusal(
                .badRequest, "BadRequest", "AADSTS500011: The resource principal was not found in the tenant.")
        } catch IdentityRefusal.identityNotFound {
            return refusal(.badRequest, "BadRequest", "The managed identity was removed.")
        } catch {
            return refusal(.serviceUnavailable, "ServiceUnavailable", "No token can be issued now; try again.")
        }
    }

    private func refusal(_ status: HTTPResponseStatus, _ code: String, _ message: String) -> Response {
        let body: JSONValue = [
            "statusCode": .integer(Int64(status.code)), "code": .string(code), "message": .string(message),
        ]
        return .json(status, body.serialized(), headers: ["Cache-Control": "no-store"])
    }
}
