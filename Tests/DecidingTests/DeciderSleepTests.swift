import Deciding
import EventLog
import Synchronization
import Testing
import Threading

/// Each test hangs for minutes if what it is about does not end the sleep.
@Suite(.timeLimit(.minutes(1))) struct DeciderSleepTests {
    private actor Sleeper {
        private let executor = ThreadExecutor(name: "sleeper")
        nonisolated let sleep: DeciderSleep
        nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

        init() { sleep = DeciderSleep(source: ScratchLog(), executor: executor) }

        func doze() { sleep.sleep(milliseconds: 600_000, untilLogHasMoreThan: nil) }
        func pause() { sleep.pause(milliseconds: 600_000) }
        func work() {}
    }

    private final class Flag: Sendable {
        private let state = Mutex(false)
        var isUp: Bool { state.withLock { $0 } }
        func raise() { state.withLock { $0 = true } }
    }

    @Test func aWakeEndsTheNextSleep() async {
        let sleeper = Sleeper()
        sleeper.sleep.wake()
        await sleeper.doze()
    }

    @Test(arguments: [false, true]) func aJobEndsASleepAndAPause(isPause: Bool) async {
        let sleeper = Sleeper(), isOver = Flag()
        async let dozing: Void = {
            if isPause { await sleeper.pause() } else { await sleeper.doze() }
            isOver.raise()
        }()
        while !isOver.isUp { await sleeper.work() }
        await dozing
    }

    @Test func aStopEndsEverySleepAndPause() async {
        let sleeper = Sleeper()
        sleeper.sleep.stop()
        await sleeper.doze()
        await sleeper.pause()
        await sleeper.doze()
    }
}
