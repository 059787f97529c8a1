internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// What a custom handler gets and gives when requests are not forwarded (Azure Functions, "Custom handlers", request
/// and response payload).
enum InvocationPayload {
    static let limitBytes = 100 << 20

    /// `{"Data": {binding: request}, "Metadata": {"sys": …}}`.
    static func request(
        _ request: Request, url: String, body: ByteBuffer, function: Function, trigger: Function.HTTPTrigger,
        parameters: [String: String?],
        now: Timestamp, invocationID: String
    ) -> [UInt8] {
        var headers: [String: JSONValue] = [:]
        for (name, value) in HandlerClient.forwardedHeaders(of: request) {
            headers[name] = .array((headers[name]?.arrayValue ?? []) + [.string(value)])
        }
        var query: [String: JSONValue] = [:]
        for (name, value) in request.query {
            query[name] = .string((query[name]?.stringValue).map { $0 + "," + value } ?? value)
        }
        var value: [String: JSONValue] = [
            "Url": .string(url), "Method": .string(request.method.rawValue), "Query": .object(query),
            "Headers": .object(headers),
            "Params": .object(parameters.mapValues { $0.map { .string($0) } ?? .null }), "Identities": [],
        ]
        value["Body"] =
            body.readableBytes == 0 ? nil : .string(text(of: body, contentType: request.header("Content-Type") ?? ""))
        let json: JSONValue = [
            "Data": .object([trigger.bindingName: .object(value)]),
            "Metadata": [
                "sys": [
                    "MethodName": .string(function.name), "UtcNow": .string(now.iso8601WithTicks),
                    "RandGuid": .string(invocationID),
                ]
            ],
        ]
        return json.serialized()
    }

    /// Bytes go as base64, everything else as text.
    private static func text(of body: ByteBuffer, contentType: String) -> String {
        let bytes = Array(body.readableBytesView)
        let type = contentType.lowercased()
        if type.hasPrefix("application/octet-stream") || type.hasPrefix("multipart/") { return bytes.base64 }
        return String(validating: bytes, as: UTF8.self) ?? bytes.base64
    }

    struct Malformed: Error {
        let message: String
    }

    struct Answer {
        let response: Response
        let logs: [String]
    }

    /// Reads `{"Outputs", "Logs", "ReturnValue"}`, names in any case. A 2xx answer that is not such a document fails
    /// the invocation.
    static func answer(status: Int, contentType: String, body: ByteBuffer, trigger: Function.HTTPTrigger)
        throws(Malformed) -> Answer
    {
        guard (200..<300).contains(status) else { throw Malformed(message: "The custom handler answered \(status).") }
        let type = contentType.lowercased().prefix { $0 != ";" }.trimmed
        guard type == "application/json" || type.hasSuffix("+json") else {
            throw Malformed(message: "The custom handler's answer is not JSON (Content-Type).")
        }
        guard let json = try? JSONValue(parsing: body.readableBytesView), json.objectValue != nil else {
            throw Malformed(message: "The custom handler's answer is not a JSON object.")
        }
        let logs = (json.member("Logs")?.arrayValue ?? []).prefix(1_000).map {
            $0.stringValue ?? String(decoding: $0.serialized(), as: UTF8.self)
        }
        var value: JSONValue?
        if let name = trigger.outputName, name != "$return" { value = json.member("Outputs")?.member(name) }
        if value == nil, trigger.outputName == nil || trigger.outputName == "$return" {
            value = json.member("ReturnValue")
        }
        guard let value, !value.isNull else { return Answer(response: Response(status: .ok), logs: Array(logs)) }
        return Answer(response: try response(value), logs: Array(logs))
    }

    private static func response(_ value: JSONValue) throws(Malformed) -> Response {
        var value = value
        if let text = value.stringValue {
            guard let parsed = try? JSONValue(parsing: Array(text.utf8)) else {
                throw Malformed(message: "The custom handler's HTTP output is a string that is no response object.")
            }
            value = parsed
        }
        guard value.objectValue != nil else {
            throw Malformed(message: "The custom handler's HTTP output is no response object.")
        }
        let code = value.member("statusCode")?.intValue ?? value.member("status")?.intValue ?? 200
        guard (200...599).contains(code) else {
            throw Malformed(message: "The custom handler's HTTP output has no valid status code.")
        }
        var headers = HTTPHeaders()
        for (name, field) in value.member("headers")?.objectValue ?? [:] {
            let text =
                field.stringValue ?? field.arrayValue?.compactMap(\.stringValue).joined(separator: ", ")
                ?? String(decoding: field.serialized(), as: UTF8.self)
            let folded = name.lowercased()
            if ["content-length", "transfer-encoding", "connection"].contains(folded) { continue }
            if HeaderText.isName(name), HeaderText.isValue(text) { headers.replaceOrAdd(name: name, value: text) }
        }
        let body = value.member("body") ?? .null
        let bytes: [UInt8]
        switch body {
        case .null: bytes = []
        case .string(let text): bytes = Array(text.utf8)
        default:
            bytes = body.serialized()
            if !headers.contains(name: "Content-Type") {
                headers.add(name: "Content-Type", value: "application/json; charset=utf-8")
            }
        }
        if !bytes.isEmpty, !headers.contains(name: "Content-Type") {
            headers.add(name: "Content-Type", value: "text/plain; charset=utf-8")
        }
        return Response(
            status: HTTPResponseStatus(statusCode: Int(code)), headers: headers,
            body: bytes.isEmpty ? .empty : .bytes(ByteBuffer(bytes: bytes)))
    }
}
