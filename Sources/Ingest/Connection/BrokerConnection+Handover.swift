import EventModel
import Glibc
import Primitives

// The new and the old session during a `Handover`.

extension BrokerConnection {
    // MARK: The new session

    /// Reads without acknowledging until the marker arrives and the old session has recorded everything before it. Then
    /// records all messages that are not dropped, whatever ended the wait.
    func takeOver(_ session: MQTTSession, with handover: Handover) -> Ending? {
        session.publishMarker(handover)
        var isAlive = session.write(), isFull = false
        let unacknowledgedMax = Handover.unacknowledgedMax(
            isV5: session.isV5, receiveMaximum: settings.receiveMaximum)
        let deadline = SystemTime.bootMicroseconds() + Handover.newWaitMicrosMax
        var lastArrival = SystemTime.bootMicroseconds(), seen = 0
        while isAlive, !isFull, !isStopping, !session.isBehindMarker || !handover.hasPassed {
            let now = SystemTime.bootMicroseconds(), held = session.inbox.count + session.behind.count
            if held != seen { (seen, lastArrival) = (held, now) }
            let isStalled = held > 0 && now - lastArrival >= Handover.stallMicrosMax
            // The earlier session is gone, too slow, or holds up what the broker has for this one.
            let isAlone = handover.isClosed && !handover.hasPassed
            if now >= deadline || held >= unacknowledgedMax || isStalled || isAlone { break }
            let isMore = session.pendingBytes > 0
            let ready = poll(session.socket, write: false, milliseconds: isMore ? 0 : 5)
            noteRound()
            guard ready.read || isMore else { continue }
            isAlive = readAvailable(session, &isFull)
            // Retained messages are the new session's own, and may be many.
            guard isAlive, !session.isBehindMarker, !session.inbox.isEmpty, !session.hasLiveMessages else { continue }
            if let ending = commit(session) { return ending }
            isAlive = session.write()
            isFull = false
        }
        let hasMarker = session.isBehindMarker, before = Handover.digests(of: session.inbox)
        let isComplete = hasMarker && (before.isEmpty || handover.endsOld(before))
        if isComplete { recordDropped(session.dropLiveMessages(before.count), session) }
        say(
            isComplete ? .info : .warning,
            isComplete
                ? "handover from the earlier client id complete"
                : "handover from the earlier client id incomplete: "
                    + "messages that both sessions received are recorded twice"
        )
        if let ending = commit(session) { return ending }
        session.moveBehindToInbox()
        if hasMarker { handingOver = handover }
        session.leaveHandover(handover)
        return commit(session)
    }

    // MARK: The old session

    /// Publishes probes until one comes back quickly: the old session has caught up.
    /// - Parameter sentAt: of the probe that is under way.
    func probe(_ session: MQTTSession, _ drain: SessionDrain, _ handover: Handover, _ sentAt: inout Int64?) {
        guard !drain.hasCaughtUp else { return }
        let now = SystemTime.bootMicroseconds()
        if let at = sentAt, session.hasProbe {
            handover.noteProbe(isAnswered: true)
            sentAt = nil
            if now - at < Handover.probeMicrosMax { return drain.noteCaughtUp() }
        }
        guard sentAt == nil else { return }
        session.publishProbe(handover)
        sentAt = now
    }

    /// The connection ends.
    /// - Parameter isProbing: a probe is under way.
    func leave(_ handover: Handover, isProbing: Bool) {
        handover.close()
        guard isProbing, !isStopping else { return }
        handover.noteProbe(isAnswered: false)
        guard handover.isRefused else { return }
        say(
            .warning,
            "no answer to the probe on `\(handover.topic)`: messages that both sessions receive are recorded "
                + "twice (allow this user to read and write the topic)")
    }

    /// Called when everything before the marker is durable. Acknowledges a message behind it only after this or the new
    /// session has recorded it.
    func settleBehindMarker(_ session: MQTTSession, _ handover: Handover) -> Ending? {
        handingOver = nil
        handover.notePassed()
        guard !session.behind.isEmpty else { return nil }
        session.moveBehindToInbox()
        let digests = Handover.digests(of: session.inbox)
        let deadline = SystemTime.bootMicroseconds() + Handover.oldWaitMicrosMax
        var taken = 0
        while taken < digests.count, !handover.isClosed {
            taken += handover.takeNew(digests[taken...])
            if SystemTime.bootMicroseconds() >= deadline || isStopping { handover.close() }
            if taken < digests.count { usleep(2_000) }
        }
        if taken < digests.count, !isStopping {
            say(
                .warning,
                "handover from the earlier client id ended early: "
                    + "messages that both sessions received may be recorded twice"
            )
        }
        recordDropped(session.dropLiveMessages(taken), session)
        return commit(session)
    }

    /// What was dropped is on record before it is acknowledged.
    private func recordDropped(_ count: Int, _ session: MQTTSession) {
        guard count > 0 else { return }
        self.count { $0.duplicatesSuppressed += UInt64(count) }
        var event = BrokerEvent(clientID: settings.clientID)
        event.count = UInt64(count)
        event.reason = "the session of another client id of this log has recorded them"
        write(.redelivered, event, to: session)
    }

    /// Reports to the handover what has become durable.
    /// - Parameters:
    ///   - digests: of all messages that came, in their order.
    ///   - isWhole: none of them was a redelivery.
    func noteForHandover(_ digests: [Digest], isWhole: Bool) {
        guard let handover = handingOver else { return }
        if drain != nil { return handover.noteOld(digests) }
        if isWhole { handover.noteNew(digests) } else { handover.close() }
        if handover.isClosed { handingOver = nil }
    }
}
