import EventModel
import Synchronization

/// Empties the session of a client id that this log used before: the broker still queues messages for it.
///
///     connect under the old client id → read until it has caught up → (the current client id subscribes)
///     → unsubscribe → read the rest → end the session
///
/// From the subscription of the new session to the end of the old one both receive: a message published in between is
/// recorded twice, none is lost.
final class SessionDrain: Sendable {
    /// The old session has nothing more to deliver for this long: it has caught up, or is empty.
    static let idleMicros: Int64 = 1_000_000
    /// Under constant traffic it is taken to have caught up after this.
    static let catchUpMicrosMax: Int64 = 60_000_000

    let clientID: String
    let filters: [String]
    private let owned = Mutex<BrokerConnection?>(nil)
    private let caughtUp = Atomic<Bool>(false)
    private let succeeded = Atomic<Bool>(false)
    private let finished = Atomic<Bool>(false)

    init(clientID: String, filters: [String]) {
        self.clientID = clientID
        self.filters = filters
    }

    var connection: BrokerConnection? { owned.withLock { $0 } }
    var hasCaughtUp: Bool { caughtUp.load(ordering: .acquiring) || isFinished }
    /// The current session is subscribed: the old one may go.
    var isSucceeded: Bool { succeeded.load(ordering: .acquiring) }
    var isFinished: Bool { finished.load(ordering: .acquiring) }

    func noteCaughtUp() { caughtUp.store(true, ordering: .releasing) }
    func noteSucceeded() { succeeded.store(true, ordering: .releasing) }
    func noteFinished() { finished.store(true, ordering: .releasing) }

    func start(for parent: BrokerConnection) {
        var settings = parent.settings
        settings.clientID = clientID
        let connection = BrokerConnection(
            settings, gate: Gate(parent.gate.settings), log: parent.log, history: parent.history, logID: parent.logID,
            parent: parent, drain: self, notify: parent.notify, onFatal: parent.onFatal)
        owned.withLock { $0 = connection }
        connection.start()
    }
}

extension BrokerConnection {
    /// Nil: the old session is there.
    func greetOldSession(_ session: MQTTSession, _ drain: SessionDrain) -> Ending? {
        status.withLock { $0.state = .connected }
        let isPresent = session.connack?.sessionPresent ?? false
        var event = BrokerEvent(clientID: drain.clientID), isLost = false
        do {
            let (standing, unseen) = try keeper.connected(sessionPresent: isPresent, isV5: session.isV5)
            isLost = standing == .lost
            event.sessionPresent = isPresent
            if unseen { event.unseenAttempt = true }
            write(.draining, event, to: session)
            if let history, !isHistoryRead {
                isHistoryRead = true
                credit(try SessionHistory.read(from: history, broker: settings.name, clientID: settings.clientID))
            }
        } catch {
            say(.error, "cannot read the log back (\(error)): redelivered messages are recorded again")
        }
        guard !isPresent else { return nil }
        let reason = "the broker no longer has the session of our earlier client id `\(drain.clientID)`"
        event = BrokerEvent(clientID: drain.clientID)
        event.reason = reason
        if isLost {
            write(.sessionLost, event, to: session)
            parent?.noteLost(reason)
        }
        write(.sessionDrained, event, to: session)
        if let ending = commit(session) { return ending }
        session.sendDisconnect()
        drain.noteFinished()
        return .stopped
    }

    func serve(_ session: MQTTSession, _ drain: SessionDrain) -> Ending {
        say(.info, "emptying the session of our earlier client id `\(drain.clientID)`")
        let begun = steadyMicros()
        var lastArrival = begun, seen = session.publishes, unsubscribedAt: Int64?
        while true {
            if isStopping {
                flush(session)
                session.sendDisconnect()
                return .stopped
            }
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: 50)
            absence.round(at: steadyMicros(), hasInput: ready.read, gate)
            var isAlive = true
            while isAlive, session.inbox.count < settings.batchMessagesMax, session.pendingBytes > 0
                || poll(session.socket, write: false, milliseconds: 0).read
            {
                isAlive = session.read()
            }
            if let ending = commit(session) { return ending }
            guard isAlive, session.write() else {
                let code = session.ended ?? 0
                return .lost(reason: session.describe(code), code: code)
            }
            acknowledged(session)
            _ = session.tick()
            let now = steadyMicros()
            if session.publishes != seen { (seen, lastArrival) = (session.publishes, now) }
            if now - lastArrival >= SessionDrain.idleMicros || now - begun >= SessionDrain.catchUpMicrosMax {
                drain.noteCaughtUp()
            }
            if unsubscribedAt == nil, drain.isSucceeded {
                unsubscribedAt = now
                if let text = session.unsubscribe(drain.filters) {
                    return .lost(reason: "cannot unsubscribe the earlier client id: \(text)", code: nil)
                }
            }
            if unsubscribedAt != nil, session.hasUnsuback, now - lastArrival >= 2 * SessionDrain.idleMicros {
                return endOldSession(session, drain)
            }
        }
    }

    /// It is empty and unsubscribed.
    private func endOldSession(_ session: MQTTSession, _ drain: SessionDrain) -> Ending {
        var event = BrokerEvent(clientID: drain.clientID)
        event.address = settings.address
        write(.sessionDrained, event, to: session)
        if let ending = commit(session) { return ending }
        flush(session)
        session.sendDisconnect(endsSession: true)
        if !session.isV5 { endSessionByCleanConnect() }
        say(.info, "the session of our earlier client id `\(drain.clientID)` is empty and ended")
        drain.noteFinished()
        return .stopped
    }

    /// MQTT 3.1.1 ends a session by a connection with Clean Session (3.1.2.4). If that fails, an empty session without
    /// a subscription stays at the broker.
    private func endSessionByCleanConnect() {
        guard let session = MQTTSession(
            settings, gate: gate.settings, isV5: false, clock: { [log] in log.now() }, inbox: RecordBatch(),
            endsSession: true),
            session.connect(blocking: true) == nil
        else { return }
        let deadline = steadyMicros() + 5_000_000
        while session.connack == nil, steadyMicros() < deadline, !isStopping {
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: 50)
            if ready.read, !session.read() { return }
            if !session.write() { return }
        }
        session.sendDisconnect()
    }
}
