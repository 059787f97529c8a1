internal import CofferCore
internal import EncryptionAtRest
internal import HTTPEdge
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// List Containers. `include=deleted` adds nothing: containers are not kept after deletion.
    func listContainers(_ call: BlobCall) async throws -> Response {
        try authorize(call, .listContainers)
        let parameters = try ListParameters(call, allowedIncludes: ["metadata", "deleted", "system"])
        let page = try await containerPage(
            of: call.account, prefix: parameters.prefix, marker: parameters.marker, maximum: parameters.maximum,
            includesSystem: parameters.include.contains("system"))

        var xml = XMLDocumentWriter()
        xml.open("EnumerationResults", [("ServiceEndpoint", call.request.names.url(of: call.request.endpoint) + "/")])
        xml.element("Prefix", ifPresent: call.parameters["prefix"])
        xml.element("Marker", ifPresent: call.parameters["marker"])
        xml.element("MaxResults", ifPresent: parameters.requestedMaximum)
        xml.open("Containers")
        for (name, record) in page.items {
            xml.open("Container")
            xml.element("Name", name)
            write(record, to: &xml, call)
            if parameters.include.contains("metadata") {
                xml.open("Metadata")
                for pair in record.metadata { xml.element(named: pair.name, pair.value) }
                xml.close("Metadata")
            }
            xml.close("Container")
        }
        xml.close("Containers")
        xml.element("NextMarker", page.next.map(ListMarker.encode) ?? "")
        xml.close("EnumerationResults")
        return .xml(.ok, xml)
    }

    /// One page of an account's containers in the order of their names. Throws 400 for a marker that no such list made.
    func containerPage(
        of account: StorageAccountView, prefix: String, marker: String?, maximum: Int, includesSystem: Bool
    ) async throws -> (items: [(name: String, record: ContainerRecord)], next: [UInt8]?) {
        let range = AccountKeySpace.containers(prefix: prefix)
        var from =
            try marker.map { text throws(StorageError) in try ListMarker.decode(text, within: range) } ?? range.from
        var items: [(name: String, record: ContainerRecord)] = []
        while true {
            let limit = maximum - items.count + 1
            let rows = try await account.volume.scan(.account, from: from, upTo: range.upTo, limit: limit)
            for row in rows {
                let name = String(decoding: row.key.dropFirst(2), as: UTF8.self)
                // `$logs` and its kind are listed on request only; `$root` and `$web` always.
                if name.hasPrefix("$"), name != "$root", name != "$web", !includesSystem { continue }
                guard items.count < maximum else { return (items, row.key) }
                items.append((name, try ContainerRecord(decoding: row.visible)))
            }
            guard rows.count == limit, let last = rows.last else { return (items, nil) }
            from = last.key + [0]
        }
    }

    private func write(_ record: ContainerRecord, to xml: inout XMLDocumentWriter, _ call: BlobCall) {
        xml.open("Properties")
        xml.element("Last-Modified", record.modified.rfc1123)
        xml.element("Etag", record.etag.quoted)
        xml.element("LeaseStatus", record.lease.isActive(at: call.now) ? "locked" : "unlocked")
        xml.element("LeaseState", record.lease.state(at: call.now).rawValue)
        xml.element("LeaseDuration", ifPresent: record.lease.durationKind(at: call.now))
        xml.element("PublicAccess", ifPresent: record.publicAccess?.rawValue)
        let encryption = ContainerEncryption(record)
        xml.element("DefaultEncryptionScope", encryption.wireName)
        xml.element("DenyEncryptionScopeOverride", String(encryption.deniesOverride))
        xml.element("HasImmutabilityPolicy", "false")
        xml.element("HasLegalHold", "false")
        xml.element("ImmutableStorageWithVersioningEnabled", "false")
        xml.close("Properties")
    }
}
