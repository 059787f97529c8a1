internal import AccessControl
internal import CofferCore
internal import Foundation
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import ResourceProviders

/// Between HTTP and `ControlRequest`/`ControlResponse`: Resource Manager's request rules, headers and error shape.
enum ARMWire {
    /// Largest request, in bytes ("Azure subscription and service limits", Resource Manager).
    static let bodyBytesLimit = 4 << 20

    static func apiVersion(_ query: [String: String]) throws(ControlError) -> String {
        guard let version = query["api-version"], !version.isEmpty else {
            throw .badRequest(
                "The api-version query parameter (?api-version=) is required for all requests.",
                code: "MissingApiVersionParameter")
        }
        guard isWellFormed(version) else {
            throw .badRequest(
                "The api-version '\(version.prefix(64))' is invalid. Versions are dates with an optional label, such "
                    + "as '2022-04-01' or "
                    + "'2022-05-01-preview'.", code: "InvalidApiVersionParameter")
        }
        return version.lowercased()
    }

    /// `YYYY-MM-DD` with an optional `-label`.
    static func isWellFormed(_ version: String) -> Bool {
        let bytes = Array(version.utf8)
        guard (10...64).contains(bytes.count), Timestamp(iso8601: version.prefix(10)) != nil else { return false }
        guard bytes.count > 10 else { return true }
        return bytes[10] == 0x2d && bytes.count > 11
            && bytes[11...].allSatisfy {
                (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 0x2e || $0 == 0x2d
            }
    }

    /// nil for an absent body.
    static func body(_ request: Request) async throws(ControlError) -> JSONValue? {
        guard ![.GET, .HEAD].contains(request.method) else { return nil }
        let buffer: ByteBuffer
        do {
            buffer = try await request.body.collect(upTo: bodyBytesLimit)
        } catch EdgeError.bodyTooLarge {
            throw ControlError(
                status: 413, code: "RequestEntityTooLarge",
                message: "The request content is larger than \(bodyBytesLimit) bytes.")
        } catch {
            throw .badRequest("The request content did not arrive in full.", code: "InvalidRequestContent")
        }
        let bytes = buffer.readableBytesView
        guard !bytes.allSatisfy({ [0x20, 0x09, 0x0a, 0x0d].contains($0) }) else { return nil }
        let type = request.header("Content-Type")?.lowercased() ?? "application/json"
        guard type.hasPrefix("application/json") || type.hasPrefix("text/json") || type.contains("+json") else {
            throw ControlError(
                status: 415, code: "UnsupportedMediaType",
                message:
                    "The content media type '\(type.prefix(100))' is not supported. Only 'application/json' is "
                    + "supported."
            )
        }
        guard let value = try? JSONValue(parsing: bytes) else {
            throw .badRequest(
                "The request content was invalid and could not be deserialized: it is not a JSON document.",
                code: "InvalidRequestContent")
        }
        guard value.objectValue != nil || value.arrayValue != nil || value.isNull else {
            throw .badRequest(
                "The request content was invalid and could not be deserialized: an object was expected.",
                code: "InvalidRequestContent")
        }
        return value.isNull ? nil : value
    }

    // MARK: Answers

    static func response(_ answer: ControlResponse, to request: Request) -> Response {
        var headers = HTTPHeaders(answer.headers)
        var body: Response.Body = .empty
        switch answer.body {
        case .none: break
        case .json(let value):
            headers.replaceOrAdd(name: "Content-Type", value: "application/json; charset=utf-8")
            body = .bytes(ByteBuffer(bytes: value.serialized()))
        case .xml(let text):
            headers.replaceOrAdd(name: "Content-Type", value: "application/xml; charset=utf-8")
            body = .bytes(ByteBuffer(string: text))
        }
        if request.method == .HEAD { body = .empty }
        return Response(status: HTTPResponseStatus(statusCode: answer.status), headers: headers, body: body)
    }

    static func response(_ error: ControlError, to request: Request) -> Response {
        var answer = ControlResponse.json(
            error.status, ["error": ["code": .string(error.code), "message": .string(error.message)]])
        if error.status == 429 || error.status == 503 { answer.headers.append(("Retry-After", "1")) }
        return response(answer, to: request)
    }

    /// What every answer carries.
    static func addCommonHeaders(_ response: inout Response, request: Request, at now: Timestamp) {
        let correlation =
            request.header("x-ms-correlation-request-id").flatMap { UUID(uuidString: $0)?.uuidString.lowercased() }
            ?? request.id
        response.headers.replaceOrAdd(name: "x-ms-request-id", value: request.id)
        response.headers.replaceOrAdd(name: "x-ms-correlation-request-id", value: correlation)
        response.headers.replaceOrAdd(
            name: "x-ms-routing-request-id",
            value: "COFFER:\(now.iso8601.filter { $0 != "-" && $0 != ":" }):\(request.id)")
        if request.header("x-ms-return-client-request-id")?.lowercased() == "true",
            let client = request.header("x-ms-client-request-id"), UUID(uuidString: client) != nil
        {
            response.headers.replaceOrAdd(name: "x-ms-client-request-id", value: client)
        }
        response.headers.replaceOrAdd(name: "Cache-Control", value: "no-cache")
        response.headers.replaceOrAdd(name: "Pragma", value: "no-cache")
        response.headers.replaceOrAdd(name: "Expires", value: "-1")
        response.headers.replaceOrAdd(name: "Strict-Transport-Security", value: "max-age=31536000; includeSubDomains")
        response.headers.replaceOrAdd(name: "X-Content-Type-Options", value: "nosniff")
    }

    /// 401 with the challenge clients take the authority from.
    static func unauthenticated(
        _ code: String, _ message: String, login: String, tenant: String, isMissing: Bool, request: Request
    ) -> Response {
        var answer = response(ControlError(status: 401, code: code, message: message), to: request)
        let description =
            isMissing
            ? "The authentication failed because of missing 'Authorization' header."
            : message.replacing("\"", with: "'")
        answer.headers.add(
            name: "WWW-Authenticate",
            value:
                "Bearer authorization_uri=\"\(login)/\(tenant)\", error=\"invalid_token\", "
                + "error_description=\"\(description)\""
        )
        return answer
    }
}
