#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

// Both sides of a `Handover`.

extension BrokerConnection {
    /// The new session, from its SUBSCRIBE on: reads, and acknowledges nothing, until the marker has come and the old
    /// session has what is before it. That is dropped. Whatever ends the wait, the rest stays in the inbox.
    func hold(_ session: MQTTSession, for handover: Handover) {
        session.publishMarker(handover)
        defer { session.forgetMarker(handover) }
        var isAlive = session.write(), isFull = false
        let deadline = steadyMicros() + Handover.waitMicrosMax
        while true {
            if session.suback.map({ Self.isReceiving($0.granted) }) ?? false { handover.noteSubscribed() }
            let isKnown = handover.hasPassed || !session.hasMessagesBeforeMarker
            if handover.isSubscribed, session.markerOffset != nil, isKnown {
                let count = session.dropBeforeMarker()
                noteCommon(count)
                return say(.info, "took over from the session of our earlier client id")
            }
            let isRefused = session.suback.map { !Self.isReceiving($0.granted) } ?? false
            if !isAlive || isFull || isRefused || isStopping || steadyMicros() >= deadline
                || session.inbox.count >= Handover.heldMessagesMax
            {
                return say(.info, "took over from the session of our earlier client id without a marker: messages "
                    + "that came to both are recorded twice")
            }
            let isMore = session.pendingBytes > 0
            let ready = poll(session.socket, write: false, milliseconds: isMore ? 0 : 5)
            noteRound()
            if ready.read || isMore { isAlive = readAvailable(session, &isFull) }
        }
    }

    private static func isReceiving(_ granted: [Int]) -> Bool { granted.allSatisfy { (1...2).contains($0) } }

    /// The old session, when the marker has come and what came before it is durable: what was read behind it is
    /// acknowledged only when the new session has it.
    /// - Returns: nil, or what is wrong: then nothing may be acknowledged.
    func passMarker(_ handover: Handover) -> String? {
        handover.notePassed()
        let deadline = steadyMicros() + Handover.waitMicrosMax
        while !handover.isSubscribed, parent?.isReceiving != true {
            guard !isStopping, steadyMicros() < deadline else { return "the new session is not subscribed" }
            usleep(1_000)
        }
        return nil
    }

    /// Messages that were not recorded, because the other session has them.
    func noteCommon(_ count: Int) {
        self.count { $0.duplicatesSuppressed += UInt64(count) }
    }
}
