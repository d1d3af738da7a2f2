import Synchronization

/// The exchange of one session for another under a new client id, without a message recorded twice. For brokers that
/// deliver to all of their sessions in one order: Mosquitto, which is one thread.
///
///     new session:  SUBSCRIBE, PUBLISH of the marker → hold what comes, unacknowledged → drop what came before the
///                   marker, once the old one has it
///     old session:  make durable what came before the marker → drop what comes behind it, once the new one has it
///
/// What the new session has before the marker, the old one has before it, too; what the old one has behind it, the new
/// one has behind it. A marker in the old session proves the subscription of the new one, even where a broker comes
/// back from an older save: the one was there before the other.
///
/// Before that the old session catches up, so that each device's messages stay in their order: what it sends to itself
/// comes back at once.
///
/// Where a probe does not come back (the broker may forbid it), each session records what it has: nothing is lost, and
/// what came between the subscription of the new session and the end of the old one is recorded twice.
package final class Handover: Sendable {
    /// For how long each session waits for the other, in µs. Usually it takes two round trips and a write to the disk.
    static let waitMicrosMax: Int64 = 2_000_000
    /// Half of what Mosquitto queues for a session by default (`max_queued_messages`) before it drops messages.
    static let heldMessagesMax = 500

    static func topic(logID: String) -> String { "refold/\(logID)/handover" }

    let topic: String
    /// Tells this exchange from others, whose markers may still be in the queue.
    let marker: [UInt8]
    /// What the old session sends to itself to see how far behind it is.
    let probe: [UInt8]
    /// What became of the first probe.
    private let probing = Atomic<Probing>(.open)
    private let subscribed = Atomic<Bool>(false)
    private let passed = Atomic<Bool>(false)

    package init(logID: String) {
        topic = Self.topic(logID: logID)
        marker = Array(String(UInt64.random(in: .min ... .max), radix: 16).utf8)
        probe = marker + Array("?".utf8)
    }

    private enum Probing: UInt8, AtomicRepresentable { case open, answered, refused }

    /// The broker delivers what is published on the topic.
    var isPossible: Bool { probing.load(ordering: .acquiring) == .answered }
    /// Mosquitto 2.0 ends a connection that publishes what it may not, with `max_queued_messages 0`: no second attempt.
    var isImpossible: Bool { probing.load(ordering: .acquiring) == .refused }
    func noteProbe(isAnswered: Bool) {
        _ = probing.compareExchange(
            expected: .open, desired: isAnswered ? .answered : .refused, ordering: .acquiringAndReleasing)
    }

    /// The new session is subscribed at QoS 1: the old one need not record what is behind the marker.
    package var isSubscribed: Bool { subscribed.load(ordering: .acquiring) }
    package func noteSubscribed() { subscribed.store(true, ordering: .releasing) }

    /// The old session has made durable what came before the marker: the new one need not record it.
    package var hasPassed: Bool { passed.load(ordering: .acquiring) }
    package func notePassed() { passed.store(true, ordering: .releasing) }
}
