import Testing
import Threading

struct HeartbeatTests {
    @Test func aBeatThatIsDueAndDoesNotComeIsOverdue() async throws {
        let heart = Heartbeat()
        #expect(heart.overdueSeconds == nil, "nothing is due before the first")
        heart.beat(within: 60)
        #expect(heart.overdueSeconds == nil)
        heart.beat(within: 0)
        try await Task.sleep(for: .milliseconds(20))
        #expect(try #require(heart.overdueSeconds) >= 0.02)
        heart.rest()
        #expect(heart.overdueSeconds == nil, "who waits for work is not late")
    }
}
