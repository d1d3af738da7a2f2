import Decisions
import EventModel
import Testing

@testable import CampaignRules

struct MaintenanceWindowsTests {
    typealias Window = CampaignPlan.Window

    /// A moment at which it is asked, whether it is open, and when that changes.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var windows: [Window]
        var zone: String
        var at: String
        var isOpen: Bool
        var next: String?
        var testDescription: String { name }

        init(_ name: String, _ windows: [Window], _ zone: String, at: String, open: Bool, next: String?) {
            (self.name, self.windows, self.zone) = (name, windows, zone)
            (self.at, self.isOpen, self.next) = (at, open, next)
        }
    }

    static let night = [Window(from: "22:00", to: "05:00")]
    static let early = [Window(from: "02:15", to: "02:45")]
    static let small = [Window(from: "01:30", to: "02:30")]

    static let cases: [Case] = [
        Case("none: always", [], "UTC", at: "2026-03-01T00:00:00Z", open: true, next: nil),
        Case(
            "before", [Window(from: "09:00", to: "17:00")], "UTC", at: "2026-03-01T08:59:59.999999Z", open: false,
            next: "2026-03-01T09:00:00Z"),
        Case(
            "at its beginning", [Window(from: "09:00", to: "17:00")], "UTC", at: "2026-03-01T09:00:00Z", open: true,
            next: "2026-03-01T17:00:00Z"),
        Case(
            "at its end", [Window(from: "09:00", to: "17:00")], "UTC", at: "2026-03-01T17:00:00Z", open: false,
            next: "2026-03-02T09:00:00Z"),
        Case(
            "over midnight, before it", night, "UTC", at: "2026-03-01T23:00:00Z", open: true,
            next: "2026-03-02T05:00:00Z"),
        Case(
            "over midnight, after it", night, "UTC", at: "2026-03-02T04:59:59Z", open: true,
            next: "2026-03-02T05:00:00Z"),
        Case(
            "over midnight, by day", night, "UTC", at: "2026-03-02T05:00:00Z", open: false,
            next: "2026-03-02T22:00:00Z"),
        Case(
            "the whole day: always", [Window(from: "00:00", to: "00:00")], "UTC", at: "2026-03-01T12:00:00Z",
            open: true, next: nil),
        Case(
            "to 24:00", [Window(from: "18:00", to: "24:00")], "UTC", at: "2026-03-01T20:00:00Z", open: true,
            next: "2026-03-02T00:00:00Z"),
        Case(
            "to 24:00, after it", [Window(from: "18:00", to: "24:00")], "UTC", at: "2026-03-02T00:00:00Z",
            open: false, next: "2026-03-02T18:00:00Z"),
        // 2026-03-06 is a Friday.
        Case(
            "Friday night is Friday's", [Window(days: ["fri"], from: "22:00", to: "05:00")], "UTC",
            at: "2026-03-07T03:00:00Z", open: true, next: "2026-03-07T05:00:00Z"),
        Case(
            "Thursday night is not", [Window(days: ["fri"], from: "22:00", to: "05:00")], "UTC",
            at: "2026-03-06T03:00:00Z", open: false, next: "2026-03-06T22:00:00Z"),
        Case(
            "all of Saturday", [Window(days: ["sat"], from: "00:00", to: "24:00")], "UTC",
            at: "2026-03-07T00:00:00Z", open: true, next: "2026-03-08T00:00:00Z"),
        Case(
            "weekend: both days together", [Window(days: ["sat", "sun"], from: "00:00", to: "24:00")], "UTC",
            at: "2026-03-02T00:00:00Z", open: false, next: "2026-03-07T00:00:00Z"),
        Case(
            "weekend: to its end", [Window(days: ["sat", "sun"], from: "00:00", to: "24:00")], "UTC",
            at: "2026-03-07T10:00:00Z", open: true, next: "2026-03-09T00:00:00Z"),
        Case(
            "two that overlap are one", [Window(from: "08:00", to: "12:00"), Window(from: "11:00", to: "14:00")],
            "UTC", at: "2026-03-07T09:00:00Z", open: true, next: "2026-03-07T14:00:00Z"),
        Case(
            "two that touch are one", [Window(from: "08:00", to: "12:00"), Window(from: "12:00", to: "14:00")],
            "UTC", at: "2026-03-07T09:00:00Z", open: true, next: "2026-03-07T14:00:00Z"),
        Case("before 1970", night, "UTC", at: "1969-12-31T21:00:00.5Z", open: false, next: "1969-12-31T22:00:00Z"),

        Case(
            "Berlin in winter", night, "Europe/Berlin", at: "2026-01-10T20:59:59Z", open: false,
            next: "2026-01-10T21:00:00Z"),
        Case(
            "Berlin in summer", night, "Europe/Berlin", at: "2026-07-10T20:00:00Z", open: true,
            next: "2026-07-11T03:00:00Z"),
        Case(
            "Kathmandu, a quarter past", night, "Asia/Kathmandu", at: "2026-07-10T16:14:59Z", open: false,
            next: "2026-07-10T16:15:00Z"),
        Case(
            "the other day on the other side of the world", [Window(days: ["mon"], from: "00:00", to: "06:00")],
            "Pacific/Auckland", at: "2026-07-05T13:00:00Z", open: true, next: "2026-07-05T18:00:00Z"),

        // Clocks go forward in Berlin on 2026-03-29 at 01:00Z, from 02:00 to 03:00.
        Case(
            "a night that is an hour short", night, "Europe/Berlin", at: "2026-03-28T22:00:00Z", open: true,
            next: "2026-03-29T03:00:00Z"),
        Case(
            "left out: not that night", early, "Europe/Berlin", at: "2026-03-28T12:00:00Z", open: false,
            next: "2026-03-30T00:15:00Z"),
        Case(
            "its end is left out: to the gap", small, "Europe/Berlin", at: "2026-03-29T00:45:00Z", open: true,
            next: "2026-03-29T01:00:00Z"),
        Case(
            "its beginning is left out: from the gap", [Window(from: "02:30", to: "03:30")], "Europe/Berlin",
            at: "2026-03-29T00:59:59Z", open: false, next: "2026-03-29T01:00:00Z"),
        Case(
            "after the gap", [Window(from: "02:30", to: "03:30")], "Europe/Berlin", at: "2026-03-29T01:00:00Z",
            open: true, next: "2026-03-29T01:30:00Z"),
        Case(
            "once a week, and left out: a week later", [Window(days: ["sun"], from: "02:15", to: "02:45")],
            "Europe/Berlin", at: "2026-03-23T12:00:00Z", open: false, next: "2026-04-05T00:15:00Z"),
        Case(
            "a Sunday of 23 hours", [Window(days: ["sun"], from: "00:00", to: "24:00")], "Europe/Berlin",
            at: "2026-03-28T23:00:00Z", open: true, next: "2026-03-29T22:00:00Z"),

        // And back on 2026-10-25 at 01:00Z, from 03:00 to 02:00.
        Case(
            "a night that is an hour longer", night, "Europe/Berlin", at: "2026-10-24T20:00:00Z", open: true,
            next: "2026-10-25T04:00:00Z"),
        Case(
            "twice: the first", early, "Europe/Berlin", at: "2026-10-25T00:20:00Z", open: true,
            next: "2026-10-25T00:45:00Z"),
        Case(
            "twice: between", early, "Europe/Berlin", at: "2026-10-25T00:45:00Z", open: false,
            next: "2026-10-25T01:15:00Z"),
        Case(
            "twice: the second", early, "Europe/Berlin", at: "2026-10-25T01:15:00Z", open: true,
            next: "2026-10-25T01:45:00Z"),
        Case(
            "the clocks close nothing that goes on", [Window(from: "01:30", to: "03:30")], "Europe/Berlin",
            at: "2026-10-25T00:00:00Z", open: true, next: "2026-10-25T02:30:00Z"),
        Case(
            "put back out of the window, and in again", [Window(from: "02:30", to: "03:30")], "Europe/Berlin",
            at: "2026-10-25T00:30:00Z", open: true, next: "2026-10-25T01:00:00Z"),
        Case(
            "half an hour on Lord Howe", [Window(from: "01:45", to: "02:15")], "Australia/Lord_Howe",
            at: "2026-04-04T14:50:00Z", open: true, next: "2026-04-04T15:00:00Z"),
    ]

    @Test(arguments: cases) func windows(_ item: Case) throws {
        let windows = try MaintenanceWindows(item.windows, timeZone: item.zone)
        let at = try #require(Timestamp(rfc3339: item.at))
        #expect(windows.isOpen(at: at) == item.isOpen)
        #expect(windows.nextChange(after: at) == item.next.flatMap { Timestamp(rfc3339: $0) })
    }

    /// Minute by minute through a year of each zone: what `nextChange` says is what one sees by looking.
    @Test(arguments: ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
    func nextChangeIsWhereLookingFindsIt(zone: String) throws {
        let windows = try MaintenanceWindows(
            [Window(days: ["sun", "wed"], from: "01:45", to: "02:15"), Window(from: "23:30", to: "01:10")],
            timeZone: zone)
        var at = try #require(Timestamp(rfc3339: "2026-01-01T00:00:00Z"))
        let end = at.adding(microseconds: 366 * 86_400_000_000)
        while at < end {
            let next = try #require(windows.nextChange(after: at)), isOpen = windows.isOpen(at: at)
            var look = at
            while look < next {
                #expect(windows.isOpen(at: look) == isOpen)
                look = look.adding(microseconds: 300_000_000)
            }
            #expect(windows.isOpen(at: next.adding(microseconds: -1)) == isOpen)
            #expect(windows.isOpen(at: next) != isOpen)
            at = next
        }
    }

    @Test(arguments: [
        ([Window(from: "9:00", to: "17:00")], "UTC", "windows[0].from"),
        ([Window(from: "24:00", to: "17:00")], "UTC", "windows[0].from"),
        ([Window(from: "12:60", to: "17:00")], "UTC", "windows[0].from"),
        ([Window(from: "12:00", to: "17:0x")], "UTC", "windows[0].to"),
        ([Window(from: "12:00", to: "24:01")], "UTC", "windows[0].to"),
        (
            [Window(from: "12:00", to: "13:00"), Window(days: ["Mon"], from: "12:00", to: "13:00")], "UTC",
            "windows[1].days"
        ),
        ([], "Europe/Berlim", "time_zone"), ([], "", "time_zone"), ([], "EST", "time_zone"),
        ([], "GMT+3", "time_zone"), ([], "../../etc/passwd", "time_zone"),
    ])
    func whatMakesNoSenseIsRefused(windows: [Window], zone: String, field: String) {
        do {
            _ = try MaintenanceWindows(windows, timeZone: zone)
            Issue.record("taken")
        } catch {
            #expect(error.field == field)
        }
    }
}
