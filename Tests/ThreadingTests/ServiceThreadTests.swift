import Synchronization
import Testing
@testable import Threading

/// Each test hangs for minutes if what it is about does not end the rest.
@Suite(.timeLimit(.minutes(1))) struct ServiceThreadTests {
    @Test func aStopEndsARest() {
        let thread = ServiceThread(), rounds = Mutex(0)
        thread.start(name: "service") {
            while !thread.isStopping {
                rounds.withLock { $0 += 1 }
                thread.rest(milliseconds: 600_000)
            }
        }
        thread.stop()
        #expect(thread.join(milliseconds: 50_000))
        #expect(rounds.withLock { $0 } <= 1)
    }

    @Test func oneThatWasNeverStartedHasEnded() {
        let thread = ServiceThread()
        thread.stop()
        #expect(thread.join(milliseconds: 0))
    }

    @Test func aJoinGivesUpWhenItsTimeIsOver() {
        let thread = ServiceThread(), isReleased = Monitor(false)
        thread.start(name: "service") { isReleased.wait { $0 ? () : nil } }
        thread.stop()
        #expect(!thread.join(milliseconds: 1))
        isReleased.withLock { $0 = true }
        isReleased.wakeAll()
        #expect(thread.join(milliseconds: 50_000))
    }
}
