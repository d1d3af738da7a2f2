import EventModel
import Primitives
import Synchronization

/// Empties the session of a client id that this log used before: the broker still queues messages for it.
///
///     connect under the old client id → read until it has caught up → (the current client id subscribes)
///     → unsubscribe → read the rest → end the session
///
/// The old session is empty when it was silent and then answers another UNSUBSCRIBE, sent behind the last PUBACK,
/// without a message in between. Silence alone shows only that nothing was read.
///
/// NATS delivers what was pending only when its `ack_wait` is over (30 s by default), and an UNSUBSCRIBE drops what it
/// has not delivered. Over MQTT 3.1.1, where only Mosquitto is known to redeliver at once, the old session is therefore
/// read for `patienceMicros` before the new one is subscribed.
///
/// RabbitMQ 3.10 answers an UNSUBSCRIBE in a resumed session and keeps the subscription. Where messages still arrive
/// behind the UNSUBACK (over MQTT 3.1.1, Mosquitto excepted), the old session is subscribed and unsubscribed again.
///
/// Between the SUBSCRIBE of the new session and the end of the old one both receive. A `Handover` drops the messages
/// that both received; without one they are recorded twice. None is lost.
final class SessionDrain: Sendable {
    /// The old session has nothing more to deliver for this long: it has caught up, or is empty.
    static let idleMicros: Int64 = 1_000_000
    /// Messages in flight at an UNSUBSCRIBE have arrived so long after its UNSUBACK.
    static let answerMicros: Int64 = 3_000_000
    /// For how long the old session is read before it is unsubscribed: all that was pending has come by then.
    static func patienceMicros(isV5: Bool, isMosquitto: Bool) -> Int64 { isV5 || isMosquitto ? 0 : 75_000_000 }
    /// Under constant traffic it is taken to have caught up after this.
    static let catchUpMicrosMax: Int64 = 60_000_000

    let clientID: String
    let filters: [String]
    /// Since when nothing was read as the process began: its own connections are on record since.
    let awaySince: Timestamp?
    /// Nil: messages of the two sessions cannot be matched.
    let handover: Handover?
    private let owned = Mutex<BrokerConnection?>(nil)
    private let caughtUp = Atomic<Bool>(false)
    private let finished = Atomic<Bool>(false)

    init(clientID: String, filters: [String], awaySince: Timestamp?, handover: Handover?) {
        (self.clientID, self.filters, self.awaySince) = (clientID, filters, awaySince)
        self.handover = handover
    }

    var connection: BrokerConnection? { owned.withLock { $0 } }
    var hasCaughtUp: Bool { caughtUp.load(ordering: .acquiring) || isFinished }
    var isFinished: Bool { finished.load(ordering: .acquiring) }

    func noteCaughtUp() { caughtUp.store(true, ordering: .releasing) }
    func noteFinished() { finished.store(true, ordering: .releasing) }

    /// The thread of the connection has ended.
    func release() { owned.withLock { $0 = nil } }

    func start(for parent: BrokerConnection) {
        var settings = parent.settings
        settings.clientID = clientID
        let connection = BrokerConnection(
            settings, gate: Gate(parent.gate.settings, certificates: parent.gate.certificates), log: parent.log,
            history: parent.history, logID: parent.logID,
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
            if standing == .unknown { return leave(session, drain, event) }
            isLost = standing == .lost
            event.sessionPresent = isPresent
            if unseen { event.unseenAttempt = true }
            write(.draining, event, to: session)
            credit(drain.awaySince)
        } catch {
            say(.error, "cannot read the log back (\(error)): redelivered messages are recorded again")
        }
        guard !isPresent else { return nil }
        let reason = "the broker no longer has the session of our earlier client id `\(drain.clientID)`"
        event = BrokerEvent(clientID: drain.clientID)
        if isLost { recordLost(event, reason, session) }
        event.reason = reason
        write(.sessionDrained, event, to: session)
        if let ending = commit(session) { return ending }
        session.sendDisconnect()
        drain.noteFinished()
        return .stopped
    }

    /// Another log's session, under a client id that this log had: nothing of it is read.
    private func leave(_ session: MQTTSession, _ drain: SessionDrain, _ event: BrokerEvent) -> Ending {
        write(.sessionUnknown, event, to: session)
        if let ending = commit(session) { return ending }
        session.hangUp()
        drain.noteFinished()
        return .stopped
    }

    func serve(_ session: MQTTSession, _ drain: SessionDrain) -> Ending {
        say(.info, "emptying the session of our earlier client id `\(drain.clientID)`")
        var progress = DrainProgress(
            at: SystemTime.bootMicroseconds(), arrivals: session.publishes - session.handoverMessages)
        var isFull = false, probedAt: Int64?
        let handover = drain.handover.flatMap { $0.isRefused || $0.hasBegun ? nil : $0 }
        if let handover { session.joinHandover(handover) }
        handingOver = handover
        defer { if let handover { leave(handover, isProbing: probedAt != nil) } }
        while true {
            if isStopping {
                flush(session)
                session.sendDisconnect()
                return .stopped
            }
            let isMore = isFull || session.pendingBytes > 0
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: isMore ? 0 : 50)
            noteRound()
            let isAlive = !(ready.read || isMore) || readAvailable(session, &isFull)
            if let ending = commit(session) { return ending }
            if let handover, session.isBehindMarker, let ending = settleBehindMarker(session, handover) {
                return ending
            }
            guard isAlive, session.write() else {
                let code = session.ended ?? 0
                return .lost(reason: session.describe(code), code: code)
            }
            acknowledged(session)
            _ = session.tick()
            if let handover { probe(session, drain, handover, &probedAt) }
            let isMosquitto = parent?.isMosquitto ?? false
            let sight = DrainProgress.Sight(
                now: SystemTime.bootMicroseconds(), arrivals: session.publishes - session.handoverMessages,
                unsubacks: session.unsubacks, isReplaced: parent?.isSubscribed ?? false, hasMore: isFull,
                wantsWrite: session.wantsWrite,
                patienceMicros: SessionDrain.patienceMicros(isV5: session.isV5, isMosquitto: isMosquitto),
                obeys: session.isV5 || isMosquitto)
            let isFirst = progress.unsubscribes == 0, step = progress.look(sight)
            if progress.hasCaughtUp(sight) { drain.noteCaughtUp() }
            if let ending = take(step, isFirst: isFirst, session, drain, handover) { return ending }
        }
    }

    private func take(
        _ step: DrainProgress.Step, isFirst: Bool, _ session: MQTTSession, _ drain: SessionDrain, _ handover: Handover?
    ) -> Ending? {
        switch step {
        case .wait: return nil
        case .end: return endOldSession(session, drain)
        case .unsubscribe: break
        case .subscribeAgain:
            say(.info, "messages still arrive for our earlier client id `\(drain.clientID)`; unsubscribing it again")
            if let text = session.subscribe(drain.filters) {
                return .lost(reason: "cannot subscribe the earlier client id: \(text)", code: nil)
            }
        }
        if isFirst {
            write(.unsubscribing, BrokerEvent(clientID: drain.clientID), to: session)
            if let ending = commit(session) { return ending }
        }
        return session.unsubscribe(drain.filters + (handover.map { [$0.topic] } ?? [])).map {
            .lost(reason: "cannot unsubscribe the earlier client id: \($0)", code: nil)
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
        guard
            let session = MQTTSession(
                settings, gate: gate.settings, isV5: false, clock: { [log] in log.now() }, inbox: RecordBatch(),
                endsSession: true),
            session.connect(blocking: true) == nil
        else { return }
        let deadline = SystemTime.bootMicroseconds() + 5_000_000
        while session.connack == nil, SystemTime.bootMicroseconds() < deadline, !isStopping {
            let ready = poll(session.socket, write: session.wantsWrite, milliseconds: 50)
            if ready.read, !session.read() { return }
            if !session.write() { return }
        }
        session.sendDisconnect()
    }
}
