import CofferCore
import HTTPEdge
import NIOCore
import NIOHTTP1
import ResourceProviders

/// A site's own host over Resource Manager: its admin API by the bridge `hostruntime`, and what opens that API from
/// outside.
extension WebOperation {
    /// What the master key opens, a token of it opens: who may not list that key is given none. (Azure asks for
    /// `sites/functions/token/read` alone, which its Reader has.)
    func functionsAdminToken() async throws(ControlError) -> ControlResponse {
        try require("sites/host/listkeys/action", at: siteID)
        _ = try site(for: "sites/functions/token/read")
        let token = try await running { () async throws(FunctionsError) in
            try await runtime.issueToken(of: siteID)
        }
        return .json(200, .string(token.reveal()))
    }

    /// The key that lets a script ask for a sync by itself, and where.
    func listSyncFunctionTriggerStatus() async throws(ControlError) -> ControlResponse {
        try require("sites/host/listkeys/action", at: siteID)
        let site = try site(for: "sites/listsyncfunctiontriggerstatus/action")
        let key = try await running { () async throws(FunctionsError) in
            try await runtime.hostKeys(of: siteID).masterKey.reveal()
        }
        let url = "\(request.names.url(of: .site(site.name)))/admin/host/synctriggers?code=\(key)"
        return .json(200, ["key": .string(key), "trigger_url": .string(url)])
    }

    // MARK: The bridge

    /// `hostruntime/admin/…`: the host's admin API, asked by the platform. Never past the keys' own operations, and
    /// never to the app's files: an answer of Resource Manager is JSON.
    func hostRuntime() async throws(ControlError) -> ControlResponse {
        let path = Array(request.path.segments.dropFirst(10))
        let folded = path.map { $0.lowercased() }
        let isRead = request.method == .get && Self.isPlainRead(folded)
        _ = try site(for: "sites/hostruntime/host/" + (isRead ? "read" : "action"))
        try Self.refuseKeys(folded, request.method)
        guard folded.first == "host" || folded.first == "functions", folded != ["functions", "download"] else {
            throw .notImplemented("\(request.method.rawValue) sites/hostruntime/admin/\(folded.first ?? "")")
        }
        return try Self.bridged(
            try await running { () async throws(FunctionsError) in
                let entry = try runtime.entry(siteID)
                return try await AdminAPI(runtime).answer(adminRequest(path), path: path, entry, mayRun: true)
            })
    }

    /// What a reader of the site may see; everything else is an action, whatever its method.
    private static func isPlainRead(_ path: [String]) -> Bool {
        switch path {
        case ["host", "status"], ["host", "ping"], ["host", "drain", "status"], ["functions"]: true
        case ["functions", "download"]: false
        default: path.first == "functions" && (path.count == 2 || path.count == 3 && path[2] == "status")
        }
    }

    /// Keys have operations of their own, each with an action of its own (Azure Functions host, the filter of what
    /// Resource Manager passes on).
    private static func refuseKeys(_ path: [String], _ method: ControlRequest.Method) throws(ControlError) {
        let isHostKey = path.first == "host" && path.count > 1 && HostKeyKind(wireName: path[1]) != nil
        let isFunctionKey = path.first == "functions" && path.count > 2 && path[2] == "keys"
        guard isHostKey || isFunctionKey else { return }
        guard method == .get else { throw .notImplemented("\(method.rawValue) of a key over sites/hostruntime") }
        throw ControlError(
            status: 401, code: "Unauthorized",
            message: "Keys are not read over hostruntime. Use the operations of Resource Manager for them: listkeys.")
    }

    private func adminRequest(_ path: [String]) -> Request {
        var body = RequestBody.empty
        var headers = HTTPHeaders()
        if let json = request.body {
            body = .bytes(ByteBuffer(bytes: json.serialized()))
            headers.add(name: "Content-Type", value: "application/json")
        }
        // Resource Manager's own, and so the loopback's: nothing of it comes from a caller.
        return Request(
            id: provider.randomness.uuidString(), method: HTTPMethod(rawValue: request.method.rawValue),
            rawPath: "/admin/" + path.joined(separator: "/"), rawQuery: "", headers: headers,
            endpoint: .site(siteID.name), names: request.names,
            transport: Transport(scheme: .https, tlsVersion: .v1_3, peerAddress: "127.0.0.1"), body: body)
    }

    /// JSON as it is; a refusal in words becomes Resource Manager's error.
    private static func bridged(_ response: Response) throws(ControlError) -> ControlResponse {
        let status = Int(response.status.code)
        guard case .bytes(let bytes) = response.body else {
            guard status >= 400 else { return .empty(status) }
            throw ControlError(status: status, code: response.status.codeName, message: response.status.reasonPhrase)
        }
        if status < 400, let json = try? JSONValue(parsing: bytes.readableBytesView) { return .json(status, json) }
        throw ControlError(
            status: status < 400 ? 501 : status, code: response.status.codeName, message: String(buffer: bytes))
    }
}

extension HTTPResponseStatus {
    /// `NotFound` of `Not Found`: what Resource Manager calls an error.
    fileprivate var codeName: String { reasonPhrase.filter { $0 != " " } }
}
