import EventModel
import Testing
@testable import Jobs

@Suite struct CronTests {
    @Test(arguments: [
        ("* * * * *", "2026-11-20T08:00:30Z", "2026-11-20T08:01:00Z"),
        ("0 */4 * * *", "2026-11-20T08:00:00Z", "2026-11-20T12:00:00Z"),
        ("15 3 * * *", "2026-12-31T04:00:00Z", "2027-01-01T03:15:00Z"),
        ("0 0 29 2 *", "2026-11-20T08:00:00Z", "2028-02-29T00:00:00Z"),
        ("30 6 * * 1-5", "2026-11-20T07:00:00Z", "2026-11-23T06:30:00Z"),
        ("0 12 1 * 7", "2026-11-20T08:00:00Z", "2026-11-22T12:00:00Z"),
        ("0 12 1,15 * *", "2026-11-20T08:00:00Z", "2026-12-01T12:00:00Z"),
        ("5/20 8 * * *", "2026-11-20T08:30:00Z", "2026-11-20T08:45:00Z"),
    ])
    func next(_ text: String, after: String, expected: String) throws {
        let cron = try #require(CronExpression(text))
        #expect(cron.next(after: Timestamp(rfc3339: after)!) == Timestamp(rfc3339: expected))
    }

    @Test(arguments: [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
        "*/0 * * * *", "a * * * *", "1,,2 * * * *", "-1 * * * *", "1/2/3 * * * *", "*/61 * * * *",
    ])
    func malformed(_ text: String) { #expect(CronExpression(text) == nil) }

    @Test func aDayThatNeverComesIsNoSchedule() {
        #expect(JobSchedule(.init("s", kind: "k", cron: "0 0 30 2 *")) == nil)
        #expect(JobSchedule(.init("s", kind: "k", intervalSeconds: 59)) == nil)
        #expect(JobSchedule(.init("s", kind: "k")) == nil)
    }

    @Test func timesAtTheLimits() throws {
        let cron = try #require(CronExpression("* * * * *"))
        for time in [Int64.min, -1, .max] { _ = cron.next(after: Timestamp(microseconds: time)) }
        #expect(cron.next(after: Timestamp(microseconds: -1)) == Timestamp(seconds: 0))
    }
}
