internal import CofferCore
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

/// A lease request, read from its headers ("Lease Blob", "Lease Container").
private enum LeaseAction {
    case acquire(proposed: String?, durationSeconds: Int?)
    case renew(String)
    case change(String, to: String)
    case release(String)
    case breakLease(periodSeconds: Int?)

    init(_ call: BlobCall) throws(StorageError) {
        func identifier(_ name: String) throws(StorageError) -> String? {
            guard let text = call.header(name), !text.isEmpty else { return nil }
            guard let id = leaseIdentifier(text) else { throw .invalidHeader(name, text) }
            return id
        }
        func required(_ name: String) throws(StorageError) -> String {
            guard let id = try identifier(name) else { throw .missingHeader(name) }
            return id
        }
        switch call.header("x-ms-lease-action")?.lowercased() {
        case "acquire":
            guard let text = call.header("x-ms-lease-duration") else { throw .missingHeader("x-ms-lease-duration") }
            guard let seconds = Int(text), seconds == -1 || (15...60).contains(seconds) else {
                throw .invalidHeader("x-ms-lease-duration", text)
            }
            self = .acquire(
                proposed: try identifier("x-ms-proposed-lease-id"), durationSeconds: seconds == -1 ? nil : seconds)
        case "renew": self = .renew(try required("x-ms-lease-id"))
        case "change": self = .change(try required("x-ms-lease-id"), to: try required("x-ms-proposed-lease-id"))
        case "release": self = .release(try required("x-ms-lease-id"))
        case "break":
            guard let text = call.header("x-ms-lease-break-period") else {
                self = .breakLease(periodSeconds: nil)
                return
            }
            guard let seconds = Int(text), (0...60).contains(seconds) else {
                throw .invalidHeader("x-ms-lease-break-period", text)
            }
            self = .breakLease(periodSeconds: seconds)
        case nil: throw .missingHeader("x-ms-lease-action")
        case let other?: throw .invalidHeader("x-ms-lease-action", other)
        }
    }

    struct Outcome {
        var status: HTTPResponseStatus
        var leaseID: String?
        var breakSeconds: Int?
    }

    func apply(to lease: inout Lease, newID: String, at now: Timestamp) throws(Lease.Refusal) -> Outcome {
        switch self {
        case .acquire(let proposed, let seconds):
            try lease.acquire(id: proposed ?? newID, durationSeconds: seconds, at: now)
            return Outcome(status: .created, leaseID: lease.id)
        case .renew(let id):
            try lease.renew(id: id, at: now)
            return Outcome(status: .ok, leaseID: lease.id)
        case .change(let id, let proposed):
            try lease.change(id: id, to: proposed, at: now)
            return Outcome(status: .ok, leaseID: lease.id)
        case .release(let id):
            try lease.release(id: id)
            return Outcome(status: .ok)
        case .breakLease(let period):
            return Outcome(status: .accepted, breakSeconds: try lease.breakLease(periodSeconds: period, at: now))
        }
    }
}

extension BlobService {
    /// Lease Blob. A lease operation changes neither the entity tag nor the last-modified time.
    func leaseBlob(_ call: BlobCall, _ containerName: String, _ name: String) async throws -> Response {
        let container = try await enter(call, containerName, blob: name, .leaseBlob)
        let conditions = try Conditions(call.request)
        let action = try LeaseAction(call)
        let newID = randomness.uuidString()
        let (record, outcome) = try await updateBlob(call, container, name) { row, record in
            try conditions.checkWrite(etag: record.etag, modified: record.modified)
            return (try self.apply(action, to: &record.lease, newID, "blob", call.now), nil)
        }
        return answer(outcome, record.etag, record.modified)
    }

    /// Lease Container.
    func leaseContainer(_ call: BlobCall, _ name: String) async throws -> Response {
        try authorize(call, .leaseContainer, container: name)
        let conditions = try Conditions(call.request)
        let action = try LeaseAction(call)
        let newID = randomness.uuidString()
        let (record, outcome) = try await updateContainer(call.account, name) { record in
            try conditions.checkWrite(etag: record.etag, modified: record.modified)
            return try apply(action, to: &record.lease, newID, "container", call.now)
        }
        return answer(outcome, record.etag, record.modified)
    }

    private func apply(
        _ action: LeaseAction, to lease: inout Lease, _ newID: String, _ what: String, _ now: Timestamp
    ) throws(StorageError) -> LeaseAction.Outcome {
        do throws(Lease.Refusal) {
            return try action.apply(to: &lease, newID: newID, at: now)
        } catch {
            throw .lease(error, of: what)
        }
    }
    private func answer(_ outcome: LeaseAction.Outcome, _ etag: ETag, _ modified: Timestamp) -> Response {
        var response = Response(status: outcome.status)
        response.headers.add(etag: etag, modified: modified)
        if let id = outcome.leaseID { response.headers.add(name: "x-ms-lease-id", value: id) }
        if let seconds = outcome.breakSeconds { response.headers.add(name: "x-ms-lease-time", value: String(seconds)) }
        return response
    }
}
