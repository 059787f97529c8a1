/// A point in time in whole microseconds since 1970-01-01T00:00:00Z.
///
/// Every time in Coffer is one of these; it formats and parses the two spellings Azure's wires use (RFC 9110 dates and
/// ISO 8601) without a formatter object, so that stamping a response costs no lock.
public struct Timestamp: Sendable, Hashable, Comparable, Codable {
    public var microseconds: Int64

    public init(microseconds: Int64) { self.microseconds = microseconds }
    /// At the ends of what can be told, the end.
    public init(unixSeconds: Int64) { self = Timestamp(microseconds: 0).adding(seconds: unixSeconds) }

    /// Whole seconds since the epoch, rounded down.
    public var unixSeconds: Int64 { microseconds.flooredQuotient(by: 1_000_000) }

    public static func < (left: Timestamp, right: Timestamp) -> Bool { left.microseconds < right.microseconds }
    /// At the ends of what can be told, the end.
    public func adding(seconds: Int64) -> Timestamp {
        let (more, isTooMuch) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (sum, isOutside) = microseconds.addingReportingOverflow(more)
        return Timestamp(microseconds: isTooMuch || isOutside ? (seconds < 0 ? .min : .max) : sum)
    }
    /// Whole seconds from here to `later`, rounded up; negative when it is earlier.
    public func seconds(to later: Timestamp) -> Int64 {
        let (difference, isOutside) = later.microseconds.subtractingReportingOverflow(microseconds)
        guard !isOutside else { return later < self ? .min : .max }
        let (quotient, remainder) = difference.quotientAndRemainder(dividingBy: 1_000_000)
        return remainder > 0 ? quotient + 1 : quotient
    }

    public init(from decoder: any Decoder) throws {
        self.microseconds = try decoder.singleValueContainer().decode(Int64.self)
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(microseconds)
    }
}

extension Int64 {
    fileprivate func flooredQuotient(by divisor: Int64) -> Int64 {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? quotient - 1 : quotient
    }
}

// MARK: - Calendar

extension Timestamp {
    /// The proleptic Gregorian calendar fields, in UTC.
    public struct Fields: Sendable, Equatable {
        public var year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int, microsecond: Int
        /// 0 is Sunday.
        public var weekday: Int
    }

    public var fields: Fields {
        let seconds = unixSeconds
        let days = seconds.flooredQuotient(by: 86_400)
        let rest = Int(seconds - days * 86_400)
        // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let z = days + 719_468
        let era = z.flooredQuotient(by: 146_097)
        let dayOfEra = Int(z - era * 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let mp = (5 * dayOfYear + 2) / 153
        let month = mp < 10 ? mp + 3 : mp - 9
        return Fields(
            year: yearOfEra + Int(era) * 400 + (month <= 2 ? 1 : 0), month: month,
            day: dayOfYear - (153 * mp + 2) / 5 + 1,
            hour: rest / 3_600, minute: rest / 60 % 60, second: rest % 60,
            microsecond: Int((microseconds % 1_000_000 + 1_000_000) % 1_000_000),
            weekday: Int((days % 7 + 11) % 7))
    }

    /// The years that four digits can tell: 1 to 9999.
    private static let told = (-62_135_596_800_000_000 as Int64)..<(253_402_300_800_000_000 as Int64)

    /// Returns nil when a field is outside the calendar, or the time outside the years 1 to 9999.
    public init?(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0, microsecond: Int = 0)
    {
        guard (1...9_999).contains(year), (1...12).contains(month), (0...24).contains(hour), (0...59).contains(minute),
            (0...60).contains(second), (0...999_999).contains(microsecond)
        else { return nil }
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let lengths = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        guard (1...lengths[month - 1]).contains(day) else { return nil }
        let y = month <= 2 ? year - 1 : year
        let era = y / 400
        let yearOfEra = y - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = Int64(era * 146_097 + dayOfEra - 719_468)
        let seconds = days * 86_400 + Int64(hour * 3_600 + minute * 60 + second)
        self.init(microseconds: seconds * 1_000_000 + Int64(microsecond))
        guard Self.told.contains(microseconds) else { return nil }
    }
}

// MARK: - Spellings

extension Timestamp {
    private static let weekdays: [StaticString] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    private static let months: [StaticString] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, IMF-fixdate).
    public var rfc1123: String {
        let f = fields
        return String(unsafeUninitializedCapacity: 29) { buffer in
            var text = FixedText(buffer)
            text.put(Self.weekdays[f.weekday])
            text.put(", ")
            text.put(f.day, digits: 2)
            text.put(" ")
            text.put(Self.months[f.month - 1])
            text.put(" ")
            text.put(f.year, digits: 4)
            text.put(" ")
            text.put(clock: f)
            text.put(" GMT")
            return text.count
        }
    }

    /// `1994-11-06T08:49:37Z`.
    public var iso8601: String {
        String(unsafeUninitializedCapacity: 20) { buffer in
            var text = FixedText(buffer)
            text.put(dateAndTime: fields)
            text.put("Z")
            return text.count
        }
    }

    /// `1994-11-06T08:49:37.1234560Z`: seven fraction digits, as Azure Resource Manager and blob snapshots write it.
    public var iso8601WithTicks: String {
        let f = fields
        return String(unsafeUninitializedCapacity: 28) { buffer in
            var text = FixedText(buffer)
            text.put(dateAndTime: f)
            text.put(".")
            text.put(f.microsecond, digits: 6)
            text.put("0Z")
            return text.count
        }
    }

    /// Parses an IMF-fixdate; nil for anything else.
    public init?(rfc1123 text: some StringProtocol) {
        let parts = text.split(separator: " ", omittingEmptySubsequences: true)
        func number(_ text: some StringProtocol) -> Int? {
            text.utf8.count <= 4 && text.utf8.allSatisfy { (48...57).contains($0) } ? Int(text) : nil
        }
        guard parts.count == 6, parts[5] == "GMT" || parts[5] == "UTC", let day = number(parts[1]),
            let year = number(parts[3]), let month = Self.months.firstIndex(where: { $0.description == parts[2] })
        else { return nil }
        let clock = parts[4].split(separator: ":")
        guard clock.count == 3, let hour = number(clock[0]), let minute = number(clock[1]),
            let second = number(clock[2])
        else {
            return nil
        }
        self.init(year: year, month: month + 1, day: day, hour: hour, minute: minute, second: second)
    }

    /// Parses the ISO 8601 forms that SAS tokens and Azure's APIs allow: `YYYY-MM-DD`, `…Thh:mmZ`, `…Thh:mm:ssZ`, with
    /// up to nine fraction digits; the zone is `Z` or `±hh:mm` (RFC 3339). nil for anything else.
    public init?(iso8601 text: some StringProtocol) {
        var rest = Substring(text)
        func number(_ digits: Int) -> Int? {
            let head = rest.prefix(digits)
            guard head.utf8.count == digits, head.utf8.allSatisfy({ (48...57).contains($0) }) else { return nil }
            rest = rest.dropFirst(digits)
            return Int(head)
        }
        func take(_ character: Character) -> Bool {
            guard rest.first == character else { return false }
            rest = rest.dropFirst()
            return true
        }
        guard let year = number(4), take("-"), let month = number(2), take("-"), let day = number(2) else { return nil }
        if rest.isEmpty {
            self.init(year: year, month: month, day: day)
            return
        }
        guard take("T"), let hour = number(2), take(":"), let minute = number(2) else { return nil }
        var second = 0
        var microsecond = 0
        if take(":") {
            guard let value = number(2) else { return nil }
            second = value
            if take(".") {
                let digits = rest.prefix { $0.isASCII && $0.isNumber }
                guard (1...9).contains(digits.count) else { return nil }
                microsecond = Int((String(digits) + "000000").prefix(6)) ?? 0
                rest = rest.dropFirst(digits.count)
            }
        }
        var offsetSeconds = 0
        if !take("Z") {
            let sign = take("+") ? -1 : take("-") ? 1 : 0
            guard sign != 0, let hours = number(2), hours < 24, take(":"), let minutes = number(2), minutes < 60
            else { return nil }
            offsetSeconds = sign * (hours * 3_600 + minutes * 60)
        }
        guard rest.isEmpty,
            let plain = Timestamp(
                year: year, month: month, day: day, hour: hour, minute: minute, second: second, microsecond: microsecond
            )
        else { return nil }
        self = plain.adding(seconds: Int64(offsetSeconds))
        guard Self.told.contains(microseconds) else { return nil }
    }
}

/// Text of a known length, written digit by digit: several dates stand in every response.
private struct FixedText {
    private let buffer: UnsafeMutableBufferPointer<UInt8>
    private(set) var count = 0

    init(_ buffer: UnsafeMutableBufferPointer<UInt8>) { self.buffer = buffer }

    mutating func put(_ text: StaticString) {
        text.withUTF8Buffer { bytes in
            for byte in bytes { put(byte: byte) }
        }
    }
    /// The last `digits` decimal digits, with leading zeros; neither spelling knows a year of more than four.
    mutating func put(_ value: Int, digits: Int) {
        var divisor: UInt = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            put(byte: 0x30 + UInt8(value.magnitude / divisor % 10))
            divisor /= 10
        }
    }
    mutating func put(clock f: Timestamp.Fields) {
        put(f.hour, digits: 2)
        put(":")
        put(f.minute, digits: 2)
        put(":")
        put(f.second, digits: 2)
    }
    mutating func put(dateAndTime f: Timestamp.Fields) {
        put(f.year, digits: 4)
        put("-")
        put(f.month, digits: 2)
        put("-")
        put(f.day, digits: 2)
        put("T")
        put(clock: f)
    }

    private mutating func put(byte: UInt8) {
        buffer[count] = byte
        count += 1
    }
}
