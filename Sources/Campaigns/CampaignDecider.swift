import Deciding
import EventLog
import EventModel
import Primitives
import Synchronization
import Threading

/// The thin actor around `CampaignEngine`: gives it a thread of its own, because appending and reading block, and lets
/// it look again and again while time passes. It never touches PostgreSQL.
public actor CampaignDecider {
    private let engine: CampaignEngine
    private let sender: (any CommandSending)?
    private let executor = ThreadExecutor(name: "campaigns")
    /// By the broker, since the last look.
    private let acknowledged = Acknowledged()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let clock: @Sendable () -> Timestamp
    private let sleep: DeciderSleep

    /// Least time between two rounds: what arrives together is decided together.
    private static let lookMicros: Int64 = 50_000
    /// Keeps short what a command must fold first; and the monotonic clock stands still while the machine is suspended.
    private static let sleepMillisecondsMax = 5_000
    /// After a failure.
    private static let pauseMicros: Int64 = 2_000_000

    /// - Parameters:
    ///   - writer: shared by all deciders of the log.
    ///   - clock: gives the time that decisions are stamped with; the log raises it where it must.
    ///   - sender: carries commands to devices; nil: nothing is sent (and `run` decides all the same).
    ///   - snapshot: returns the state saved in the newest snapshot; nil when there is none.
    public init(
        writer: DecisionWriter, source: any LogSource, clock: @escaping @Sendable () -> Timestamp,
        sender: (any CommandSending)? = nil,
        snapshot: @escaping @Sendable () -> DeciderSnapshot<CampaignState>? = { nil }
    ) {
        engine = CampaignEngine(writer: writer, source: source, clock: clock, sender: sender, snapshot: snapshot)
        (self.sender, self.clock) = (sender, clock)
        sleep = DeciderSleep(source: source, executor: executor)
    }

    /// The state, refolded the first time it is asked for: from a snapshot on where there is one, else from the whole
    /// log. Called once at start-up, so that the first command need not wait.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> CampaignState { try engine.recover() }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `UnreadableDecision`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer { try engine.execute(request) }

    /// Decides and sends until the task is cancelled; sleeps while neither the log grows nor anything is due. Passes
    /// each failure to `report`, then retries.
    public func run(report: @escaping @Sendable (any Error) -> Void) async {
        sender?.onAcknowledged { [acknowledged, sleep] commands in
            acknowledged.withLock { $0 += commands }
            sleep.wake()
        }
        await withTaskCancellationHandler {
            await decide(report)
        } onCancel: { [sleep] in
            sleep.stop()
        }
        guard engine.isAlive else { return }
        do {
            noteAcknowledged()
            try engine.recordAcknowledgements(all: true)
        } catch {
            // They are sent once more after the next start, with the same ids.
            report(error)
        }
    }

    private func decide(_ report: (any Error) -> Void) async {
        while !Task.isCancelled {
            let began = SystemTime.monotonicMicroseconds()
            do {
                if !engine.isAlive { try engine.resume() }
                noteAcknowledged()
                try engine.step()
                let hasCampaigns = engine.state?.wantsMessages ?? false
                sleep.sleep(
                    milliseconds: millisecondsToNextDecision(),
                    untilLogHasMoreThan: hasCampaigns ? engine.end.rawValue : nil)
                await Task.yield()
                await pause(untilMicros: began + Self.lookMicros)
            } catch {
                report(error)
                if case .failed? = error as? AppendError { return }
                await pause(untilMicros: began + Self.pauseMicros)
            }
        }
    }

    private func millisecondsToNextDecision() -> Int {
        guard let due = [engine.nextWake(), engine.acknowledgementsDue].compactMap({ $0 }).min() else {
            return Self.sleepMillisecondsMax
        }
        let left = due.microseconds.saturatingSubtracting(clock().microseconds)
        return Int(clamping: max(0, min(left / 1_000 + 1, Int64(Self.sleepMillisecondsMax))))
    }

    /// Commands are executed meanwhile.
    private func pause(untilMicros end: Int64) async {
        while !Task.isCancelled {
            let left = end - SystemTime.monotonicMicroseconds()
            guard left > 0 else { return }
            sleep.pause(milliseconds: Int(left / 1_000) + 1)
            await Task.yield()
        }
    }

    private func noteAcknowledged() {
        engine.note(
            acknowledged.withLock { waiting in
                defer { waiting = [] }
                return waiting
            })
    }
}

/// Mailbox of broker acknowledgements; any thread appends.
private final class Acknowledged: Sendable {
    private let waiting = Mutex<[DeviceCommand]>([])
    func withLock<R>(_ body: (inout [DeviceCommand]) -> R) -> R { waiting.withLock { body(&$0) } }
}
