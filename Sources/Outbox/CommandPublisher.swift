// Outbox: from a durable decision to the devices.
//
//     CommandPublisher     what the engine sees: commands in, acknowledgements out
//     BrokerOutbox         one broker: a thread and one long-lived connection, many publishes in flight
//     CommandQueue         what a broker has still to get, pure
//
// Invariants. A command is sent at least once, each time with the same id (the decision's position), until the broker
// acknowledges it, however long the broker is away: that is our trouble and never the device's failure. A device's
// commands keep their order. What the broker refuses is tried again and shown, and holds up nothing but that device.
// Only commands that stand in the log come here; what is in memory is lost with the process and found again there.

import Deciding
import Decisions
import EventModel
import Ingest
import MQTT
import Synchronization

/// Sends each command to every broker: a device is connected to one of them. A command is acknowledged when all have
/// taken it.
public final class CommandPublisher: Outbox {
    /// Limits and pauses of one broker's connection.
    public struct Options: Sendable {
        /// Publishes that may be unacknowledged at a time.
        public var window = 1_000
        /// Between attempts at what the broker refuses; doubled each time, to the longer one.
        public var refusedMillisecondsMin = 1_000
        public var refusedMillisecondsMax = 60_000
        /// So many devices' refused commands go again then; when one is taken, all do.
        public var retriesMax = 16
        /// Acknowledgements are gathered for so long, or until there are so many.
        public var reportMilliseconds = 20
        public var reportCountMax = 500
        /// How long the broker's answer to a CONNECT may take.
        public var answerMilliseconds = 10_000

        public init() {}
    }

    /// How one broker's connection is doing: a copy, taken under a lock.
    public struct Status: Sendable, Equatable {
        public let broker: String
        public internal(set) var isConnected = false
        /// `5.0` or `3.1.1`; nil before the first connection.
        public internal(set) var protocolVersion: String?
        /// Commands that are still to be sent.
        public internal(set) var waiting = 0
        /// Sent, and not answered.
        public internal(set) var sent = 0
        /// Devices whose command the broker has refused and not taken since.
        public internal(set) var refused = 0
        /// Since the start: acknowledged, and of those the ones that nobody was subscribed to (MQTT 5.0, 3.4.2.1).
        public internal(set) var acknowledged: UInt64 = 0
        public internal(set) var withoutSubscribers: UInt64 = 0
        /// Publishes that the broker refused, repetitions included.
        public internal(set) var refusals: UInt64 = 0
        public internal(set) var connections: UInt64 = 0
        /// Why it is not connected, or why it refuses; nil when all is well.
        public internal(set) var lastError: String?

        init(broker: String) { self.broker = broker }
    }

    private struct Key: Hashable {
        let device: CommandQueue.Device
        let command: Position
    }
    private struct State {
        /// Of every decider that sends.
        var acknowledged: [@Sendable ([Delivery]) -> Void] = []
        /// With several brokers: who has taken what some have not, a bit each.
        var takenBy: [Key: UInt64] = [:]
    }

    private let outboxes: [BrokerOutbox]
    private let state: SharedState

    /// The outboxes outlive nothing: what they report comes here, not to the publisher that owns them.
    private final class SharedState: Sendable {
        let value = Mutex(State())
    }

    /// - Parameters:
    ///   - brokers: as for ingest; the connections made here have client ids of their own. At most 64.
    ///   - logID: of the log that the decisions are in; commands carry it under MQTT 5.
    ///   - notify: lines for the program's log; called on the brokers' threads.
    public init(
        brokers: [BrokerSettings], logID: String, options: Options = Options(),
        notify: @escaping @Sendable (IngestNotice) -> Void = { _ in }
    ) {
        precondition(brokers.count <= 64, "more than 64 brokers")
        let state = SharedState()
        self.state = state
        let all: UInt64 = brokers.count == 64 ? .max : 1 << UInt64(brokers.count) - 1
        outboxes = brokers.enumerated().map { index, settings in
            BrokerOutbox(settings.beside("commands", logID: logID), logID: logID, options: options, notify: notify) {
                commands in
                Self.report(commands, takenBy: 1 << UInt64(index), all: all, state)
            }
        }
    }

    /// Starts a thread a broker, which connects at once. Once.
    public func start() { outboxes.forEach { $0.start() } }

    /// In the order of the brokers.
    public var statuses: [Status] { outboxes.map(\.status) }

    public func onAcknowledged(_ acknowledged: @escaping @Sendable ([Delivery]) -> Void) {
        state.value.withLock { $0.acknowledged.append(acknowledged) }
    }

    public func send(_ commands: [Delivery]) {
        guard !commands.isEmpty else { return }
        for outbox in outboxes { outbox.send(commands) }
    }

    public func withdraw(subject: String) {
        for outbox in outboxes { outbox.withdraw(subject: subject) }
    }

    /// Waits a moment for acknowledgements that are due, so that less is sent again by the next process, then says
    /// goodbye. What is still to be sent stays in the log.
    public func stop(timeoutSeconds: Double = 2) async {
        for outbox in outboxes { outbox.requestStop() }
        let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
        while !outboxes.allSatisfy(\.isFinished), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    private static func report(_ commands: [Delivery], takenBy outbox: UInt64, all: UInt64, _ state: SharedState) {
        let (taken, bodies) = state.value.withLock { state in
            guard all != outbox else { return (commands, state.acknowledged) }
            let taken = commands.filter { command in
                let key = Key(device: .init(command), command: command.id)
                let outboxes = state.takenBy[key, default: 0] | outbox
                state.takenBy[key] = outboxes == all ? nil : outboxes
                return outboxes == all
            }
            return (taken, state.acknowledged)
        }
        if !taken.isEmpty { for body in bodies { body(taken) } }
    }
}
