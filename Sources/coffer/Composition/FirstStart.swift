import CofferCore
import EncryptionAtRest
import Foundation
import HTTPEdge

/// What an installation makes once and keeps for good, sealed like everything else.
enum FirstStart {
    /// The tenant and the subscription.
    static func installation(in store: SealedStore, randomness: any Randomness) async throws -> Installation {
        try await kept("installation", in: store.records(.resources, "installation")) {
            Installation(
                tenantID: randomness.uuidString(), subscriptionID: randomness.uuidString(), subscriptionName: "Coffer")
        }
    }

    /// The certificate authority that clients trust.
    static func authority(
        in store: SealedStore, clock: any WallClock, randomness: any Randomness
    ) async throws -> CertificateAuthority {
        struct Record: Codable {
            let privateKey: [UInt8]
            let certificate: String
        }
        let record = try await kept("authority", in: store.records(.identity, "authority")) {
            let made = try CertificateAuthority.generate(clock: clock, randomness: randomness)
            return Record(
                privateKey: made.privateKeyDER.withUnsafeBytes { Array($0) }, certificate: made.certificatePEM)
        }
        return try CertificateAuthority(
            privateKeyDER: SecretBytes(copying: record.privateKey), certificatePEM: record.certificate, clock: clock,
            randomness: randomness)
    }

    private static func kept<Value: Codable>(
        _ key: String, in records: SealedRecords, make: () throws -> Value
    ) async throws -> Value {
        if let record = try await records.get(key) {
            return try JSONDecoder().decode(Value.self, from: Data(record.value))
        }
        let made = try make()
        guard
            case .committed = try await records.commit(
                checks: [.absent(key)], [.put(key, [UInt8](JSONEncoder().encode(made)))])
        else { throw CommandFailure("Another process is making this installation. Wait for it, then start again.") }
        return made
    }
}
