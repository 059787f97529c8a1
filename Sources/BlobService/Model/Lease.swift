internal import CofferCore

/// The lease of a blob or container: a state machine without a clock. Source: "Lease Blob" and "Lease Container" (Blob
/// service REST API), whose tables of outcomes by state the methods follow.
struct Lease: Sendable, Hashable, Codable {
    private enum Phase: Hashable, Codable {
        case available
        /// `durationSeconds` nil is an infinite lease, and then `expiry` is nil too.
        case held(id: String, durationSeconds: Int?, expiry: Timestamp?)
        /// A break period runs until `until`; after that the lease is broken.
        case breaking(id: String, until: Timestamp)
    }
    private var phase: Phase

    init() { phase = .available }

    enum State: String { case available, leased, expired, breaking, broken }

    /// Refusals, by the names the wire uses for them.
    enum Refusal: Error, Equatable {
        case alreadyPresent, idMismatch, notPresent, isBreakingAndCannotBeAcquired, isBreakingAndCannotBeChanged,
            isBrokenAndCannotBeRenewed
    }

    func state(at now: Timestamp) -> State {
        switch phase {
        case .available: .available
        case .held(_, _, let expiry?) where expiry <= now: .expired
        case .held: .leased
        case .breaking(_, let until): until <= now ? .broken : .breaking
        }
    }

    /// Whether a write needs the lease's identifier: leased, or its break period still runs.
    func isActive(at now: Timestamp) -> Bool {
        switch state(at: now) {
        case .leased, .breaking: true
        case .available, .expired, .broken: false
        }
    }

    var id: String? {
        switch phase {
        case .available: nil
        case .held(let id, _, _), .breaking(let id, _): id
        }
    }

    /// `fixed` or `infinite` while leased; nil otherwise.
    func durationKind(at now: Timestamp) -> String? {
        guard state(at: now) == .leased, case .held(_, let seconds, _) = phase else { return nil }
        return seconds == nil ? "infinite" : "fixed"
    }

    func holds(_ candidate: String) -> Bool { id == candidate.lowercased() }

    // MARK: Actions

    mutating func acquire(id: String, durationSeconds: Int?, at now: Timestamp) throws(Refusal) {
        switch state(at: now) {
        case .leased where !holds(id): throw .alreadyPresent
        case .breaking: throw holds(id) ? .isBreakingAndCannotBeAcquired : .alreadyPresent
        default: hold(id, durationSeconds, now)
        }
    }

    mutating func renew(id: String, at now: Timestamp) throws(Refusal) {
        guard holds(id) else { throw .idMismatch }
        switch phase {
        case .held(_, let seconds, _): hold(id, seconds, now)
        case .breaking: throw .isBrokenAndCannotBeRenewed
        case .available: throw .idMismatch
        }
    }

    mutating func change(id: String, to proposed: String, at now: Timestamp) throws(Refusal) {
        switch state(at: now) {
        case .available, .expired, .broken: throw .notPresent
        case .breaking: throw .isBreakingAndCannotBeChanged
        case .leased:
            // A repeated change whose first answer was lost succeeds: the lease already has the proposed identifier.
            guard holds(id) || holds(proposed) else { throw .idMismatch }
            guard case .held(_, let seconds, let expiry) = phase else { return }
            phase = .held(id: proposed.lowercased(), durationSeconds: seconds, expiry: expiry)
        }
    }

    mutating func release(id: String) throws(Refusal) {
        guard holds(id) else { throw .idMismatch }
        phase = .available
    }

    /// Returns the seconds until the lease is broken. `periodSeconds` nil: what remains of a fixed lease, nothing for
    /// an infinite one.
    mutating func breakLease(periodSeconds: Int?, at now: Timestamp) throws(Refusal) -> Int {
        switch phase {
        case .available: throw .notPresent
        case .held(let id, _, let expiry):
            let remaining = expiry.map { max(0, Int(now.seconds(to: $0))) }
            let wait =
                switch (periodSeconds, remaining) {
                case (let period?, let remaining?): min(period, remaining)
                case (let period?, nil): period
                case (nil, let remaining?): remaining
                case (nil, nil): 0
                }
            phase = .breaking(id: id, until: now.adding(seconds: Int64(wait)))
            return wait
        case .breaking(let id, let until):
            let remaining = max(0, Int(now.seconds(to: until)))
            let wait = min(periodSeconds ?? remaining, remaining)
            if wait < remaining { phase = .breaking(id: id, until: now.adding(seconds: Int64(wait))) }
            return wait
        }
    }

    /// What a write of the blob itself does to its lease: one that expired or was broken is forgotten and cannot be
    /// renewed.
    mutating func settleAfterWrite(at now: Timestamp) {
        if !isActive(at: now) { phase = .available }
    }

    private mutating func hold(_ id: String, _ seconds: Int?, _ now: Timestamp) {
        phase = .held(
            id: id.lowercased(), durationSeconds: seconds, expiry: seconds.map { now.adding(seconds: Int64($0)) })
    }
}

// MARK: - Record

extension Lease {
    func encode(into writer: inout RecordWriter) {
        switch phase {
        case .available: writer.byte(0)
        case .held(let id, let seconds, let expiry):
            writer.byte(1)
            writer.string(id)
            writer.optional(seconds) { $0.number(UInt64($1)) }
            writer.optional(expiry) { $0.timestamp($1) }
        case .breaking(let id, let until):
            writer.byte(2)
            writer.string(id)
            writer.timestamp(until)
        }
    }
    init(from reader: inout RecordReader) throws(RecordError) {
        switch try reader.byte() {
        case 0: phase = .available
        case 1:
            let id = try reader.string()
            let hasDuration = try reader.flag()
            let seconds = hasDuration ? try reader.int() : nil
            let hasExpiry = try reader.flag()
            phase = .held(id: id, durationSeconds: seconds, expiry: hasExpiry ? try reader.timestamp() : nil)
        case 2: phase = .breaking(id: try reader.string(), until: try reader.timestamp())
        default: throw RecordError.malformed
        }
    }
}
