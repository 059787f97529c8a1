internal import AsyncHTTPClient
internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// Carries a request to a worker and its answer back, both as streams.
struct HandlerClient: Sendable {
    let client: HTTPClient
    /// By whose clock an answer is timed.
    let timers: any EventLoopGroup

    struct Failure: Error, Sendable {
        enum Reason: Sendable { case timedOut, broken, bodyTooLarge, clientWentAway }
        let reason: Reason
    }

    /// The original request as it came. `release` runs once the answer is over, whichever way; `cutOff` before it, when
    /// the handler did not end in time what it had begun. The client then sees its connection break, or the edge's 500
    /// when nothing of the body had come.
    func forward(
        _ request: Request, port: Int, invocationID: String, bodyLimitBytes: Int, times: CallTimes,
        cutOff: @escaping @Sendable () -> Void, release: @escaping @Sendable () -> Void
    ) async throws(Failure) -> Response {
        let watch = AnswerWatch(times, on: timers.any())
        let target = request.rawPath + (request.rawQuery.isEmpty ? "" : "?" + request.rawQuery)
        var message = HTTPClientRequest(url: "http://127.0.0.1:\(port)\(target)")
        message.method = request.method
        message.headers = Self.forwardedHeaders(of: request)
        message.headers.replaceOrAdd(name: "X-Azure-Functions-InvocationId", value: invocationID)
        message.headers.replaceOrAdd(
            name: "X-Azure-Functions-HostVersion", value: FunctionsHostConfiguration.runtimeVersion)
        let hasBody =
            request.body.declaredLength.map { $0 > 0 } ?? (request.headers.contains(name: "Transfer-Encoding"))
        if hasBody {
            let body = LimitedBody(base: request.body, limitBytes: bodyLimitBytes)
            message.body = .stream(body, length: request.body.declaredLength.map { .known(Int64($0)) } ?? .unknown)
        }
        let answer = try await send(message, timeoutSeconds: times.tillAnswer, isRepeatable: !hasBody)
        return Self.response(answer, to: request.method, watch, cutOff: cutOff, release: release)
    }

    /// The JSON payload of a function whose handler does not see the original request. The time is for all of the
    /// answer.
    func invoke(
        _ payload: [UInt8], function: String, port: Int, invocationID: String, timeoutSeconds: Int64
    ) async throws(Failure) -> (status: Int, contentType: String, body: ByteBuffer) {
        let watch = AnswerWatch(CallTimes(silence: timeoutSeconds, whole: timeoutSeconds), on: timers.any())
        var message = HTTPClientRequest(url: "http://127.0.0.1:\(port)/\(function)")
        message.method = .POST
        message.headers = [
            "Content-Type": "application/json; charset=utf-8", "X-Azure-Functions-InvocationId": invocationID,
            "X-Azure-Functions-HostVersion": FunctionsHostConfiguration.runtimeVersion,
            "User-Agent": "Azure-Functions-Host/" + FunctionsHostConfiguration.runtimeVersion,
        ]
        message.body = .bytes(payload)
        let answer = try await send(message, timeoutSeconds: timeoutSeconds, isRepeatable: false)
        do {
            let body = try await watch.run {
                try await watch.wait { try await answer.body.collect(upTo: InvocationPayload.limitBytes) }
            }
            return (Int(answer.status.code), answer.headers.first(name: "Content-Type") ?? "", body)
        } catch is AnswerWatch.TooLate {
            throw Failure(reason: .timedOut)
        } catch { throw Failure(reason: .broken) }
    }

    private func send(_ message: HTTPClientRequest, timeoutSeconds: Int64, isRepeatable: Bool) async throws(Failure)
        -> HTTPClientResponse
    {
        do {
            do {
                return try await client.execute(message, timeout: .seconds(timeoutSeconds))
            } catch let error as HTTPClientError
                where error == .remoteConnectionClosed && isRepeatable && [.GET, .HEAD].contains(message.method)
            {
                // A kept connection that the handler closed in the same moment.
                return try await client.execute(message, timeout: .seconds(timeoutSeconds))
            }
        } catch let error as HTTPClientError where [.deadlineExceeded, .readTimeout].contains(error) {
            throw Failure(reason: .timedOut)
        } catch is LimitedBody.TooLarge {
            throw Failure(reason: .bodyTooLarge)
        } catch let error as EdgeError {
            if case .bodyTooLarge = error { throw Failure(reason: .bodyTooLarge) }
            throw Failure(reason: .clientWentAway)
        } catch {
            throw Failure(reason: .broken)
        }
    }

    private static func response(
        _ answer: HTTPClientResponse, to method: HTTPMethod, _ watch: AnswerWatch,
        cutOff: @escaping @Sendable () -> Void, release: @escaping @Sendable () -> Void
    ) -> Response {
        var headers = HTTPHeaders()
        let dropped = hopByHop(answer.headers)
        for (name, value) in answer.headers
        where !dropped.contains(name.lowercased()) && name.lowercased() != "content-length" {
            headers.add(name: name, value: value)
        }
        let length = answer.headers.first(name: "Content-Length").flatMap { Int($0) }
        var response = Response(status: answer.status, headers: headers)
        if method == .HEAD || [204, 304].contains(answer.status.code) {
            release()
            response.body = method == .HEAD ? .omitted(length: length ?? 0) : .empty
            return response
        }
        let body = answer.body
        let once = Once(release)
        response.body = .stream(length: length) { writer in
            defer { once.run() }
            do {
                try await watch.run { try await pass(body, to: writer, watch) }
            } catch is AnswerWatch.TooLate {
                cutOff()
                throw Failure(reason: .timedOut)
            }
        }
        return response
    }

    private static func pass(
        _ body: HTTPClientResponse.Body, to writer: any ResponseBodyWriter, _ watch: AnswerWatch
    ) async throws {
        var parts = body.makeAsyncIterator()
        while let part = try await watch.next(of: &parts) { try await writer.write(part) }
    }

    // MARK: Header fields

    private static let hopByHopNames: Set<String> = [
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding",
        "upgrade",
    ]
    /// RFC 9110 §7.6.1: those, and what `Connection` names.
    private static func hopByHop(_ headers: HTTPHeaders) -> Set<String> {
        hopByHopNames.union(headers[canonicalForm: "connection"].map { $0.lowercased() })
    }

    static func forwardedHeaders(of request: Request) -> HTTPHeaders {
        var headers = HTTPHeaders()
        let dropped = hopByHop(request.headers)
        for (name, value) in request.headers {
            let folded = name.lowercased()
            // Only the platform speaks of the platform's identities.
            if dropped.contains(folded) || folded == "content-length" || folded == "expect" { continue }
            if folded.hasPrefix("x-ms-client-principal") || folded.hasPrefix("x-ms-token-")
                || folded == "x-arr-clientcert" || PresentedToken.platformHeaders.contains(folded)
            {
                continue
            }
            headers.add(name: name, value: value)
        }
        let hops = headers[canonicalForm: "x-forwarded-for"].map(String.init) + [request.transport.peerAddress]
        headers.replaceOrAdd(name: "X-Forwarded-For", value: hops.joined(separator: ", "))
        headers.replaceOrAdd(name: "X-Forwarded-Proto", value: request.transport.scheme.rawValue)
        if let host = request.header("Host") { headers.replaceOrAdd(name: "X-Forwarded-Host", value: host) }
        headers.replaceOrAdd(
            name: "X-Original-URL", value: request.rawPath + (request.rawQuery.isEmpty ? "" : "?" + request.rawQuery))
        return headers
    }
}

/// Ends a body that grows over the limit.
private struct LimitedBody: AsyncSequence, Sendable {
    struct TooLarge: Error {}
    let base: RequestBody
    let limitBytes: Int

    struct AsyncIterator: AsyncIteratorProtocol {
        var base: RequestBody.AsyncIterator
        var rest: Int
        mutating func next() async throws -> ByteBuffer? {
            guard let part = try await base.next() else { return nil }
            rest -= part.readableBytes
            guard rest >= 0 else { throw TooLarge() }
            return part
        }
    }
    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(base: base.makeAsyncIterator(), rest: limitBytes) }
}
