import CofferCore

/// When a key gets a new version by itself, and how long each version lives (Configure cryptographic key
/// auto-rotation).
struct RotationPolicy: Sendable, Codable, Equatable {
    enum ActionType: String, Sendable, Codable { case rotate = "Rotate", notify = "Notify" }
    enum Trigger: Sendable, Codable, Equatable { case afterCreate(CalendarPeriod), beforeExpiry(CalendarPeriod) }
    struct LifetimeAction: Sendable, Codable, Equatable {
        var trigger: Trigger
        var action: ActionType
    }
    var lifetimeActions: [LifetimeAction]
    var expiryTime: CalendarPeriod?
    var created: Timestamp?
    var updated: Timestamp?

    /// What a key without a policy answers.
    static let initial = RotationPolicy(
        lifetimeActions: [LifetimeAction(trigger: .beforeExpiry(CalendarPeriod(days: 30)), action: .notify)])

    /// When the key's newest version is to be followed by another; nil for never.
    func rotationDue(_ attributes: ObjectAttributes) -> Timestamp? {
        lifetimeActions.filter { $0.action == .rotate }.compactMap { action -> Timestamp? in
            switch action.trigger {
            case .afterCreate(let period): period.added(to: attributes.created)
            case .beforeExpiry(let period): attributes.expires.map { period.added(to: $0, sign: -1) }
            }
        }.min()
    }
}

/// An ISO 8601 duration of years, months and days, such as `P1Y`, `P90D` or `P1Y6M`.
struct CalendarPeriod: Sendable, Codable, Equatable {
    var years = 0
    var months = 0
    var days = 0

    init(years: Int = 0, months: Int = 0, days: Int = 0) {
        self.years = years
        self.months = months
        self.days = days
    }

    /// nil for anything but `P[nY][nM][nD]` with at least one part, each up to four digits.
    init?(iso8601 text: String) {
        guard text.first == "P" else { return nil }
        var digits = ""
        var last = 0
        self.init()
        for character in text.dropFirst() {
            if character.isASCII, character.isNumber {
                digits.append(character)
                continue
            }
            guard (1...4).contains(digits.utf8.count), let value = Int(digits) else { return nil }
            digits = ""
            switch character {
            case "Y" where last < 1: (years, last) = (value, 1)
            case "M" where last < 2: (months, last) = (value, 2)
            case "D" where last < 3: (days, last) = (value, 3)
            default: return nil
            }
        }
        guard last > 0, digits.isEmpty else { return nil }
    }

    var iso8601: String {
        "P" + (years > 0 ? "\(years)Y" : "") + (months > 0 ? "\(months)M" : "")
            + (days > 0 || years + months == 0 ? "\(days)D" : "")
    }
    /// A month counted as 30 days: for limits only.
    var approximateDays: Int { years * 365 + months * 30 + days }

    /// Calendar addition: the day of the month is cut to the month's length.
    func added(to start: Timestamp, sign: Int = 1) -> Timestamp {
        let f = start.fields
        let total = f.year * 12 + (f.month - 1) + sign * (years * 12 + months)
        let (year, month) = (total / 12, total % 12 + 1)
        for day in stride(from: f.day, to: 27, by: -1) {
            if let moved = Timestamp(
                year: year, month: month, day: day, hour: f.hour, minute: f.minute, second: f.second,
                microsecond: f.microsecond)
            {
                return moved.adding(seconds: Int64(sign * days) * 86_400)
            }
        }
        let moved = Timestamp(
            year: year, month: month, day: f.day, hour: f.hour, minute: f.minute, second: f.second,
            microsecond: f.microsecond)
        return (moved ?? start).adding(seconds: Int64(sign * days) * 86_400)
    }
}
