import EventModel

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

// Both sides of a `Handover`.

extension BrokerConnection {
    // MARK: The new session

    /// From the SUBSCRIBE on: reads, and acknowledges nothing, until the marker has come and the old session has
    /// recorded what came before it. Whatever ends the wait, what is not dropped is made durable.
    func hold(_ session: MQTTSession, for handover: Handover) -> Ending? {
        session.publishMarker(handover)
        var isAlive = session.write(), isFull = false
        let deadline = steadyMicros() + Handover.waitMicrosMax
        while isAlive, !isFull, !isStopping, steadyMicros() < deadline,
            session.inbox.count < Handover.heldMessagesMax(isV5: session.isV5),
            !session.isBehindMarker || session.hasLiveMessages && !handover.hasPassed
        {
            let isMore = session.pendingBytes > 0
            let ready = poll(session.socket, write: false, milliseconds: isMore ? 0 : 5)
            noteRound()
            if ready.read || isMore { isAlive = readAvailable(session, &isFull) }
        }
        if session.isBehindMarker { noteCommon(session.dropFromInbox { handover.takeOld($0) }) }
        let hasMarker = session.isBehindMarker
        say(.info, "took over from the session of our earlier client id"
            + (hasMarker ? "" : " without its marker: messages that came to both are recorded twice"))
        if let ending = commit(session) { return ending }
        session.moveBehindToInbox()
        if hasMarker { handingOver = handover }
        session.forgetMarker(handover)
        return commit(session)
    }

    // MARK: The old session

    /// When the marker has come and what came before it is durable: nothing behind it is acknowledged before it stands
    /// in the log, by the new session or by this one.
    func settleBehindMarker(_ session: MQTTSession, _ handover: Handover) -> Ending? {
        handingOver = nil
        handover.notePassed()
        guard !session.behind.isEmpty else { return nil }
        session.moveBehindToInbox()
        let deadline = steadyMicros() + Handover.waitMicrosMax
        var common = 0
        while true {
            common += session.dropFromInbox { handover.takeNew($0) }
            if session.inbox.isEmpty || handover.isVoid || isStopping { break }
            if steadyMicros() >= deadline {
                handover.giveUp()
                break
            }
            usleep(2_000)
        }
        commonCount += common
        noteCommon(common)
        return commit(session)
    }

    /// Messages that are not recorded here, because the other session has recorded them.
    private func noteCommon(_ count: Int) {
        guard count > 0 else { return }
        self.count { $0.duplicatesSuppressed += UInt64(count) }
    }

    /// What was appended just now.
    func noteForHandover(_ batch: borrowing RecordBatch) {
        guard let handingOver else { return }
        if drain == nil { handingOver.noteNew(batch) } else { handingOver.noteOld(batch) }
    }
}
