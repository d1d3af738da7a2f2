import Testing
@testable import EventLog

struct DiskForecastTests {
    @Test func aSteadyRate() throws {
        var forecast = DiskForecast()
        #expect(forecast.secondsUntilFull == nil && forecast.freeBytes == nil)
        for second in 0...60 { forecast.add(freeBytes: UInt64(1_000_000 - 1000 * second), at: Double(second)) }
        #expect(abs(try #require(forecast.secondsUntilFull) - 940) < 0.01)
        #expect(forecast.freeBytes == 940_000)
    }

    @Test func spaceTakenInStepsGivesTheRateBehindThem() throws {
        var forecast = DiskForecast()
        for second in 0..<300 { forecast.add(freeBytes: UInt64(10_000_000 - second / 60 * 60_000), at: Double(second)) }
        #expect((700...1300).contains(try #require(forecast.bytesPerSecond)))
    }

    @Test func whatIsOldDoesNotCount() throws {
        var forecast = DiskForecast()
        for second in 0..<100 { forecast.add(freeBytes: UInt64(10_000_000 - 50_000 * second), at: Double(second)) }
        for second in 100..<500 { forecast.add(freeBytes: 5_000_000, at: Double(second)) }
        #expect(forecast.secondsUntilFull == nil, "nothing is taken any more")
    }

    @Test func tooFewSamplesSpaceThatComesBackAndAFullDisk() {
        var forecast = DiskForecast()
        forecast.add(freeBytes: 1000, at: 0)
        forecast.add(freeBytes: 900, at: 5)
        #expect(forecast.secondsUntilFull == nil)
        for second in 10..<40 { forecast.add(freeBytes: UInt64(1000 + second), at: Double(second)) }
        #expect(forecast.secondsUntilFull == nil)
        forecast.add(freeBytes: 0, at: 41)
        #expect(forecast.secondsUntilFull == 0)
    }
}
