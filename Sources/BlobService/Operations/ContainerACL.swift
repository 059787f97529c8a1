internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Get Container ACL: public access and stored access policies.
    func getContainerACL(_ call: BlobCall, _ name: String) async throws -> Response {
        let record = try await enter(call, name, .readACL).record
        try Conditions(call.request).checkLeaseForRead(record.lease, of: .container, at: call.now)
        var xml = XMLDocumentWriter()
        xml.open("SignedIdentifiers")
        for policy in record.policies {
            xml.open("SignedIdentifier")
            xml.element("Id", policy.identifier)
            if policy.start != nil || policy.expiry != nil || policy.permissions != nil { write(policy, to: &xml) }
            xml.close("SignedIdentifier")
        }
        xml.close("SignedIdentifiers")
        var response = Response.xml(.ok, xml)
        response.headers.add(etag: record.etag, modified: record.modified)
        if let access = record.publicAccess {
            response.headers.add(name: "x-ms-blob-public-access", value: access.rawValue)
        }
        return response
    }

    private func write(_ policy: ContainerRecord.AccessPolicy, to xml: inout XMLDocumentWriter) {
        xml.open("AccessPolicy")
        xml.element("Start", ifPresent: policy.start?.iso8601WithTicks)
        xml.element("Expiry", ifPresent: policy.expiry?.iso8601WithTicks)
        xml.element("Permission", ifPresent: policy.permissions)
        xml.close("AccessPolicy")
    }

    /// Set Container ACL: replaces the policies and the public access level (absent header: private).
    func setContainerACL(_ call: BlobCall, _ name: String) async throws -> Response {
        try authorize(call, .writeACL, container: name)
        let conditions = try Conditions(call.request)
        let access = try publicAccessHeader(call)
        let body = try await call.request.body.collect(upTo: BlobLimits.xmlBodyBytes)
        let policies = body.readableBytes == 0 ? [] : try Self.policies(try readXML(body))
        let (record, _) = try await updateContainer(call.account, name) { record in
            try conditions.checkWrite(etag: record.etag, modified: record.modified)
            try conditions.checkLeaseForRead(record.lease, of: .container, at: call.now)
            record.publicAccess = access
            record.policies = policies
            record.touch(at: call.now)
        }
        var response = Response(status: .ok)
        response.headers.add(etag: record.etag, modified: record.modified)
        return response
    }

    private static func policies(_ root: XMLNode) throws(StorageError) -> [ContainerRecord.AccessPolicy] {
        guard root.name == "SignedIdentifiers" else { throw .invalidXML }
        var policies: [ContainerRecord.AccessPolicy] = []
        for node in root.all("SignedIdentifier") {
            let identifier = node["Id"]?.text ?? ""
            guard (1...64).contains(identifier.count) else { throw nodeError("Id", identifier) }
            let policy = node["AccessPolicy"]
            let permissions = policy?["Permission"]?.text
            if let permissions, !permissions.allSatisfy("racwdxyltmeopif".contains) {
                throw nodeError("Permission", permissions)
            }
            policies.append(
                ContainerRecord.AccessPolicy(
                    identifier: identifier, start: try time(policy, "Start"), expiry: try time(policy, "Expiry"),
                    permissions: permissions.flatMap { $0.isEmpty ? nil : $0 }))
        }
        guard policies.count <= BlobLimits.storedAccessPolicies, Set(policies.map(\.identifier)).count == policies.count
        else {
            throw nodeError("SignedIdentifiers", "\(policies.count)")
        }
        return policies
    }
    private static func time(_ node: XMLNode?, _ name: String) throws(StorageError) -> Timestamp? {
        guard let text = node?[name]?.text, !text.isEmpty else { return nil }
        guard let time = Timestamp(iso8601: text) else { throw nodeError(name, text) }
        return time
    }
    private static func nodeError(_ name: String, _ value: String) -> StorageError {
        var error = StorageError(
            400, "InvalidXmlNodeValue",
            "The value provided for one of the XML nodes in the request body was not in the correct format.")
        error.details = [("XmlNodeName", name), ("XmlNodeValue", value)]
        return error
    }
}

extension Response {
    static func xml(_ status: HTTPResponseStatus, _ document: XMLDocumentWriter) -> Response {
        Response(status: status, headers: ["Content-Type": "application/xml"], body: .bytes(document.finish()))
    }
}
