import Decisions
import EventModel
import Foundation

/// When a campaign may send. A window is open exactly while the clocks on the walls of its time zone show a time in it:
/// nobody there sees anything sent at another. What follows when they are put forward or back: a time that is left out
/// opens nothing that night, and one that comes twice is open twice.
public struct MaintenanceWindows: Sendable {
    private struct Span: Sendable, Equatable {
        /// Bit 0 is Monday; of the window's beginning.
        var days: UInt8
        /// Seconds of the day; `to` at or before `from` is on the next day.
        var from: Int64
        var to: Int64
    }

    private let spans: [Span]
    private let zone: TimeZone
    /// Seconds of the day at which something may open or close, and midnight, when the weekday changes; ascending.
    private let edges: [Int64]

    private static let daySeconds: Int64 = 86_400
    /// Transitions of clocks are looked for in steps of this: two of them are never so near.
    private static let stepSeconds: Int64 = 6 * 3600
    /// A weekly window that a transition takes away comes again a week later.
    private static let horizonSeconds: Int64 = 22 * daySeconds

    /// - Parameters:
    ///   - windows: none: always open.
    ///   - timeZone: a name of the IANA time zone database.
    /// - Throws: `PlanProblem` at the first that makes no sense.
    public init(_ windows: [CampaignPlan.Window], timeZone: String) throws(PlanProblem) {
        guard let zone = Self.zone(named: timeZone) else {
            throw PlanProblem("time_zone", "is no name of the IANA time zone database, such as Europe/Berlin")
        }
        self.zone = zone
        var spans: [Span] = []
        for (index, window) in windows.enumerated() {
            spans.append(try Self.span(window, "windows[\(index)]"))
        }
        self.spans = spans
        edges = Set(spans.flatMap { [$0.from, $0.to % Self.daySeconds] } + [0]).sorted()
    }

    /// The names of places, and UTC. What else the library takes (`GMT+3`, `EST`) means different things to different
    /// people.
    static func zone(named name: String) -> TimeZone? {
        guard name == "UTC" || name.contains("/"), name.utf8.count <= 64 else { return nil }
        return TimeZone(identifier: name)
    }

    public static let dayNames = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

    private static func span(_ window: CampaignPlan.Window, _ field: String) throws(PlanProblem) -> Span {
        var days: UInt8 = window.days.isEmpty ? 0x7F : 0
        for name in window.days {
            guard let day = dayNames.firstIndex(of: name) else {
                throw PlanProblem("\(field).days", "takes \(dayNames.joined(separator: ", "))")
            }
            days |= 1 << UInt8(day)
        }
        guard let from = secondsOfDay(window.from), from < daySeconds else {
            throw PlanProblem("\(field).from", "is a time of day, 00:00 to 23:59")
        }
        guard let to = secondsOfDay(window.to) else {
            throw PlanProblem("\(field).to", "is a time of day, 00:00 to 24:00")
        }
        return Span(days: days, from: from, to: to)
    }

    /// `HH:MM`.
    private static func secondsOfDay(_ text: String) -> Int64? {
        let bytes = Array(text.utf8)
        guard bytes.count == 5, bytes[2] == 0x3A else { return nil }
        let digits = [0, 1, 3, 4].map { Int64(bytes[$0]) - 0x30 }
        guard digits.allSatisfy({ (0...9).contains($0) }) else { return nil }
        let hours = digits[0] * 10 + digits[1], minutes = digits[2] * 10 + digits[3]
        guard hours < 24 && minutes < 60 || hours == 24 && minutes == 0 else { return nil }
        return hours * 3600 + minutes * 60
    }

    public func isOpen(at moment: Timestamp) -> Bool {
        spans.isEmpty || isOpen(second: Self.second(moment))
    }

    /// When it opens if it is closed, and closes if it is open. Nil: as far as one can see, never.
    public func nextChange(after moment: Timestamp) -> Timestamp? {
        guard !spans.isEmpty else { return nil }
        var second = Self.second(moment)
        let isOpen = isOpen(second: second), end = second + Self.horizonSeconds
        while second < end {
            let offset = offset(at: second)
            var next = min(self.nextEdge(after: second + offset) - offset, second + Self.stepSeconds)
            if self.offset(at: next) != offset { next = transition(from: second, to: next) }
            if self.isOpen(second: next) != isOpen { return Timestamp(microseconds: next * 1_000_000) }
            second = next
        }
        return nil
    }

    /// Whole seconds since 1970, rounded down: windows begin and end with a second.
    private static func second(_ moment: Timestamp) -> Int64 {
        Int64((Double(moment.microseconds) / 1_000_000).rounded(.down))
    }

    private func offset(at second: Int64) -> Int64 {
        Int64(zone.secondsFromGMT(for: Date(timeIntervalSince1970: Double(second))))
    }

    private func isOpen(second: Int64) -> Bool {
        let wall = second + offset(at: second)
        let (day, ofDay) = Self.floorDivide(wall, Self.daySeconds)
        let weekday = UInt8(Self.floorDivide(day + 3, 7).rest)  // 1970-01-01 was a Thursday
        let today: UInt8 = 1 << weekday, yesterday: UInt8 = 1 << ((weekday + 6) % 7)
        return spans.contains { span in
            if span.from < span.to { return span.days & today != 0 && ofDay >= span.from && ofDay < span.to }
            return span.days & today != 0 && ofDay >= span.from || span.days & yesterday != 0 && ofDay < span.to
        }
    }

    /// The next time on the wall, counted from 1970 as if its clocks had never been changed.
    private func nextEdge(after wall: Int64) -> Int64 {
        let (day, ofDay) = Self.floorDivide(wall, Self.daySeconds)
        if let edge = edges.first(where: { $0 > ofDay }) { return day * Self.daySeconds + edge }
        return (day + 1) * Self.daySeconds + edges[0]
    }

    /// The first second with another offset than `from` has; `to` has another.
    private func transition(from: Int64, to: Int64) -> Int64 {
        let offset = offset(at: from)
        var before = from, after = to
        while after - before > 1 {
            let middle = before + (after - before) / 2
            if self.offset(at: middle) == offset { before = middle } else { after = middle }
        }
        return after
    }

    private static func floorDivide(_ value: Int64, _ by: Int64) -> (quotient: Int64, rest: Int64) {
        let (quotient, rest) = value.quotientAndRemainder(dividingBy: by)
        return rest < 0 ? (quotient - 1, rest + by) : (quotient, rest)
    }
}
