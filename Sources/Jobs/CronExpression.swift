import Decisions
import EventModel

/// Times of a schedule, in UTC.
public enum JobSchedule: Sendable, Equatable {
    case cron(CronExpression)
    case interval(seconds: Int64)

    /// Nil: it has no times.
    public init?(_ schedule: JobPolicy.Schedule) {
        if let text = schedule.cron {
            guard schedule.intervalSeconds == nil, let cron = CronExpression(text),
                cron.next(after: Timestamp(seconds: 0)) != nil
            else { return nil }
            self = .cron(cron)
        } else if let seconds = schedule.intervalSeconds, (60...31 * 86_400).contains(seconds) {
            self = .interval(seconds: seconds)
        } else {
            return nil
        }
    }

    /// The first tick after a time.
    public func next(after time: Timestamp) -> Timestamp? {
        switch self {
        case .cron(let cron): return cron.next(after: time)
        case .interval(let seconds):
            let (quotient, remainder) = time.wholeSeconds.quotientAndRemainder(dividingBy: seconds)
            let whole = remainder < 0 ? quotient - 1 : quotient
            return Timestamp(seconds: (whole + 1) * seconds)
        }
    }

    /// The last tick after `last` and not after `now`, and how many came before it. After a year, the number is one of
    /// `missedMax` or more.
    func lastTick(after last: Timestamp, until now: Timestamp) -> (due: Timestamp, missed: Int64)? {
        guard var due = next(after: last), due <= now else { return nil }
        if case .interval(let seconds) = self {
            let more = (now.wholeSeconds - due.wholeSeconds) / seconds
            return (Timestamp(seconds: due.wholeSeconds + more * seconds), more)
        }
        var missed: Int64 = 0
        while missed < Self.missedMax, let next = next(after: due), next <= now { (due, missed) = (next, missed + 1) }
        // So many minutes were missed that the exact number is of no use: on from now.
        if missed == Self.missedMax, let next = next(after: now.moved(by: -60_000_000)), next <= now { due = next }
        return (due, missed)
    }

    private static let missedMax: Int64 = 10_000
}

/// Minute, hour, day of month, month, day of week: crontab(5), with `*`, lists, ranges and steps, in numbers. If both
/// days are restricted, either one is enough.
public struct CronExpression: Sendable, Equatable {
    private let minutes: Set<Int64>
    private let hours: Set<Int64>
    private let days: Set<Int64>
    private let months: Set<Int64>
    private let weekdays: Set<Int64>
    private let hasDays: Bool
    private let hasWeekdays: Bool

    public init?(_ text: String) {
        let fields = text.split(separator: " ")
        guard fields.count == 5, let minutes = Self.values(fields[0], 0...59),
            let hours = Self.values(fields[1], 0...23), let days = Self.values(fields[2], 1...31),
            let months = Self.values(fields[3], 1...12), let weekdays = Self.values(fields[4], 0...7)
        else { return nil }
        (self.minutes, self.hours, self.days, self.months) = (minutes, hours, days, months)
        // 7 is Sunday too.
        self.weekdays = Set(weekdays.map { $0 % 7 })
        (hasDays, hasWeekdays) = (!fields[2].hasPrefix("*"), !fields[4].hasPrefix("*"))
    }

    private static func values(_ field: Substring, _ range: ClosedRange<Int64>) -> Set<Int64>? {
        var values: Set<Int64> = []
        for part in field.split(separator: ",", omittingEmptySubsequences: false) {
            let halves = part.split(separator: "/", omittingEmptySubsequences: false)
            guard (1...2).contains(halves.count) else { return nil }
            var step: Int64 = 1
            if halves.count == 2 {
                guard let given = Int64(halves[1]), (1...60).contains(given) else { return nil }
                step = given
            }
            let ends = halves[0].split(separator: "-", omittingEmptySubsequences: false)
            let low: Int64, high: Int64
            if halves[0] == "*" {
                (low, high) = (range.lowerBound, range.upperBound)
            } else if ends.count == 2, let first = Int64(ends[0]), let last = Int64(ends[1]) {
                (low, high) = (first, last)
            } else if ends.count == 1, let first = Int64(ends[0]) {
                (low, high) = (first, halves.count == 2 ? range.upperBound : first)
            } else {
                return nil
            }
            guard range.contains(low), range.contains(high), low <= high else { return nil }
            values.formUnion(stride(from: low, through: high, by: Int(step)))
        }
        return values
    }

    /// The first minute after a time that matches; nil: none within five years (30 February).
    public func next(after time: Timestamp) -> Timestamp? {
        let start = time.wholeSeconds.saturatingAdding(60)
        guard abs(start / 86_400) < 100_000_000 else { return nil }
        var day = Self.floor(start, 86_400)
        var minute = Self.floor(start - day * 86_400, 60)
        for _ in 0..<(5 * 366) {
            if matches(day: day), let found = firstMinute(from: minute) {
                return Timestamp(seconds: day * 86_400 + found * 60)
            }
            (day, minute) = (day + 1, 0)
        }
        return nil
    }

    private func firstMinute(from minute: Int64) -> Int64? {
        (minute..<1_440).first { hours.contains($0 / 60) && minutes.contains($0 % 60) }
    }

    private func matches(day: Int64) -> Bool {
        let (_, month, dayOfMonth) = Timestamp.civil(daysSinceEpoch: day)
        guard months.contains(month) else { return false }
        // 1 January 1970 was a Thursday.
        let weekday = ((day + 4) % 7 + 7) % 7
        let (isDay, isWeekday) = (days.contains(dayOfMonth), weekdays.contains(weekday))
        return hasDays && hasWeekdays ? isDay || isWeekday : isDay && isWeekday
    }

    private static func floor(_ value: Int64, _ divisor: Int64) -> Int64 {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? quotient - 1 : quotient
    }
}
