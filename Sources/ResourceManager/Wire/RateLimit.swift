internal import CofferCore

/// A token bucket per principal ("Understand how Azure Resource Manager throttles requests"). Figures are Coffer's own:
/// a bucket holds 12,000 requests and refills by 200 a second.
struct RateLimit: Sendable {
    static let capacity: Int64 = 12_000
    static let refillPerSecond: Int64 = 200
    /// Principals remembered; when there are more, all start afresh.
    static let principalsLimit = 4_096

    private struct Bucket {
        var remaining: Int64
        var refilled: Timestamp
    }
    private var buckets: [String: Bucket] = [:]

    /// What remains after this request, or nil when there is nothing left.
    mutating func take(_ principal: String, at now: Timestamp) -> Int64? {
        if buckets.count >= Self.principalsLimit, buckets[principal] == nil { buckets = [:] }
        var bucket = buckets[principal] ?? Bucket(remaining: Self.capacity, refilled: now)
        let elapsed = max(0, now.microseconds - bucket.refilled.microseconds)
        let earned = min(Self.capacity, min(elapsed, 3_600_000_000) * Self.refillPerSecond / 1_000_000)
        if earned > 0 {
            bucket.remaining = min(Self.capacity, bucket.remaining + earned)
            bucket.refilled = now
        }
        guard bucket.remaining > 0 else {
            buckets[principal] = bucket
            return nil
        }
        bucket.remaining -= 1
        buckets[principal] = bucket
        return bucket.remaining
    }
}
