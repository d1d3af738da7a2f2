import EventModel
import Primitives
import Synchronization

/// Replaces the session of an earlier client id without recording a message twice. For brokers that deliver to all
/// sessions in one order (Mosquitto is single-threaded).
///
///     new session:  SUBSCRIBE, PUBLISH of the marker → read without acknowledging until the marker arrives → drop what
///                   came before it and the old session has recorded
///     old session:  record what came before the marker → acknowledge what comes behind it only when one of the two
///                   has recorded it
///
/// In one order, what the new session has before the marker is the end of what the old one has before it, and what
/// the old one has behind it is the beginning of what the new one has behind it. A session drops messages only if
/// topics and payloads show exactly that, and only what the other session has recorded. At the first difference both
/// record everything: duplicates are possible, losses are not.
///
/// First the old session catches up, which keeps each device's order: it publishes a probe to itself and waits for it.
/// Without an answer, both sessions record everything.
package final class Handover: Sendable {
    fileprivate enum Probing { case open, answered, refused }

    fileprivate struct State {
        var probing = Probing.open
        var hasBegun = false, hasPassed = false, isClosed = false
        /// The last messages that the old session recorded before the marker.
        var old: [Digest] = []
        /// What the new session recorded behind it, without what the old one has dropped.
        var new: [Digest] = []
    }

    /// Longest wait of the new session for the old one, in µs. Usually two round trips and an fdatasync; seconds on a
    /// machine under load. Under traffic `unacknowledgedMax` ends it first, before Mosquitto drops what it cannot queue
    /// (`max_queued_messages`, 1,000).
    static let newWaitMicrosMax: Int64 = 5_000_000
    /// Of the old session for the new one, for each batch behind the marker. What Mosquitto drops for the old session
    /// meanwhile, the new one has.
    static let oldWaitMicrosMax: Int64 = 2_000_000
    /// A probe that comes back within this shows that the old session has caught up.
    static let probeMicrosMax: Int64 = 250_000
    /// Over MQTT 3.1.1 Mosquitto has 20 messages in flight by default, and sends no marker behind them.
    static func unacknowledgedMax(isV5: Bool, receiveMaximum: UInt16) -> Int {
        isV5 ? min(500, Int(receiveMaximum)) : 16
    }
    /// Nothing more arrives for so long behind an unacknowledged message: the broker may have reached a limit of its
    /// own, and queues.
    static let stallMicrosMax: Int64 = 500_000
    /// Of the old session's records; the new one has fewer messages before the marker.
    private static let oldMax = 1_024
    /// Records that the old session does not ask for: it is gone, or far behind.
    private static let newMax = 65_536

    static func topic(logID: String) -> String { "refold/\(logID)/handover" }

    /// True for a marker or probe of any exchange: these are not recorded.
    static func isOurs(_ payload: UnsafeRawBufferPointer) -> Bool {
        payload.count == prefix.count + 16 && payload.prefix(prefix.count).elementsEqual(prefix)
    }

    private static let prefix = Array("handover ".utf8)

    let topic: String
    /// Random and unpublished until used: no other client can send it earlier.
    let marker = Handover.payload()
    /// The old session publishes it to itself to measure its lag.
    let probe = Handover.payload()
    private let state = Mutex(State())

    package init(logID: String) { topic = Self.topic(logID: logID) }

    private static func payload() -> [UInt8] {
        prefix + Array(Hex.encode(UInt64.random(in: .min ... .max)).utf8)
    }

    // MARK: The probe

    package func noteProbe(isAnswered: Bool) {
        state.withLock { if $0.probing == .open { $0.probing = isAnswered ? .answered : .refused } }
    }

    /// The probe got no answer: do not retry. Mosquitto 2.0 with `max_queued_messages 0` closes a connection that
    /// publishes on a forbidden topic.
    var isRefused: Bool { state.withLock { $0.probing == .refused } }

    /// An old session that reconnects takes no part.
    var hasBegun: Bool { state.withLock { $0.hasBegun } }

    // MARK: The exchange

    /// True once, and only if the probe was answered.
    package func begin() -> Bool {
        state.withLock { state in
            defer { state.hasBegun = true }
            return state.probing == .answered && !state.hasBegun
        }
    }

    /// The old session has recorded these, all before the marker.
    package func noteOld(_ digests: [Digest]) {
        state.withLock { state in
            guard !state.hasPassed else { return }
            state.old += digests
            if state.old.count > 2 * Self.oldMax { state.old.removeFirst(state.old.count - Self.oldMax) }
        }
    }

    /// The old session has read the marker and recorded everything before it.
    package func notePassed() { state.withLock { $0.hasPassed = true } }
    package var hasPassed: Bool { state.withLock { $0.hasPassed } }

    /// True if these are the last messages that the old session recorded before the marker.
    package func endsOld(_ digests: [Digest]) -> Bool {
        state.withLock { $0.hasPassed && $0.old.suffix(digests.count).elementsEqual(digests) }
    }

    /// The new session has recorded these, all behind the marker.
    package func noteNew(_ digests: [Digest]) {
        state.withLock { state in
            guard !state.isClosed else { return }
            state.new += digests
            if state.new.count > Self.newMax { state.close() }
        }
    }

    /// How many of these the new session has recorded, as its next messages. A difference closes the handover.
    package func takeNew(_ digests: ArraySlice<Digest>) -> Int {
        state.withLock { state in
            let count = zip(state.new, digests).prefix { $0 == $1 }.count
            let differs = count < min(state.new.count, digests.count)
            state.new.removeFirst(count)
            if differs { state.close() }
            return count
        }
    }

    /// Nothing more is dropped: a session has waited in vain, or its connection has ended. No effect before `begin`.
    package func close() { state.withLock { $0.close() } }
    package var isClosed: Bool { state.withLock { $0.isClosed } }

    /// Of the messages, by topic and payload; without retained ones, which only a new subscription receives.
    package static func digests(of batch: borrowing RecordBatch) -> [Digest] {
        var digests: [Digest] = []
        batch.forEach { if $0.isLive { digests.append(DeliveryKey.digest(of: $0)) } }
        return digests
    }
}

extension Handover.State {
    fileprivate mutating func close() {
        if hasBegun { (isClosed, new) = (true, []) }
    }
}

extension RecordView {
    /// A message that was published while its subscription was there.
    var isLive: Bool { kind == .message && !flags.contains(.retained) }
}
