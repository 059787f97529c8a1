import CofferCore
import Testing

struct TimestampTests {
    @Test(arguments: [
        (Int64(0), "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00Z"),
        (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT", "2099-12-31T23:59:59Z"),
    ])
    func spellingsRoundTrip(seconds: Int64, rfc1123: String, iso8601: String) {
        let time = Timestamp(unixSeconds: seconds)
        #expect(time.rfc1123 == rfc1123)
        #expect(time.iso8601 == iso8601)
        #expect(Timestamp(rfc1123: rfc1123) == time)
        #expect(Timestamp(iso8601: iso8601) == time)
    }

    @Test func everyDayOfFourCenturiesRoundTrips() {
        for day in stride(from: Int64(-50_000), to: 100_000, by: 1) {
            let time = Timestamp(unixSeconds: day * 86_400 + 1)
            #expect(Timestamp(iso8601: time.iso8601) == time)
            guard Timestamp(iso8601: time.iso8601) == time else { return }
        }
    }

    @Test(arguments: [
        ("2026-11-22", "2026-11-22T00:00:00Z"), ("2026-11-22T03:21Z", "2026-11-22T03:21:00Z"),
        ("2026-11-22T03:21:07.1234567Z", "2026-11-22T03:21:07Z"), ("2026-11-22T03:21:07+02:00", "2026-11-22T01:21:07Z"),
    ])
    func sharedAccessSignatureFormsAreRead(text: String, expected: String) {
        #expect(Timestamp(iso8601: text)?.iso8601 == expected)
    }

    @Test(arguments: [
        "", "2026", "2026-13-01", "2026-02-29", "2026-11-22T", "2026-11-22T25:00Z", "2026-11-22T03:21",
        "2026-11-22T03:21:00Zx", "٢٠٢٦-11-22",
    ])
    func othersAreRefused(text: String) {
        #expect(Timestamp(iso8601: text) == nil)
    }
}
