internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    // MARK: Create

    /// Create Container.
    func createContainer(_ call: BlobCall, _ name: String) async throws -> Response {
        try authorize(call, .createContainer, container: name)
        let encryption = try ContainerEncryption(call)
        try await requireAvailable(encryption, in: call.account)
        let access = try publicAccessHeader(call)
        let metadata = try call.metadata().map { ContainerRecord.Pair(name: $0.0, value: $0.1) }
        let record = try await makeContainer(
            name, publicAccess: access, metadata: metadata, encryption, in: call.account, at: call.now)
        var response = Response(status: .created)
        response.headers.add(etag: record.etag, modified: record.modified)
        return response
    }

    /// Throws 409 when there is one of the name.
    func makeContainer(
        _ name: String, publicAccess: ContainerRecord.PublicAccess?, metadata: [ContainerRecord.Pair],
        _ encryption: ContainerEncryption, in account: StorageAccountView, at now: Timestamp
    ) async throws -> ContainerRecord {
        guard try await readContainer(name, of: account) == nil else { throw StorageError.containerAlreadyExists }
        var record = ContainerRecord(
            id: randomness.bytes(16).hex, at: now, publicAccess: publicAccess, metadata: metadata)
        record.defaultEncryptionScope = encryption.scope
        record.deniesEncryptionScopeOverride = encryption.deniesOverride ? true : nil
        // The partition's own mark first: a container that can be found can be written to.
        let partition = VolumePartition.container(record.id)
        let marked = try await account.volume.commit(
            partition, checks: [.absent(BlobKeys.container)],
            writes: [.put(BlobKeys.container, visible: Array(name.utf8), sealed: .none)])
        precondition(marked != .conflict, "a random identifier of 128 bits came twice")
        let key = AccountKeySpace.container(name)
        let outcome = try await account.volume.commit(
            .account, checks: [.absent(key)], writes: [.put(key, visible: try record.encoded(), sealed: .none)])
        guard outcome != .conflict else {
            _ = try await account.volume.commit(partition, checks: [], writes: [.delete(BlobKeys.container)])
            throw StorageError.containerAlreadyExists
        }
        return record
    }

    func requireAvailable(_ encryption: ContainerEncryption, in account: StorageAccountView) async throws {
        if let scope = encryption.scope { try await accounts.requireEncryptionScope(scope, of: account) }
    }

    func publicAccessHeader(_ call: BlobCall) throws(StorageError) -> ContainerRecord.PublicAccess? {
        guard let text = call.header("x-ms-blob-public-access"), !text.isEmpty else { return nil }
        guard let access = ContainerRecord.PublicAccess(rawValue: text.lowercased()) else {
            throw .invalidHeader("x-ms-blob-public-access", text)
        }
        guard call.account.allowsBlobPublicAccess else { throw .publicAccessNotPermitted }
        return access
    }

    // MARK: Properties and metadata

    /// Get Container Properties and Get Container Metadata.
    func getContainerProperties(_ call: BlobCall, _ name: String) async throws -> Response {
        let record = try await enter(call, name, .readContainer).record
        try Conditions(call.request).checkLeaseForRead(record.lease, of: .container, at: call.now)
        var response = Response(status: .ok)
        response.headers.add(etag: record.etag, modified: record.modified)
        response.headers.add(metadata: record.metadata.map { ($0.name, $0.value) })
        if call.parameters["comp"] == nil {
            response.headers.add(lease: record.lease, at: call.now)
            if let access = record.publicAccess {
                response.headers.add(name: "x-ms-blob-public-access", value: access.rawValue)
            }
            for name in [
                "x-ms-has-immutability-policy", "x-ms-has-legal-hold", "x-ms-immutable-storage-with-versioning-enabled",
            ] {
                response.headers.add(name: name, value: "false")
            }
            let encryption = ContainerEncryption(record)
            response.headers.add(name: "x-ms-default-encryption-scope", value: encryption.wireName)
            response.headers.add(
                name: "x-ms-deny-encryption-scope-override", value: String(encryption.deniesOverride))
        }
        return response
    }

    /// Set Container Metadata: replaces all of it. Takes `If-Modified-Since` only.
    func setContainerMetadata(_ call: BlobCall, _ name: String) async throws -> Response {
        try authorize(call, .writeContainer, container: name)
        let conditions = try Conditions(call.request)
        let metadata = try call.metadata().map { ContainerRecord.Pair(name: $0.0, value: $0.1) }
        let (record, _) = try await updateContainer(call.account, name) { record in
            try conditions.checkWrite(etag: record.etag, modified: record.modified)
            try conditions.checkLeaseForRead(record.lease, of: .container, at: call.now)
            record.metadata = metadata
            record.touch(at: call.now)
        }
        var response = Response(status: .ok)
        response.headers.add(etag: record.etag, modified: record.modified)
        return response
    }

    // MARK: Delete

    /// Delete Container.
    func deleteContainer(_ call: BlobCall, _ name: String) async throws -> Response {
        try authorize(call, .deleteContainer, container: name)
        let conditions = try Conditions(call.request)
        try await removeContainer(name, of: call.account) { record in
            try conditions.checkWrite(etag: record.etag, modified: record.modified)
            try conditions.checkLeaseForWrite(record.lease, of: .container, at: call.now)
        }
        return Response(status: .accepted)
    }

    /// Removes what `check` lets pass. The name is free at once; the rows and extents go right after, and
    /// `collectGarbage` finishes what a crash interrupts. Throws 404 when there is none.
    func removeContainer(
        _ name: String, of account: StorageAccountView, _ check: (ContainerRecord) throws -> Void
    ) async throws {
        let id = try await retrying { () -> String? in
            guard let handle = try await readContainer(name, of: account) else {
                throw StorageError.containerNotFound
            }
            let record = handle.record
            try check(record)
            let key = AccountKeySpace.container(name)
            // Also when the commit throws, as for a change.
            defer { containers.forget(name, of: account.id) }
            let outcome = try await account.volume.commit(
                .account, checks: [.unchanged(key, handle.version)],
                writes: [
                    .delete(key), .put(AccountKeySpace.deleted(record.id), visible: Array(name.utf8), sealed: .none),
                ])
            return outcome == .conflict ? nil : record.id
        }
        // The container is gone whatever happens here.
        do {
            _ = try await purge(id, account.volume, batches: 8)
        } catch {
            logger.warning(
                "A deleted container's blobs stay for the garbage collection", metadata: ["container": "\(id)"])
        }
    }
}
