internal import CofferCore
internal import Foundation
internal import StorageAccount

/// A container as it lies in the account's partition, wholly in the row's visible part: Azure goes on answering for
/// containers, their metadata and their access policies when a customer's key is gone.
struct ContainerRecord: Sendable, Codable {
    enum PublicAccess: String, Sendable, Codable { case container, blob }
    struct AccessPolicy: Sendable, Codable, Equatable {
        var identifier: String
        var start: Timestamp?
        var expiry: Timestamp?
        var permissions: String?
    }
    struct Pair: Sendable, Codable, Equatable {
        var name: String
        var value: String
    }

    /// Made at creation: names the container's partition, so that a later container of the same name begins empty.
    var id: String
    var created: Timestamp
    var modified: Timestamp
    var etag: ETag
    var publicAccess: PublicAccess?
    var policies: [AccessPolicy] = []
    var metadata: [Pair] = []
    var lease = Lease()
    /// What blobs answer to whose requests name no encryption scope; nil: the account's key. Chosen at creation.
    var defaultEncryptionScope: String?
    /// Whether requests may name no other. nil: they may.
    var deniesEncryptionScopeOverride: Bool?

    func encoded() throws -> [UInt8] { [UInt8](try JSONEncoder().encode(self)) }
    init(decoding bytes: [UInt8]) throws { self = try JSONDecoder().decode(ContainerRecord.self, from: Data(bytes)) }
    init(id: String, at now: Timestamp, publicAccess: PublicAccess?, metadata: [Pair]) {
        self.id = id
        created = now
        modified = now
        etag = ETag(at: now, after: nil)
        self.publicAccess = publicAccess
        self.metadata = metadata
    }
    mutating func touch(at now: Timestamp) {
        modified = now
        etag = ETag(at: now, after: etag)
    }
}
