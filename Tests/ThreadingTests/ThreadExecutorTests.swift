import Testing
@testable import Threading

/// An actor whose own thread rests.
private actor Rester {
    private let executor = ThreadExecutor(name: "rester")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }
    private var calls = 0

    nonisolated func wake() { executor.wake() }
    func call() { calls += 1 }

    /// Rests until it was called.
    func restUntilCalled() async {
        while calls == 0 {
            executor.rest(milliseconds: 600_000)
            await Task.yield()
        }
    }

    func rest(milliseconds: Int) { executor.rest(milliseconds: milliseconds) }
}

/// Each test hangs for minutes if what it is about does not end the rest.
@Suite(.timeLimit(.minutes(1))) struct ThreadExecutorTests {
    @Test func aCallEndsARest() async {
        let rester = Rester()
        async let resting: Void = rester.restUntilCalled()
        await rester.call()
        await resting
    }

    @Test func aWakeEndsTheNextRest() async {
        let rester = Rester()
        async let resting: Void = rester.rest(milliseconds: 600_000)
        rester.wake()
        await resting
    }

    @Test func aRestEndsWhenItsTimeIsOver() async {
        let began = ContinuousClock.now
        await Rester().rest(milliseconds: 20)
        #expect(ContinuousClock.now - began >= .milliseconds(20))
    }
}
