import Deciding
import EventLog
import EventModel
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

    /// How long the engine sleeps at most while a campaign is known, and when none is.
    private static let lookMilliseconds: Int64 = 50
    private static let idleMilliseconds: Int64 = 1_000
    /// After a failure.
    private static let pauseMilliseconds: Int64 = 2_000

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
        self.sender = sender
    }

    /// The state, refolded the first time it is asked for: from a snapshot on where there is one, else from the whole
    /// log. Called once at start-up, so that the first command need not wait.
    /// - Throws: `LogError`, `UnreadableDecision`.
    @discardableResult
    public func recover() throws -> CampaignState { try engine.recover() }

    /// Decides, appends, and answers when the decision is durable. A refusal is an answer, not an error.
    /// - Throws: `AppendError` (nothing was decided, or the log has failed for good), `LogError`, `UnreadableDecision`.
    public func execute(_ request: CommandRequest) throws -> CommandAnswer { try engine.execute(request) }

    /// Decides and sends until the task is cancelled. Passes each failure to `report`, then retries.
    public func run(report: @escaping @Sendable (any Error) -> Void) async {
        sender?.onAcknowledged { [acknowledged] commands in acknowledged.withLock { $0 += commands } }
        while !Task.isCancelled {
            var pause = Self.idleMilliseconds
            do {
                if !engine.isAlive { try engine.resume() }
                noteAcknowledged()
                try engine.step()
                if engine.state?.wantsMessages ?? false { pause = Self.lookMilliseconds }
            } catch {
                report(error)
                pause = Self.pauseMilliseconds
                if case .failed? = error as? AppendError { return }
            }
            // Cancelled: the loop ends.
            try? await Task.sleep(for: .milliseconds(pause))
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

    private func noteAcknowledged() {
        engine.note(acknowledged.withLock { waiting in
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
