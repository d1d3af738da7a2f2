import CMosquitto
import EventLog
import EventModel
import FoundationEssentials

// What a connection writes down, and what it does when it cannot.

extension BrokerConnection {
    // MARK: messages

    /// Makes what is in the inbox durable. Nil: it is, and the inbox is empty.
    func commit(_ session: MQTTSession) -> Ending? {
        if let dropped = session.droppedByBroker { noteDropped(dropped) }
        guard !session.inbox.isEmpty else { return nil }
        if session.hasDuplicates, seam == nil { readSeam() }
        let messages = session.takeReceived()
        let own = session.hasClaims ? findOwn(session.inbox) : OwnMessages()
        let tally = gate.examine(session.inbox, seam: seam, own: own, hasher: hasher, into: &outgoing)
        session.hasDuplicates = false
        session.hasClaims = false
        if !session.isAtSeam { seam = nil }
        let result = tally.untouched ? append(&session.inbox) : append(&outgoing)
        rate.record(messages.messages, at: monotonicMicros())
        let count = tally.untouched ? session.inbox.count : outgoing.count
        status.withLock { status in
            status.received += UInt64(messages.messages)
            status.bytesReceived += UInt64(messages.bytes)
            status.duplicatesSuppressed += UInt64(tally.duplicates)
            status.echoes += UInt64(tally.echoes)
            status.replays += UInt64(tally.replays)
            for index in tally.verdicts.indices { status.verdicts[index] += tally.verdicts[index] }
            if let at = session.lastMessageAt { status.lastMessageAt = at }
            if result == nil { status.note(appended: count) }
        }
        if !tally.untouched { swap(&session.inbox, &outgoing) }
        if result == nil { session.inbox.removeAll() }
        return result
    }

    /// Blocks until durable. An empty batch is durable already.
    private func append(_ batch: inout RecordBatch) -> Ending? {
        guard !batch.isEmpty else { return nil }
        do throws(AppendError) {
            _ = try log.append(&batch)
            return nil
        } catch {
            switch error {
            case .full(let text): return .held(text)
            case .failed(let text): return .fatal(text)
            }
        }
    }

    private func readSeam() {
        guard let history else { return }
        do {
            seam = try SeamWindow.refill(from: history, broker: settings.name)
            status.withLock { $0.clear(.seamUnreadable) }
        } catch {
            // Recording twice loses nothing; stopping would.
            status.withLock { $0.raise(.seamUnreadable) }
            say(.error, "cannot read the log back (\(error)): redelivered messages are recorded again")
        }
    }

    /// What is in the log already, being ours.
    private func findOwn(_ inbox: borrowing RecordBatch) -> OwnMessages {
        var found = OwnMessages()
        guard let echoes else { return found }
        do {
            try inbox.withUnsafeBytes { bytes in
                var offset = 0
                while offset < bytes.count {
                    let record = RecordView(unchecked: bytes.baseAddress! + offset)
                    // A device's own command topic is never the work of a replay: only what was accepted goes live.
                    if CommandEcho.isCandidate(record.topic), DeviceTopic(record.topic)?.topicClass == .otaCommand {
                        if try echoes.commands.isEcho(record) { found.echoes.insert(offset) }
                    } else if record.kind == .message, try echoes.replays.isEcho(record) {
                        found.replays.insert(offset)
                    }
                    offset += record.length
                }
            }
            saysOwnUnreadable = false
        } catch {
            // Recording twice loses nothing; stopping would.
            if !saysOwnUnreadable {
                say(.error, "cannot read the log back (\(error)): what comes out of it is recorded again")
            }
            saysOwnUnreadable = true
        }
        return found
    }

    private func noteDropped(_ dropped: UInt64) {
        status.withLock { status in
            if let before = status.droppedByBroker, dropped > before { status.raise(.brokerDrops) }
            status.droppedByBroker = dropped
        }
    }

    // MARK: connection events

    /// Writes down that we are connected, and subscribes.
    func greet(_ session: MQTTSession) -> Ending? {
        if expectsSession == nil { readHistory() }
        let isPresent = session.connack?.sessionPresent ?? false
        let isLost = !isPresent && expectsSession == true
        let version = session.isV5 ? "5.0" : "3.1.1"
        var event = BrokerEvent(clientID: settings.clientID)
        event.address = settings.address
        event.protocolVersion = version
        event.sessionPresent = isPresent
        write(.connected, event, to: session)
        if isLost {
            event.reason = "the broker has no session for this client id although one was left there"
            write(.sessionLost, event, to: session)
        }
        if !hasBeenConnected { adviseOnQueues() }
        expectsSession = true
        hasBeenConnected = true
        status.withLock { status in
            status.state = .connected
            status.sessionPresent = isPresent
            status.protocolVersion = version
            status.lastError = nil
            if isLost {
                status.raise(.sessionLost)
                status.sessionsLost += 1
            } else {
                status.clear(.sessionLost)
            }
        }
        say(isLost ? .warning : .info, isLost
            ? "connected, but the broker lost our session: messages may be missing"
            : "connected (MQTT \(version), session \(isPresent ? "resumed" : "new"))")
        if let text = subscribe(session, isPresent: isPresent) {
            return .lost(reason: "cannot subscribe: \(text)", code: nil)
        }
        return commit(session)
    }

    /// Nil, or what is wrong. Filters of before that are no longer wanted would live on in a resumed session.
    private func subscribe(_ session: MQTTSession, isPresent: Bool) -> String? {
        let wanted = settings.wireFilters, had = isPresent ? subscribedFilters ?? [] : []
        let dropped = had.filter { !wanted.contains($0) }
        if !dropped.isEmpty, let text = session.unsubscribe(dropped) { return text }
        // MQTT 3.1.1 has no Retain Handling: to subscribe again would bring every retained message again.
        if !session.isV5, isPresent, had == wanted {
            status.withLock { $0.subscribed = true }
        } else if let text = session.subscribe(wanted) {
            return text
        }
        if settings.watchesDropCounter { session.subscribeToDropCounter() }
        return nil
    }

    private func adviseOnQueues() {
        say(.info, "while we are away the broker queues for us: what is beyond its limit it drops in silence "
            + "(1,000 messages by default: Mosquitto max_queued_messages, EMQX max_mqueue_len)")
    }

    /// What the log says of a process before this one: whether it left a session with the broker.
    private func readHistory() {
        guard let history else { return }
        let known: BrokerHistory
        do {
            known = try BrokerHistory.read(from: history, broker: settings.name)
        } catch {
            // A session that is gone must not pass unnoticed because the log cannot say that there was one.
            say(.error, "the log cannot say whether we had a session with this broker: \(error)")
            expectsSession = true
            return
        }
        let isOurs = known.clientID == nil || known.clientID == settings.clientID
        expectsSession = known.sessionKnown && isOurs
        if isOurs { subscribedFilters = known.filters }
    }

    func handleSuback(_ session: MQTTSession) -> Ending? {
        guard let granted = session.takeSuback() else { return nil }
        let isGranted = granted.allSatisfy { $0 < 128 }
        var event = BrokerEvent(clientID: settings.clientID)
        event.filters = settings.wireFilters
        event.granted = granted
        if !isGranted { event.reasonCode = granted.first { $0 >= 128 } }
        write(isGranted ? .subscribed : .subscriptionRefused, event, to: session)
        subscribedFilters = isGranted ? settings.wireFilters : nil
        status.withLock { status in
            status.subscribed = isGranted
            status.granted = granted
            if isGranted {
                status.clear(.subscriptionRefused)
            } else {
                status.raise(.subscriptionRefused)
                status.lastError = BrokerStatus.Alarm.subscriptionRefused.rawValue
            }
        }
        if isGranted { return commit(session) }
        if let ending = commit(session) { return ending }
        return .lost(reason: BrokerStatus.Alarm.subscriptionRefused.rawValue, code: event.reasonCode)
    }

    private func write(_ schema: BrokerEvent.Schema, _ event: BrokerEvent, to session: MQTTSession) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let json = try? encoder.encode(event) else { preconditionFailure("a broker event is JSON") }
        session.inbox.append(
            kind: .connection, schema: schema.rawValue, broker: settings.name, receivedAt: wallClock(),
            json: Array(json))
    }

    // MARK: endings

    /// Makes durable what came before the end, and the end itself. Attempts that never got in are no events.
    func recordEnd(_ session: MQTTSession, reason: String, code: Int?) -> Ending? {
        guard session.connack?.reason == 0 else { return nil }
        writeEnd(session, reason: reason, code: code)
        return commit(session)
    }

    private func writeEnd(_ session: MQTTSession, reason: String, code: Int?) {
        var event = BrokerEvent(clientID: settings.clientID)
        event.address = settings.address
        event.reason = reason
        if let code, code >= 128 { event.reasonCode = code }
        write(.disconnected, event, to: session)
    }

    /// Waits for space with the batch in hand. The socket is closed without a DISCONNECT and without the
    /// acknowledgements that are queued: they stand before any ping, so the connection cannot be kept alive.
    func hold(_ session: MQTTSession, _ text: String, hasEnded: Bool) -> Ending {
        session.hangUp()
        if !hasEnded { writeEnd(session, reason: "held", code: nil) }
        status.withLock { status in
            status.state = .held
            status.subscribed = false
            status.lastError = text
            status.raise(.diskFull)
        }
        say(.error, "held: \(text)")
        while !isStopping {
            wait(milliseconds: 250)
            switch append(&session.inbox) {
            case nil:
                let count = session.inbox.count
                status.withLock { status in
                    status.note(appended: count)
                    status.clear(.diskFull)
                }
                session.inbox.removeAll()
                say(.info, "there is space again")
                return .held(text)
            case .held: continue
            case .some(let ending): return ending
            }
        }
        return .stopped
    }

    /// Milliseconds to wait before the next attempt; says why.
    func pause(_ session: MQTTSession, reason: String, code: Int?, lasted milliseconds: Int) -> Int {
        let wasIn = session.connack?.reason == 0
        if wasIn { backoff.connectionLasted(milliseconds: milliseconds) }
        let alarm = wasIn ? takeover(code, milliseconds) : nil
        let pause = alarm == nil ? backoff.next() : backoff.nextAfterTakeover()
        let text = alarm?.rawValue ?? reason
        status.withLock { status in
            status.state = .waiting
            status.subscribed = false
            status.lastError = text
            if let alarm { status.raise(alarm) }
        }
        say(alarm == nil ? .warning : .error, "\(text); next attempt in \(pause) ms")
        return pause
    }

    /// Whether another client seems to use our client id. MQTT 3.1.1 has no reason code for that and Mosquitto 2.0.11
    /// sends none: there the connection just ends, again and again, right after we got in.
    private func takeover(_ code: Int?, _ milliseconds: Int) -> BrokerStatus.Alarm? {
        if code == 0x8E { return .takenOver }
        let isQuick = code == Int(MOSQ_ERR_CONN_LOST.rawValue) && milliseconds < 10_000
        quickDrops = isQuick ? quickDrops + 1 : 0
        return quickDrops >= 3 ? .quickDrops : nil
    }

    /// After a while in peace nobody is fighting us for the client id.
    func noteStable() {
        quickDrops = 0
        status.withLock { status in
            status.clear(.takenOver)
            status.clear(.quickDrops)
        }
    }

    func say(_ level: IngestNotice.Level, _ text: String) {
        notify(IngestNotice(level: level, broker: settings.name, text: text))
    }
}

extension BrokerStatus {
    mutating func note(appended count: Int) {
        guard count > 0 else { return }
        appended += UInt64(count)
        batches.record(count)
    }
}
