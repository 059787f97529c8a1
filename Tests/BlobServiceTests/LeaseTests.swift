import CofferCore
import Testing

@testable import BlobService

/// The tables "Outcomes of lease operations on blobs by lease state" of Lease Blob, as values.
@Suite struct LeaseTests {
    let now = Timestamp(unixSeconds: 1_000)
    func at(_ seconds: Int64) -> Timestamp { now.adding(seconds: seconds) }
    let a = "00000000-0000-0000-0000-00000000000a"
    let b = "00000000-0000-0000-0000-00000000000b"

    func leased(_ seconds: Int? = 60) throws -> Lease {
        var lease = Lease()
        try lease.acquire(id: a, durationSeconds: seconds, at: now)
        return lease
    }

    @Test func acquire() throws {
        var lease = try leased()
        #expect(lease.state(at: at(59)) == .leased && lease.state(at: at(60)) == .expired)
        #expect(lease.durationKind(at: now) == "fixed")
        #expect(throws: Lease.Refusal.alreadyPresent) { try lease.acquire(id: b, durationSeconds: nil, at: now) }
        try lease.acquire(id: a, durationSeconds: nil, at: now)
        #expect(lease.durationKind(at: at(1_000_000)) == "infinite")
        _ = try lease.breakLease(periodSeconds: 10, at: now)
        #expect(throws: Lease.Refusal.isBreakingAndCannotBeAcquired) {
            try lease.acquire(id: a, durationSeconds: 15, at: at(5))
        }
        #expect(throws: Lease.Refusal.alreadyPresent) { try lease.acquire(id: b, durationSeconds: 15, at: at(5)) }
        try lease.acquire(id: b, durationSeconds: 15, at: at(10))
        #expect(lease.holds(b))
        try lease.acquire(id: a, durationSeconds: 15, at: at(25))
        #expect(lease.holds(a), "an expired lease can be taken over")
    }

    @Test func renewChangeRelease() throws {
        var lease = try leased(15)
        #expect(throws: Lease.Refusal.idMismatch) { try lease.renew(id: b, at: now) }
        try lease.renew(id: a, at: at(20))
        #expect(lease.state(at: at(34)) == .leased)
        try lease.change(id: a, to: b, at: at(21))
        try lease.change(id: a, to: b, at: at(21))
        #expect(lease.holds(b))
        #expect(throws: Lease.Refusal.idMismatch) {
            try lease.change(id: a, to: "00000000-0000-0000-0000-00000000000c", at: at(21))
        }
        #expect(throws: Lease.Refusal.notPresent) { try lease.change(id: b, to: a, at: at(60)) }
        #expect(throws: Lease.Refusal.idMismatch) { try lease.release(id: a) }
        try lease.release(id: b)
        #expect(lease.state(at: at(21)) == .available)
        #expect(throws: Lease.Refusal.idMismatch) { try lease.renew(id: b, at: at(22)) }
    }

    @Test func breaking() throws {
        var fixed = try leased(30)
        #expect(try fixed.breakLease(periodSeconds: nil, at: at(10)) == 20)
        #expect(try fixed.breakLease(periodSeconds: 60, at: at(15)) == 15, "a break period can only become shorter")
        #expect(throws: Lease.Refusal.isBreakingAndCannotBeChanged) { try fixed.change(id: a, to: b, at: at(15)) }
        #expect(throws: Lease.Refusal.isBrokenAndCannotBeRenewed) { try fixed.renew(id: a, at: at(15)) }
        #expect(fixed.isActive(at: at(29)) && !fixed.isActive(at: at(30)))
        #expect(try fixed.breakLease(periodSeconds: 5, at: at(31)) == 0)
        var infinite = try leased(nil)
        #expect(try infinite.breakLease(periodSeconds: nil, at: now) == 0)
        #expect(infinite.state(at: now) == .broken)
        var longer = try leased(30)
        #expect(try longer.breakLease(periodSeconds: 60, at: now) == 30)
        var none = Lease()
        #expect(throws: Lease.Refusal.notPresent) { try none.breakLease(periodSeconds: nil, at: now) }
    }

    @Test func aWriteForgetsAnEndedLease() throws {
        var lease = try leased(15)
        lease.settleAfterWrite(at: at(10))
        #expect(lease.holds(a))
        lease.settleAfterWrite(at: at(15))
        #expect(throws: Lease.Refusal.idMismatch) { try lease.renew(id: a, at: at(16)) }
    }

    @Test func recordsRoundTrip() throws {
        var breaking = try leased()
        _ = try breaking.breakLease(periodSeconds: 3, at: now)
        for lease in [Lease(), try leased(), try leased(nil), breaking] {
            var writer = RecordWriter()
            lease.encode(into: &writer)
            var reader = RecordReader(writer.bytes)
            #expect(try Lease(from: &reader) == lease)
            try reader.finish()
        }
    }

    @Test(
        arguments: [
            ("1f812371-a41d-49e6-b123-f4b542e851c5", "1f812371-a41d-49e6-b123-f4b542e851c5"),
            ("{1F812371-A41D-49E6-B123-F4B542E851C5}", "1f812371-a41d-49e6-b123-f4b542e851c5"),
            ("1f812371a41d49e6b123f4b542e851c5", "1f812371-a41d-49e6-b123-f4b542e851c5"),
            ("1f812371", nil), ("zf812371-a41d-49e6-b123-f4b542e851c5", nil), ("", nil),
        ] as [(String, String?)]) func identifiers(_ text: String, _ canonical: String?)
    { #expect(leaseIdentifier(text) == canonical) }
}
