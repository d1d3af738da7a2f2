import EventLog
import EventModel

/// The log's side of one session at one broker: what the log knows of it, which events record its life, and which
/// arrivals are redeliveries. It has no socket, no clock and no thread: `BrokerConnection` and the simulation drive it.
///
/// In the order of a connection's life: `willConnect` → `connected` → `examine` for each batch → `redeliveryEnded` on
/// the first SUBACK → `disconnected`.
package struct SessionKeeper {
    /// What a CONNACK means to the log.
    package enum Standing: Equatable {
        case new, resumed
        /// The broker has no session although one was left there.
        case lost
        /// The broker has a session that this log did not create.
        case unknown
    }

    private let broker: String
    private let clientID: String
    private let history: (any LogSource)?
    /// A session unknown to the log is ours: an operator said so, or nobody else has this client id. A first connection
    /// that ended before its CONNACK was recorded leaves such a session.
    private let adopts: Bool
    private let limits: PacketIDLimits
    /// The broker has, or should have, our session. Nil before `readHistory`.
    private var expectsSession: Bool?
    /// What the session is subscribed to, as far as the log knows.
    package var subscribedFilters: [String]?
    /// A `connecting` event stands in the log, with no `connected` behind it.
    private var isAttemptRecorded = false
    /// Since the last CONNACK a CONNECT may have reached the broker that was not answered.
    private var hasUnseenAttempt = false
    /// The broker had the session at the last CONNACK.
    private var isPresent = false
    /// The connection speaks MQTT 5.0.
    private var isV5 = false
    /// The broker may still redeliver.
    private var isResuming = false
    /// The first SUBACK of a resumed session is awaited: it belongs in the log.
    private var awaitsRedeliveryEnd = false
    private var filter: RedeliveryFilter?
    /// Packet id of the last QoS 1 arrival of the connection before this one, while the first new message is awaited.
    private var lastPacketID: UInt16?
    private var gapIsPending = false
    private var lateCopies = LateCopies()

    package init(
        broker: String, clientID: String, history: (any LogSource)?, adopts: Bool = false,
        limits: PacketIDLimits = PacketIDLimits()
    ) {
        self.broker = broker
        self.clientID = clientID
        self.history = history
        self.adopts = adopts
        self.limits = limits
        if history == nil { expectsSession = false }
    }

    package var isHistoryRead: Bool { expectsSession != nil }

    /// The broker had the session, and the log knows of a subscription: the broker may hold messages for it.
    package var hasBacklog: Bool { isPresent && subscribedFilters != nil }

    /// Takes over what the log knows. Nil: it cannot be read; a lost session must not pass unnoticed for that.
    mutating func note(_ known: SessionHistory?) {
        guard let known else {
            expectsSession = true
            return
        }
        let session = known.sessions[clientID]
        expectsSession = session?.isSubscribed ?? false
        subscribedFilters = session?.filters
        lastPacketID = known.lastPacketID
    }

    package mutating func readHistory() throws {
        guard let history, expectsSession == nil else { return }
        note(try SessionHistory.read(from: history, broker: broker, clientID: clientID))
    }

    // MARK: Connecting

    /// Called before a CONNECT is sent. The event must be durable before that; nil when one stands in the log.
    package mutating func willConnect() -> BrokerEvent? {
        guard !isAttemptRecorded else { return nil }
        isAttemptRecorded = true
        return BrokerEvent(clientID: clientID)
    }

    /// The attempt ended after its CONNECT may have left and before a CONNACK came.
    package mutating func wentUnanswered() {
        hasUnseenAttempt = !IngestFault.isPlanted(.ignoresUnansweredAttempts)
    }

    /// - Returns: the standing, and whether an unseen attempt goes into the `connected` event.
    /// - Throws: what reading the log throws.
    package mutating func connected(
        sessionPresent: Bool, isV5: Bool
    ) throws -> (standing: Standing, hadUnseenAttempt: Bool) {
        try readHistory()
        let unseen = hasUnseenAttempt
        let takesAny = adopts || IngestFault.isPlanted(.takesUnknownSessions)
        if sessionPresent, expectsSession == false, !takesAny, let history,
            try !SessionHistory.mentions(clientID, in: history, broker: broker)
        {
            return (.unknown, unseen)
        }
        (isAttemptRecorded, hasUnseenAttempt, filter) = (false, false, nil)
        (self.isV5, isPresent) = (isV5, sessionPresent)
        lateCopies = LateCopies()
        isResuming = sessionPresent && !unseen
        awaitsRedeliveryEnd = isResuming
        gapIsPending = sessionPresent && lastPacketID != nil
        defer { expectsSession = true }
        if sessionPresent { return (.resumed, unseen) }
        (lastPacketID, subscribedFilters) = (nil, nil)
        return (expectsSession == true ? .lost : .new, unseen)
    }

    /// - Parameter lastPacketID: of the last QoS 1 arrival of the connection.
    package mutating func disconnected(lastPacketID: UInt16?) {
        (isResuming, awaitsRedeliveryEnd, filter) = (false, false, nil)
        self.lastPacketID = lastPacketID ?? self.lastPacketID
    }

    // MARK: Arrivals

    /// Puts the batch through the gate. Reads the log back when the first message with DUP comes after a resume.
    /// - Parameters:
    ///   - hasDuplicates: a message in `incoming` has DUP.
    ///   - resumeEnd: offset in `incoming` of the first message that came behind a SUBACK.
    ///   - onUnreadable: the log cannot be read back; redelivered messages are then recorded again.
    package mutating func examine(
        _ incoming: borrowing RecordBatch, by gate: Gate, hasDuplicates: Bool, resumeEnd: Int?, own: OwnMessages,
        steadyMicros: Int64, into outgoing: inout RecordBatch,
        onUnreadable: (any Error) -> Void
    ) -> GateTally {
        if hasDuplicates, isResuming, filter == nil, let history {
            do {
                filter = try RedeliveryFilter.refill(
                    from: history, broker: broker, clientID: clientID, isV5: isV5, limits: limits)
            } catch {
                // Recording twice loses nothing; stopping would.
                onUnreadable(error)
                isResuming = false
            }
        }
        let tally = gate.examine(
            incoming, filter: &filter, resumeEnd: resumeEnd, own: own, steadyMicros: steadyMicros,
            into: &outgoing)
        if let filter, !filter.isOpen {
            self.filter = nil
            isResuming = false
        }
        return tally
    }

    /// The broker has answered a SUBSCRIBE that was sent behind the CONNECT: it has redelivered all that it held as
    /// unacknowledged. True the first time in a resumed session: then the event belongs in the log.
    package mutating func redeliveryEnded() -> Bool {
        defer { (isResuming, awaitsRedeliveryEnd, filter) = (false, false, nil) }
        return awaitsRedeliveryEnd
    }

    /// Call it for each batch. The packet id of a redelivery that must not be acknowledged, nor anything behind it: the
    /// connection must end once the batch is durable. MQTT 5.0 forbids to redeliver on a live connection (4.4).
    package mutating func lateCopy(in incoming: borrowing RecordBatch) -> UInt16? {
        guard !isV5, !IngestFault.isPlanted(.acknowledgesLateCopies) else { return nil }
        return lateCopies.note(incoming)
    }

    /// Messages that the broker delivered to another client between our last connection and this one. For brokers that
    /// keep packet ids only: there those of one session follow each other. 0 until the first new message has come.
    /// Call it for each batch, also before the broker has said what it is: what was read then lies in no gap.
    package mutating func missingDeliveries(in incoming: borrowing RecordBatch, isMosquitto: Bool) -> Int {
        guard gapIsPending, var last = lastPacketID else { return 0 }
        var missing = 0
        incoming.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count, gapIsPending {
                let record = RecordView(unchecked: bytes.baseAddress! + offset)
                offset += record.length
                guard record.kind == .message, record.flags.qos == 1 else { continue }
                let ahead = (Int(record.packetID) - Int(last) + 65_535) % 65_535
                if ahead > 0, ahead < 32_768 {
                    missing += ahead - 1
                    last = record.packetID
                }
                gapIsPending = record.flags.contains(.duplicate)
                // A counter that began again says nothing.
                if record.packetID == 1, missing > 0 { (missing, gapIsPending) = (0, false) }
            }
        }
        lastPacketID = last
        return isMosquitto ? missing : 0
    }
}
