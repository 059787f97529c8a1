internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1

/// A refusal of the token service, with Entra's AADSTS number ("Microsoft Entra authentication and authorization error
/// codes").
struct LoginError: Error, CustomStringConvertible {
    let status: HTTPResponseStatus
    /// RFC 6749 §5.2.
    let error: String
    let number: Int
    let message: String
    var description: String { "AADSTS\(number): \(message)" }

    private init(_ status: HTTPResponseStatus, _ error: String, _ number: Int, _ message: String) {
        self.status = status
        self.error = error
        self.number = number
        self.message = message
    }

    static let malformed = LoginError(
        .badRequest, "invalid_request", 900_2313, "Invalid request. Request is malformed or invalid.")
    static func missingParameter(_ name: String) -> LoginError {
        LoginError(
            .badRequest, "invalid_request", 900_144, "The request body must contain the following parameter: '\(name)'."
        )
    }
    static func unsupportedGrant(_ grant: String) -> LoginError {
        LoginError(
            .badRequest, "unsupported_grant_type", 70_003,
            "The app requested an unsupported grant type '\(printable(grant))'.")
    }
    static func tenantNotFound(_ tenant: String) -> LoginError {
        LoginError(
            .badRequest, "invalid_request", 90_002,
            "Tenant '\(printable(tenant))' not found. Check to make sure you have the correct tenant ID and are "
                + "signing into the correct "
                + "cloud. Check with your subscription administrator, this may happen if there are no active "
                + "subscriptions for the tenant."
        )
    }
    static func applicationNotFound(_ id: String, tenant: String) -> LoginError {
        LoginError(
            .badRequest, "unauthorized_client", 700_016,
            "Application with identifier '\(printable(id))' was not found in the directory '\(tenant)'. This can "
                + "happen if the application "
                + "has not been installed by the administrator of the tenant or consented to by any user in the "
                + "tenant. You may have sent "
                + "your authentication request to the wrong tenant.")
    }
    static func wrongSecret(_ appID: String) -> LoginError {
        LoginError(
            .unauthorized, "invalid_client", 7_000_215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
                + "not the client secret "
                + "ID, for a secret added to app '\(appID)'.")
    }
    static func expiredSecret(_ appID: String) -> LoginError {
        LoginError(
            .unauthorized, "invalid_client", 7_000_222,
            "The provided client secret keys for app '\(appID)' are expired. Add a new secret to the application and "
                + "use that."
        )
    }
    static let missingSecret = LoginError(
        .unauthorized, "invalid_client", 7_000_216,
        "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.")
    static let assertionNotSupported = LoginError(
        .unauthorized, "invalid_client", 700_027,
        "Client assertions (certificates and federated credentials) are not supported by this server; use a client "
            + "secret."
    )
    static func disabled(_ appID: String) -> LoginError {
        LoginError(.badRequest, "unauthorized_client", 7_000_112, "Application '\(appID)' is disabled.")
    }
    static func invalidScope(_ scope: String) -> LoginError {
        LoginError(
            .badRequest, "invalid_scope", 1_002_012,
            "The provided value for scope \(printable(scope)) is not valid. Client credential flows must have a scope "
                + "value with /.default "
                + "suffixed to the resource identifier (application ID URI).")
    }
    static func resourceNotFound(_ resource: String, tenant: String) -> LoginError {
        LoginError(
            .badRequest, "invalid_resource", 500_011,
            "The resource principal named \(printable(resource)) was not found in the tenant named \(tenant). This can "
                + "happen if the "
                + "application has not been installed by the administrator of the tenant or consented to by any user "
                + "in the tenant. You "
                + "might have sent your authentication request to the wrong tenant.")
    }
    static let unavailable = LoginError(
        .serviceUnavailable, "temporarily_unavailable", 90_033, "A transient error has occurred. Please try again.")
    /// What Entra answers client credentials that come too often ("Understanding client and server throttling in
    /// MSAL.NET").
    static let throttled = LoginError(
        .tooManyRequests, "temporarily_unavailable", 90_055,
        "There are too many incoming requests. Please try again later.")
    static let notFound = LoginError(
        .notFound, "invalid_request", 900_1023,
        "The endpoint does not exist. This server signs in service principals only ('az login --service-principal').")

    /// A client's own text, cut short and without control characters, for an error message.
    private static func printable(_ text: String) -> String {
        String(
            String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7f }).prefix(200))
    }

    func response(requestID: String, correlationID: String?, at time: Timestamp) -> Response {
        let correlation = correlationID ?? requestID
        let stamp = time.iso8601.replacing("T", with: " ")
        let body: JSONValue = [
            "error": .string(error),
            "error_description":
                .string(
                    "\(self) Trace ID: \(requestID) Correlation ID: \(correlation) Timestamp: "
                        + "\(stamp)"
                ),
            "error_codes": [.integer(Int64(number))], "timestamp": .string(stamp), "trace_id": .string(requestID),
            "correlation_id": .string(correlation),
        ]
        var headers: HTTPHeaders = ["Cache-Control": "no-store", "Pragma": "no-cache", "x-ms-request-id": requestID]
        if status == .unauthorized { headers.add(name: "WWW-Authenticate", value: "Bearer") }
        if status == .serviceUnavailable || status == .tooManyRequests { headers.add(name: "Retry-After", value: "1") }
        return .json(status, body.serialized(), headers: headers)
    }
}
