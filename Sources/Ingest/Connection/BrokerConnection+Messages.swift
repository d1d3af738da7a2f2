import EventLog
import EventModel
import Primitives

// From the inbox into the log.

extension BrokerConnection {
    /// Makes what is in the inbox durable. Nil: it is, and the inbox is empty.
    func commit(_ session: MQTTSession) -> Ending? {
        if let dropped = session.droppedByBroker { noteDropped(dropped, session) }
        if session.hasQoS2, let ending = refuseQoS2(session) { return ending }
        if let version = session.takeVersion() { noteVersion(version, session) }
        if isStateDue { writeState(to: &session.inbox) }
        noteMissing(session)
        let resumeEnd = session.takeResumeEnd()
        guard !session.inbox.isEmpty else { return nil }
        let messages = session.takeReceived()
        if messages.messages > 0 { hasArrivals = true }
        let lateCopy = keeper.lateCopy(in: session.inbox)
        let own = session.hasClaims ? findOwn(session.inbox) : OwnMessages()
        let tally = keeper.examine(
            session.inbox, by: gate, hasDuplicates: session.hasDuplicates, resumeEnd: resumeEnd, own: own,
            steadyMicros: SystemTime.bootMicroseconds(), into: &outgoing, onUnreadable: noteUnreadable)
        session.hasDuplicates = false
        session.hasClaims = false
        recordRedelivered(tally.redelivered)
        let handed = handingOver.map { _ in Handover.digests(of: session.inbox) }
        let result =
            tally.untouched
            ? append(&session.inbox, queued: { gate.endJudging() })
            : append(&outgoing, queued: { gate.endJudging() })
        rate.record(messages.messages, at: SystemTime.bootMicroseconds())
        let count = tally.untouched ? session.inbox.count : outgoing.count
        self.count { status in
            status.received += UInt64(messages.messages)
            status.bytesReceived += UInt64(messages.bytes)
            status.duplicatesSuppressed += UInt64(tally.redelivered.count)
            status.echoes += UInt64(tally.echoes)
            status.replays += UInt64(tally.replays)
            status.withoutCertificate += tally.withoutCertificate
            for index in tally.verdicts.indices { status.verdicts[index] += tally.verdicts[index] }
            if let at = session.lastMessageAt { status.lastMessageAt = at }
            if result == nil { status.appended += UInt64(count) }
        }
        if !tally.untouched { swap(&session.inbox, &outgoing) }
        if result == nil {
            if let handed { noteForHandover(handed, isWhole: tally.redelivered.isEmpty) }
            session.inbox.removeAll()
        }
        if result == nil, let lateCopy { return giveUp(session, lateCopy) }
        return result
    }

    /// libmosquitto queues the PUBREC with the PUBLISH and hands the message out with the PUBREL: what ends in between
    /// is lost (MQTT 5.0, 4.3.3). We ask for QoS 1: only a session that another client has made holds such messages.
    private func refuseQoS2(_ session: MQTTSession) -> Ending? {
        guard !session.isHungUp else { return nil }
        session.hangUp()
        return .lost(
            reason: "the session `\(settings.clientID)` holds messages of QoS 2, which cannot be made durable before "
                + "they are acknowledged; empty it with the client that made it, or use another `node` or `client_id`",
            code: nil)
    }

    /// Ends the connection without the acknowledgements that are queued: one of them could end a message that was not
    /// read. The broker delivers what they were for once more.
    private func giveUp(_ session: MQTTSession, _ packetID: UInt16) -> Ending {
        session.hangUp()
        return .lost(
            reason: "the broker redelivered packet id \(packetID) after its PUBACK: acknowledged again, a newer one "
                + "could be lost",
            code: nil)
    }

    /// While the broker is away, too.
    func recordState() -> Ending? {
        var batch = RecordBatch()
        writeState(to: &batch)
        return append(&batch)
    }

    /// Blocks until durable. An empty batch is durable already.
    private func append(_ batch: inout RecordBatch, queued: () -> Void = {}) -> Ending? {
        guard !batch.isEmpty else {
            queued()
            return nil
        }
        do throws(AppendError) {
            _ = try log.append(&batch, queued: queued)
            return nil
        } catch {
            switch error {
            case .full(let text): return .held(text)
            case .failed(let text): return .fatal(text)
            }
        }
    }

    /// What was suppressed is on record before it is acknowledged again: it may come once more.
    private func recordRedelivered(_ ids: [UInt16]) {
        guard !ids.isEmpty else { return }
        var event = BrokerEvent(clientID: settings.clientID)
        event.count = UInt64(ids.count)
        event.packetIDs = packetIDRuns(ids)
        append(.redelivered, event, to: &outgoing)
    }

    private func noteUnreadable(_ error: any Error) {
        // Recording twice loses nothing; stopping would.
        raise(.historyUnreadable, evidence: "\(error)")
        say(.error, "cannot read the log back (\(error)): redelivered messages are recorded again")
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
                    if CommandEcho.isCandidate(record.topic), DeviceTopic(record.topic)?.topicClass.isCommand == true {
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
                say(.error, "cannot read the log back (\(error)): our own messages are recorded again")
            }
            saysOwnUnreadable = true
        }
        return found
    }

    /// Waits for space with the batch in hand. The socket is closed without a DISCONNECT and without the
    /// acknowledgements that are queued: they stand before any ping, so the connection cannot be kept alive.
    func hold(_ session: MQTTSession, _ text: String, hasEnded: Bool) -> Ending {
        session.hangUp()
        if !hasEnded, session.connack != nil, drain == nil { writeEnd(session, reason: "held", code: nil) }
        status.withLock { status in
            status.state = .held
            status.subscribed = false
            status.lastError = text
        }
        raise(.diskFull, evidence: text)
        say(.error, "held: \(text)")
        while !isStopping {
            wait(milliseconds: 250)
            let former = gate.judgeAgain(&session.inbox)
            self.count { status in
                for verdict in former { status.verdicts[Int(verdict.rawValue)] -= 1 }
                status.verdicts[Int(Verdict.certMismatch.rawValue)] += UInt64(former.count)
                status.withoutCertificate += UInt64(former.count)
            }
            switch append(&session.inbox, queued: { gate.endJudging() }) {
            case nil:
                let count = session.inbox.count
                self.count { $0.appended += UInt64(count) }
                clear(.diskFull)
                session.inbox.removeAll()
                say(.info, "disk space available; resuming")
                return .held(text)
            case .held: continue
            case .some(let ending): return ending
            }
        }
        return .stopped
    }
}

/// `[first, last]` of each run of ids that follow each other, in the order given.
func packetIDRuns(_ ids: [UInt16]) -> [[UInt16]] {
    var runs: [[UInt16]] = []
    for id in ids {
        if let last = runs.indices.last, runs[last][1] < .max, runs[last][1] + 1 == id {
            runs[last][1] = id
        } else {
            runs.append([id, id])
        }
    }
    return runs
}
