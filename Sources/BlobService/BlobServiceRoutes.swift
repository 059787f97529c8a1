internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

/// Which request is which operation: method, what the path names, `restype` and `comp`, and for PUT the headers that
/// tell blob writes apart (specs: Blob service REST API, version 2025-11-05).
///
/// Operations run on the event loop of their connection, except those whose work grows with what is stored (lists,
/// block lists, deletes, the taking back of uncommitted blocks): they would hold up everybody else's requests.
extension BlobService {
    func perform(_ call: BlobCall, at address: BlobAddress) async throws -> Response {
        if call.parameters["comp"] == "properties", call.parameters["restype"] == "account" {
            guard call.request.method == .GET || call.request.method == .HEAD else {
                throw StorageError.unsupportedVerb
            }
            return try await getAccountInformation(call, at: address)
        }
        switch address {
        case .account: return try await performOnAccount(call)
        case .container(let name): return try await performOnContainer(call, name)
        case .blob(let container, let name): return try await performOnBlob(call, container, name)
        }
    }

    private func performOnAccount(_ call: BlobCall) async throws -> Response {
        let comp = call.parameters["comp"]
        let isService = call.parameters["restype"] == "service"
        switch (call.request.method, comp) {
        case (.GET, "list"): return try await awayFromEventLoop { try await listContainers(call) }
        case (.GET, "properties") where isService: return try await getServiceProperties(call)
        case (.PUT, "properties") where isService: return try await setServiceProperties(call)
        case (.GET, "stats") where isService: return try await getServiceStats(call)
        case (.POST, "userdelegationkey") where isService: return try await getUserDelegationKey(call)
        case (.POST, "batch"): throw StorageError.notImplemented("Blob Batch")
        case (.GET, "blobs"): throw StorageError.notImplemented("Find Blobs by Tags")
        default: throw unknownOperation(call)
        }
    }

    private func performOnContainer(_ call: BlobCall, _ name: String) async throws -> Response {
        if call.header("x-ms-if-tags") != nil { throw StorageError.unsupportedHeader("x-ms-if-tags") }
        switch (call.request.method, call.parameters["comp"]) {
        case (.PUT, nil): return try await createContainer(call, name)
        case (.GET, nil), (.HEAD, nil), (.GET, "metadata"), (.HEAD, "metadata"):
            return try await getContainerProperties(call, name)
        case (.DELETE, nil): return try await awayFromEventLoop { try await deleteContainer(call, name) }
        case (.PUT, "metadata"): return try await setContainerMetadata(call, name)
        case (.GET, "acl"), (.HEAD, "acl"): return try await getContainerACL(call, name)
        case (.PUT, "acl"): return try await setContainerACL(call, name)
        case (.PUT, "lease"): return try await leaseContainer(call, name)
        case (.GET, "list"): return try await awayFromEventLoop { try await listBlobs(call, name) }
        case (.PUT, "undelete"): throw StorageError.featureNotEnabled("Container soft delete")
        case (.PUT, "rename"): throw StorageError.notImplemented("Rename Container")
        case (.POST, "batch"): throw StorageError.notImplemented("Blob Batch")
        case (.GET, "blobs"): throw StorageError.notImplemented("Find Blobs by Tags")
        default: throw unknownOperation(call)
        }
    }

    private func performOnBlob(_ call: BlobCall, _ container: String, _ name: String) async throws -> Response {
        if let version = call.parameters["versionid"], !version.isEmpty {
            throw StorageError.featureNotEnabled("Blob versioning")
        }
        switch (call.request.method, call.parameters["comp"]) {
        case (.GET, nil): return try await getBlob(call, container, name)
        case (.HEAD, nil), (.GET, "metadata"), (.HEAD, "metadata"):
            return try await getBlobProperties(call, container, name)
        case (.DELETE, nil): return try await awayFromEventLoop { try await deleteBlob(call, container, name) }
        case (.PUT, nil): return try await writeBlob(call, container, name)
        case (.PUT, "properties"): return try await setBlobProperties(call, container, name)
        case (.PUT, "metadata"): return try await setBlobMetadata(call, container, name)
        case (.PUT, "lease"): return try await leaseBlob(call, container, name)
        case (.PUT, "snapshot"): return try await snapshotBlob(call, container, name)
        case (.PUT, "block"): return try await putBlock(call, container, name)
        case (.PUT, "blocklist"): return try await awayFromEventLoop { try await putBlockList(call, container, name) }
        case (.GET, "blocklist"): return try await awayFromEventLoop { try await getBlockList(call, container, name) }
        case (.PUT, "appendblock"): return try await appendBlock(call, container, name)
        case (.PUT, "seal"): return try await sealAppendBlob(call, container, name)
        case (.PUT, "tier"): return try await setBlobTier(call, container, name)
        case (.GET, "tags"): return try await getBlobTags(call, container, name)
        case (.PUT, "tags"): return try await setBlobTags(call, container, name)
        case (.PUT, "copy"): return try await abortCopy(call, container, name)
        case (.PUT, "undelete"): throw StorageError.featureNotEnabled("Blob soft delete")
        case (.PUT, "page"): return try await putPage(call, container, name)
        case (.GET, "pagelist"): return try await awayFromEventLoop { try await getPageRanges(call, container, name) }
        case (.PUT, "incrementalcopy"): throw StorageError.notImplemented("Incremental Copy Blob")
        case (_, "immutabilityPolicies"), (_, "legalhold"):
            throw StorageError.featureNotEnabled("Version-level immutability")
        case (_, "expiry"): throw StorageError.notImplemented("Set Blob Expiry")
        case (_, "query"): throw StorageError.notImplemented("Query Blob Contents")
        default: throw unknownOperation(call)
        }
    }

    /// PUT without `comp`: Put Blob, Put Blob From URL, Copy Blob and Copy Blob From URL, told apart by headers.
    private func writeBlob(_ call: BlobCall, _ container: String, _ name: String) async throws -> Response {
        let headers = call.request.headers
        if headers.contains(name: "x-ms-copy-source"), !headers.contains(name: "x-ms-blob-type") {
            return try await copyBlob(call, container, name)
        }
        guard let type = headers.first(name: "x-ms-blob-type") else {
            throw StorageError.missingHeader("x-ms-blob-type")
        }
        switch type {
        case "BlockBlob":
            if headers.contains(name: "x-ms-copy-source") { return try await putBlobFromURL(call, container, name) }
            return try await putBlob(call, container, name)
        case "AppendBlob": return try await createAppendBlob(call, container, name)
        case "PageBlob": return try await createPageBlob(call, container, name)
        default: throw StorageError.invalidHeader("x-ms-blob-type", type)
        }
    }

    private func unknownOperation(_ call: BlobCall) -> StorageError {
        switch call.request.method {
        case .GET, .HEAD, .PUT, .POST, .DELETE:
            if let comp = call.parameters["comp"] { return .invalidQuery("comp", comp) }
            return .unsupportedVerb
        default: return .unsupportedVerb
        }
    }
}
