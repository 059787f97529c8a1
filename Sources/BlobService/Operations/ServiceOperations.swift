internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Get Account Information, at the account, a container or a blob.
    func getAccountInformation(_ call: BlobCall, at address: BlobAddress) async throws -> Response {
        switch address {
        case .account: try authorize(call, .readService)
        case .container(let name): try authorize(call, .containerInformation, container: name)
        case .blob(let container, let name): try authorize(call, .readBlob, container: container, blob: name)
        }
        if case .anonymous = call.caller { throw noAuthentication(call) }
        var response = Response(status: .ok)
        response.headers.add(name: "x-ms-sku-name", value: call.account.skuName)
        response.headers.add(name: "x-ms-account-kind", value: call.account.kind)
        response.headers.add(name: "x-ms-is-hns-enabled", value: "false")
        return response
    }

    /// Get Blob Service Stats: only the secondary endpoint of a read-access geo-redundant account answers it, and there
    /// is none.
    func getServiceStats(_ call: BlobCall) async throws -> Response {
        try authorize(call, .readService)
        throw StorageError(
            400, "InvalidQueryParameterValue",
            "Get Blob Service Stats needs the secondary endpoint of a read-access geo-redundant account.")
    }

    /// Get User Delegation Key: for principals only.
    func getUserDelegationKey(_ call: BlobCall) async throws -> Response {
        // Before the body is read; the account decides once more.
        try authorize(call, .delegateKey)
        let info = try readXML(try await call.request.body.collect(upTo: BlobLimits.xmlBodyBytes))
        guard info.name == "KeyInfo", let expiry = info["Expiry"]?.text else { throw StorageError.invalidXML }
        let key = try await accounts.userDelegationKey(
            start: info["Start"]?.text, expiry: expiry, delegatedTenantID: info["DelegatedUserTid"]?.text,
            version: call.header("x-ms-version") ?? Self.newestVersion, as: call.caller, account: call.account)
        var xml = XMLDocumentWriter()
        xml.open("UserDelegationKey")
        xml.element("SignedOid", key.signedObjectID)
        xml.element("SignedTid", key.signedTenantID)
        xml.element("SignedStart", key.signedStart)
        xml.element("SignedExpiry", key.signedExpiry)
        xml.element("SignedService", key.signedService)
        xml.element("SignedVersion", key.signedVersion)
        xml.element("SignedDelegatedUserTid", ifPresent: key.signedDelegatedUserTenantID)
        xml.element("Value", key.value.reveal())
        xml.close("UserDelegationKey")
        return .xml(.ok, xml)
    }
}
