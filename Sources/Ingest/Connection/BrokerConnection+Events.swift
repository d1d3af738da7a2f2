import CMosquitto
import EventLog
import EventModel
import Primitives

// What a connection records about itself.

extension BrokerConnection {
    // MARK: Connected

    /// Records that we are connected, and subscribes.
    func greet(_ session: MQTTSession) -> Ending? {
        readHistory()
        if isHistoryRead { clear(.historyUnreadable) }
        let connack = session.connack, isPresent = connack?.sessionPresent ?? false
        let standing: SessionKeeper.Standing, unseen: Bool
        do {
            (standing, unseen) = try keeper.connected(sessionPresent: isPresent, isV5: session.isV5)
        } catch {
            return .lost(reason: "cannot read the log back: \(error)", code: nil)
        }
        let version = session.isV5 ? "5.0" : "3.1.1"
        var event = BrokerEvent(clientID: settings.clientID)
        event.address = settings.address
        if standing == .unknown { return refuseUnknown(session, event) }
        event.protocolVersion = version
        event.sessionPresent = isPresent
        event.sessionExpirySeconds = connack?.sessionExpirySeconds
        if unseen { event.unseenAttempt = true }
        write(.connected, event, to: session)
        if settings.adoptsSession, isPresent {
            write(.sessionAdopted, BrokerEvent(clientID: settings.clientID), to: session)
        }
        status.withLock { status in
            status.state = .connected
            status.sessionPresent = isPresent
            status.protocolVersion = version
            status.lastError = nil
            // A broker without our session may be another one.
            if !isPresent { status.version = nil }
        }
        if standing == .lost {
            let reason = "the broker has no session for this client id although one was left there"
            recordLost(event, reason, session)
        }
        say(
            standing == .lost ? .warning : .info,
            standing == .lost
                ? "connected, but the broker lost our session: messages may be missing"
                : "connected (MQTT \(version), session \(isPresent ? "resumed" : "new"))")
        noteExpiry(connack?.sessionExpirySeconds, session)
        credit(awaySince)
        startDrains()
        writeState(to: &session.inbox)
        let hasDrains = !drains.withLock { $0 }.isEmpty
        if hasDrains { raise(.drainingOldSession) }
        // A session that is subscribed receives already: the old ones are unsubscribed at once, or both would bring
        // every message until the old ones have caught up.
        let isSubscribed = isPresent && keeper.subscribedFilters == settings.wireFilters
        awaitsDrains = hasDrains && !isSubscribed
        if !awaitsDrains, let text = subscribe(session, isPresent: isPresent) {
            return .lost(reason: "cannot subscribe: \(text)", code: nil)
        }
        // The events become durable together with the first redeliveries, which came with the CONNACK.
        return nil
    }

    /// What the log says of the processes before this one. Where it cannot be read, the broker is served all the same,
    /// and each connection tries again.
    func readHistory() {
        guard !isHistoryRead, drain == nil, let history else { return }
        do {
            let known = try SessionHistory.read(from: history, broker: settings.name, clientID: settings.clientID)
            isHistoryRead = true
            clear(.historyUnreadable)
            keeper.note(known)
            awaySince = known.awaySince
            versionInLog.withLock { $0 = known.version }
            sessions.withLock { $0 = known.sessions }
            status.withLock { status in
                for alarm in known.alarms { status.raise(alarm) }
                status.droppedByBroker = known.droppedByBroker
                status.acceptedExpirySeconds = known.acceptedExpirySeconds
            }
        } catch {
            if !status.withLock({ $0.has(.historyUnreadable) }) { say(.error, "cannot read session history: \(error)") }
            raise(.historyUnreadable, evidence: "\(error)")
            if !keeper.isHistoryRead { keeper.note(nil) }
        }
        historyRetryAt = SystemTime.bootMicroseconds() + 10_000_000
    }

    /// What could not be read when the connection began, perhaps can be now (`refold log repair --accept-loss`).
    func retryHistory() {
        guard !isHistoryRead, drain == nil, history != nil, SystemTime.bootMicroseconds() >= historyRetryAt
        else { return }
        readHistory()
        startDrains()
        if !drains.withLock({ $0 }).isEmpty { raise(.drainingOldSession) }
    }

    /// Credits the devices for the time in which nothing was read, by the processes before this one too.
    func credit(_ awaySince: Timestamp?) {
        let now = log.now().microseconds, away = awaySince.map { now.saturatingSubtracting($0.microseconds) } ?? 0
        // Arrivals of the previous connection do not end the wait for this one's backlog.
        hasArrivals = false
        absence.connected(awayMicros: max(0, away), at: SystemTime.bootMicroseconds(), gate)
    }

    /// Sessions of client ids that the log used before still collect messages at the broker.
    private func startDrains() {
        guard isHistoryRead, !hasStartedDrains else { return }
        hasStartedDrains = true
        let old = sessions.withLock { $0 }.filter { $0.key != settings.clientID && $0.value.exists }
        guard !old.isEmpty else { return }
        let started = old.sorted { $0.key < $1.key }.map {
            // A shared subscription gives each message to one session only: nothing to compare.
            let canHandOver =
                isMosquitto && old.count == 1 && $0.value.filters == settings.wireFilters
                && settings.sharedGroup == nil
            return SessionDrain(
                clientID: $0.key, filters: $0.value.filters ?? settings.wireFilters, awaySince: awaySince,
                handover: canHandOver ? logID.map { Handover(logID: $0) } : nil)
        }
        drains.withLock { $0 = started }
        for drain in started { drain.start(for: self) }
        // A stop that came before the list was there has not reached them.
        if isStopping { requestStop() }
    }

    /// Nil, or what is wrong. Filters of before that are no longer wanted would live on in a resumed session.
    private func subscribe(_ session: MQTTSession, isPresent: Bool) -> String? {
        let wanted = settings.wireFilters, had = isPresent ? keeper.subscribedFilters ?? [] : []
        let dropped = had.filter { !wanted.contains($0) }
        if !dropped.isEmpty, let text = session.unsubscribe(dropped) { return text }
        // MQTT 3.1.1 has no Retain Handling: to subscribe again would bring every retained message again.
        if !session.isV5, isPresent, had == wanted {
            status.withLock { $0.subscribed = true }
        } else if let text = session.subscribe(wanted) {
            return text
        }
        if settings.watchesDropCounter { session.subscribeToBrokerTopics() }
        return nil
    }

    // MARK: Answers of the broker

    /// Processes SUBACKs and drain progress.
    func noteAnswers(_ session: MQTTSession) -> Ending? {
        if session.hasSuback, keeper.redeliveryEnded() {
            write(.sessionResumed, BrokerEvent(clientID: settings.clientID), to: session)
            if let ending = commit(session) { return ending }
        }
        if let ending = followDrains(session) { return ending }
        return handleSuback(session)
    }

    private func followDrains(_ session: MQTTSession) -> Ending? {
        let drains = self.drains.withLock { $0 }
        guard !drains.isEmpty else { return nil }
        if awaitsDrains, drains.allSatisfy(\.hasCaughtUp) {
            awaitsDrains = false
            let isPresent = session.connack?.sessionPresent ?? false
            let canHandOver = !keeper.hasBacklog && !drains.allSatisfy(\.isFinished)
            let handover = canHandOver ? drains.first?.handover.flatMap { $0.begin() ? $0 : nil } : nil
            if let handover { session.joinHandover(handover) }
            if let text = subscribe(session, isPresent: isPresent) {
                return .lost(reason: "cannot subscribe: \(text)", code: nil)
            }
            if let handover, let ending = takeOver(session, with: handover) { return ending }
        }
        if drains.allSatisfy(\.isFinished) {
            self.drains.withLock { $0 = [] }
            handingOver = nil
            clear(.drainingOldSession)
        }
        return nil
    }

    private func handleSuback(_ session: MQTTSession) -> Ending? {
        guard let granted = session.takeSuback() else { return nil }
        let isGranted = granted.count == settings.wireFilters.count && granted.allSatisfy { $0 < 128 }
        let isQoS1 = granted.allSatisfy { $0 >= 1 }
        var event = BrokerEvent(clientID: settings.clientID)
        event.filters = settings.wireFilters
        event.granted = granted
        if !isGranted { event.reasonCode = granted.first { $0 >= 128 } }
        write(isGranted ? .subscribed : .subscriptionRefused, event, to: session)
        // A session that is subscribed at a lower QoS is subscribed again by the next connection.
        keeper.subscribedFilters = isGranted && isQoS1 ? settings.wireFilters : nil
        status.withLock { status in
            status.subscribed = isGranted && isQoS1
            status.granted = granted
        }
        if isGranted {
            clear(.subscriptionRefused)
            if isQoS1 {
                clear(.grantedQoS0)
            } else {
                let refused = zip(settings.wireFilters, granted).filter { $0.1 == 0 }.map { "`\($0.0)`" }
                raise(.grantedQoS0, evidence: "for \(refused.joined(separator: ", "))")
                say(.error, BrokerAlarm.Code.grantedQoS0.summary)
            }
            return commit(session)
        }
        raise(.subscriptionRefused)
        let summary = BrokerAlarm.Code.subscriptionRefused.summary + ": " + BrokerAlarm.Code.subscriptionRefused.remedy
        status.withLock { $0.lastError = summary }
        return commit(session) ?? .lost(reason: summary, code: event.reasonCode)
    }

    func noteVersion(_ version: String, _ session: MQTTSession) {
        status.withLock { $0.version = version }
        guard drain == nil else { return }
        var event = BrokerEvent(clientID: settings.clientID)
        event.version = version
        write(.identified, event, to: session)
    }

    private func noteExpiry(_ seconds: UInt32?, _ session: MQTTSession) {
        guard session.isV5, let seconds, seconds < settings.sessionExpirySeconds else {
            status.withLock { $0.sessionExpirySeconds = nil }
            return clear(.sessionExpiryCapped)
        }
        let isAccepted = status.withLock { status in
            status.sessionExpirySeconds = seconds
            return status.acceptedExpirySeconds.map { seconds >= $0 } ?? false
        }
        guard !isAccepted else { return }
        raise(
            .sessionExpiryCapped,
            evidence: "\(seconds) s instead of \(settings.sessionExpirySeconds) s: a longer absence loses messages",
            in: session)
    }

    func noteDropped(_ dropped: UInt64, _ session: MQTTSession) {
        let before = status.withLock { status in
            defer { status.droppedByBroker = dropped }
            // Mosquitto publishes the counter when it changes: without a retained value it was 0.
            return status.droppedByBroker ?? (session.droppedHasMoved ? 0 : nil)
        }
        guard let before, dropped > before else { return }
        raise(.messagesDropped, evidence: "\(dropped - before) messages, for all of its clients", in: session)
    }

    // MARK: Another client with our client id

    /// As the broker says, or said when the log was read: a new session hears of it only when it is subscribed.
    var isMosquitto: Bool {
        (status.withLock { $0.version } ?? versionInLog.withLock { $0 })?.hasPrefix("mosquitto version") ?? false
    }

    /// Packet ids of one session are consecutive at Mosquitto: the messages of a gap went to another client or expired.
    func noteMissing(_ session: MQTTSession) {
        let missing = keeper.missingDeliveries(in: session.inbox, isMosquitto: isMosquitto)
        guard missing > 0 else { return }
        noteTakeover("\(missing) messages were delivered to another client, or expired, while we were away", session)
    }

    private func noteTakeover(_ evidence: String, _ session: MQTTSession) {
        status.withLock { $0.takeovers += 1 }
        raise(.sessionTakenOver, evidence: evidence, in: session)
    }

    private func refuseUnknown(_ session: MQTTSession, _ event: BrokerEvent) -> Ending {
        write(.sessionUnknown, event, to: session)
        if let ending = commit(session) { return ending }
        return .unknownSession
    }

    /// Stays away: each attempt would throw the other client out.
    func refuseForGood() {
        let code = BrokerAlarm.Code.sessionUnknown
        let text = "\(code.summary) (`\(settings.clientID)`): nothing was acknowledged; \(code.remedy)"
        status.withLock { status in
            status.state = .refused
            status.subscribed = false
            status.lastError = text
        }
        raise(code, evidence: "client id `\(settings.clientID)`")
        say(.error, text)
        while !isStopping { wait(milliseconds: 1_000) }
    }

    // MARK: Endings

    /// Makes durable what came before the end, and the end itself. Attempts that never got in are no events.
    func recordEnd(_ session: MQTTSession, reason: String, code: Int?) -> Ending? {
        guard session.connack?.reason == 0, drain == nil else { return commit(session) }
        if code == 0x8E { noteTakeover("DISCONNECT 0x8E: session taken over", session) }
        writeEnd(session, reason: reason, code: code)
        return commit(session)
    }

    func writeEnd(_ session: MQTTSession, reason: String, code: Int?) {
        var event = BrokerEvent(clientID: settings.clientID)
        event.address = settings.address
        event.reason = reason
        if let code, code >= 128 { event.reasonCode = code }
        event.droppedByBroker = status.withLock { $0.droppedByBroker }
        event.lastPacketID = session.lastPacketID
        write(.disconnected, event, to: session)
    }

    /// Milliseconds to wait before the next attempt; says why.
    func pause(_ session: MQTTSession, reason: String, code: Int?, lasted milliseconds: Int) -> Int {
        let wasIn = session.connack?.reason == 0, isTakenOver = wasIn && code == 0x8E
        if wasIn { backoff.connectionLasted(milliseconds: milliseconds) }
        let isEarly = wasIn && code == Int(MOSQ_ERR_CONN_LOST.rawValue) && milliseconds < 10_000
        earlyEnds = isEarly ? earlyEnds + 1 : 0
        let pause = isTakenOver ? backoff.nextAfterTakeover() : backoff.next()
        status.withLock { status in
            status.state = .waiting
            status.subscribed = false
            status.lastError = reason
        }
        if earlyEnds >= 3 { raise(.closedEarly, evidence: "\(earlyEnds) times in a row") }
        say(isTakenOver ? .error : .warning, "\(reason); next attempt in \(pause) ms")
        return pause
    }

    func noteStable() {
        earlyEnds = 0
        clear(.closedEarly)
    }

    // MARK: Alarms

    /// The broker no longer has a session of ours.
    func recordLost(_ event: BrokerEvent, _ reason: String, _ session: MQTTSession) {
        let alarm = BrokerAlarm(.sessionLost, since: log.now(), evidence: reason)
        var event = event
        event.reason = reason
        event.alarms = [alarm.event]
        write(.sessionLost, event, to: session)
        count { status in
            status.sessionsLost += 1
            status.raise(alarm)
        }
    }

    /// - Parameter session: where the event goes, for an alarm that outlives the process.
    func raise(_ code: BrokerAlarm.Code, evidence: String? = nil, in session: MQTTSession? = nil) {
        let alarm = BrokerAlarm(code, since: log.now(), evidence: evidence)
        let isNew = (parent ?? self).status.withLock { $0.raise(alarm) }
        guard isNew, let session else { return }
        say(.warning, "\(alarm.text): \(code.remedy)")
        var event = BrokerEvent(clientID: settings.clientID)
        event.alarm = code.rawValue
        event.reason = evidence
        event.alarms = [alarm.event]
        event.droppedByBroker = status.withLock { $0.droppedByBroker }
        write(.alarmRaised, event, to: session)
    }

    func clear(_ code: BrokerAlarm.Code) { count { $0.clear(code) } }

    // MARK: Writing

    func write(_ schema: BrokerEvent.Schema, _ event: BrokerEvent, to session: MQTTSession) {
        append(schema, event, to: &session.inbox)
    }

    func append(_ schema: BrokerEvent.Schema, _ event: BrokerEvent, to batch: inout RecordBatch) {
        (parent ?? self).sessions.withLock { SessionHistory.fold(schema, event, into: &$0) }
        batch.append(schema, event, broker: settings.name, at: log.now())
    }

    /// What a later process must know, in one event.
    func writeState(to batch: inout RecordBatch) {
        guard drain == nil, isHistoryRead, let history else { return }
        stateWrittenAt = history.durableCount
        var event = BrokerEvent(clientID: settings.clientID)
        event.sessions = sessions.withLock { $0 }.filter(\.value.exists).sorted { $0.key < $1.key }
            .map { BrokerEvent.Session(clientID: $0.key, filters: $0.value.filters) }
        status.withLock { status in
            event.alarms = status.outstanding.map(\.event)
            event.droppedByBroker = status.droppedByBroker
            event.acceptedExpirySeconds = status.acceptedExpirySeconds
        }
        append(.sessionState, event, to: &batch)
    }

    /// The log has grown so far that a later process would not find the last state.
    var isStateDue: Bool {
        guard drain == nil, isHistoryRead, let history else { return false }
        return history.durableCount >= stateWrittenAt + BrokerEvent.stateEveryEvents
    }

    func say(_ level: IngestNotice.Level, _ text: String) {
        notify(IngestNotice(level: level, broker: settings.name, text: text))
    }
}

extension RecordBatch {
    package mutating func append(
        _ schema: BrokerEvent.Schema, _ event: BrokerEvent, broker: String, at time: Timestamp
    ) {
        append(
            kind: .connection, schema: schema.rawValue, broker: broker, receivedAt: time, json: eventJSON(event))
    }
}
