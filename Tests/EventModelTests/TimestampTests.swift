import Foundation
import Testing
@testable import EventModel

@Suite struct TimestampTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000000Z"), (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_795_225_104_123_456, "2026-11-21T01:38:24.123456Z"),
        ] as [(Int64, String)])
    func roundTrip(microseconds: Int64, text: String) {
        #expect(Timestamp(microseconds: microseconds).description == text)
        #expect(Timestamp(rfc3339: text)?.microseconds == microseconds)
    }

    @Test func offsetsFractionsAndSpaces() {
        let expected = Timestamp(rfc3339: "2026-11-21T01:38:24Z")
        #expect(expected != nil)
        #expect(Timestamp(rfc3339: "2026-11-21 03:08:24.0000009+01:30") == expected)
        #expect(Timestamp(rfc3339: "2026-11-20t22:38:24.000-03:00") == expected)
    }

    @Test(arguments: [
        "", "2026-11-21", "2026-02-29T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T01:38:24",
        "2026-11-21T01:38:24.Z", "x",
    ])
    func refused(text: String) { #expect(Timestamp(rfc3339: text) == nil) }

    /// Sums and differences of what bytes and JSON give do not overflow, however often it is added.
    @Test(
        arguments: [
            ("-9223372036854775808", -1 << 61), ("9223372036854775807", 1 << 61), ("-7", -7), ("0", 0),
        ] as [(String, Int64)])
    func stepsOfTheClockStayWithinTheBoundsOfStoredTimes(text: String, step: Int64) throws {
        let json = #"{"before":"","after":"","step_microseconds":\#(text),"adopted":true}"#
        let event = try JSONDecoder().decode(ClockStepped.self, from: Data(json.utf8))
        #expect(event.movesTimersBy == step)
        let time = Timestamp(microseconds: 1_795_225_104_123_456)
        let moved = (0..<4).reduce(time) { time, _ in time.moved(by: step) }
        #expect(abs(moved.microseconds) <= 1 << 61)
        #expect(abs(ClockStepped(before: moved, after: time).stepMicroseconds) <= 1 << 61)
    }
}
