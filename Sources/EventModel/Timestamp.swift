/// A moment in UTC, in whole microseconds since 1970-01-01: the resolution of PostgreSQL's `timestamptz`.
@frozen
public struct Timestamp: Comparable, Hashable, Sendable, CustomStringConvertible {
    public var microseconds: Int64

    @inlinable public init(microseconds: Int64) { self.microseconds = microseconds }
    @inlinable public static func < (a: Timestamp, b: Timestamp) -> Bool { a.microseconds < b.microseconds }
    /// Saturates: a time from outside may lie at the limits.
    @inlinable public func adding(microseconds more: Int64) -> Timestamp {
        let (sum, isOver) = microseconds.addingReportingOverflow(more)
        return Timestamp(microseconds: isOver ? (more > 0 ? .max : .min) : sum)
    }

    /// A time as bytes or JSON give it, moved within ±73,000 years of 1970: differences and sums of such times do not
    /// overflow, whatever a damaged or foreign file holds.
    @inlinable public init(storedMicroseconds stored: Int64) {
        microseconds = Int64(storedMicroseconds: stored)
    }

    /// This time moved by a step of the log's clock, or by a duration from the log: within the bounds of stored times,
    /// however many steps add up.
    @inlinable public func moved(by microseconds: Int64) -> Timestamp {
        Timestamp(storedMicroseconds: self.microseconds.saturatingAdding(microseconds))
    }
    /// At the limit where it lies beyond.
    public init(seconds: Int64) {
        let (microseconds, isOver) = seconds.multipliedReportingOverflow(by: 1_000_000)
        self.init(microseconds: isOver ? (seconds < 0 ? .min : .max) : microseconds)
    }

    /// Since 1970, rounded down.
    public var wholeSeconds: Int64 { Self.floorDivide(microseconds, 1_000_000).0 }

    @inlinable public var secondsSinceEpoch: Double { Double(microseconds) / 1_000_000 }

    /// RFC 3339 with six decimals, always in UTC: `2026-11-21T01:38:24.000000Z`.
    public var description: String {
        let (days, inDay) = Self.floorDivide(microseconds, 86_400_000_000)
        let (year, month, day) = Self.civil(daysSinceEpoch: days)
        let (seconds, micros) = inDay.quotientAndRemainder(dividingBy: 1_000_000)
        let hour = seconds / 3600, minute = seconds / 60 % 60, second = seconds % 60
        func pad(_ value: Int64, _ width: Int) -> String {
            let digits = String(value)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let date = "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))"
        return "\(date)T\(pad(hour, 2)):\(pad(minute, 2)):\(pad(second, 2)).\(pad(micros, 6))Z"
    }

    /// Reads RFC 3339 (section 5.6): a full date and time with an offset; a space may stand for `T`.
    /// Digits beyond microseconds are cut off. A leap second (`:60`) counts as the second after.
    public init?(rfc3339 text: some StringProtocol) {
        var bytes = Array(text.utf8)[...]
        func number(_ width: Int) -> Int64? {
            guard bytes.count >= width else { return nil }
            var value: Int64 = 0
            for byte in bytes.prefix(width) {
                guard byte >= 0x30, byte <= 0x39 else { return nil }
                value = value * 10 + Int64(byte - 0x30)
            }
            bytes = bytes.dropFirst(width)
            return value
        }
        func skip(_ allowed: String) -> Bool {
            guard let first = bytes.first, allowed.utf8.contains(first) else { return false }
            bytes = bytes.dropFirst()
            return true
        }
        guard let year = number(4), skip("-"), let month = number(2), skip("-"), let day = number(2), skip("Tt "),
            let hour = number(2), skip(":"), let minute = number(2), skip(":"), let second = number(2),
            (1...12).contains(month), day >= 1, day <= Self.daysIn(month: month, year: year),
            hour < 24, minute < 60, second <= 60
        else { return nil }
        var micros: Int64 = 0
        if skip(".") {
            var scale: Int64 = 100_000, digits = 0
            while let byte = bytes.first, byte >= 0x30, byte <= 0x39 {
                micros += Int64(byte - 0x30) * scale
                scale /= 10
                digits += 1
                bytes = bytes.dropFirst()
            }
            guard digits > 0 else { return nil }
        }
        var offsetMinutes: Int64 = 0
        if !skip("Zz") {
            guard let sign = bytes.first, sign == 0x2B || sign == 0x2D else { return nil }
            bytes = bytes.dropFirst()
            guard let hours = number(2), skip(":"), let minutes = number(2), hours < 24, minutes < 60 else {
                return nil
            }
            offsetMinutes = (hours * 60 + minutes) * (sign == 0x2B ? 1 : -1)
        }
        guard bytes.isEmpty else { return nil }
        let days = Self.daysSinceEpoch(year: year, month: month, day: day)
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offsetMinutes * 60
        self.init(microseconds: seconds * 1_000_000 + micros)
    }

    private static func floorDivide(_ value: Int64, _ by: Int64) -> (Int64, Int64) {
        let (quotient, rest) = value.quotientAndRemainder(dividingBy: by)
        return rest < 0 ? (quotient - 1, rest + by) : (quotient, rest)
    }

    private static func daysIn(month: Int64, year: Int64) -> Int64 {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
        return [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][Int(month - 1)]
    }

    /// The proleptic Gregorian calendar with years that begin in March, so that the leap day is the last day.
    private static func daysSinceEpoch(year: Int64, month: Int64, day: Int64) -> Int64 {
        let y = month <= 2 ? year - 1 : year
        let (era, yearOfEra) = floorDivide(y, 400)
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return era * 146_097 + dayOfEra - 719_468
    }

    package static func civil(daysSinceEpoch days: Int64) -> (Int64, Int64, Int64) {
        let (era, dayOfEra) = floorDivide(days + 719_468, 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return (year, month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }
}

/// In JSON: its microseconds.
extension Timestamp: Codable {
    public init(from decoder: any Decoder) throws {
        self.init(storedMicroseconds: try decoder.singleValueContainer().decode(Int64.self))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(microseconds)
    }
}
